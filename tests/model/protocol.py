"""The model's half of the commit protocol: post, prepare, decide, finish, settle, abandon."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from shard_node.contract import (
    Abandon,
    Answer,
    BundleFlag,
    Command,
    Decide,
    Decided,
    Finish,
    Other,
    Outcome,
    Post,
    Prepare,
    Prepared,
    Settle,
)
from shard_node.contract.outcomes import PARTICIPANT_REFUSALS
from shard_node.limits import NO_BALANCE
from tests.model.memory import Memory
from tests.model.state import (
    ABANDONED,
    DECIDED,
    ENDED,
    Committed,
    Kept,
    MalformedError,
    Row,
    joined,
    legs_of,
    once,
    rows_of,
    spread,
)

# What a command answers of one bundle: codes, legs, balances, others.
Part = tuple[bytes, bytes, bytes, list[Other]]
# Available balances after, by the numbers of a transaction's legs.
Balances = dict[int, int]
# What a command answers of one transaction: code, leg, balances, other.
One = tuple[int, int, Balances, Other | None]


@dataclass(slots=True)
class Protocol(Memory):
    """Commands that carry transactions."""

    def call(self, command: Command) -> Answer:
        """Carries out one command. Raises LedgerFullError; MalformedError where a bundle makes no sense."""
        if isinstance(command, (Post, Prepare, Decide)):
            self.begin_new()
        match command:
            case Post():
                return _answer([self._post(command)])
            case Prepare():
                return _answer([self._prepare(one) for one in command.attempts])
            case Decide():
                self._check_bundles(command.attempts)
                self._settle(command.settled)
                wanted = command.with_balances
                return _answer([self._decide(one, with_balances=wanted) for one in command.attempts])
            case Finish():
                ends = zip(command.attempt_ids, command.codes, strict=True)
                done = [self._finish(*one, with_balances=command.with_balances) for one in ends]
                return Answer([codes for codes, _ in done], (), [balances for _, balances in done])
            case Settle():
                self._settle(command.settled)
                return Answer()
            case Abandon():
                abandoned = [self._abandon(attempt_id) for attempt_id in command.attempt_ids]
                return Answer([codes for codes, _ in abandoned], unfinished=[names for _, names in abandoned])

    # ------------------------------------------------------------------ one shard

    def _post(self, command: Post) -> Part:
        rows = self.rows_asked(command.bundle)
        parts = [self._post_row(row) for row in rows]
        return _part(command.bundle, rows, None, parts, with_balances=command.with_balances)

    def _post_row(self, row: Row) -> One:
        known = self.recall(row)
        if known is not None:
            # Committed across shards before the accounts came together: still on its way.
            on_its_way = known.code == Outcome.ELSEWHERE
            settled = known.code == Outcome.SETTLED
            code = Outcome.OUTCOME_UNKNOWN if on_its_way else Outcome.COMMITTED if settled else known.code
            return code, known.leg, {}, None
        if self.expired(row):
            return Outcome.TRANSACTION_ID_EXPIRED, 0, {}, None
        return self._carry_out_all(row, legs_of(row, None), b"")

    def _carry_out_all(self, row: Row, numbers: list[int], attempt_id: bytes) -> One:
        """Carries out all of these legs or none, and records which."""
        code, leg, other = self.judge(row, numbers, attempt_id, reserving=False)
        if code == Outcome.BUSY:
            return code, 0, {}, other
        self.record(row, code or Outcome.COMMITTED, leg, b"" if code else attempt_id)
        if code:
            if self.faults.half_posted:
                for number in numbers:
                    if not self.refusal(row, number, reserving=False):
                        self.carry_out(row, number)
            return code, leg, {}, None
        return Outcome.COMMITTED, 0, {n: self.carry_out(row, n) for n in sorted(numbers)}, None

    # ------------------------------------------------------------------ prepare

    def _prepare(self, asked: Prepared) -> Part:
        name, rows = asked.attempt_id, self.rows_asked(asked.bundle)
        self.check_start(name)
        if not any(legs_of(row, asked.owner) for row in rows):
            raise MalformedError(f"owner {asked.owner} has no leg")
        if self.attempt_expired(name) and not self.faults.prepare_horizon_ignored:
            return bytes((Outcome.ATTEMPT_EXPIRED,)), b"", b"", []
        kept = self.attempts.get(name)
        if kept is not None and (kept.owner, kept.bundle) == (asked.owner, asked.bundle):
            return joined(kept.codes), _legs(kept.legs), b"", []
        # What is kept under this id is something else.
        if kept is not None or (self.ended(name) and not self.faults.late_prepare):
            return bytes((Outcome.ENDED,)), b"", b"", []
        judged = [self._prepare_row(row, asked.owner, name) for row in rows]
        codes = bytes(code for code, _, _ in judged)
        legs = bytes(leg for _, leg, _ in judged)
        if Outcome.PREPARED in codes:
            self.attempts[name] = Kept(asked.decider, asked.owner, asked.bundle, codes, legs, self.now_ms)
        return joined(codes), _legs(legs), b"", once(other for _, _, other in judged if other)

    def _prepare_row(self, row: Row, owner: int, attempt_id: bytes) -> tuple[int, int, Other | None]:
        numbers = legs_of(row, owner)
        if not numbers:
            return 0, 0, None
        code, leg, other = self.judge(row, numbers, attempt_id)
        if code:
            assert code in {Outcome.BUSY, *PARTICIPANT_REFUSALS}
            return code, leg, other
        for number in numbers:
            self.reserve(row, number, attempt_id)
        return Outcome.PREPARED, 0, None

    # ------------------------------------------------------------------ decide

    def _check_bundles(self, attempts: Sequence[Decided]) -> None:
        """Raises MalformedError where one attempt has two bundles: one that is kept, or two of a call."""
        bundles = {name: commit.bundle for name, commit in self.commits.items()}
        for one in attempts:
            if bundles.setdefault(one.attempt_id, one.bundle) != one.bundle:
                raise MalformedError("attempt: it has another bundle already")

    def _decide(self, asked: Decided, *, with_balances: bool) -> Part:
        name, rows = asked.attempt_id, self.rows_asked(asked.bundle)
        self.check_start(name)
        for row in rows:
            owners = {leg.owner for leg in row.transaction.legs}
            if 0 not in owners or not 0 < max(owners) <= len(asked.participants):
                raise MalformedError(f"owners {sorted(owners)} of {len(asked.participants)} participants")
        count = len(rows)
        verdicts, verdict_legs = asked.verdicts or bytes(count), asked.legs or bytes(count)
        verdicts, verdict_legs = spread(verdicts, count), spread(verdict_legs, count)
        if not {*verdicts} <= {0, Outcome.SKIPPED, *PARTICIPANT_REFUSALS}:
            raise MalformedError("verdicts: one is no refusal of a participant")
        commit = self.commits.get(name)
        if commit is not None:
            return _repeated(commit, rows, with_balances=with_balances)
        if self.attempt_expired(name) and not self.faults.decide_horizon_ignored:
            return _all(Outcome.ATTEMPT_EXPIRED, rows, with_balances=with_balances)
        ended = self.ended(name)
        if ended == ABANDONED and not self.faults.abandoned_decided:
            return _all(Outcome.ABANDONED, rows, with_balances=with_balances)
        # What has ended here as a participant's is never decided either: it may have been abandoned before.
        if ended in {DECIDED, ENDED} and not self.faults.decided_again:
            recalled = [self.recall(row, name) for row in rows]
            known: list[One] = [
                (Outcome.ABANDONED, 0, {}, None) if one is None else (one.code, one.leg, {}, one.other)
                for one in recalled
            ]
            return _part(asked.bundle, rows, 0, known, with_balances=with_balances)
        parts: list[One] = []
        before: list[tuple[Row, int]] = []
        for row, verdict, leg in zip(rows, verdicts, verdict_legs, strict=True):
            # Kept from the first committed row on: a later row of the same transaction is ELSEWHERE by then.
            one = self._decide_row(row, verdict, leg, name, before)
            before.append((row, one[0]))
            parts.append(one)
        codes, legs = bytes(code for code, _, _, _ in parts), bytes(leg for _, leg, _, _ in parts)
        committed = [row for row, code in before if code == Outcome.COMMITTED]
        if committed:
            names = self._participants(asked.participants, committed)
            self.commits[name] = Committed(names, asked.bundle, codes, legs, self.now_ms)
        self.end(name, DECIDED)
        return _part(asked.bundle, rows, 0, parts, with_balances=with_balances)

    def _decide_row(
        self,
        row: Row,
        verdict: int,
        verdict_leg: int,
        attempt_id: bytes,
        before: Sequence[tuple[Row, int]],
    ) -> One:
        """``before`` are the attempt's earlier rows with their codes."""
        copies = [(other.fingerprint, code) for other, code in before if other.decision == row.decision]
        if verdict == Outcome.SKIPPED:
            return verdict, 0, {}, None
        if (row.fingerprint, Outcome.COMMITTED) in copies:
            return Outcome.ELSEWHERE, 0, {}, Other(attempt_id)
        known = self.recall(row, attempt_id)
        if known is not None:
            return known.code, known.leg, {}, known.other
        if self.expired(row):
            return Outcome.TRANSACTION_ID_EXPIRED, 0, {}, None
        if verdict and any(code == Outcome.BUSY for _, code in copies):
            # R9: the second copy of a transaction may be refused only because the first is prepared.
            return Outcome.SKIPPED, 0, {}, None
        if verdict:
            leg = 0 if self.faults.leg_forgotten else verdict_leg
            self.record(row, verdict, leg)
            return verdict, leg, {}, None
        return self._carry_out_all(row, legs_of(row, 0), attempt_id)

    @staticmethod
    def _participants(names: Sequence[str], committed: Sequence[Row]) -> tuple[tuple[str, bool], ...]:
        owners = {leg.owner for row in committed for leg in row.transaction.legs}
        return tuple((name, number not in owners) for number, name in enumerate(names, start=1))

    # ------------------------------------------------------------------ finish, settle, abandon

    def _finish(self, name: bytes, codes: bytes, *, with_balances: bool) -> tuple[bytes, bytes]:
        kept = self.attempts.get(name)
        if kept is None:
            return self._finish_unknown(name, codes), b""
        rows = rows_of(kept.bundle)
        codes = spread(codes, len(rows))
        del self.attempts[name]
        self.end(name, ENDED)
        done = [
            self._finish_row(row, prepared, code, kept.owner)
            for row, prepared, code in zip(rows, kept.codes, codes, strict=True)
        ]
        columns = [balances for _, balances in done]
        balances = _balances(kept.bundle, rows, kept.owner, columns) if with_balances else b""
        return joined([code for code, _ in done]), balances

    def _finish_row(self, row: Row, prepared: int, code: int, owner: int) -> tuple[int, Balances]:
        numbers, committed = sorted(legs_of(row, owner)), code == Outcome.COMMITTED
        if prepared != Outcome.PREPARED:
            if committed and numbers:
                self.alarms += 1
                return Outcome.MISSING_LEG, {}
            return Outcome.FINISHED if committed else Outcome.DROPPED, {}
        for number in numbers:
            self.release(row, number, dropped=not committed)
        if not committed:
            return Outcome.DROPPED, {}
        return Outcome.FINISHED, {n: self.carry_out(row, n) for n in numbers}

    def _finish_unknown(self, name: bytes, codes: bytes) -> bytes:
        finished = self.ended(name) if self.faults.decided_acknowledged else self.ended(name) == ENDED
        if finished or Outcome.COMMITTED not in codes:
            return joined(
                [Outcome.FINISHED if code == Outcome.COMMITTED else Outcome.DROPPED for code in codes]
            )
        if self.attempt_expired(name) and not self.faults.finish_horizon_ignored:
            self.expired_finishes += 1
            return bytes((Outcome.ATTEMPT_EXPIRED,))
        # R5: committed, yet neither kept nor finished.
        self.alarms += 1
        return bytes((Outcome.MISSING_LEG,))

    def _settle(self, settled: Sequence[tuple[bytes, int]]) -> None:
        for attempt_id, number in settled:
            commit = self.commits.get(attempt_id)
            if commit is None or not 0 < number <= len(commit.participants):
                continue
            names = tuple(
                (name, finished or n == number or self.faults.settled_by_one)
                for n, (name, finished) in enumerate(commit.participants, start=1)
            )
            if all(finished for _, finished in names):
                del self.commits[attempt_id]
            else:
                self.commits[attempt_id] = commit._replace(participants=names)

    def _abandon(self, attempt_id: bytes) -> tuple[bytes, dict[int, str]]:
        self.check_start(attempt_id)
        commit = self.commits.get(attempt_id)
        if commit is not None:
            numbered = enumerate(commit.participants, start=1)
            return joined(commit.codes), {n: name for n, (name, finished) in numbered if not finished}
        expired = self.attempt_expired(attempt_id) and not self.faults.abandon_horizon_ignored
        if not expired and not self.ended(attempt_id):
            self.end(attempt_id, ABANDONED)
        return bytes((Outcome.ABANDONED,)), {}


