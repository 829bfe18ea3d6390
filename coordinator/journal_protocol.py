"""Two-phase commit for journals, without I/O: the machines of ``protocol.py`` for any number of legs.

Each leg but the first is a participant of its own, under the journal's key and the leg's number; the
first is decided on its shard, which is the commit point. So the rules R1-R8 hold leg by leg, with one
thing more: a journal is committed for its caller, and settled, only when *every* leg is finished (R6).

Transfers have machines of their own because they are the hot path: there a row is an entry in columns,
here it is an object.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coordinator.protocol import GO
from shard_node.client import JournalAnswer, NoReply
from shard_node.contract import (
    DecideJournals,
    FinishLegs,
    Journal,
    LegBody,
    LegRef,
    Outcome,
    PrepareLegs,
    ResolveJournals,
    Settle,
    leg_key,
    leg_refs,
)
from shard_node.limits import NO_BALANCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shard_node.contract import Journals, PendingTransfer


@dataclass(slots=True)
class _Row:
    """One journal on its way. ``outcome`` and ``leg`` are what its caller will be told."""

    refs: list[LegRef]
    deciding_shard: int
    outcome: int = Outcome.OUTCOME_UNKNOWN
    leg: int = 0
    # What to tell the deciding shard: GO, or a refusal and the leg it concerns.
    verdict: int = GO
    verdict_leg: int = 0
    # What the deciding shard said; how to finish.
    decision: int = GO
    # Why shards gave no answer, of the step that the row stopped at.
    silence: set[NoReply] = field(default_factory=set)
    # Legs that wait on their shards, not applied before; legs still to be acknowledged.
    waiting: set[int] = field(default_factory=set)
    unfinished: set[int] = field(default_factory=set)


class JournalCommit:
    """A batch of journals on its way through two-phase commit.

    Call :meth:`prepare`, :meth:`decide`, :meth:`finish` and :meth:`conclude` once each, in this
    order, and hand each one the answers to the calls that the one before returned. Shards are
    named by their index in the topology of ``owner``.

    A journal whose outcome is not known stays OUTCOME_UNKNOWN whatever step it reached; one that met
    another epoch is STALE_EPOCH, and may be tried again from the start with a newer topology.
    """

    def __init__(self, batch: Journals, owner: Sequence[int]) -> None:
        self._batch = batch
        self._owner = owner
        self._rows = [
            _Row(leg_refs(batch, row), owner[journal.legs[0].slot])
            for row, journal in enumerate(batch.journals)
        ]
        # The legs, or for decide the rows, that each shard was asked about.
        self._asked_legs: dict[int, list[tuple[int, int]]] = {}
        self._asked_rows: dict[int, list[int]] = {}
        self._balances = [[NO_BALANCE] * len(journal.legs) for journal in batch.journals]
        # Keys to settle, by the deciding shard: known to be finished everywhere.
        self.settled: dict[int, list[bytes]] = {}
        # Keys of legs that were lost (R5). Must stay empty; if not, somebody must be woken.
        self.missing: list[bytes] = []

    @property
    def outcomes(self) -> list[int]:
        """Each journal's outcome."""
        return [row.outcome for row in self._rows]

    @property
    def legs(self) -> list[int]:
        """The number of the leg that each refusal concerns."""
        return [row.leg for row in self._rows]

    @property
    def balances(self) -> list[int]:
        """Available balances after, leg by leg of journal by journal."""
        return [balance for row in self._balances for balance in row]

    @property
    def deciding_shards(self) -> list[int]:
        """The shard of each journal's first leg."""
        return [row.deciding_shard for row in self._rows]

    def prepare(self) -> dict[int, PrepareLegs]:
        """Step 1: the calls to the participants."""
        self._ask_legs((i, leg) for i, row in enumerate(self._rows) for leg in range(1, len(row.refs)))
        return {
            shard: PrepareLegs([self._rows[i].refs[leg] for i, leg in legs])
            for shard, legs in self._asked_legs.items()
        }

    def decide(
        self, answers: Mapping[int, JournalAnswer], settled: Mapping[int, Sequence[bytes]] | None = None
    ) -> dict[int, DecideJournals]:
        """Step 2: the calls to the deciding shards, which carry along keys that are settled.

        A journal with a participant that gave no answer goes no further, and nothing is dropped (R2):
        another try of the same id may be about to commit its legs.
        """
        for shard, legs in self._asked_legs.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                for i, _ in legs:
                    self._rows[i].silence.add(answer)
                continue
            for (i, leg), code in zip(legs, answer.codes, strict=True):
                self._prepared(self._rows[i], leg, code)
        self._asked_rows = {}
        for i, row in enumerate(self._rows):
            if row.silence:
                row.outcome = _outcome_of(row.silence)
            else:
                self._asked_rows.setdefault(row.deciding_shard, []).append(i)
        settled = settled or {}
        return {
            shard: DecideJournals(
                self._batch.select(rows),
                [self._rows[i].verdict for i in rows],
                [self._rows[i].verdict_leg for i in rows],
                settled.get(shard, ()),
            )
            for shard, rows in self._asked_rows.items()
        }

    def finish(self, answers: Mapping[int, JournalAnswer]) -> dict[int, FinishLegs]:
        """Steps 3 and 4: apply all legs of what is COMMITTED, drop those of all else that wait."""
        ending: list[tuple[int, int]] = []
        for shard, rows in self._asked_rows.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                for i in rows:
                    self._rows[i].outcome = _outcome_of({answer})
                continue
            decided = zip(rows, answer.codes, answer.legs, answer.balances, strict=True)
            for i, code, leg, balance in decided:
                row = self._rows[i]
                row.decision = code
                if code == Outcome.COMMITTED:
                    # Told only when every account has its money.
                    self._balances[i][0] = balance
                    row.unfinished = set(range(1, len(row.refs)))
                    if not row.unfinished:
                        self._finished(row)
                    ending += [(i, number) for number in sorted(row.unfinished)]
                else:
                    settled = code == Outcome.SETTLED
                    row.outcome = Outcome.COMMITTED if settled else code
                    row.leg = 0 if settled else leg
                    ending += [(i, number) for number in sorted(row.waiting)]
        self._ask_legs(ending)
        return {
            shard: FinishLegs(
                [self._rows[i].refs[leg].key for i, leg in legs],
                [self._rows[i].decision for i, _ in legs],
            )
            for shard, legs in self._asked_legs.items()
        }

    def conclude(self, answers: Mapping[int, JournalAnswer]) -> None:
        """Reads the last answers; then outcomes, balances and ``settled`` are final."""
        for shard, legs in self._asked_legs.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                for i, _ in legs:
                    self._rows[i].silence.add(answer)
                continue
            for (i, leg), code, balance in zip(legs, answer.codes, answer.balances, strict=True):
                row = self._rows[i]
                if code == Outcome.FINISHED:
                    self._balances[i][leg] = balance
                    row.unfinished.discard(leg)
                    if not row.unfinished:
                        self._finished(row)
                elif code == Outcome.MISSING_LEG:
                    self.missing.append(row.refs[leg].key)
        for row in self._rows:
            # A refusal stands, its legs are left to recovery. A commit is not told before it is finished.
            if row.silence == {NoReply.STALE} and row.decision == Outcome.COMMITTED:
                row.outcome = Outcome.STALE_EPOCH

    def _prepared(self, row: _Row, leg: int, code: int) -> None:
        if code == Outcome.PREPARED:
            row.waiting.add(leg)
            return
        if code == Outcome.APPLIED:
            # It was committed before: the deciding shard may recall that, not do it again.
            code = Outcome.TRANSACTION_ID_EXPIRED
        # Of several refusals the first leg's is recorded, whichever shard answers first; but what says
        # that the journal was done before says more than a balance of today.
        expired = Outcome.TRANSACTION_ID_EXPIRED
        if row.verdict == GO or (row.verdict != expired and (code == expired or leg < row.verdict_leg)):
            row.verdict, row.verdict_leg = code, leg

    def _finished(self, row: _Row) -> None:
        row.outcome = Outcome.COMMITTED
        self.settled.setdefault(row.deciding_shard, []).append(row.refs[0].journal_key)

    def _ask_legs(self, legs: Iterable[tuple[int, int]]) -> None:
        self._asked_legs = {}
        for i, leg in legs:
            shard = self._owner[self._rows[i].refs[leg].leg.slot]
            self._asked_legs.setdefault(shard, []).append((i, leg))


