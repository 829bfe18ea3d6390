"""What must hold of all shards together, whatever is on its way, by the plain models of them.

The models are compared with the engine elsewhere; here they are the fuzzer's books. What accounts hold is
added up anew from the ledgers and from what is prepared. Amounts are minor units.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shard_node.cluster.slots import slot
from shard_node.contract import Effect, Kind, Leg, Outcome, Transaction
from tests.coordinator.fuzz_shards import require
from tests.model import EngineModel
from tests.model.state import Entry, rows_of

# Not the word on an id: another try may still commit it, or may have.
OPEN_ENDED = frozenset(
    (Outcome.OUTCOME_UNKNOWN, Outcome.RESOURCE_EXHAUSTED, Outcome.STALE_EPOCH, Outcome.BUSY)
)
_GIVING, _TAKING = (Effect.CREDIT, Effect.REFUND), (Effect.DEBIT, Effect.HOLD)
_ENDING = (Effect.CAPTURE, Effect.VOID)
_MOVES = {Effect.CREDIT: 1, Effect.REFUND: 1, Effect.DEBIT: -1, Effect.CAPTURE: -1}
# A transaction by its id and fingerprint, and the number of a leg.
Name = tuple[bytes, int]


class _Prepared(NamedTuple):
    """A leg that a shard keeps prepared. ``is_committed``: and its deciding shard has committed it."""

    place: int
    name: Name
    leg: Leg
    transaction: Transaction
    is_committed: bool


class Checks:
    """Promises that are kept at every moment."""

    def __init__(self, models: Sequence[EngineModel], shard_ids: Sequence[str]) -> None:
        self._models = models
        self._shard_ids = shard_ids
        # By the 24 bytes of each: all transactions that anybody tried, and what callers were answered.
        self.transactions: dict[bytes, Transaction] = {}
        self.answered: dict[bytes, set[Outcome]] = defaultdict(set)
        # How much of each ledger was read, and what it says; system accounts are one a shard.
        self._read = [0] * len(models)
        self._balances: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._applied: Counter[Name] = Counter()
        # By the id of the hold or purchase and the account's slot.
        self._refunds: Counter[bytes] = Counter()
        self._ends_of_holds: Counter[bytes] = Counter()

    def check(self, *, at_rest: bool) -> None:
        """Raises BrokenError. ``at_rest`` says that nothing may be on its way."""
        self.read_ledgers()
        prepared = list(self._prepared())
        coming = {one.name for one in prepared if one.is_committed}
        for name, times in self._applied.items():
            require(times == 1, "a leg is applied once", name, times)
            require(name not in coming, "what was applied is not to be applied again", name)
        for hold, times in self._ends_of_holds.items():
            require(times == 1, "a hold is captured, voided or expired once", hold.hex(), times)
        self._check_accounts(prepared)
        self._check_refunds(prepared)
        self._check_money(prepared)
        require(not any(model.alarms for model in self._models), "no leg is missing (R5)")
        for key in {key for key, _ in self._applied}:
            missing = [n for n in range(len(self.transactions[key].legs)) if (key, n) not in self._applied]
            lost = [n for n in missing if (key, n) not in coming]
            require(not lost, "a committed leg is applied or prepared", key.hex(), lost)
        if at_rest:
            left = [(len(model.attempts), len(model.commits)) for model in self._models]
            require(not any(map(any, left)), "recovery ends all", left)
        self._check_answered()

    @property
    def committed(self) -> set[bytes]:
        """Transactions of which something was applied."""
        self.read_ledgers()
        return {key for key, _ in self._applied}

    # ------------------------------------------------------------------ ledgers

    def read_ledgers(self) -> None:
        """Adds the entries that are new: also before a slot moves, for an account's are in an order."""
        for index, model in enumerate(self._models):
            for entry in model.ledger[self._read[index] :]:
                self._add(index, entry)
            self._read[index] = len(model.ledger)

    def _add(self, index: int, entry: Entry) -> None:
        account = _account(entry.account, index)
        self._balances[account] += entry.delta
        self._held[account] += entry.held_delta
        require(entry.balance == self._balances[account], "a balance is the sum of all up to it", entry)
        of_slot = slot(entry.account).to_bytes(2, "little")
        if entry.kind is Kind.EXPIRY:
            self._ends_of_holds[entry.transaction_id + of_slot] += 1
            return
        key = entry.transaction_id + entry.fingerprint
        transaction = self.transactions.get(key)
        # Openings and changes of state are no transactions.
        if transaction is None:
            return
        self._applied[key, entry.leg] += 1
        effect = transaction.legs[entry.leg].effect
        if effect in _ENDING:
            self._ends_of_holds[transaction.related_id + of_slot] += 1
        elif effect is Effect.REFUND:
            self._refunds[transaction.related_id + of_slot] += entry.delta

    # ------------------------------------------------------------------ what is prepared

    def _prepared(self) -> Iterator[_Prepared]:
        for place, model in enumerate(self._models):
            for attempt_id, kept in model.attempts.items():
                commit = self._models[self._shard_ids.index(kept.decider)].commits.get(attempt_id)
                codes = commit.codes if commit else bytes(len(kept.codes))
                for row, own, decided in zip(rows_of(kept.bundle), kept.codes, codes, strict=True):
                    if own == Outcome.PREPARED:
                        for number, leg in enumerate(row.transaction.legs):
                            if leg.owner == kept.owner:
                                name = row.transaction.transaction_id + row.fingerprint, number
                                is_committed = decided == Outcome.COMMITTED
                                yield _Prepared(place, name, leg, row.transaction, is_committed)

    def _check_money(self, prepared: Sequence[_Prepared]) -> None:
        accounts = [account for model in self._models for account in model.accounts.values()]
        total = sum(one.available_minor + one.held_minor for one in accounts)
        for one in prepared:
            if one.is_committed:
                total += _MOVES.get(one.leg.effect, 0) * one.leg.amount_minor
        require(total == 0, "money is neither made nor lost", total)

    def _check_accounts(self, prepared: Sequence[_Prepared]) -> None:
        reserved, coming = Counter[str](), Counter[str]()
        for one in prepared:
            account = _account(one.leg.account, one.place)
            reserved[account] += one.leg.amount_minor * (one.leg.effect in _TAKING)
            coming[account] += one.leg.amount_minor * (one.leg.effect in _GIVING)
        for index, model in enumerate(self._models):
            holds = Counter[str]()
            for hold in model.holds.values():
                holds[hold.account] += hold.amount_minor
            for name, found in model.accounts.items():
                account, have = _account(name, index), found.available_minor + found.held_minor
                require(have == self._balances[account], "an account has what its entries say", name)
                held = found.held_minor - reserved[account]
                require(held == holds[name], "what is held is what holds and prepared debits hold", name)
                require(held == self._held[account], "what is held is what entries say", name)
                require(found.coming_minor == coming[account], "what comes is prepared", name)
                require(found.available_minor >= found.minimum_minor, "no balance below its minimum", name)
                room = found.maximum_balance_minor - have - found.coming_minor
                require(not found.maximum_balance_minor or room >= 0, "no balance above its maximum", name)

    def _check_refunds(self, prepared: Sequence[_Prepared]) -> None:
        sums = Counter(self._refunds)
        for one in prepared:
            if one.leg.effect is Effect.REFUND:
                sums[one.transaction.related_id + slot(one.leg.account).to_bytes(2, "little")] += (
                    one.leg.amount_minor
                )
        kept = {name: value for model in self._models for name, value in model.refunds.items() if value}
        require(kept == {name: value for name, value in sums.items() if value}, "refunds are added up")
        for refund in self.transactions.values():
            if refund.kind is Kind.REFUND:
                customer = refund.legs[1].account
                refunded = sums[refund.related_id + slot(customer).to_bytes(2, "little")]
                require(refunded <= refund.bound, "no refund above its purchase", refunded, refund.bound)

    def _check_answered(self) -> None:
        for key, outcomes in self.answered.items():
            final = outcomes - OPEN_ENDED
            names = [outcome.name for outcome in final]
            require(len(final) <= 1, "an id has one outcome (R1)", key.hex(), names)
            done = [(key, number) in self._applied for number in range(len(self.transactions[key].legs))]
            if Outcome.COMMITTED in final:
                require(all(done), "answered COMMITTED, all legs are applied", key.hex(), done)
            elif final:
                require(not any(done), "answered a refusal, nothing has moved", key.hex(), names)


def _account(name: str, index: int) -> str:
    """System accounts are one a shard."""
    return f"{name} of {index}" if name.startswith("@") else name
