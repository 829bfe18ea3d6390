"""What somebody with access to a shard's Redis might do to it: take a slot out, change it, put it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from shard_node.cluster.slots import slot
from shard_node.contract.layout import CHUNK_HEAD, LAYOUT_VERSION, STRUCTS, RecordKind
from tests.real_shards import RealShards

# A record's fields by name, an account's with its "name".
Record = dict[str, Any]
_STRUCTS: Final = {RecordKind.ACCOUNT: "moved_account", RecordKind.OUTCOME: "moved_outcome"}
_CHUNK_BYTES: Final = 1 << 20


def change_account(shards: RealShards, name: str, change: Callable[[Record], object]) -> None:
    """Changes an account in place."""

    def changed(kind: RecordKind, record: Record) -> bool:
        if kind is RecordKind.ACCOUNT and record["name"] == name.encode():
            change(record)
        return True

    _rewrite(shards, slot(name), changed)


def drop_account(shards: RealShards, name: str) -> None:
    """Takes an account away."""
    dropped = RecordKind.ACCOUNT, name.encode()
    _rewrite(shards, slot(name), lambda kind, record: (kind, record["name"]) != dropped)


def forget_outcomes(shards: RealShards, number: int) -> None:
    """Has a slot's shard forget which transactions it has carried out, without a trace of that."""
    _rewrite(shards, number, lambda kind, _: kind is not RecordKind.OUTCOME)


def add_account(shards: RealShards, name: str, available_minor: int) -> None:
    """An account out of nothing, at version 1."""
    server, fence = _owner(shards, slot(name))
    chunk = account_chunk(name, available=available_minor, version=1)
    server("tallystick.slot.import", fence, slot(name), chunk)


def account_chunk(name: str, **fields: int) -> bytes:
    """An account of euros as a slot's only record; by name the fields of `moved_account` that are not 0."""
    record: Record = {**dict.fromkeys(STRUCTS["moved_account"][1].split(), 0), **fields}
    record |= {"slot": slot(name), "currency": b"EUR", "name": name.encode(), "name_length": len(name)}
    return _chunk(slot(name), [_pack(RecordKind.ACCOUNT, record)])


def _rewrite(shards: RealShards, number: int, keep: Callable[[RecordKind, Record], bool]) -> None:
    """``keep`` may change a record, and says whether it stays. Raises KeyError where the slot has holds."""
    server, fence = _owner(shards, number)
    cursor, chunk = server("tallystick.slot.export", fence, number, b"", _CHUNK_BYTES)
    assert not cursor, "more than one chunk"
    while server("tallystick.slot.drop", fence, number, 1000):
        pass
    kept = [_pack(kind, record) for kind, record in _records(chunk) if keep(kind, record)]
    server("tallystick.slot.import", fence, number, _chunk(number, kept))


def _owner(shards: RealShards, number: int) -> tuple[Callable[..., Any], str]:
    index = shards.topology.owner[number]
    fence = shards.topology.fence(shards.topology.shards[index])
    return shards.servers[index].redis.execute_command, fence


def _records(chunk: bytes) -> list[tuple[RecordKind, Record]]:
    found, at = [], CHUNK_HEAD.size
    while at < len(chunk):
        kind = RecordKind(chunk[at])
        layout, fields = STRUCTS[_STRUCTS[kind]]
        record = dict(zip(fields.split(), layout.unpack_from(chunk, at + 1), strict=True))
        at += 1 + layout.size
        record["name"] = chunk[at : at + record.get("name_length", 0)]
        at += len(record["name"])
        found.append((kind, record))
    return found


def _pack(kind: RecordKind, record: Record) -> bytes:
    layout, fields = STRUCTS[_STRUCTS[kind]]
    name: bytes = record["name"]
    return bytes((kind,)) + layout.pack(*(record[field] for field in fields.split())) + name


def _chunk(number: int, records: list[bytes]) -> bytes:
    return CHUNK_HEAD.pack(LAYOUT_VERSION, number, len(records)) + b"".join(records)
