"""A real shard and the plain model: the same calls to both, and all that they hold compared."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import pytest
from redis.exceptions import ResponseError

from shard_node.cluster.slots import SLOT_COUNT
from shard_node.contract import (
    ALL_OWNERS,
    SYSTEM_SLOT,
    AccountTerms,
    Answer,
    Command,
    Kind,
    pack_changes,
    pack_names,
    pack_terms,
)
from shard_node.contract.layout import (
    CHUNK_HEAD,
    MOVED_ACCOUNT,
    MOVED_HOLD,
    MOVED_OUTCOME,
    MOVED_PURCHASE,
    MOVED_REFUND,
    OUTCOME_RECORD,
    RecordKind,
)
from shard_node.limits import MAX_BATCH, MAX_MINOR
from tests.engine.frames import entries_of
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard
from tests.engine.steps import NAMES, TERMS, Step
from tests.model import EngineModel, Entry, Faults, LedgerFullError, MalformedError

T = TypeVar("T")
NOW_MS: Final = 1_800_000_000_000
# Many commits of one millisecond have ticks of 16 us, one after the other.
_TICKS_MS: Final = 100
_REFUSALS: Final[dict[str, type[Exception]]] = {"LEDGER_FULL": LedgerFullError, "malformed": MalformedError}
_STRUCTS: Final = {
    RecordKind.ACCOUNT: MOVED_ACCOUNT,
    RecordKind.OUTCOME: MOVED_OUTCOME,
    RecordKind.PURCHASE: MOVED_PURCHASE,
    RecordKind.HOLD: MOVED_HOLD,
    RecordKind.REFUND: MOVED_REFUND,
}


class Comparison:
    """One empty shard on a server with a manual clock, and the model, which breaks the given rules."""

    def __init__(self, server: EngineServer, faults: Faults = Faults()) -> None:  # noqa: B008
        self.server, self.shard = server, EngineShard(server)
        self.model = EngineModel(now_ms=NOW_MS, faults=faults)
        # How much of the model's ledger is in frames that were trimmed.
        self.trimmed = 0
        server.redis.flushall()
        server.set_clock(NOW_MS)
        self.bind(MAX_MINOR, MAX_MINOR)
        self.open(*TERMS)

    def do(self, step: Step) -> None:
        """Carries out one step on both; AssertionError where they differ."""
        name, arguments = step
        getattr(self, name)(*arguments)

    def _both(self, real: Callable[[], T], expected: Callable[[EngineModel], T]) -> None:
        """What both answer to the same, also that they refuse it."""
        try:
            answer = real()
        except ResponseError as error:
            # What the model refuses in the middle of a call it has begun to carry out.
            with pytest.raises(_REFUSALS[str(error).split()[0]]):
                expected(_copied(self.model))
        else:
            assert answer == expected(self.model)

    # ------------------------------------------------------------------ steps

    def call(self, command: Command) -> None:
        """A command of the protocol."""
        self._both(
            lambda: _listed(self.shard.call(command)),
            lambda model: _listed(model.call(command)),
        )

    def open(self, *terms: AccountTerms) -> None:
        """Opens accounts: codes and records."""

        def expected(model: EngineModel) -> list[bytes]:
            with _one_call(model):
                codes = [
                    model.open(
                        one.account,
                        one.currency,
                        one.slot,
                        one.minimum_minor,
                        one.maximum_balance_minor,
                        one.maximum_transfer_minor,
                    )[0]
                    for one in terms
                ]
            return [bytes(codes), b"".join(_without_reserved(model, one.account) for one in terms)]

        self._both(lambda: self.shard.fenced("open", pack_terms(terms)), expected)

    def set_state(self, changes: Sequence[tuple[str, Kind]], dry: bool) -> None:  # noqa: FBT001
        """Freezes, unfreezes or closes: codes and records."""

        def expected(model: EngineModel) -> list[bytes]:
            with _one_call(model):
                codes = [model.set_state(name, change, validate_only=dry)[0] for name, change in changes]
            return [bytes(codes), b"".join(_without_reserved(model, name) for name, _ in changes)]

        self._both(lambda: self.shard.fenced("set_state", int(dry), pack_changes(changes)), expected)

    def check(self, bundle: bytes, owner: int | None) -> None:
        """What could be carried out now, leg by leg."""
        number = ALL_OWNERS if owner is None else owner
        self._both(
            lambda: self.shard.fenced("check", number, bundle), lambda model: model.check(bundle, owner)
        )

    def wait(self, ms: int) -> None:
        """Time goes on."""
        self.model.now_ms += ms
        self.server.set_clock(self.model.now_ms)

    def bind(self, window_ms: int, backlog_limit: int) -> None:
        """Other settings of the same shard."""
        self.shard.bind(window_ms=window_ms, backlog_limit=backlog_limit)
        self.model.window_ms, self.model.backlog_limit = window_ms, backlog_limit

    def expire(self, limit: int) -> None:
        """Ends holds."""
        self._both(lambda: self.shard.fenced("expire", limit), lambda model: model.expire(limit))

    def rotate(self, minimum_age_ms: int, once_archived: bool, rotated_ms: int | None = None) -> None:  # noqa: FBT001
        """Forgets the older generation."""
        expected = () if rotated_ms is None else (rotated_ms,)
        self._both(
            lambda: self.shard.fenced("rotate", minimum_age_ms, int(once_archived), *expected),
            lambda model: model.rotate(minimum_age_ms, once_archived=once_archived, rotated_ms=rotated_ms),
        )

    def archived(self, tenths: int) -> None:
        """The archive has so much of the ledger's frames: they are compared, and trimmed."""
        frames = self.shard.frames()
        stored = frames[: (len(frames) * tenths + 9) // 10]
        if not stored:
            return
        entries = [entry for _, frame in stored for entry in entries_of(frame)]
        self._compare_ledger(entries, self.trimmed)
        self.trimmed += len(entries)
        last, number = stored[-1][0], self.model.archived_number + 1
        self.shard.fenced("archived", last, number, b"hash", len(entries))
        self.model.archived(number, len(entries), int(last.split(b"-")[0]))
        assert len(self.shard.frames()) == len(frames) - len(stored)

    # ------------------------------------------------------------------ all that they hold

    def compare(self) -> None:
        """All that can be read of the shard is what the model has."""
        self._compare_accounts()
        self._compare_outcomes()
        self._compare_in_doubt()
        self._compare_slots()
        self._compare_numbers()
        entries = [entry for _, frame in self.shard.frames() for entry in entries_of(frame)]
        self._compare_ledger(entries, self.trimmed)
        assert self.trimmed + len(entries) == len(self.model.ledger)

    def _compare_ledger(self, entries: Sequence[Entry], first: int) -> None:
        expected = self.model.ledger[first : first + len(entries)]
        assert sorted(entries, key=_place) == sorted(expected, key=_place)

    def _compare_accounts(self) -> None:
        model, names = self.model, sorted({*self.model.accounts, *NAMES})
        records = self.shard.fenced("accounts", pack_names(names))
        assert records == b"".join(model.account_record(name) for name in names)
        listed = self.shard.names([*range(SLOT_COUNT), SYSTEM_SLOT])
        assert sorted(listed) == sorted(model.accounts)
        for name, account in model.accounts.items():
            assert self.shard.described(name)["coming_minor"] == account.coming_minor

    def _compare_outcomes(self) -> None:
        decisions = sorted({*self.model.current.outcomes, *self.model.previous.outcomes})
        for first in range(0, len(decisions), MAX_BATCH):
            some = decisions[first : first + MAX_BATCH]
            packed, at = self.shard.fenced("outcomes", b"".join(some)), 0
            for decision in some:
                at += self._compare_outcome(decision, packed[at:])
            assert at == len(packed)

    def _compare_outcome(self, decision: bytes, packed: bytes) -> int:
        """How many bytes the record has."""
        record = self.model.outcome(decision)
        assert record is not None
        code, leg, decided_ms, amount, currency, fingerprint = OUTCOME_RECORD.unpack_from(packed)
        expected = record.code, record.leg, record.amount_minor, record.currency, record.fingerprint
        assert (code, leg, amount, currency.decode(), fingerprint) == expected
        at_ms = int.from_bytes(decided_ms, "little")
        assert record.at_ms - 1 <= at_ms <= record.at_ms + (_TICKS_MS if record.attempt_id else 0)
        at = OUTCOME_RECORD.size
        names = []
        for _ in range(2):
            names.append(packed[at + 1 : at + 1 + packed[at]].decode())
            at += 1 + packed[at]
        assert [name for name in names if name] == list(record.names)
        return at

    def _compare_in_doubt(self) -> None:
        listed = self.shard.fenced("in_doubt", 0, 1024)
        serials = [one[0] for one in listed]
        assert serials == sorted(set(serials))
        model = self.model
        assert [one[2:] for one in listed if one[1] == b"attempt"] == [
            [name, kept.since_ms, kept.decider.encode(), kept.owner, kept.codes, kept.bundle]
            for name, kept in model.attempts.items()
        ]
        assert [one[2:] for one in listed if one[1] == b"commit"] == [
            [name, kept.since_ms, [[n.encode(), f] for n, f in kept.participants], kept.codes, kept.bundle]
            for name, kept in model.commits.items()
        ]

    def _compare_slots(self) -> None:
        """Holds and refunds, of slots that can be moved."""
        holds, refunds = {}, {}
        for number in sorted({account.slot for account in self.model.accounts.values()} - {SYSTEM_SLOT}):
            for kind, fields, texts in _records(self.shard.chunks(number)):
                if kind is RecordKind.HOLD:
                    name, fingerprint, amount, expires_ms, of, _, length, pinned = fields
                    assert not pinned
                    key = name + of.to_bytes(2, "little")
                    assert key not in holds
                    account = texts[:length].decode()
                    holds[key] = (account, amount, expires_ms, name, fingerprint.to_bytes(8, "little"))
                elif kind is RecordKind.REFUND:
                    refunds[fields[0] + fields[1].to_bytes(2, "little")] = fields[2]
        system = SYSTEM_SLOT.to_bytes(2, "little")
        assert holds == {k: v[:5] for k, v in self.model.holds.items() if not k.endswith(system)}
        assert refunds == {k: v for k, v in self.model.refunds.items() if not k.endswith(system)}

    def _compare_numbers(self) -> None:
        info, model = self.shard.info(), self.model
        assert {name: info[name] for name in _numbers(model)} == _numbers(model)


@contextmanager
def _one_call(model: EngineModel) -> Iterator[None]:
    """Whether anything new is begun is asked once for a call, not for each account."""
    model.begin_new()
    limit, model.backlog_limit = model.backlog_limit, MAX_MINOR
    try:
        yield
    finally:
        model.backlog_limit = limit


def _numbers(model: EngineModel) -> dict[str, int]:
    return {
        "accounts": len(model.accounts),
        "holds": len(model.holds),
        "refunded_purchases": len(model.refunds),
        "outcomes_younger": len(model.current.outcomes),
        "outcomes_older": len(model.previous.outcomes),
        "ended_attempts": len(model.current.ended) + len(model.previous.ended),
        "prepared_attempts": len(model.attempts),
        "unsettled_commits": len(model.commits),
        "backlog_entries": model.backlog,
        "horizon_ms": model.horizon_ms,
        "attempt_horizon_ms": model.attempt_horizon_ms,
        "rotated_ms": model.rotated_ms,
        "archived_number": model.archived_number,
        "alarms": model.alarms,
        "expired_finishes": model.expired_finishes,
    }


def _copied(model: EngineModel) -> EngineModel:
    """The same, and none the wiser of what becomes of the other."""
    made = copy.copy(model)
    for one in dataclasses.fields(made):
        value = getattr(made, one.name)
        if isinstance(value, (dict, list)):
            setattr(made, one.name, value.copy())
        elif dataclasses.is_dataclass(value):
            setattr(made, one.name, copy.deepcopy(value))
    return made


def _listed(answer: Answer) -> list[Any]:
    """The columns of an answer, whatever sequences they are."""
    return [
        list(answer.codes),
        list(answer.legs),
        # Prepare has none, which the model says by empty ones.
        list(answer.balances) if any(answer.balances) else [],
        [list(one) for one in answer.others],
        list(answer.unfinished),
    ]


def _without_reserved(model: EngineModel, name: str) -> bytes:
    """The record of an account as it is answered where it is changed."""
    packed = bytearray(model.account_record(name))
    packed[48:56] = bytes(8)
    return bytes(packed)


def _place(entry: Entry) -> tuple[str, int]:
    return entry.account, entry.version


def _records(chunks: Any) -> Any:
    """Kind, fields and texts of each record in some chunks."""
    for chunk in chunks:
        _, _, count = CHUNK_HEAD.unpack_from(chunk)
        at = CHUNK_HEAD.size
        for _ in range(count):
            kind = RecordKind(chunk[at])
            fields = _STRUCTS[kind].unpack_from(chunk, at + 1)
            at += 1 + _STRUCTS[kind].size
            lengths = {
                RecordKind.ACCOUNT: (fields[-1],),
                RecordKind.PURCHASE: fields[-2:],
                RecordKind.HOLD: (fields[5], fields[6]) if kind is RecordKind.HOLD else (),
            }.get(kind, ())
            yield kind, fields, chunk[at : at + sum(lengths)]
            at += sum(lengths)
        assert at == len(chunk)
