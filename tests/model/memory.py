"""What a shard of the model remembers: outcomes and ended attempts in two generations, and two horizons."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from shard_node.contract import Kind, Other, Outcome, start_ms
from tests.model.legs import Legs
from tests.model.state import Generation, MalformedError, Remembered, Row, id_ms, rows_of

# How far ahead of a shard's clock an attempt may have started.
_MAX_AHEAD_MS = 60_000
# How far ahead of it a UUIDv7 may be.
_MAX_ID_AHEAD_MS = 600_000


class Recalled(NamedTuple):
    """What is remembered of a transaction as an attempt is answered."""

    code: int
    leg: int = 0
    other: Other | None = None


@dataclass(slots=True)
class Memory(Legs):
    """Looks up, records and forgets."""

    def remembered(self, decision: bytes) -> Remembered | None:
        """The outcome under a decision."""
        return self.current.outcomes.get(decision) or self.previous.outcomes.get(decision)

    def recall(self, row: Row, attempt_id: bytes = b"") -> Recalled | None:
        """R3: what is remembered, as it is answered to an attempt that has not committed it, or to a post."""
        record = None if self.faults.outcome_rewritten else self.remembered(row.decision)
        if record is None:
            return None
        if record.fingerprint != row.fingerprint:
            return Recalled(Outcome.TRANSACTION_ID_REUSED)
        if record.code != Outcome.COMMITTED:
            return Recalled(record.code, record.leg)
        if record.attempt_id in self.commits:
            if attempt_id and self.faults.elsewhere_committed:
                return Recalled(Outcome.COMMITTED)
            return Recalled(Outcome.ELSEWHERE, 0, Other(record.attempt_id))
        return Recalled(Outcome.COMMITTED if self.faults.settled_forgotten else Outcome.SETTLED)

    def record(self, row: Row, code: int, leg: int, attempt_id: bytes = b"") -> None:
        """R1: writes an outcome, once. ``attempt_id`` commits it; ``b""`` of a post or a refusal."""
        first, legs = row.transaction.legs[0], row.transaction.legs
        purchase = row.transaction.kind is Kind.PURCHASE and code == Outcome.COMMITTED
        names = tuple(one.account for one in legs[:2]) if purchase else ()
        self.current.outcomes[row.decision] = Remembered(
            code, leg, row.fingerprint, attempt_id, self.now_ms, first.amount_minor, first.currency, names
        )
        self.current.newest_id_ms = max(self.current.newest_id_ms, id_ms(row.decision))

    def expired(self, row: Row) -> bool:
        """Whether a transaction that is not remembered may be forgotten. What is answered so stays so."""
        if self.faults.id_horizon_ignored:
            return False
        cutoff_ms = max(self.horizon_ms, self.now_ms - self.window_ms)
        if not 0 <= id_ms(row.decision) < cutoff_ms:
            return False
        self.horizon_ms = cutoff_ms
        return True

    # ------------------------------------------------------------------ what is asked anew

    def rows_asked(self, bundle: bytes) -> tuple[Row, ...]:
        """The transactions of a bundle. Raises MalformedError, also for ids of the future."""
        rows = rows_of(bundle)
        for row in rows:
            for leg in row.transaction.legs:
                self.check_system(leg.account)
        if any(id_ms(row.decision) > self.now_ms + _MAX_ID_AHEAD_MS for row in rows):
            raise MalformedError("a transaction id of the future")
        return rows

    @staticmethod
    def check_system(account_id: str) -> None:
        """Raises MalformedError for a name of the system's that none of its accounts has."""
        if account_id.startswith("@") and not re.fullmatch("@world:[A-Z]{3}", account_id):
            raise MalformedError("a system account that there is not")

    def check_start(self, attempt_id: bytes) -> None:
        """Raises MalformedError for an attempt of the future."""
        if start_ms(attempt_id) > self.now_ms + _MAX_AHEAD_MS:
            raise MalformedError("attempt: it starts in the future")

    # ------------------------------------------------------------------ attempts

    def attempt_expired(self, attempt_id: bytes) -> bool:
        """R10: whether an attempt that is not remembered may have been forgotten."""
        return start_ms(attempt_id) < self.attempt_horizon_ms

    def ended(self, attempt_id: bytes) -> str | None:
        """R4: how an attempt has ended here, if it has."""
        return self.current.ended.get(attempt_id) or self.previous.ended.get(attempt_id)

    def end(self, attempt_id: bytes, how: str) -> None:
        """Remembers that an attempt has ended."""
        if not self.faults.ended_forgotten:
            self.current.ended[attempt_id] = how
            self.current.newest_attempt_ms = max(self.current.newest_attempt_ms, start_ms(attempt_id))

    # ------------------------------------------------------------------ forgetting

    def rotate(
        self, minimum_age_ms: int = 0, *, once_archived: bool = False, rotated_ms: int | None = None
    ) -> int:
        """Forgets the older generation; how many outcomes are carried over, -1 when it is too early.

        So it is after another rotation than that at ``rotated_ms``. Carried over is what unsettled commits
        committed.
        """
        if rotated_ms not in {None, self.rotated_ms}:
            return -1
        if self.now_ms - self.rotated_ms < minimum_age_ms:
            return -1
        if once_archived and self.backlog > 0 and self.archived_ms <= self.rotated_ms:
            return -1
        forgotten = self.previous
        carried = {
            decision: record
            for generation in (forgotten, self.current)
            for decision, record in generation.outcomes.items()
            if record.attempt_id in self.commits
        }
        newest_ms = max([0, *map(id_ms, carried)])
        self.previous, self.current = self.current, Generation(carried, {}, newest_ms)
        self.horizon_ms = max(self.horizon_ms, forgotten.newest_id_ms + 1)
        self.attempt_horizon_ms = max(self.attempt_horizon_ms, forgotten.newest_attempt_ms + 1)
        self.rotated_ms = self.now_ms
        return len(carried)
