"""All that a shard keeps, read from the real one and from the model in one form, to be compared."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack

from shard_node.client.shard import ATTEMPT_FIELDS, COMMIT_FIELDS, Shard
from shard_node.contract.bundles import DECISION_BYTES, each, split_bodies, split_decisions, split_short
from shard_node.contract.calls import ATTEMPT_BYTES, COMMIT_BYTES
from shard_node.contract.journals import Effect, LegBody
from shard_node.contract.outcomes import Outcome
from shard_node.contract.records import Account
from shard_node.contract.transfers import Kind, unpack_body
from tests.model import Decided, Entry, Hold, ShardModel
from tests.model.outcomes import Committed, Kept

# The library counts prepared credits above this.
BIG = 2**36
_HOLD_HEAD = struct.Struct("<qq24s")
_JOURNAL_OUTCOME_BYTES = 27
# What precedes the codes of an attempt, after its time: the sum of its small credits, the number of its big
# ones.
_ATTEMPT_SUMS = struct.Struct("<qI")
_ATTEMPT_COLUMNS = (b"d", b"t", b"p", b"a", b"b")
_HASHES = (
    "accounts",
    "limits",
    "done:current",
    "done:previous",
    "meta",
    "prepared",
    "unsettled",
    "attempts",
    "commits",
    "holds",
    "refunds",
    "coming",
)
_SETS = ("ended:current", "ended:previous")


def kept_by(model: ShardModel) -> dict[str, Any]:
    """All that the model keeps, in the form of :func:`kept_in`.

    Its commits must have the names that the real shard gave them.
    """
    legs = [LegBody.unpack(body) for body in model.prepared.values()]
    credits_minor = [(leg.account, leg.amount_minor) for leg in legs if leg.amount_minor > 0]
    waiting = [
        unpack_body(row.body)
        for rows in model.attempts.values()
        for row in rows
        if _is(row, Outcome.PREPARED)
    ]
    credits_minor += [(terms.payee, terms.amount_minor) for terms in waiting]
    return {
        "accounts": dict(model.accounts),
        "decided": [
            _while_unsettled(decided, model.commits) for decided in (model.decided, model.decided_before)
        ],
        "applied": [set(model.applied), set(model.applied_before)],
        "prepared": dict(model.prepared),
        "unsettled": dict(model.unsettled),
        "attempts": dict(model.attempts),
        "commits": dict(model.commits),
        "ended": [set(model.ended), set(model.ended_before)],
        "times": [model.horizon_ms, model.newest_ms, model.newest_before_ms],
        "credits": sum(terms.amount_minor for terms in waiting if terms.amount_minor <= BIG),
        "big": sum(amount > BIG for _, amount in credits_minor),
        "reserved": sum(leg.amount_minor < 0 for leg in legs),
        "alarms": model.alarms,
        "backlog": model.backlog,
        # Of the two clocks only this can be compared: whether the hold's time is over.
        "holds": {k: h._replace(expires_ms=h.expires_ms > model.now_ms) for k, h in model.holds.items()},
        "refunds": dict(model.refunds),
        "coming": _coming(model, credits_minor),
    }


def _coming(model: ShardModel, credits_minor: list[tuple[str, int]]) -> dict[bytes, int]:
    """What is prepared for each account that has a maximum balance."""
    sums: dict[bytes, int] = {}
    for name, amount in credits_minor:
        account = model.accounts.get(name)
        if account is not None and account.maximum_balance_minor:
            sums[name.encode()] = sums.get(name.encode(), 0) + amount
    return sums


def _is(row: Kept, outcome: int) -> bool:
    return row.outcome == outcome


def _while_unsettled(
    decided: Mapping[bytes, Decided], commits: Mapping[bytes, Committed]
) -> dict[bytes, Decided]:
    """Outcomes with their commit's name only while that is unsettled: after, it is just a time."""
    unsettled = {
        (name, row.decision)
        for name, commit in commits.items()
        for row in commit.rows
        if _is(row, Outcome.COMMITTED)
    }
    return {
        decision: record if (record.commit, decision) in unsettled else record._replace(commit=b"")
        for decision, record in decided.items()
    }


