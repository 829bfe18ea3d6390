"""Random transactions for the fuzzer: few accounts, and holds and purchases that others depend on."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from random import Random

from shard_node.cluster.slots import slot
from shard_node.contract.journal_calls import Journals
from shard_node.contract.journals import NO_ID, Effect, Journal, Leg
from shard_node.contract.transfers import Details, Kind, Terms, Transfers, pack_details
from shard_node.limits import MAX_MINOR

CURRENCY = "EUR"
DETAILS = pack_details(Details())
# Lives of holds, in milliseconds: half of them end while others still try to capture them.
_LIVES_MS = (1, 30, 100_000, 100_000)
# The end of an id, which is enough to tell it by.
SHOWN = slice(12, 16)
# Ids that share a millisecond: the youngest that is forgotten and the oldest that is not may be two of them.
_IDS_A_MS = 4


@dataclass(frozen=True, slots=True)
class Transaction:
    """One payload under its id, and the 24 bytes that name the two together."""

    transaction_id: bytes
    payload: Terms | Journal
    key: bytes

    @classmethod
    def of(cls, transaction_id: bytes, payload: Terms | Journal) -> Transaction:
        """A transaction with its key."""
        if isinstance(payload, Terms):
            return cls(transaction_id, payload, Transfers.of([(transaction_id, payload)]).keys[0])
        return cls(transaction_id, payload, Journals.of([(transaction_id, payload)]).keys[0])

    def __str__(self) -> str:
        payload = self.payload
        if isinstance(payload, Terms):
            moved = f"{payload.amount_minor} {payload.payer} to {payload.payee}"
        else:
            moved = " ".join(f"{leg.effect.name} {leg.amount_minor} {leg.account}" for leg in payload.legs)
        return f"{payload.kind.name} {self.transaction_id[SHOWN].hex()} ({moved})"

    @property
    def is_transfer(self) -> bool:
        """Whether it is a transfer rather than a journal."""
        return isinstance(self.payload, Terms)

    @property
    def accounts(self) -> list[str]:
        """All accounts that it moves."""
        if isinstance(self.payload, Terms):
            return [self.payload.payer, self.payload.payee]
        return [leg.account for leg in self.payload.legs]


def condition_key(transaction_id: bytes, account: str) -> bytes:
    """The 18 bytes by which a shard names the account's hold, or what was refunded of its purchase."""
    return transaction_id + slot(account).to_bytes(2, "little")


