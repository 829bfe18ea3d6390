"""Two-phase commit with the decision delegated to the payer's shard, without I/O.

Two plain state machines decide everything: :class:`Commit` carries a batch of cross-shard transfers
from prepare to finish, :class:`Recovery` ends what others left behind. Both are fed the answers of
shards and say which calls to make next; neither knows clocks, sockets or tasks, so that the tests
can walk through every order of events. The rules R1-R8 are told in ARCHITECTURE.md; of them, these
are kept here:

* R2  nobody drops a leg before the payer's shard has an outcome that is not COMMITTED;
* R3  finish only on COMMITTED; on SETTLED a prepared leg is a ghost, and is dropped;
* R6  settle only what the payee's shard has acknowledged as finished;
* R7  recovery drops a leg only on the payer's shard's word.

Source: J. Gray, "Notes on Data Base Operating Systems" (1978), for the last-agent form of commit.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from shard_node.calls import Decide, Finish, Prepare, Reply, Resolve, Settle
from shard_node.limits import NO_BALANCE
from shard_node.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shard_node.records import PendingTransfer
    from shard_node.transfers import Transfers

# Plain integers: these are compared once a transfer.
_COMMITTED = int(Outcome.COMMITTED)
_PREPARED = int(Outcome.PREPARED)
_APPLIED = int(Outcome.APPLIED)
_SETTLED = int(Outcome.SETTLED)
_FINISHED = int(Outcome.FINISHED)
_EXPIRED = int(Outcome.TRANSACTION_ID_EXPIRED)
_UNKNOWN = int(Outcome.OUTCOME_UNKNOWN)
_STALE = int(Outcome.STALE_EPOCH)
_EXHAUSTED = int(Outcome.RESOURCE_EXHAUSTED)
_MISSING = int(Outcome.MISSING_LEG)

GO = 0


class NoReply(Enum):
    """Why a shard gave no answer to a call."""

    # Whether it was carried out is not known: a time-out, a broken connection.
    LOST = "lost"
    # Not carried out: the shard has another epoch.
    STALE = "stale"
    # Not carried out: the shard's memory is full.
    FULL = "full"


Answer = Reply | NoReply


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


class Commit:
    """A batch of cross-shard transfers on its way through two-phase commit.

    Call :meth:`prepare`, :meth:`decide`, :meth:`finish` and :meth:`conclude` once each, in this
    order, and hand each one the answers to the calls that the one before returned. Shards are
    named by their index in the topology of ``owner``.

    A row whose outcome is not known stays OUTCOME_UNKNOWN whatever step it reached; one that met
    another epoch is STALE_EPOCH, and may be tried again from the start with a newer topology.
    """

    def __init__(self, transfers: Transfers, owner: Sequence[int]) -> None:
        count = len(transfers)
        self._transfers = transfers
        self._payer_shards = [owner[slot] for slot in transfers.payer_slots]
        self._payee_shards = [owner[slot] for slot in transfers.payee_slots]
        self._groups: dict[int, list[int]] = {}
        # What to tell the next shard about each row: GO or a refusal, then how to finish.
        self._verdicts = [GO] * count
        # Rows whose leg waits on the payee's shard, not applied before.
        self._waiting = bytearray(count)
        self.outcomes = [_UNKNOWN] * count
        self.payer_balances = [NO_BALANCE] * count
        self.payee_balances = [NO_BALANCE] * count
        # Keys to settle, by the payer's shard: known to be finished everywhere.
        self.settled: dict[int, list[bytes]] = {}
        # Keys of legs that were lost (R5). Must stay empty; if not, somebody must be woken.
        self.missing: list[bytes] = []

    @property
    def deciding_shards(self) -> Sequence[int]:
        """The payer's shard of each row."""
        return self._payer_shards

    def prepare(self) -> dict[int, Prepare]:
        """Step 1: the calls to the payees' shards."""
        self._groups = group(range(len(self.outcomes)), self._payee_shards)
        return {shard: Prepare(self._transfers.select(rows)) for shard, rows in self._groups.items()}

    def decide(
        self, answers: Mapping[int, Answer], settled: Mapping[int, Sequence[bytes]] | None = None
    ) -> dict[int, Decide]:
        """Step 2: the calls to the payers' shards, which carry along keys that are settled.

        A row whose payee's shard gave no answer goes no further, and nothing is dropped (R2):
        another try of the same id may be about to commit the leg.
        """
        ready: list[int] = []
        for shard, rows in self._groups.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                self._stop(rows, answer, uncommitted=True)
                continue
            ready += rows
            for row, code in zip(rows, answer.codes, strict=True):
                if code == _PREPARED:
                    self._waiting[row] = 1
                elif code == _APPLIED:
                    # It was committed before: the payer's shard may recall that, not do it again. If it
                    # has forgotten (shards forget at their own times), a second debit would go nowhere.
                    self._verdicts[row] = _EXPIRED
                else:
                    self._verdicts[row] = code
        self._groups = group(ready, self._payer_shards)
        settled = settled or {}
        return {
            shard: Decide(
                self._transfers.select(rows), [self._verdicts[row] for row in rows], settled.get(shard, ())
            )
            for shard, rows in self._groups.items()
        }

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        """Steps 3 and 4: apply what is COMMITTED, drop the legs of all that is refused or SETTLED."""
        ending: list[int] = []
        verdicts, outcomes, waiting = self._verdicts, self.outcomes, self._waiting
        for shard, rows in self._groups.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                self._stop(rows, answer, uncommitted=True)
                continue
            for row, code, balance in zip(rows, answer.codes, answer.payer_balances, strict=True):
                verdicts[row] = code
                if code == _COMMITTED:
                    # The outcome is told only when the payee has the money, or nobody would be told
                    # the truth about a shard that is away.
                    self.payer_balances[row] = balance
                    ending.append(row)
                else:
                    outcomes[row] = _COMMITTED if code == _SETTLED else code
                    if waiting[row]:
                        ending.append(row)
        self._groups = group(ending, self._payee_shards)
        keys = self._transfers.keys
        return {
            shard: Finish([keys[row] for row in rows], [verdicts[row] for row in rows])
            for shard, rows in self._groups.items()
        }

    def conclude(self, answers: Mapping[int, Answer]) -> None:
        """Reads the last answers; then ``outcomes``, balances and ``settled`` are final."""
        keys, verdicts, outcomes = self._transfers.keys, self._verdicts, self.outcomes
        for shard, rows in self._groups.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                # A refusal stands, its leg is left to recovery. A commit is not told before it is finished.
                self._stop([row for row in rows if verdicts[row] == _COMMITTED], answer, uncommitted=False)
                continue
            for row, code, balance in zip(rows, answer.codes, answer.payee_balances, strict=True):
                if code == _FINISHED:
                    outcomes[row] = _COMMITTED
                    self.payee_balances[row] = balance
                    self._settle(row)
                elif code == _MISSING:
                    self.missing.append(keys[row])

    def _settle(self, row: int) -> None:
        shard = self._payer_shards[row]
        if shard in self.settled:
            self.settled[shard].append(self._transfers.keys[row])
        else:
            self.settled[shard] = [self._transfers.keys[row]]

    def _stop(self, rows: Iterable[int], why: NoReply, *, uncommitted: bool) -> None:
        outcome = _UNKNOWN
        if why is NoReply.STALE:
            outcome = _STALE
        elif why is NoReply.FULL and uncommitted:
            outcome = _EXHAUSTED
        for row in rows:
            self.outcomes[row] = outcome


