"""Two-phase commit with the decision delegated to the payer's shard, without I/O.

Two plain state machines decide everything: :class:`Commit` carries a batch of cross-shard transfers
from prepare to finish, :class:`Recovery` ends what others left behind. Both are fed the answers of
shards and say which calls to make next; neither knows clocks, sockets or tasks, so that the tests
can walk through every order of events. The rules R1-R8 are told in ARCHITECTURE.md; of them, these
are kept here:

* R2  nobody drops a leg before the payer's shard has an outcome that is not COMMITTED by this attempt;
* R3  finish only on COMMITTED; on SETTLED and ELSEWHERE a prepared leg is a ghost, and is dropped;
* R6  settle only what the payee's shard has acknowledged as finished;
* R7  recovery drops a leg only on the payer's shard's word.

A batch comes in parts, one a pair of shards, and each part is an attempt of its own: it is prepared, decided
and finished as a whole. So the machines handle strings of codes, and look at a single row only when its
outcome is not that of all.

Source: J. Gray, "Notes on Data Base Operating Systems" (1978), for the last-agent form of commit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shard_node.client import Answer, NoReply
from shard_node.contract import (
    Attempt,
    Decide,
    Finish,
    Outcome,
    PendingAttempt,
    PendingCommit,
    Prepare,
    ResolveAttempts,
    SettleCommits,
    each,
    split_decisions,
    split_short,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from shard_node.contract import Bundle

_COMMITTED = int(Outcome.COMMITTED)
_PREPARED = int(Outcome.PREPARED)
_SETTLED = int(Outcome.SETTLED)
_ELSEWHERE = int(Outcome.ELSEWHERE)
_ENDED = int(Outcome.ENDED)
_MISSING = int(Outcome.MISSING_LEG)
_UNKNOWN = int(Outcome.OUTCOME_UNKNOWN)

GO = 0


def _table(changes: Mapping[int, int]) -> bytes:
    """For bytes.translate: each code as itself, but for these."""
    return bytes(changes.get(code, code) for code in range(256))


def _one(outcome: Outcome) -> bytes:
    return bytes((outcome,))


# What a payee's shard said of a leg, as what the payer's shard is told about it.
_VERDICTS = _table({_PREPARED: GO})
# What the payer's shard said, as what the caller is told when the payee's shard has acknowledged it.
_OUTCOMES = _table({_SETTLED: _COMMITTED, _ELSEWHERE: _UNKNOWN})
# The same when it has not: a refusal stands, its leg is left to recovery; a commit is not told before it is
# finished.
_UNFINISHED = {
    NoReply.LOST: _table({_COMMITTED: _UNKNOWN, _SETTLED: _COMMITTED, _ELSEWHERE: _UNKNOWN}),
    NoReply.STALE: _table({_COMMITTED: Outcome.STALE_EPOCH, _SETTLED: _COMMITTED, _ELSEWHERE: _UNKNOWN}),
}
_UNFINISHED[NoReply.FULL] = _UNFINISHED[NoReply.LOST]
# What is told of rows that were not decided.
_UNDECIDED = {
    NoReply.LOST: _one(Outcome.OUTCOME_UNKNOWN),
    NoReply.STALE: _one(Outcome.STALE_EPOCH),
    NoReply.FULL: _one(Outcome.RESOURCE_EXHAUSTED),
}
_ALL_PREPARED = _one(Outcome.PREPARED)


def group(rows: Iterable[int], shards: Sequence[int]) -> dict[int, list[int]]:
    """Rows by the shard that ``shards`` names for each of them."""
    groups: dict[int, list[int]] = {}
    for row in rows:
        shard = shards[row]
        if shard in groups:
            groups[shard].append(row)
        else:
            groups[shard] = [row]
    return groups


@dataclass(slots=True)
class Part:
    """What of a batch goes from one shard to another, and what became of it.

    ``outcomes`` are as in :mod:`shard_node.contract.calls`: a byte a row, or one for all; so are the
    balances. A row whose outcome is not known stays OUTCOME_UNKNOWN whatever step it reached; one that met
    another epoch is STALE_EPOCH, and may be tried again from the start with a newer topology.
    """

    payer_shard: int
    payee_shard: int
    attempt: Attempt
    outcomes: bytes = _UNDECIDED[NoReply.LOST]
    payer_balances: bytes = b""
    payee_balances: bytes = b""
    # What the payees' shard said, then what the payers' shard did.
    codes: bytes = b""
    # The name of what the payers' shard keeps until the part is settled.
    commit: bytes = b""
    # Commits of other attempts that rows of this part wait for.
    elsewhere: Sequence[bytes] = ()

    @property
    def bundle(self) -> Bundle:
        """Its transfers."""
        return self.attempt.bundle


class Commit:
    """A batch of cross-shard transfers on its way through two-phase commit.

    Call :meth:`prepare`, :meth:`decide`, :meth:`finish` and :meth:`conclude` once each, in this
    order, and hand each one the answers to the calls that the one before returned. Then ``parts`` have their
    outcomes. Shards are named by their index in the topology; ``shard_ids`` are their ids.
    """

    def __init__(
        self, parts: Sequence[Part], shard_ids: Sequence[str], *, with_balances: bool = True
    ) -> None:
        self.parts = parts
        self._shard_ids = shard_ids
        self._with_balances = with_balances
        self._groups: dict[int, list[Part]] = {}
        # Names to settle, by the payers' shard: known to be finished.
        self.settled: dict[int, list[bytes]] = {}
        # Attempts whose legs were lost (R5). Must stay empty; if not, somebody must be woken.
        self.missing: list[bytes] = []

    @property
    def deciding_shards(self) -> Sequence[int]:
        """The payers' shard of each part."""
        return [part.payer_shard for part in self.parts]

    def prepare(self) -> dict[int, Prepare]:
        """Step 1: the calls to the payees' shards."""
        self._groups = _by(self.parts, lambda part: part.payee_shard)
        return {shard: Prepare([part.attempt for part in parts]) for shard, parts in self._groups.items()}

    def decide(
        self, answers: Mapping[int, Answer], settled: Mapping[int, Sequence[bytes]] | None = None
    ) -> dict[int, Decide]:
        """Step 2: the calls to the payers' shards, which carry along names of commits that are settled.

        A part whose payees' shard gave no answer goes no further, and nothing is dropped (R2): its prepare
        may still be on its way.
        """
        ready: list[Part] = []
        for shard, parts in self._groups.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                _stop(parts, answer)
                continue
            for part, codes in zip(parts, answer.codes, strict=True):
                part.codes = codes
                if codes[0] != _ENDED:
                    ready.append(part)
        self._groups = _by(ready, lambda part: part.payer_shard)
        settled = settled or {}
        return {
            shard: Decide(
                [part.attempt for part in parts],
                [self._shard_ids[part.payee_shard] for part in parts],
                [self._verdicts(part) for part in parts],
                settled.get(shard, ()),
                self._with_balances,
            )
            for shard, parts in self._groups.items()
        }

    @staticmethod
    def _verdicts(part: Part) -> bytes:
        if part.codes == _ALL_PREPARED:
            return b""
        return each(part.codes, part.bundle.count).translate(_VERDICTS)

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        """Steps 3 and 4: apply what is COMMITTED, drop legs of all that is refused, SETTLED or ELSEWHERE."""
        ending: list[Part] = []
        for shard, parts in self._groups.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                _stop(parts, answer)
                continue
            for number, part in enumerate(parts):
                kept = _PREPARED in part.codes
                part.codes = answer.codes[number]
                part.commit = answer.commits[number]
                part.elsewhere = answer.elsewhere[number]
                part.payer_balances = answer.payer_balances[number]
                if kept:
                    ending.append(part)
                else:
                    part.outcomes = part.codes.translate(_OUTCOMES)
        self._groups = _by(ending, lambda part: part.payee_shard)
        return {
            shard: Finish(
                [part.attempt.attempt_id for part in parts],
                [part.codes for part in parts],
                self._with_balances,
            )
            for shard, parts in self._groups.items()
        }

    def conclude(self, answers: Mapping[int, Answer]) -> None:
        """Reads the last answers; then outcomes, balances and ``settled`` are final."""
        for shard, parts in self._groups.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                for part in parts:
                    part.outcomes = part.codes.translate(_UNFINISHED[answer])
                continue
            for number, part in enumerate(parts):
                codes = answer.codes[number]
                if _MISSING in codes:
                    self.missing.append(part.attempt.attempt_id)
                    part.outcomes = part.codes.translate(_UNFINISHED[NoReply.LOST])
                    continue
                part.outcomes = part.codes.translate(_OUTCOMES)
                part.payee_balances = answer.payee_balances[number]
                if part.commit:
                    self.settled.setdefault(part.payer_shard, []).append(part.commit)

    def elsewhere(self) -> dict[int, list[bytes]]:
        """Commits of other attempts that rows of this batch wait for, by the payers' shard."""
        waits: dict[int, list[bytes]] = {}
        for part in self.parts:
            if part.elsewhere:
                waits.setdefault(part.payer_shard, []).extend(part.elsewhere)
        return waits

    def finished_elsewhere(self, shard: int, finished: Collection[bytes]) -> None:
        """Those commits of that shard are finished; rows in them are committed."""
        for part in self.parts:
            if part.payer_shard == shard and part.elsewhere and all(n in finished for n in part.elsewhere):
                count = part.bundle.count
                rows = zip(each(part.codes, count), each(part.outcomes, count), strict=True)
                part.outcomes = bytes(_COMMITTED if code == _ELSEWHERE else outcome for code, outcome in rows)


