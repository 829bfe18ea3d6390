"""Random transactions for the fuzzer: few accounts, and holds and purchases that others depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from shard_node.cluster.slots import slot
from shard_node.contract import Effect, Kind, Transaction
from shard_node.limits import MAX_MINOR
from tests.coordinator.payloads import WORLD, transaction, transfer

# Lives of holds, in milliseconds: most of them end while others still try to capture them.
_LIVES_MS = (1, 100, 300, 100_000)
# The end of an id, which is enough to tell it by.
SHOWN = slice(12, 16)
# Ids that share a millisecond: the youngest that is forgotten and the oldest that is not may be two of them.
_IDS_A_MS = 4


def key_of(row: Transaction) -> bytes:
    """The 24 bytes that name a payload under its id."""
    return row.transaction_id + row.fingerprint


def shown(row: Transaction) -> str:
    """A transaction in few words."""
    legs = " ".join(f"{leg.effect.name} {leg.amount_minor} {leg.account}" for leg in row.legs)
    return f"{row.kind.name} {row.transaction_id[SHOWN].hex()} ({legs})"


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold that may be captured or voided."""

    transaction_id: bytes
    account: str
    amount_minor: int

    @property
    def name(self) -> bytes:
        """The 18 bytes by which a shard names it."""
        return self.transaction_id + slot(self.account).to_bytes(2, "little")


@dataclass(slots=True)
class Payloads:
    """Draws transactions between the accounts ``names``.

    ``is_active`` says of a hold, by its name, whether there is one now. ``time_ordered`` makes ids UUIDv7,
    else UUIDv4. ``big`` makes most amounts close to what a shard takes at all.
    """

    rng: Random
    names: list[str]
    is_active: Callable[[bytes], bool]
    time_ordered: bool
    big: bool
    # Holds that were asked for, whatever came of it; purchases.
    holds: list[Hold] = field(default_factory=list)
    purchases: list[Transaction] = field(default_factory=list)
    _ids: int = 0

    def fresh_id(self) -> bytes:
        """An id that no transaction has."""
        raw = bytearray(self.rng.randbytes(16))
        if self.time_ordered:
            self._ids += 1
            raw[:6] = (1_000 + self._ids // _IDS_A_MS).to_bytes(6)
        raw[6] = (0x70 if self.time_ordered else 0x40) | raw[6] & 0x0F
        return bytes(raw)

    def amount(self, low: int, high: int) -> int:
        """An amount in minor units, seldom within the bounds when amounts are big."""
        x = self.rng.randint(low, high)
        if not self.big or self.rng.random() < 0.2:
            return x
        part = MAX_MINOR // 7 * self.rng.randint(1, 6)
        return self.rng.choice((MAX_MINOR, MAX_MINOR - x, MAX_MINOR // 2 + x, MAX_MINOR // 3 - x, part + x))

    def deposit(self, account: str, amount: int) -> Transaction:
        """A deposit from the account's own shard."""
        return transfer(WORLD, account, amount, Kind.DEPOSIT, self.fresh_id())

    def draw(self, reused_id: bytes | None = None) -> Transaction | None:
        """A transaction under an id of its own, or under another's; None when what it needs is not there."""
        row = self._payload(reused_id or self.fresh_id())
        if row is not None and reused_id is None:
            if row.kind is Kind.PURCHASE:
                self.purchases.append(row)
            elif row.kind is Kind.HOLD:
                (leg,) = row.legs
                self.holds.append(Hold(row.transaction_id, leg.account, leg.amount_minor))
        return row

    def transfer(
        self, payers: Sequence[str], payees: Sequence[str], reused_id: bytes | None = None
    ) -> Transaction:
        """A transfer or purchase from one of some accounts to one of others, as for :meth:`draw`."""
        kind = self.rng.choice((Kind.TRANSFER, Kind.PURCHASE))
        payer, payee = self.rng.choice(payers), self.rng.choice(payees)
        row = transfer(payer, payee, self.amount(1, 60), kind, reused_id or self.fresh_id())
        if reused_id is None and kind is Kind.PURCHASE:
            self.purchases.append(row)
        return row

    def forget_holds(self) -> None:
        """Only the holds that there are now will be asked for."""
        self.holds = [hold for hold in self.holds if self.is_active(hold.name)]

    def _payload(self, name: bytes) -> Transaction | None:
        rng = self.rng
        kinds = (Kind.JOURNAL, Kind.HOLD, Kind.CAPTURE, Kind.VOID, Kind.REFUND, Kind.PURCHASE)
        match rng.choices(kinds, (6, 4, 6, 2, 4, 2))[0]:
            case Kind.JOURNAL:
                return self._journal(name)
            case Kind.HOLD:
                legs = [(rng.choice(self.names), Effect.HOLD, self.amount(1, 60))]
                return transaction(Kind.HOLD, legs, name, bound=rng.choice(_LIVES_MS))
            case Kind.REFUND:
                return self._refund(name)
            case Kind.PURCHASE:
                payer, payee = rng.sample(self.names, 2)
                return transfer(payer, payee, self.amount(1, 60), Kind.PURCHASE, name)
            case kind:
                return self._ending_of_a_hold(kind, name)

    def _journal(self, name: bytes) -> Transaction | None:
        accounts = self.rng.sample(self.names, self.rng.randint(2, 6))
        amounts = [self.amount(1, 60) * self.rng.choice((1, -1)) for _ in accounts[:-1]]
        rest = -sum(amounts)
        if rest == 0 or abs(rest) > MAX_MINOR:
            return None
        legs = [
            (account, Effect.DEBIT if amount < 0 else Effect.CREDIT, abs(amount))
            for account, amount in zip(accounts, [*amounts, rest], strict=True)
        ]
        first = next(leg for leg in legs if leg[1] is Effect.DEBIT)
        return transaction(Kind.JOURNAL, [first, *(leg for leg in legs if leg is not first)], name)

    def _ending_of_a_hold(self, kind: Kind, name: bytes) -> Transaction | None:
        rng, latest = self.rng, self.holds[-12:]
        active = [hold for hold in self.holds if self.is_active(hold.name)]
        if not latest:
            return None
        hold = rng.choice(active if active and rng.random() < 0.7 else latest)
        if kind is Kind.VOID:
            return transaction(kind, [(hold.account, Effect.VOID, 0)], name, hold.transaction_id)
        payee, other = rng.sample([one for one in self.names if one != hold.account], 2)
        few = rng.randint(1, 50)
        amount = rng.choice(
            (few, hold.amount_minor, max(1, hold.amount_minor - few), 1 + hold.amount_minor // 3)
        )
        legs = [(hold.account, Effect.CAPTURE, amount), (payee, Effect.CREDIT, amount)]
        if rng.random() < 0.5 and amount < MAX_MINOR:
            # Another account pays a little too, and decides: the hold's shard only takes part.
            legs = [(other, Effect.DEBIT, 1), legs[0], (payee, Effect.CREDIT, amount + 1)]
        return transaction(kind, legs, name, hold.transaction_id)

    def _refund(self, name: bytes) -> Transaction | None:
        if not self.purchases:
            return None
        purchase = self.rng.choice(self.purchases[-8:])
        payer, payee = purchase.legs
        amount = self.rng.randint(1, payer.amount_minor)
        legs = [(payee.account, Effect.DEBIT, amount), (payer.account, Effect.REFUND, amount)]
        return transaction(Kind.REFUND, legs, name, purchase.transaction_id, payer.amount_minor)