async def kept_in(shard: Shard) -> dict[str, Any]:
    """All that the real shard keeps, its own times left out."""
    found, ended, due, now_ms = await _read(shard)
    commits = {
        name: _commit(found["commits"], name) for name in found["commits"] if len(name) == COMMIT_BYTES
    }
    attempts = {
        name: _attempt(found["attempts"], name) for name in found["attempts"] if len(name) == ATTEMPT_BYTES
    }
    assert len(found["commits"]) == COMMIT_FIELDS * len(commits)
    assert len(found["attempts"]) == ATTEMPT_FIELDS * len(attempts)
    decided: list[dict[bytes, Decided]] = []
    applied: list[set[bytes]] = []
    for name in ("done:current", "done:previous"):
        entries = found[name]
        outcomes = {k: _decided(k, v) for k, v in entries.items() if len(k) == DECISION_BYTES}
        decided.append(_while_unsettled(outcomes, commits))
        applied.append({k for k in entries if len(k) > DECISION_BYTES})
        assert all(len(v) == 2 for k, v in entries.items() if len(k) > DECISION_BYTES)
    meta = found["meta"]
    assert due == {k: _HOLD_HEAD.unpack_from(v)[0] for k, v in found["holds"].items()}
    return {
        "accounts": _accounts(found["accounts"], found["limits"]),
        "decided": decided,
        "applied": applied,
        "prepared": {k: v[6:] for k, v in found["prepared"].items()},
        "unsettled": {k: v[6:] for k, v in found["unsettled"].items()},
        "attempts": attempts,
        "commits": commits,
        "ended": ended,
        "times": [int(meta.get(name, 0)) for name in (b"horizon", b"newest", b"newest_previous")],
        "credits": int(meta.get(b"credits", 0)),
        "big": int(meta.get(b"big", 0)),
        "reserved": int(meta.get(b"reserved", 0)),
        "alarms": int(meta.get(b"alarms", 0)),
        "backlog": int(meta.get(b"backlog", 0)),
        "holds": {k: _hold(v, now_ms) for k, v in found["holds"].items()},
        "refunds": {k: int(v) for k, v in found["refunds"].items()},
        "coming": {k: int(v) for k, v in found["coming"].items()},
    }