def _by(parts: Iterable[Part], shard_of: Callable[[Part], int]) -> dict[int, list[Part]]:
    groups: dict[int, list[Part]] = {}
    for part in parts:
        groups.setdefault(shard_of(part), []).append(part)
    return groups


def _stop(parts: Iterable[Part], why: NoReply) -> None:
    for part in parts:
        part.outcomes = _UNDECIDED[why]


@dataclass(slots=True)
class _Ending:
    """An attempt that recovery ends: where its legs are, and how."""

    payee_shard: int
    attempt_id: bytes
    verdicts: bytearray
    # Rows whose outcome is not known yet.
    open_rows: set[int] = field(default_factory=set)
    # Who keeps it as unsettled, under which name.
    payer_shard: int = -1
    commit: bytes = b""


class Recovery:
    """Ends transfers that others began: old ``attempts`` and ``commits`` found on one shard.

    Call :meth:`resolve`, :meth:`finish`, :meth:`settle` once each with the answers to the calls before. What
    gets no answer is left for the next scan. ``home`` is the index of the shard that they were found on,
    ``owner`` the index of each slot's shard, ``shard_ids`` the ids of all.
    """

    def __init__(
        self,
        home: int,
        attempts: Sequence[PendingAttempt],
        commits: Sequence[PendingCommit],
        owner: Sequence[int],
        shard_ids: Sequence[str],
    ) -> None:
        self._endings: list[_Ending] = []
        # For each shard to ask, the rows: (ending, row, decision, terms).
        self._asked: dict[int, list[tuple[_Ending, int, bytes, bytes]]] = {}
        for attempt in attempts:
            self._ask_for(home, attempt, owner)
        for commit in commits:
            # It is itself the payers' shard's word. A shard that has left the cluster cannot be told.
            if commit.peer in shard_ids:
                self._endings.append(
                    _Ending(
                        shard_ids.index(commit.peer),
                        commit.attempt_id,
                        bytearray(commit.codes),
                        payer_shard=home,
                        commit=commit.name,
                    )
                )
        self._groups: dict[int, list[_Ending]] = {}
        self.missing: list[bytes] = []
        # How many attempts were ended.
        self.ended = 0
        # Names of commits that are finished and settled, or about to be.
        self.finished: list[bytes] = []

    def _ask_for(self, home: int, attempt: PendingAttempt, owner: Sequence[int]) -> None:
        ending = _Ending(home, attempt.attempt_id, bytearray(attempt.codes))
        self._endings.append(ending)
        rows = zip(attempt.codes, split_decisions(attempt.decisions), split_short(attempt.terms), strict=True)
        for row, (code, decision, terms) in enumerate(rows):
            if code == _PREPARED:
                ending.open_rows.add(row)
                shard = owner[int.from_bytes(decision[16:], "little")]
                self._asked.setdefault(shard, []).append((ending, row, decision, terms))

    def resolve(self) -> dict[int, ResolveAttempts]:
        """Asks the payers' shards what became of prepared legs."""
        return {
            shard: ResolveAttempts(
                [ending.attempt_id for ending, _, _, _ in rows],
                [decision for _, _, decision, _ in rows],
                [terms for _, _, _, terms in rows],
            )
            for shard, rows in self._asked.items()
        }

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        """Ends each attempt of which all is known, as the payers' shard said (R3, R7)."""
        for shard, rows in self._asked.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                continue
            for (ending, row, _, _), code in zip(rows, answer.codes[0], strict=True):
                ending.verdicts[row] = code
                ending.open_rows.discard(row)
        for ending in self._endings:
            if not ending.open_rows:
                self._groups.setdefault(ending.payee_shard, []).append(ending)
        return {
            shard: Finish(
                [ending.attempt_id for ending in endings],
                [bytes(ending.verdicts) for ending in endings],
                with_balances=False,
            )
            for shard, endings in self._groups.items()
        }

    def settle(self, answers: Mapping[int, Answer]) -> dict[int, SettleCommits]:
        """Tells the payers' shards what is finished everywhere (R6)."""
        settled: dict[int, list[bytes]] = {}
        for shard, endings in self._groups.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                continue
            for ending, codes in zip(endings, answer.codes, strict=True):
                if _MISSING in codes:
                    self.missing.append(ending.attempt_id)
                    continue
                self.ended += 1
                if ending.commit:
                    self.finished.append(ending.commit)
                    settled.setdefault(ending.payer_shard, []).append(ending.commit)
        return {shard: SettleCommits(names) for shard, names in settled.items()}
