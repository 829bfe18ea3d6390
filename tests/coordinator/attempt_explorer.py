"""The transactions of the search: what they do, who carries them out, and what must hold of them.

Each account has a slot of its own. A payload is one transaction, or some, "pay+rival", in one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from coordinator.attempt_steps import Batch
from coordinator.attempts import Attempt, InDoubt, each
from shard_node.client import NoReply
from shard_node.contract import (
    NO_ID,
    Answer,
    Command,
    Effect,
    Kind,
    Leg,
    Outcome,
    Post,
    Settle,
    Transaction,
    bundle_of,
)
from tests.coordinator.attempt_search import INDEFINITE, Search
from tests.coordinator.attempt_world import Answered, Run, Setting, Try
from tests.model import ADDING, TAKING, EngineModel, Hold, legs_of, rows_of

SLOTS = {"first": 0, "second": 1, "third": 2}
HELD = 2
REFUNDABLE = 1
# When the hold ends; "time" lets it pass. Rotations count time too, but no setting has both.
_HOLD_ENDS_MS, _LATER_MS = 50, 100
_FIRST_START_MS = 20
_TAKE, _GIVE = Effect.DEBIT, Effect.CREDIT


def _v7(number: int) -> bytes:
    """A UUIDv7 of the beginning of time: it expires with the first generation that has it."""
    return (5).to_bytes(6) + b"\x70" + bytes((number,)) * 9


ONE, OTHER, PURCHASE, HOLD_ID = (_v7(number) for number in (1, 2, 3, 4))


def _made(
    transaction_id: bytes,
    kind: Kind,
    *legs: tuple[str, Effect, int],
    related_id: bytes = NO_ID,
    bound: int = 0,
) -> Transaction:
    made = tuple(Leg(name, effect, amount, "EUR") for name, effect, amount in legs)
    return Transaction(transaction_id, kind, SLOTS[legs[0][0]], made, b"\0\0", related_id, bound)


def _refund(transaction_id: bytes) -> Transaction:
    legs = ("first", _TAKE, 1), ("second", Effect.REFUND, 1)
    return _made(transaction_id, Kind.REFUND, *legs, related_id=PURCHASE, bound=REFUNDABLE)


TRANSACTIONS: dict[str, Transaction] = {
    "pay": _made(ONE, Kind.TRANSFER, ("first", _TAKE, 1), ("second", _GIVE, 1)),
    # By mistake under the same id.
    "pay more": _made(ONE, Kind.TRANSFER, ("first", _TAKE, 2), ("second", _GIVE, 2)),
    # An id that does not expire.
    "pay v4": _made(bytes([9] * 16), Kind.TRANSFER, ("first", _TAKE, 1), ("second", _GIVE, 1)),
    # The three are on one shard each: one decided debit, one prepared debit, one credit.
    "split": _made(ONE, Kind.JOURNAL, ("first", _TAKE, 1), ("second", _TAKE, 1), ("third", _GIVE, 2)),
    # Its debit is the participant's.
    "pull": _made(ONE, Kind.JOURNAL, ("first", _GIVE, 1), ("second", _TAKE, 1)),
    # Travels with the pull, or wants the same money.
    "give": _made(OTHER, Kind.TRANSFER, ("first", _TAKE, 1), ("second", _GIVE, 1)),
    "rival": _made(OTHER, Kind.JOURNAL, ("third", _GIVE, 1), ("second", _TAKE, 1)),
    # From the same payer, in an attempt of its own where the payees are on two shards.
    "pay another": _made(OTHER, Kind.TRANSFER, ("first", _TAKE, 1), ("third", _GIVE, 1)),
    "pay third": _made(OTHER, Kind.TRANSFER, ("third", _TAKE, 1), ("second", _GIVE, 1)),
    "refund": _refund(ONE),
    "refund again": _refund(OTHER),
    # The hold is on a participant.
    "capture": _made(
        ONE, Kind.CAPTURE, ("second", _GIVE, 1), ("first", Effect.CAPTURE, 1), related_id=HOLD_ID
    ),
    "capture all": _made(
        OTHER, Kind.CAPTURE, ("second", _GIVE, 2), ("first", Effect.CAPTURE, 2), related_id=HOLD_ID
    ),
    "void": _made(OTHER, Kind.VOID, ("first", Effect.VOID, 0), related_id=HOLD_ID),
}
_ENDS_HOLD = frozenset((Effect.CAPTURE, Effect.VOID))


class Alone(Batch):
    """A coordinator that leaves what is in its way to recovery: far fewer states."""

    def _doubts(self) -> list[InDoubt]:
        return []


@dataclass(frozen=True, slots=True)
class AttemptSetting(Setting):
    """One instance to search.

    ``has`` is what each account has available, ``maximum`` the maximum balance of `second`, 0 for none. Of
    the environment, "time" lets the hold's time pass, "expire" has shards end holds whose time is over,
    "freeze" closes `second` to prepares, "fund" gives `first` money.
    """

    has: tuple[int, ...] = (1, 1, 1)
    maximum: int = 0


class _Piece(NamedTuple):
    """Transactions of a payload that one attempt, or one post, carries."""

    shards: tuple[int, ...]
    names: tuple[str, ...]
    bundle: bytes


class Explorer(Search):
    """Searches one setting of transactions."""

    setting: AttemptSetting

    def __init__(self, setting: AttemptSetting) -> None:
        self.names = sorted({name for payload in setting.tries for name in payload.split("+")})
        legs = [leg for name in self.names for leg in TRANSACTIONS[name].legs]
        self._with_hold = any(leg.effect in _ENDS_HOLD for leg in legs)
        super().__init__(setting, {SLOTS[leg.account] for leg in legs})

    # ------------------------------------------------------------------ coordinators

    def payload_run(self, attempt: Try) -> Run:
        """Posts what is on one shard, then carries the rest through two-phase commit."""
        told: Answered = ()
        pieces = _pieces(attempt.payload.split("+"), attempt.placement)
        for piece in pieces:
            if len(piece.shards) == 1:
                shard = piece.shards[0]
                answers = yield {shard: Post(piece.bundle, with_balances=False)}
                told += _told(piece, answers[shard])
        ids = self._attempt_ids(attempt)
        across = [piece for piece in pieces if len(piece.shards) > 1]
        attempts = [
            Attempt(next(ids), piece.shards[0], piece.shards[1:], piece.bundle, len(piece.names))
            for piece in across
        ]
        batch = self.setting.batch(
            attempts,
            self.shard_ids,
            lambda: next(ids),
            lambda _: True,
            with_balances=False,
            machines=(self.setting.commit, self.setting.recovery),
        )
        if attempts:
            yield from batch.steps()
        for piece, made in zip(across, attempts, strict=True):
            told += tuple(zip(piece.names, each(made.outcomes, made.count), strict=True))
        last: dict[int, Command] = {shard: Settle(pairs) for shard, pairs in batch.settled.items()}
        return told, last

    def _attempt_ids(self, attempt: Try) -> Iterator[bytes]:
        """Ids that end with the number of the try, from 1."""
        started_ms = _FIRST_START_MS + attempt.number * self.setting.clock_step_ms
        for number in count():
            yield started_ms.to_bytes(6) + bytes((*(number,) * 9, attempt.number + 1))

    # ------------------------------------------------------------------ accounts and what happens to them

    def open_accounts(self, shards: Sequence[EngineModel]) -> None:
        """All three, whatever the payloads name; with them the hold."""
        for name, slot in SLOTS.items():
            shard = shards[self.setting.start[slot]]
            maximum = self.setting.maximum if name == "second" else 0
            shard.open(name, "EUR", slot, 0, maximum)
            held = HELD if self._with_hold and name == "first" else 0
            has = self.setting.has[slot]
            shard.accounts[name] = shard.accounts[name]._replace(available_minor=has, held_minor=held)
            if held:
                hold = Hold(name, held, _HOLD_ENDS_MS, HOLD_ID, bytes(8))
                shard.holds[HOLD_ID + slot.to_bytes(2, "little")] = hold

    def happens(self, event: str, shards: Sequence[EngineModel], placement: Sequence[int]) -> None:
        """Time, or somebody, passes by."""
        if event == "time":
            for shard in shards:
                shard.now_ms = _LATER_MS
        elif event == "expire":
            for shard in shards:
                shard.expire()
        elif event == "fund":
            accounts = shards[placement[0]].accounts
            accounts["first"] = accounts["first"]._replace(
                available_minor=accounts["first"].available_minor + 1
            )
        else:
            shards[placement[1]].set_state("second", Kind.FREEZE)

    # ------------------------------------------------------------------ what must hold

    def broken(
        self, shards: Sequence[EngineModel], told: Iterable[tuple[str, int]], environment: Sequence[str]
    ) -> str | None:
        """All legs or none, once; nothing made, lost or left reserved; no answer contradicted."""
        if any(shard.alarms for shard in shards):
            return "R5: a committed leg is neither prepared nor applied"
        facts = _Facts.of(shards)
        if facts.stranded:
            return f"prepared on a shard that does not have the account: {facts.stranded}"
        return (
            self._wrong_legs(facts)
            or self._wrong_accounts(shards, facts, environment)
            or self._wrong_conditions(shards, facts)
            or self._wrong_answers(facts, told)
            or (self._refused(shards) if self.setting.must_commit else None)
        )

    def _wrong_legs(self, facts: _Facts) -> str | None:
        by_decision: dict[bytes, list[str]] = {}
        for name in self.names:
            counts = facts.counts(name)
            if max(counts) > 1:
                return f"{name} was carried out twice: legs {counts}"
            if len(set(counts)) > 1:
                return f"{name} is half carried out: legs {counts}"
            if counts[0]:
                by_decision.setdefault(TRANSACTIONS[name].decision, []).append(name)
        both = [names for names in by_decision.values() if len(names) > 1]
        return f"under one id: {both}" if both else None

    def _wrong_accounts(
        self, shards: Sequence[EngineModel], facts: _Facts, environment: Sequence[str]
    ) -> str | None:
        expected = self._balances(facts, environment)
        coming = _sums(facts.kept, ADDING)
        held = _sums(facts.kept, TAKING)
        for hold in (hold for shard in shards for hold in shard.holds.values()):
            held[hold.account] += hold.amount_minor
        for name, account in (
            (name, account) for shard in shards for name, account in shard.accounts.items()
        ):
            has = account.available_minor + account.held_minor
            if has != expected[name]:
                return f"money was made or lost: {name} has {has}, by the ledger {expected[name]}"
            if account.available_minor < 0:
                return f"{name} spent more than it has: {account}"
            if 0 < account.maximum_balance_minor < has:
                return f"{name} has more than it may: {account}"
            if (account.held_minor, account.coming_minor) != (held[name], coming[name]):
                return f"{name} is {account}, but held {held[name]} and coming {coming[name]} are in doubt"
        return None

    def _balances(self, facts: _Facts, environment: Sequence[str]) -> dict[str, int]:
        """Available and held that accounts must have by the legs that are applied."""
        expected = {name: self.setting.has[slot] for name, slot in SLOTS.items()}
        expected["first"] += HELD if self._with_hold else 0
        expected["first"] += "fund" in self.setting.environment and "fund" not in environment
        for name in self.names:
            for number, leg in enumerate(TRANSACTIONS[name].legs):
                sign = 1 if leg.effect in ADDING else -1
                expected[leg.account] += sign * leg.amount_minor * facts.applied[facts.key(name, number)]
        return expected

    def _wrong_conditions(self, shards: Sequence[EngineModel], facts: _Facts) -> str | None:
        kept = {name for shard in shards for name in shard.attempts}
        holds = [hold for shard in shards for hold in shard.holds.values()]
        if any(hold.pinned_by and hold.pinned_by not in kept for hold in holds):
            return f"a hold is pinned for nobody: {holds}"
        ended = [
            name
            for name in self.names
            for number, leg in enumerate(TRANSACTIONS[name].legs)
            if leg.effect in _ENDS_HOLD and facts.applied[facts.key(name, number)]
        ]
        if len(ended) > 1 or (ended and holds):
            return f"a hold was ended twice, or is still there: {ended}"
        counted = sum(sum(shard.refunds.values()) for shard in shards)
        refunds = sum(leg.amount_minor for leg in facts.kept if leg.effect is Effect.REFUND) + sum(
            facts.applied[facts.key(name, number)] * leg.amount_minor
            for name in self.names
            for number, leg in enumerate(TRANSACTIONS[name].legs)
            if leg.effect is Effect.REFUND
        )
        if counted != refunds or refunds > REFUNDABLE:
            return f"{refunds} are refunded of {REFUNDABLE}, {counted} are counted"
        return None

    @staticmethod
    def _wrong_answers(facts: _Facts, told: Iterable[tuple[str, int]]) -> str | None:
        for name, code in told:
            legs = range(len(TRANSACTIONS[name].legs))
            applied = [facts.applied[facts.key(name, number)] for number in legs]
            if code == Outcome.COMMITTED and not all(applied):
                return f"{name} was told COMMITTED, but of its legs {applied} are carried out"
            if code not in INDEFINITE and code != Outcome.COMMITTED and any(facts.counts(name)):
                return f"{name} was told {Outcome(code).name}, but it is committed"
        return None

    @staticmethod
    def _refused(shards: Sequence[EngineModel]) -> str | None:
        """R9: nothing but an earlier try can have been in the way."""
        for shard in shards:
            for generation in (shard.current, shard.previous):
                for record in generation.outcomes.values():
                    if record.code != Outcome.COMMITTED:
                        return f"R9: refused for the sake of an earlier try: {Outcome(record.code).name}"
        return None


_Key = tuple[bytes, bytes, int]


@dataclass(slots=True)
class _Facts:
    """How often legs are applied, how often they are committed and kept, and all legs that are kept."""

    applied: Counter[_Key] = field(default_factory=Counter)
    flying: Counter[_Key] = field(default_factory=Counter)
    kept: list[Leg] = field(default_factory=list)
    stranded: list[Leg] = field(default_factory=list)

    @classmethod
    def of(cls, shards: Sequence[EngineModel]) -> _Facts:
        """Those of some shards, which are named by their index."""
        facts = cls()
        for shard in shards:
            facts.applied.update(shard.applied)
            for attempt_id, kept in shard.attempts.items():
                commit = shards[int(kept.decider)].commits.get(attempt_id)
                rows = rows_of(kept.bundle)
                decided = each(commit.codes, len(rows)) if commit else bytes(len(rows))
                for row, code, decision in zip(rows, kept.codes, decided, strict=True):
                    for number in legs_of(row, kept.owner) if code == Outcome.PREPARED else ():
                        leg = row.transaction.legs[number]
                        (facts.kept if leg.account in shard.accounts else facts.stranded).append(leg)
                        if decision == Outcome.COMMITTED:
                            facts.flying[row.transaction.transaction_id, row.fingerprint, number] += 1
        return facts

    @staticmethod
    def key(name: str, number: int) -> _Key:
        """What names one leg of a transaction in the ledger."""
        return TRANSACTIONS[name].transaction_id, _FINGERPRINTS[name], number

    def counts(self, name: str) -> list[int]:
        """How often each leg of a transaction is or will be applied."""
        keys = [self.key(name, number) for number in range(len(TRANSACTIONS[name].legs))]
        return [self.applied[key] + self.flying[key] for key in keys]


_FINGERPRINTS = {name: transaction.fingerprint for name, transaction in TRANSACTIONS.items()}


def _sums(legs: Iterable[Leg], effects: Collection[Effect]) -> Counter[str]:
    """Amounts by account, of legs with these effects."""
    sums = Counter[str]()
    for leg in legs:
        sums[leg.account] += leg.amount_minor if leg.effect in effects else 0
    return sums


def _pieces(names: Sequence[str], placement: Sequence[int]) -> list[_Piece]:
    """Transactions with the same shards travel together, the deciding shard first."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        shards = [placement[SLOTS[leg.account]] for leg in TRANSACTIONS[name].legs]
        others = sorted(set(shards) - {shards[0]})
        groups.setdefault((shards[0], *others), []).append(name)
    return [
        _Piece(
            shards,
            tuple(group),
            bundle_of([_placed(TRANSACTIONS[name], shards, placement) for name in group]),
        )
        for shards, group in groups.items()
    ]


def _placed(transaction: Transaction, shards: tuple[int, ...], placement: Sequence[int]) -> Transaction:
    """The same transaction with the owners of its legs."""
    legs = tuple(
        Leg(
            leg.account,
            leg.effect,
            leg.amount_minor,
            leg.currency,
            shards.index(placement[SLOTS[leg.account]]),
        )
        for leg in transaction.legs
    )
    return Transaction(
        transaction.transaction_id,
        transaction.kind,
        transaction.deciding_slot,
        legs,
        transaction.details,
        transaction.related_id,
        transaction.bound,
    )


def _told(piece: _Piece, answer: Answer | NoReply) -> Answered:
    """What a post answers; BUSY is left to recovery."""
    if isinstance(answer, NoReply):
        code = Outcome.STALE_EPOCH if answer is NoReply.STALE else Outcome.OUTCOME_UNKNOWN
        return tuple((name, int(code)) for name in piece.names)
    codes = each(answer.codes[0], len(piece.names))
    unknown = int(Outcome.OUTCOME_UNKNOWN)
    return tuple(
        (name, unknown if code == Outcome.BUSY else code)
        for name, code in zip(piece.names, codes, strict=True)
    )