def _leg(account: str, effect: Effect, amount: int) -> Leg:
    return Leg(account, slot(account), effect, amount, CURRENCY)


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold that may be captured or voided."""

    transaction_id: bytes
    account: str
    amount_minor: int


@dataclass(slots=True)
class Payloads:
    """Draws transactions between the accounts ``names``.

    ``time_ordered`` makes ids UUIDv7, else UUIDv4. ``big`` makes most amounts close to what a shard
    can still add up exactly, or to where it counts credits.
    """

    rng: Random
    names: list[str]
    time_ordered: bool
    big: bool
    # Holds that began, and all that were asked for, whatever came of it.
    holds: list[Hold] = field(default_factory=list)
    asked_holds: list[Hold] = field(default_factory=list)
    # Each purchase's id and terms.
    purchases: list[tuple[bytes, Terms]] = field(default_factory=list)
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
        near = (MAX_MINOR, MAX_MINOR - x, MAX_MINOR // 2 + x, MAX_MINOR // 3 - x, part + x)
        return self.rng.choice((*near, 2**36 + x, 2**36 - x, 2**52 + x))

    def deposit(self, account: str, amount: int) -> Transaction:
        """A deposit from the account's own shard."""
        at = slot(account)
        terms = Terms(amount, CURRENCY, at, at, Kind.DEPOSIT, f"@world:{CURRENCY}", account, DETAILS)
        return Transaction.of(self.fresh_id(), terms)

    def draw(self, reused_id: bytes | None = None) -> Transaction | None:
        """A transaction under an id of its own, or under another's; None when what it needs is not there."""
        transaction_id = reused_id or self.fresh_id()
        payload = self._payload()
        if payload is None:
            return None
        if reused_id is None and isinstance(payload, Terms):
            self.purchases.append((transaction_id, payload))
        elif reused_id is None and isinstance(payload, Journal) and payload.kind is Kind.HOLD:
            leg = payload.legs[0]
            self.asked_holds.append(Hold(transaction_id, leg.account, leg.amount_minor))
        return Transaction.of(transaction_id, payload)

    def transfer(
        self, payers: Sequence[str], payees: Sequence[str], reused_id: bytes | None = None
    ) -> Transaction:
        """A transfer or purchase from one of some accounts to one of others, as for :meth:`draw`."""
        transaction_id = reused_id or self.fresh_id()
        kind = self.rng.choice((Kind.TRANSFER, Kind.PURCHASE))
        terms = self._terms(kind, self.rng.choice(payers), self.rng.choice(payees))
        if reused_id is None and kind is Kind.PURCHASE:
            self.purchases.append((transaction_id, terms))
        return Transaction.of(transaction_id, terms)

    def _terms(self, kind: Kind, payer: str, payee: str) -> Terms:
        amount = self.amount(1, 60)
        return Terms(amount, CURRENCY, slot(payer), slot(payee), kind, payer, payee, DETAILS)

    def forget_holds(self, active: Container[bytes]) -> None:
        """Of the holds that began, only those whose ``condition_key`` is active will be asked for."""
        self.holds = [
            hold for hold in self.holds if condition_key(hold.transaction_id, hold.account) in active
        ]

    def _payload(self) -> Terms | Journal | None:
        kinds = (Kind.JOURNAL, Kind.HOLD, Kind.CAPTURE, Kind.VOID, Kind.REFUND, Kind.PURCHASE)
        match self.rng.choices(kinds, (6, 4, 4, 2, 4, 2))[0]:
            case Kind.JOURNAL:
                return self._journal()
            case Kind.HOLD:
                leg = _leg(self.rng.choice(self.names), Effect.HOLD, self.amount(1, 60))
                return Journal(Kind.HOLD, (leg,), DETAILS, NO_ID, self.rng.choice(_LIVES_MS))
            case Kind.REFUND:
                return self._refund()
            case Kind.PURCHASE:
                return self._terms(Kind.PURCHASE, *self.rng.sample(self.names, 2))
            case kind:
                return self._ending_of_a_hold(kind)

    def _journal(self) -> Journal | None:
        names = self.rng.sample(self.names, self.rng.randint(2, 6))
        amounts = [self.amount(1, 60) * self.rng.choice((1, -1)) for _ in names[:-1]]
        rest = -sum(amounts)
        if rest == 0 or abs(rest) > MAX_MINOR:
            return None
        legs = [
            _leg(name, Effect.DEBIT if amount < 0 else Effect.CREDIT, abs(amount))
            for name, amount in zip(names, [*amounts, rest], strict=True)
        ]
        first = next(leg for leg in legs if leg.effect is Effect.DEBIT)
        return Journal(Kind.JOURNAL, (first, *(leg for leg in legs if leg is not first)), DETAILS)

    def _ending_of_a_hold(self, kind: Kind) -> Journal | None:
        holds = self.holds if self.rng.random() < 0.7 else self.asked_holds[-12:]
        if not holds:
            return None
        hold = self.rng.choice(holds)
        if kind is Kind.VOID:
            leg = _leg(hold.account, Effect.VOID, 0)
            return Journal(Kind.VOID, (leg,), DETAILS, hold.transaction_id)
        payee = self.rng.choice([name for name in self.names if name != hold.account])
        few = self.rng.randint(1, 50)
        amount = self.rng.choice(
            (few, hold.amount_minor, max(1, hold.amount_minor - few), 1 + hold.amount_minor // 3)
        )
        legs = (_leg(hold.account, Effect.CAPTURE, amount), _leg(payee, Effect.CREDIT, amount))
        return Journal(Kind.CAPTURE, legs, DETAILS, hold.transaction_id)

    def _refund(self) -> Journal | None:
        if not self.purchases:
            return None
        purchase, terms = self.rng.choice(self.purchases[-8:])
        amount = self.rng.randint(1, terms.amount_minor)
        legs = (_leg(terms.payee, Effect.DEBIT, amount), _leg(terms.payer, Effect.REFUND, amount))
        return Journal(Kind.REFUND, legs, DETAILS, purchase, terms.amount_minor)
