"""All that a shard keeps, read from the real one and from the model in one form, to be compared."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgpack

from shard_node.journals import Effect, LegBody
from shard_node.records import Account
from shard_node.shard import Shard
from shard_node.transfers import Kind, unpack_body
from tests.model import Decided, Entry, Hold, ShardModel
from tests.real_shards import read_hash

# The library counts prepared credits above this.
BIG = 2**36
_LEG_KEY_BYTES = 26
_HOLD_HEAD = struct.Struct("<qq24s")


def prepared_minor(key: bytes, body: bytes) -> int:
    """The amount of an entry of ``prepared``, negative where it takes."""
    return (LegBody.unpack(body) if len(key) == _LEG_KEY_BYTES else unpack_body(body)).amount_minor


def kept_by(model: ShardModel) -> dict[str, Any]:
    """All that the model keeps, in the form of :func:`kept_in`."""
    amounts = [prepared_minor(key, body) for key, body in model.prepared.items()]
    return {
        "accounts": dict(model.accounts),
        "decided": [dict(model.decided), dict(model.decided_before)],
        "applied": [set(model.applied), set(model.applied_before)],
        "prepared": dict(model.prepared),
        "unsettled": dict(model.unsettled),
        "big": sum(amount > BIG for amount in amounts),
        "reserved": sum(amount < 0 for amount in amounts),
        "alarms": model.alarms,
        "backlog": model.backlog,
        # Of the two clocks only this can be compared: whether the hold's time is over.
        "holds": {k: h._replace(expires_ms=h.expires_ms > model.now_ms) for k, h in model.holds.items()},
        "refunds": dict(model.refunds),
        "coming": _coming(model),
    }


def _coming(model: ShardModel) -> dict[bytes, int]:
    """What is prepared for each account that has a maximum balance."""
    sums: dict[bytes, int] = {}
    for key, body in model.prepared.items():
        leg = key[24:]
        name = LegBody.unpack(body).account if leg else unpack_body(body).payee
        amount = prepared_minor(key, body)
        account = model.accounts.get(name)
        if amount > 0 and account is not None and account.maximum_balance_minor:
            sums[name.encode()] = sums.get(name.encode(), 0) + amount
    return sums


async def kept_in(shard: Shard) -> dict[str, Any]:
    """All that the real shard keeps, its own times left out."""
    redis = shard.redis
    decided: list[dict[bytes, Decided]] = []
    applied: list[set[bytes]] = []
    for name in ("done:current", "done:previous"):
        entries = await read_hash(redis, name)
        decided.append({k: _decided(k, v) for k, v in entries.items() if len(k) == 18})
        applied.append({k for k in entries if len(k) > 18})
        assert all(len(v) == 2 for k, v in entries.items() if len(k) > 18)
    meta = await read_hash(redis, "meta")
    now_ms = await shard.clock_ms()
    packed_holds = await read_hash(redis, "holds")
    due = cast("list[tuple[bytes, float]]", await redis.zrange("holds:due", 0, -1, withscores=True))
    assert dict(due) == {k: _HOLD_HEAD.unpack_from(v)[0] for k, v in packed_holds.items()}
    return {
        "accounts": await _accounts(shard),
        "decided": decided,
        "applied": applied,
        "prepared": {k: v[6:] for k, v in (await read_hash(redis, "prepared")).items()},
        "unsettled": {k: v[6:] for k, v in (await read_hash(redis, "unsettled")).items()},
        "big": int(meta.get(b"big", 0)),
        "reserved": int(meta.get(b"reserved", 0)),
        "alarms": int(meta.get(b"alarms", 0)),
        "backlog": int(meta.get(b"backlog", 0)),
        "holds": {k: _hold(v, now_ms) for k, v in packed_holds.items()},
        "refunds": {k: int(v) for k, v in (await read_hash(redis, "refunds")).items()},
        "coming": {k: int(v) for k, v in (await read_hash(redis, "coming")).items()},
    }


async def _accounts(shard: Shard) -> dict[str, Account]:
    records = await read_hash(shard.redis, "accounts")
    limits = {k: struct.unpack("<qq", v) for k, v in (await read_hash(shard.redis, "limits")).items()}
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
    return Decided(value[0], key[:16] + value[7:15], value[26] if len(value) == 27 else 0)


def _hold(value: bytes, now_ms: int) -> Hold:
    expires_ms, amount, key = _HOLD_HEAD.unpack_from(value)
    body = LegBody.unpack(value[_HOLD_HEAD.size :])
    return Hold(body.account, amount, expires_ms > now_ms, key)


# ------------------------------------------------------------------ the ledger


def entries_of(packed: bytes) -> Iterator[Entry]:
    """The ledger's entries that one entry of the stream stands for."""
    name, *columns = msgpack.unpackb(packed, raw=True)
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
            case b"post" | b"decide" | b"finish":
                key, body, *after = row
                terms = unpack_body(body)
                payer = (terms.payer, -terms.amount_minor)
                payee = (terms.payee, terms.amount_minor)
                parties = {b"post": (payer, payee), b"decide": (payer,), b"finish": (payee,)}[name]
                for (account, delta), balance, version in zip(parties, after[::2], after[1::2], strict=True):
                    yield Entry(account, version, terms.kind, key, delta, 0, balance)
            case _:
                raise AssertionError(name)


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
        for key, body in kept["prepared"].items():
            if len(key) < _LEG_KEY_BYTES:
                continue
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
