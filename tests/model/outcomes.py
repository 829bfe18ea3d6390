"""The model's memory: outcomes and applied legs in two generations, and what is not settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shard_node.contract.outcomes import Outcome
from shard_node.contract.transfers import decision_key
from tests.model.accounts import Accounts


def id_ms(key: bytes) -> int:
    """The time in a UUIDv7; 0 for any other id."""
    return int.from_bytes(key[:6]) if key[6] >> 4 == 7 else 0


class Decided(NamedTuple):
    """An outcome, of which transfer or journal, and the leg of a journal that it concerns.

    ``commit`` names what a transfer was committed in.
    """

    outcome: int
    key: bytes
    leg: int = 0
    commit: bytes = b""


class Kept(NamedTuple):
    """One transfer of a bundle, as it is prepared or committed.

    ``outcome`` is that of the payee's or the payer's shard.
    """

    decision: bytes
    key: bytes
    body: bytes
    outcome: int


class Committed(NamedTuple):
    """What a payers' shard keeps of an attempt until it is settled."""

    attempt_id: bytes
    peer: str
    rows: tuple[Kept, ...]


@dataclass(slots=True)
class Outcomes(Accounts):
    """What a shard remembers. Keys as of :mod:`shard_node.contract`."""

    # By decision key.
    decided: dict[bytes, Decided] = field(default_factory=dict)
    decided_before: dict[bytes, Decided] = field(default_factory=dict)
    applied: set[bytes] = field(default_factory=set)
    applied_before: set[bytes] = field(default_factory=set)
    # Of journals.
    prepared: dict[bytes, bytes] = field(default_factory=dict)
    unsettled: dict[bytes, bytes] = field(default_factory=dict)
    # Of transfers: by attempt, by the commit's name (here the attempt's id), and attempts that have ended.
    attempts: dict[bytes, tuple[Kept, ...]] = field(default_factory=dict)
    commits: dict[bytes, Committed] = field(default_factory=dict)
    ended: set[bytes] = field(default_factory=set)
    ended_before: set[bytes] = field(default_factory=set)
    # UUIDv7 older than this are expired; newest seen in the current and the previous generation.
    horizon_ms: int = 0
    newest_ms: int = 0
    newest_before_ms: int = 0
    alarms: int = 0

    def rotate(self) -> int:
        """Forgets the older generation, carries over what is unsettled."""
        decisions = {decision_key(key, body) for key, body in self.unsettled.items()}
        decisions |= {
            row.decision
            for commit in self.commits.values()
            for row in commit.rows
            if row.outcome == Outcome.COMMITTED
        }
        found = {decision: self.remembered(decision) for decision in decisions}
        carried = {decision: record for decision, record in found.items() if record is not None}
        self.decided_before, self.decided = self.decided, carried
        self.applied_before, self.applied = self.applied, set()
        self.ended_before, self.ended = self.ended, set()
        self.horizon_ms = max(self.horizon_ms, self.newest_before_ms + 1)
        # What is carried over is no younger than what was there.
        self.newest_before_ms, self.newest_ms = self.newest_ms, self.newest_ms if carried else 0
        return len(carried)

    def remembered(self, decision: bytes) -> Decided | None:
        """The outcome under a decision key."""
        return self.decided.get(decision) or self.decided_before.get(decision)

    def prior(self, decision: bytes, key: bytes) -> tuple[int, int] | None:
        """What was decided before, and on which leg; another payload's outcome is not told."""
        record = None if self.faults.outcome_rewritten else self.remembered(decision)
        if record is None:
            return None
        return (record.outcome, record.leg) if record.key == key else (Outcome.TRANSACTION_ID_REUSED, 0)

    def told(self, prior: int, key: bytes) -> int:
        """R3: as the deciding shard tells what it remembers."""
        if prior == Outcome.COMMITTED and key not in self.unsettled and not self.faults.settled_forgotten:
            return Outcome.SETTLED
        return prior

    def posted(self, prior: int, key: bytes) -> int:
        """As it is told to who meant to do all in one call."""
        if prior == Outcome.COMMITTED and key in self.unsettled:
            # Committed across shards before the accounts came together: still on its way.
            return Outcome.OUTCOME_UNKNOWN
        return prior

    def record(self, decision: bytes, key: bytes, outcome: int, leg: int = 0, commit: bytes = b"") -> None:
        """Remembers an outcome."""
        self.decided[decision] = Decided(outcome, key, 0 if self.faults.leg_forgotten else leg, commit)

    def recall_transfer(
        self, decision: bytes, key: bytes, attempt_id: bytes, again: set[bytes]
    ) -> tuple[int, bytes] | None:
        """R3: what is remembered of a transfer as its attempt is told, and the commit it waits for elsewhere.

        ``again`` are those that this call told as COMMITTED: of a transfer that a bundle has twice, only
        one was.
        """
        record = None if self.faults.outcome_rewritten else self.remembered(decision)
        if record is None:
            return None
        if record.key != key:
            return Outcome.TRANSACTION_ID_REUSED, b""
        if record.outcome != Outcome.COMMITTED or self.faults.settled_forgotten:
            return record.outcome, b""
        commit = self.commits.get(record.commit)
        if commit is None or all(row.decision != decision for row in commit.rows):
            return Outcome.SETTLED, b""
        mine = commit.attempt_id == attempt_id and attempt_id + decision not in again
        if mine or self.faults.elsewhere_committed:
            again.add(attempt_id + decision)
            return Outcome.COMMITTED, b""
        return Outcome.ELSEWHERE, record.commit

    def has_ended(self, attempt_id: bytes) -> bool:
        """R4: whether an attempt has ended here."""
        return attempt_id in self.ended or attempt_id in self.ended_before

    def saw(self, keys: Sequence[bytes]) -> None:
        """A call with these keys decided something: how young an id there is."""
        self.newest_ms = max([self.newest_ms, *(id_ms(key) for key in keys)])

    def expired(self, key: bytes) -> bool:
        """Whether the id is too old to be told from a repetition."""
        return 0 < id_ms(key) < self.horizon_ms

    def is_applied(self, key: bytes) -> bool:
        """R4: whether a leg was applied here."""
        return key in self.applied or key in self.applied_before

    def apply_once(self, key: bytes) -> None:
        """R4: remembers an applied leg."""
        if not self.faults.applied_forgotten:
            self.applied.add(key)

    def missing(self) -> int:
        """R5: a committed leg is neither prepared nor applied."""
        self.alarms += 1
        return Outcome.MISSING_LEG

    def settle(self, key: bytes) -> None:
        """Finished everywhere."""
        self.unsettled.pop(key, None)

    def resolve(self, decision: bytes, key: bytes) -> int:
        """What became of a transfer or journal; one with no outcome is ABORTED."""
        prior = self.prior(decision, key)
        if prior is not None:
            return self.told(prior[0], key)
        if self.expired(key):
            return Outcome.TRANSACTION_ID_EXPIRED
        self.record(decision, key, Outcome.ABORTED)
        return Outcome.ABORTED