async def _read(
    shard: Shard,
) -> tuple[dict[str, dict[bytes, bytes]], list[set[bytes]], dict[bytes, float], int]:
    """All hashes by name, the two sets of ended attempts, when holds are due, and the shard's clock."""
    async with shard.redis.pipeline(transaction=False) as pipe:
        for name in _HASHES:
            pipe.hgetall(name)
        for name in _SETS:
            pipe.smembers(name)
        pipe.zrange("holds:due", 0, -1, withscores=True)
        pipe.time()
        *hashes, current, previous, due, (seconds, micros) = await pipe.execute()
    now_ms = int(seconds * 1000 + micros // 1000)
    return dict(zip(_HASHES, hashes, strict=True)), [set(current), set(previous)], dict(due), now_ms


def _attempt(fields: Mapping[bytes, bytes], name: bytes) -> tuple[Kept, ...]:
    head = fields[name]
    decisions, terms, payees, amounts, bodies = (fields[name + column] for column in _ATTEMPT_COLUMNS)
    sum_minor, big = _ATTEMPT_SUMS.unpack_from(head, 6)
    rows = _rows(head[6 + _ATTEMPT_SUMS.size :], decisions, terms, bodies)
    unpacked = [unpack_body(row.body) for row in rows]
    assert split_short(payees) == [one.payee.encode() for one in unpacked]
    assert amounts == struct.pack(f"<{len(rows)}q", *[one.amount_minor for one in unpacked])
    prepared = [
        one.amount_minor for row, one in zip(rows, unpacked, strict=True) if _is(row, Outcome.PREPARED)
    ]
    assert sum_minor == sum(amount for amount in prepared if amount <= BIG)
    assert big == sum(amount > BIG for amount in prepared)
    return rows


def _commit(fields: Mapping[bytes, bytes], name: bytes) -> Committed:
    attempt_id, peer, codes, _ = msgpack.unpackb(fields[name], raw=True)
    decisions, terms, bodies = (fields[name + column] for column in (b"d", b"t", b"b"))
    return Committed(attempt_id, peer.decode(), _rows(codes, decisions, terms, bodies))


def _rows(codes: bytes, decisions: bytes, terms: bytes, bodies: bytes) -> tuple[Kept, ...]:
    names = split_decisions(decisions)
    columns = names, split_short(terms), split_bodies(bodies), each(codes, len(names))
    return tuple(
        Kept(decision, decision[:16] + term[:8], body, code)
        for decision, term, body, code in zip(*columns, strict=True)
    )


def _accounts(records: dict[bytes, bytes], packed_limits: dict[bytes, bytes]) -> dict[str, Account]:
    limits = {k: struct.unpack("<qq", v) for k, v in packed_limits.items()}
    assert {k for k, v in records.items() if v[32] >= 4} == set(limits)
    found = {}
    for name, record in records.items():
        balance, transfer = limits.get(name, (0, 0))
        account = Account.unpack(record)
        found[name.decode()] = replace(
            account, maximum_balance_minor=balance, maximum_transfer_minor=transfer
        )
    return found


def _decided(key: bytes, value: bytes) -> Decided:
    # Only a journal's has one byte more: the leg.
    leg = value[26] if len(value) == _JOURNAL_OUTCOME_BYTES else 0
    return Decided(value[0], key[:16] + value[7:15], leg, value[1:7])


def _hold(value: bytes, now_ms: int) -> Hold:
    expires_ms, amount, key = _HOLD_HEAD.unpack_from(value)
    body = LegBody.unpack(value[_HOLD_HEAD.size :])
    return Hold(body.account, amount, expires_ms > now_ms, key)


# ------------------------------------------------------------------ the ledger


def entries_of(packed: bytes) -> Iterator[Entry]:
    """The ledger's entries that one entry of the stream stands for."""
    name, *columns = msgpack.unpackb(packed, raw=True)
    if name in _PARTIES:
        yield from _entries_of_bundle(name, columns)
        return
    for row in zip(*columns, strict=True):
        match name:
            case b"open":
                yield Entry(row[0].decode(), 0, Kind.OPEN, b"", 0, 0, 0)
            case b"state":
                account, kind, _, balance, version = row
                yield Entry(account.decode(), version, Kind(kind), b"", 0, 0, balance)
            case b"legs":
                key, body, delta, held_delta, balance, version = row
                leg = LegBody.unpack(body)
                yield Entry(leg.account, version, leg.kind, key, delta, held_delta, balance)
            case _:
                raise AssertionError(name)


# Which sides of a transfer a stream entry tells of: -1 the payer's, 1 the payee's.
_PARTIES = {b"post": (-1, 1), b"decide": (-1,), b"finish": (1,)}


def _entries_of_bundle(name: bytes, columns: list[bytes]) -> Iterator[Entry]:
    codes, decisions, terms, bodies, *numbers = columns
    rows = [row for row in _rows(codes, decisions, terms, bodies) if _is(row, Outcome.COMMITTED)]
    # Balance and version of each side.
    after = [struct.unpack(f"<{len(rows)}q", column) for column in numbers]
    for index, row in enumerate(rows):
        one = unpack_body(row.body)
        for side, sign in enumerate(_PARTIES[name]):
            account = one.payer if sign < 0 else one.payee
            balance, version = after[2 * side][index], after[2 * side + 1][index]
            yield Entry(account, version, one.kind, row.key, sign * one.amount_minor, 0, balance)


@dataclass(slots=True)
class LedgerReader:
    """Reads a shard's ledger as it grows, and rebuilds from it what the shard must hold."""

    after: str = "0"
    # Calls that are not archived yet: id in the stream, number of entries.
    calls: list[tuple[str, int]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    balances: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    refunded: dict[bytes, int] = field(default_factory=dict)

    async def read(self, shard: Shard) -> None:
        """What is new. Each entry must follow from those before it."""
        for stream_id, packed in await shard.ledger_after(self.after, 1000):
            self.after = stream_id
            before = len(self.entries)
            for entry in entries_of(packed):
                self._add(entry)
            self.calls.append((stream_id, len(self.entries) - before))
            if packed[:6].endswith(b"legs"):
                self._add_refunds(packed)

    def _add(self, entry: Entry) -> None:
        name = entry.account
        # A system account begins with its first use, without an entry of its own.
        version = self.versions.get(name, 0 if name.startswith("@") else -1)
        assert entry.version == version + 1, entry
        self.versions[name] = entry.version
        self.balances[name] = self.balances.get(name, 0) + entry.delta
        self.held[name] = self.held.get(name, 0) + entry.held_delta
        assert entry.balance == self.balances[name], entry
        self.entries.append(entry)

    def _add_refunds(self, packed: bytes) -> None:
        for body in msgpack.unpackb(packed, raw=True)[2]:
            leg = LegBody.unpack(body)
            if leg.effect is Effect.REFUND:
                purchase = leg.related_id + leg.slot.to_bytes(2, "little")
                self.refunded[purchase] = self.refunded.get(purchase, 0) + leg.amount_minor

    def check(self, kept: dict[str, Any]) -> None:
        """The entries, folded, are the accounts, but for what prepared legs have reserved on top."""
        reserved: dict[str, int] = {}
        refunded = dict(self.refunded)
        for body in kept["prepared"].values():
            leg = LegBody.unpack(body)
            if leg.amount_minor < 0:
                reserved[leg.account] = reserved.get(leg.account, 0) - leg.amount_minor
            elif leg.effect is Effect.REFUND:
                purchase = leg.related_id + leg.slot.to_bytes(2, "little")
                refunded[purchase] = refunded.get(purchase, 0) + leg.amount_minor
        holds: dict[str, int] = {}
        for hold in kept["holds"].values():
            holds[hold.account] = holds.get(hold.account, 0) + hold.amount_minor
        for name, account in kept["accounts"].items():
            held = self.held.get(name, 0)
            assert held == holds.get(name, 0), name
            assert account.held_minor == held + reserved.get(name, 0), name
            assert account.available_minor + account.held_minor == self.balances.get(name, 0), name
            assert account.version == self.versions.get(name, 0), name
        assert set(self.versions) <= set(kept["accounts"])
        assert refunded == kept["refunds"]
