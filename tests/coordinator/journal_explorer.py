"""The exhaustive search of :mod:`tests.coordinator.world` over journals: splits, refunds and captures.

Each account has a slot of its own. A payload is a journal under an id; payloads may share an id, by
mistake, or have ids of their own and want the same money, the same purchase or the same hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from coordinator.journal_protocol import JournalCommit, JournalRecovery
from shard_node.client.asking import NoReply
from shard_node.contract.journal_calls import (
    DecideJournals,
    FinishLegs,
    JournalReply,
    Journals,
    PostJournals,
    PrepareLegs,
    ResolveJournals,
    Settle,
    leg_refs,
)
from shard_node.contract.journals import NO_ID, TAKING, Effect, Journal, Leg, LegBody, leg_key
from shard_node.contract.outcomes import Outcome
from shard_node.contract.records import Account, AccountState, PendingTransfer
from shard_node.contract.transfers import Kind
from tests.coordinator.world import Columns, Explorer, Frozen, Scan, Step, Try, World, WorldSetting
from tests.model import Hold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.model import ShardModel

SLOTS = {"first": 0, "second": 1, "third": 2}
PURCHASE, HOLD_ID, OTHER_ID = bytes([7] * 16), bytes([8] * 16), bytes([9] * 16)
# What `first` has on hold where a payload ends one, and the refunds that a purchase bears.
HELD = 2
REFUNDABLE = 1


def _journal(
    kind: Kind, *legs: tuple[str, Effect, int], related_id: bytes = NO_ID, bound: int = 0
) -> Journal:
    made = tuple(Leg(name, SLOTS[name], effect, amount, "EUR") for name, effect, amount in legs)
    return Journal(kind, made, b"\0\0", related_id, bound)


_TAKE, _GIVE = Effect.DEBIT, Effect.CREDIT

# By name: the id and the journal.
PAYLOADS: dict[str, tuple[bytes, Journal]] = {
    # The three are on one shard each: one decided debit, one prepared debit, one credit.
    "split": (NO_ID, _journal(Kind.JOURNAL, ("first", _TAKE, 1), ("second", _TAKE, 1), ("third", _GIVE, 2))),
    # By mistake under the split's id.
    "pay": (NO_ID, _journal(Kind.JOURNAL, ("first", _TAKE, 1), ("second", _GIVE, 1))),
    "pay more": (NO_ID, _journal(Kind.JOURNAL, ("first", _TAKE, 2), ("second", _GIVE, 2))),
    # Wants the money of `second`, too.
    "rival": (OTHER_ID, _journal(Kind.JOURNAL, ("second", _TAKE, 1), ("third", _GIVE, 1))),
    "refund": (
        NO_ID,
        _journal(
            Kind.REFUND,
            ("first", _TAKE, 1),
            ("second", Effect.REFUND, 1),
            related_id=PURCHASE,
            bound=REFUNDABLE,
        ),
    ),
    "refund again": (
        OTHER_ID,
        _journal(
            Kind.REFUND,
            ("first", _TAKE, 1),
            ("second", Effect.REFUND, 1),
            related_id=PURCHASE,
            bound=REFUNDABLE,
        ),
    ),
    "capture": (
        NO_ID,
        _journal(Kind.CAPTURE, ("first", Effect.CAPTURE, 1), ("second", _GIVE, 1), related_id=HOLD_ID),
    ),
    "capture again": (
        OTHER_ID,
        _journal(Kind.CAPTURE, ("first", Effect.CAPTURE, HELD), ("second", _GIVE, HELD), related_id=HOLD_ID),
    ),
    "void": (OTHER_ID, _journal(Kind.VOID, ("first", Effect.VOID, 0), related_id=HOLD_ID)),
}
_ENDS_HOLD = (Effect.CAPTURE, Effect.VOID)


@dataclass(frozen=True, slots=True)
class JournalSetting(WorldSetting):
    """One instance to search.

    ``start`` is the shard of each account's slot, ``has`` what each has available. Of the environment,
    "time" lets the hold's time pass, "expire" has the shard end holds whose time is over, "freeze" closes
    the account of the second leg to prepares.
    """

    start: tuple[int, ...] = (0, 1, 2)
    shards: int = 3
    moves: int = 0
    has: tuple[int, ...] = (2, 1, 1)
    commit: type[JournalCommit] = JournalCommit
    recovery: type[JournalRecovery] = JournalRecovery


class JournalExplorer(Explorer):
    """Searches one setting of journals."""

    def __init__(self, setting: JournalSetting) -> None:
        self.setting = setting
        self.batches = {name: Journals.of([PAYLOADS[name]]) for name in sorted(set(setting.tries))}
        self._payloads = {batch.keys[0]: name for name, batch in self.batches.items()}
        self._legs = [leg for batch in self.batches.values() for leg in batch.journals[0].legs]
        self._with_hold = any(leg.effect in _ENDS_HOLD for leg in self._legs)
        super().__init__(setting, {leg.slot for leg in self._legs})

    def entries(self, shard: Frozen) -> tuple[list[bytes], list[bytes]]:
        """Keys of legs, and of journals."""
        return [key for key, _ in shard.prepared], [key for key, _ in shard.unsettled]

    def payload_of(self, entry: bytes) -> str:
        """The payload of a journal's or a leg's key."""
        return self._payloads[entry[:24]]

    def journal(self, payload: str) -> Journal:
        """The payload's journal."""
        return self.batches[payload].journals[0]

    def answer(self, columns: Columns) -> JournalReply:
        """A reply of :mod:`shard_node.contract.journal_calls`; that to a Settle is not read."""
        return JournalReply(*columns)

    def call_name(self, call: Any) -> tuple[object, ...]:
        """Its function, journal, legs and verdicts."""
        match call:
            case PostJournals():
                return call.FUNCTION, *call.batch.keys
            case PrepareLegs():
                return call.FUNCTION, *(ref.key for ref in call.legs)
            case DecideJournals():
                return call.FUNCTION, *call.batch.keys, *call.verdicts, *call.refused_legs
            case FinishLegs():
                return call.FUNCTION, *call.keys, *call.verdicts
            case Settle() | ResolveJournals():
                return call.FUNCTION, *call.keys
        raise TypeError(call)

    def step_of(self, attempt: Try) -> Step:
        """One call when all accounts share a shard, else what JournalCommit says."""
        batch, owner, answers = self.batches[attempt.payload], attempt.placement, attempt.answers
        shards = {owner[leg.slot] for leg in batch.journals[0].legs}
        if len(shards) == 1:
            if not answers:
                return Step(((shards.pop(), self.intern(PostJournals(batch))),))
            lost = isinstance(answers[0][0], NoReply)
            return Step((), Outcome.OUTCOME_UNKNOWN if lost else answers[0][0][0])
        commit = self.setting.commit(batch, owner)
        calls = self.walk(commit.prepare(), (commit.decide, commit.finish, commit.conclude), answers)
        if calls:
            return Step(calls)
        settles = [(shard, self.intern(Settle(keys))) for shard, keys in commit.settled.items()]
        return Step((), commit.outcomes[0], tuple(settles))

    def recovery(self, scan: Scan) -> JournalRecovery:
        """Of one leg, or of one journal."""
        key = cast("bytes", scan.entry)
        batch = self.batches[self.payload_of(key)]
        if scan.prepared:
            number = int.from_bytes(key[24:], "little")
            leg = PendingTransfer(key, 0, leg_refs(batch, 0)[number].body)
            return self.setting.recovery([leg], [], scan.placement)
        return self.setting.recovery([], [PendingTransfer(key, 0, batch.bodies[0])], scan.placement)

    def open_accounts(self, shards: Sequence[ShardModel]) -> None:
        """All three, whatever the payloads name; with them the hold."""
        for name, slot in SLOTS.items():
            shard = shards[self.setting.start[slot]]
            held = HELD if self._with_hold and name == "first" else 0
            has = self.setting.has[slot]
            shard.accounts[name] = Account(has, held, 0, 0, AccountState.OPEN, "EUR")
            if held:
                # The model's clock stands at zero.
                shard.holds[HOLD_ID + b"\0\0"] = Hold("first", held, 1, HOLD_ID + bytes(8))

    def happens(self, event: str, shards: Sequence[ShardModel], placement: Sequence[int]) -> None:
        """Time, or somebody, passes by."""
        first, second = shards[placement[0]], shards[placement[1]]
        if event == "time":
            for name, hold in first.holds.items():
                first.holds[name] = hold._replace(expires_ms=0)
        elif event == "expire":
            first.expire(1)
        else:
            second.accounts["second"] = replace(second.accounts["second"], state=AccountState.FROZEN)

    def move(self, slot: int, old: ShardModel, new: ShardModel) -> None:
        """A slot with its account, holds, refunds, outcomes, applied legs, prepared and unsettled entries."""
        for account in [name for name in old.accounts if SLOTS[name] == slot]:
            new.accounts[account] = old.accounts.pop(account)
        of_slot = slot.to_bytes(2, "little")
        tables: tuple[tuple[dict[bytes, Any], dict[bytes, Any]], ...] = (
            (old.holds, new.holds),
            (old.refunds, new.refunds),
            (old.decided, new.decided),
        )
        for source, target in tables:
            for name in [name for name in source if name[16:] == of_slot]:
                target[name] = source.pop(name)
        legs = {
            leg_key(key, number): leg.slot
            for key, payload in self._payloads.items()
            for number, leg in enumerate(self.journal(payload).legs)
        }
        for name in [name for name in old.prepared if legs[name] == slot]:
            new.prepared[name] = old.prepared.pop(name)
        for key in [key for key in old.unsettled if legs[leg_key(key, 0)] == slot]:
            new.unsettled[key] = old.unsettled.pop(key)
        moved = {name for name in old.applied if legs[name] == slot}
        old.applied -= moved
        new.applied |= moved

    # ------------------------------------------------------------------ what must hold

    def broken(self, w: World) -> str | None:
        """All legs or none by the outcome, nothing made, lost or left reserved, no answer contradicted."""
        shards = [self.thaw(frozen) for frozen in w.shards]
        if any(shard.alarms for shard in shards):
            return "R5: a committed leg is neither prepared nor applied"
        outcomes = {d.key: d.outcome for shard in shards for d in shard.decided.values()}
        committed = {self._payloads[key] for key, code in outcomes.items() if code == Outcome.COMMITTED}
        in_flight = self._in_flight(shards)
        if w.forgets < self.setting.forgets:
            return self._unbalanced(shards, in_flight)
        return (
            self._wrong_accounts(shards, committed, in_flight)
            or self._wrong_conditions(shards, committed, in_flight)
            or self._wrong_answers(w, committed, {self.payload_of(name) for name in in_flight})
        )

    def left_over(self, shards: Sequence[ShardModel]) -> str | None:
        """When nothing is in doubt, only holds hold money, and purchases bear only what was refunded."""
        held = sum(account.held_minor for shard in shards for account in shard.accounts.values())
        holds = sum(hold.amount_minor for shard in shards for hold in shard.holds.values())
        return None if held == holds else f"{held} are held, by holds {holds}"

    def _in_flight(self, shards: Sequence[ShardModel]) -> set[bytes]:
        """Names of legs that are committed and will be applied, but are not."""
        unsettled = {key for shard in shards for key in shard.unsettled}
        return {name for shard in shards for name in shard.prepared if name[:24] in unsettled}

    def _unbalanced(self, shards: Sequence[ShardModel], in_flight: set[bytes]) -> str | None:
        """An id that was forgotten may move once more; but money is neither made nor lost."""
        total = sum(a.available_minor + a.held_minor for shard in shards for a in shard.accounts.values())
        bodies = {name: body for shard in shards for name, body in shard.prepared.items()}
        total += sum(LegBody.unpack(bodies[name]).amount_minor for name in in_flight)
        expected = sum(self.setting.has) + (HELD if self._with_hold else 0)
        return None if total == expected else f"money was made or lost: {total}, not {expected}"

    def _wrong_accounts(
        self, shards: Sequence[ShardModel], committed: set[str], in_flight: set[bytes]
    ) -> str | None:
        accounts = {name: account for shard in shards for name, account in shard.accounts.items()}
        balances = {name: a.available_minor + a.held_minor for name, a in accounts.items()}
        expected = self._balances(committed, in_flight)
        if balances != expected:
            return f"money was made or lost: {balances}, but by the outcomes {expected}"
        held = dict.fromkeys(SLOTS, 0)
        for shard in shards:
            for hold in shard.holds.values():
                held[hold.account] += hold.amount_minor
            for body in shard.prepared.values():
                leg = LegBody.unpack(body)
                held[leg.account] -= min(leg.amount_minor, 0)
        if {name: a.held_minor for name, a in accounts.items()} != held:
            return f"held is not what is held or reserved: {accounts}, {held}"
        if any(account.available_minor < 0 for account in accounts.values()):
            return f"spent twice: {accounts}"
        return None

    def _balances(self, committed: set[str], in_flight: set[bytes]) -> dict[str, int]:
        """What the accounts must have by the outcomes."""
        expected = {name: self.setting.has[slot] for name, slot in SLOTS.items()}
        if self._with_hold:
            expected["first"] += HELD
        for payload in committed:
            key = self.batches[payload].keys[0]
            for number, leg in enumerate(self.journal(payload).legs):
                if leg_key(key, number) not in in_flight:
                    expected[leg.account] += -leg.amount_minor if leg.effect in TAKING else leg.amount_minor
        return expected

    def _wrong_conditions(
        self, shards: Sequence[ShardModel], committed: set[str], in_flight: set[bytes]
    ) -> str | None:
        legs = [
            (leg, leg_key(self.batches[payload].keys[0], number))
            for payload in committed
            for number, leg in enumerate(self.journal(payload).legs)
        ]
        ended = [leg for leg, _ in legs if leg.effect in _ENDS_HOLD]
        if len(ended) > 1 or (ended and any(shard.holds for shard in shards)):
            return f"a hold was ended twice, or is still there: {ended}"
        refunded = sum(leg.amount_minor for leg, _ in legs if leg.effect is Effect.REFUND)
        applied = sum(
            leg.amount_minor for leg, name in legs if leg.effect is Effect.REFUND and name not in in_flight
        )
        bodies = [LegBody.unpack(body) for shard in shards for body in shard.prepared.values()]
        prepared = sum(body.amount_minor for body in bodies if body.effect is Effect.REFUND)
        counted = sum(sum(shard.refunds.values()) for shard in shards)
        if refunded > REFUNDABLE or counted != applied + prepared:
            return f"refunded {refunded} of {REFUNDABLE}, counted {counted}, not {applied} and {prepared}"
        return None

    def _wrong_answers(self, w: World, committed: set[str], coming: set[str]) -> str | None:
        for payload, code in w.told:
            if code == Outcome.COMMITTED and (payload not in committed or payload in coming):
                return f"{payload} was told COMMITTED, but is not done"
            if code != Outcome.COMMITTED and payload in committed:
                return f"{payload} was told {Outcome(code).name}, but it is committed"
        return None