def _outcome_of(silence: set[NoReply]) -> int:
    """What a journal's caller is told when shards gave no answer before it was committed."""
    if NoReply.LOST in silence:
        return Outcome.OUTCOME_UNKNOWN
    return Outcome.STALE_EPOCH if NoReply.STALE in silence else Outcome.RESOURCE_EXHAUSTED


class JournalRecovery:
    """Ends journals that others began: a batch of old legs in ``prepared`` and journals in ``unsettled``.

    Call :meth:`resolve`, :meth:`finish`, :meth:`settle` once each with the answers to the calls
    before. What gets no answer is left for the next scan.
    """

    def __init__(
        self, prepared: Sequence[PendingTransfer], unsettled: Sequence[PendingTransfer], owner: Sequence[int]
    ) -> None:
        self._owner = owner
        self._prepared = [(entry.key, LegBody.unpack(entry.body)) for entry in prepared]
        self._unsettled = [(entry.key, Journal.unpack(entry.body)) for entry in unsettled]
        self._asked: dict[int, list[tuple[bytes, LegBody]]] = {}
        # By shard: leg keys, how to end them, and the unsettled journal they belong to, if to one.
        self._ending: dict[int, list[tuple[bytes, int, int | None]]] = {}
        self.missing: list[bytes] = []
        # How many legs were ended.
        self.ended = 0

    def resolve(self) -> dict[int, ResolveJournals]:
        """Asks the deciding shards what became of prepared legs."""
        for key, body in self._prepared:
            self._asked.setdefault(self._owner[body.deciding_slot], []).append((key, body))
        return {
            shard: ResolveJournals(
                [key[:24] for key, _ in legs],
                [body.deciding_slot for _, body in legs],
                [body.terms for _, body in legs],
            )
            for shard, legs in self._asked.items()
        }

    def finish(self, answers: Mapping[int, JournalAnswer]) -> dict[int, FinishLegs]:
        """Ends each leg as the deciding shard said (R3, R7), and every leg of each unsettled journal."""
        for shard, legs in self._asked.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                continue
            for (key, body), code in zip(legs, answer.codes, strict=True):
                self._ending.setdefault(self._owner[body.slot], []).append((key, code, None))
        for index, (key, journal) in enumerate(self._unsettled):
            for number, leg in enumerate(journal.legs[1:], start=1):
                # The entry is itself the deciding shard's word: committed.
                entry = (leg_key(key, number), int(Outcome.COMMITTED), index)
                self._ending.setdefault(self._owner[leg.slot], []).append(entry)
        return {
            shard: FinishLegs([key for key, _, _ in legs], [code for _, code, _ in legs])
            for shard, legs in self._ending.items()
        }

    def settle(self, answers: Mapping[int, JournalAnswer]) -> dict[int, Settle]:
        """Tells the deciding shards which journals are finished everywhere (R6)."""
        left = [len(journal.legs) - 1 for _, journal in self._unsettled]
        for shard, legs in self._ending.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                continue
            for (key, _, index), code in zip(legs, answer.codes, strict=True):
                if code == Outcome.FINISHED:
                    self.ended += 1
                    if index is not None:
                        left[index] -= 1
                elif code == Outcome.MISSING_LEG:
                    self.missing.append(key)
                else:
                    self.ended += 1
        done: dict[int, list[bytes]] = {}
        for (key, journal), unfinished in zip(self._unsettled, left, strict=True):
            if not unfinished:
                done.setdefault(self._owner[journal.legs[0].slot], []).append(key)
        return {shard: Settle(keys) for shard, keys in done.items()}