class Recovery:
    """Ends transfers that others began: a batch of old ``prepared`` and ``unsettled`` entries.

    Call :meth:`resolve`, :meth:`finish`, :meth:`settle` once each with the answers to the calls
    before. What gets no answer is left for the next scan.
    """

    def __init__(
        self, prepared: Sequence[PendingTransfer], unsettled: Sequence[PendingTransfer], owner: Sequence[int]
    ) -> None:
        self._entries = [*prepared, *unsettled]
        terms = [entry.terms for entry in self._entries]
        self._payer_shards = [owner[t.payer_slot] for t in terms]
        self._payee_shards = [owner[t.payee_slot] for t in terms]
        self._verdicts = [_COMMITTED] * len(self._entries)
        # An unsettled entry is itself the payer's shard's word: committed.
        self._undecided = range(len(prepared))
        self._ending = list(range(len(prepared), len(self._entries)))
        self._groups: dict[int, list[int]] = {}
        self.missing: list[bytes] = []
        # How many legs were applied and how many dropped.
        self.applied = 0
        self.dropped = 0

    def resolve(self) -> dict[int, Resolve]:
        """Asks the payers' shards what became of prepared legs."""
        self._groups = group(self._undecided, self._payer_shards)
        entries = self._entries
        return {
            shard: Resolve([entries[row].key for row in rows], [entries[row].body for row in rows])
            for shard, rows in self._groups.items()
        }

    def finish(self, answers: Mapping[int, Answer]) -> dict[int, Finish]:
        """Ends each leg as the payer's shard said (R3, R7), and each unsettled transfer."""
        for shard, rows in self._groups.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                continue
            for row, code in zip(rows, answer.codes, strict=True):
                self._verdicts[row] = code
                self._ending.append(row)
        self._groups = group(self._ending, self._payee_shards)
        return {
            shard: Finish([self._entries[row].key for row in rows], [self._verdicts[row] for row in rows])
            for shard, rows in self._groups.items()
        }

    def settle(self, answers: Mapping[int, Answer]) -> dict[int, Settle]:
        """Tells the payers' shards what is finished everywhere (R6)."""
        done: list[int] = []
        for shard, rows in self._groups.items():
            answer = answers[shard]
            if isinstance(answer, NoReply):
                continue
            for row, code in zip(rows, answer.codes, strict=True):
                if code == _FINISHED:
                    self.applied += 1
                    done.append(row)
                elif code == _MISSING:
                    self.missing.append(self._entries[row].key)
                else:
                    self.dropped += 1
        groups = group(done, self._payer_shards)
        return {shard: Settle([self._entries[row].key for row in rows]) for shard, rows in groups.items()}