def _answer(parts: Sequence[Part]) -> Answer:
    return Answer(*zip(*parts, strict=True))


def _part(
    bundle: bytes,
    rows: Sequence[Row],
    owner: int | None,
    parts: Sequence[One],
    *,
    with_balances: bool,
) -> Part:
    columns = [balances for _, _, balances, _ in parts]
    balances = _balances(bundle, rows, owner, columns) if with_balances else b""
    others = once(other for _, _, _, other in parts if other)
    return joined([code for code, _, _, _ in parts]), _legs([leg for _, leg, _, _ in parts]), balances, others


def _all(code: int, rows: Sequence[Row], *, with_balances: bool) -> Part:
    """One code for the whole attempt: nothing was carried out."""
    return bytes((code,)), b"", _no_balances(rows) if with_balances else b"", []


def _repeated(commit: Committed, rows: Sequence[Row], *, with_balances: bool) -> Part:
    balances = _no_balances(rows) if with_balances else b""
    return joined(commit.codes), _legs(commit.legs), balances, []


def _no_balances(rows: Sequence[Row]) -> bytes:
    return struct.pack("<q", NO_BALANCE) * sum(len(legs_of(row, 0)) for row in rows)


def _balances(bundle: bytes, rows: Sequence[Row], owner: int | None, columns: Sequence[Balances]) -> bytes:
    """Balances of an owner's legs in the bundle's order: of a plain one all payers come before all payees."""
    places = [(i, number) for i, row in enumerate(rows) for number in sorted(legs_of(row, owner))]
    if BundleFlag.PLAIN in BundleFlag(bundle[1]):
        places.sort(key=lambda place: place[1])
    values = [columns[i].get(number, NO_BALANCE) for i, number in places]
    return struct.pack(f"<{len(values)}q", *values)


def _legs(legs: Sequence[int]) -> bytes:
    return bytes(legs) if any(legs) else b""
