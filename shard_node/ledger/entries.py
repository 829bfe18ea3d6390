"""From a shard's stream to the rows of the archive.

A shard appends one stream entry a function call: the columns of the ledger entries that the call made.
Here they become rows, in the order in which the shard made them. This is the hot loop of the archiver, so
a row is a plain tuple; :class:`Entry` names its places. A stream entry of an unknown form is an error,
never skipped: what is not understood must not be trimmed.

| columns | entries |
|---|---|
| open, names, currencies, floors, maximum balances, maximum transfers | one each, version 0 |
| post, codes, decisions, terms, bodies, payer balances and versions, payee ones | two each: payer, payee |
| decide, codes, decisions, terms, bodies, balances, versions | one each: the payer |
| finish, codes, decisions, terms, bodies, balances, versions | one each: the payee |
| legs, leg keys, leg bodies, deltas, held deltas, balances, versions | one each |
| state, names, kinds, currencies, balances, versions | one each, without a transaction |

Those of transfers are strings, as :mod:`shard_node.bundles` packs them, of a whole bundle: codes, a byte a
row or one for all, say which rows were carried out (1); the columns of numbers, q each, are of these alone.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack

from shard_node.bundles import split_bodies, split_decisions, split_short
from shard_node.errors import LedgerError
from shard_node.journals import LEG_TAIL, NO_ID
from shard_node.ledger.schema import entry_id
from shard_node.outcomes import Outcome
from shard_node.transfers import BODY_HEAD, Kind

# The values of one row of ``schema.entries``, in the order of its columns.
Row = tuple[Any, ...]
# A stream entry: its id, "milliseconds-number", and its packed columns.
StreamEntry = tuple[str, bytes]
_Columns = Sequence[Any]

# PostgreSQL's text cannot hold a zero byte; Unicode's picture of one stands for it (U+2400).
_ZERO, _PICTURE_OF_ZERO = "\0", "\u2400"
_NUMBER_BYTES: Final = 8
# Where an entry of a bundle has its columns of versions, a number a row, counted from behind the tag.
_VERSIONS_AT: Final = {b"post": (5, 7), b"decide": (5,), b"finish": (5,)}
_ID_BYTES: Final = 16
_FINGERPRINT_BYTES: Final = 8
_ALL: Final = bytes((Outcome.COMMITTED,))
# Leg number that an expiry counts as: its hold is leg 0 of the same transaction.
_EXPIRY_LEG: Final = 1

_TRANSFER, _EXPIRY, _OPEN = int(Kind.TRANSFER), int(Kind.EXPIRY), int(Kind.OPEN)
_HEAD_SIZE, _TAIL_SIZE = BODY_HEAD.size, LEG_TAIL.size


class Entry(NamedTuple):
    """One row. Amounts in minor units; ``balance`` is available and held together, after the entry."""

    entry_id: int
    account_id: str
    version: int
    at_ms: int
    kind: int
    transaction_id: bytes | None
    fingerprint: bytes | None
    leg: int
    leg_count: int
    counterparty: str
    currency: str
    delta: int
    held_delta: int
    balance: int
    related_id: bytes | None
    reference: str
    external_id: str
    initiated_by: str
    # JSON of an OPEN entry: minimum_balance, maximum_balance and maximum_transfer (0: no maximum).
    attributes: str


@dataclass(frozen=True, slots=True)
class ArchivedShard:
    """A shard as the archive knows it: the number in its entries' ids, and its id."""

    number: int
    shard_id: str


def row_count(packed: bytes) -> int:
    """How many rows a stream entry makes. Raises LedgerError when it is unreadable."""
    try:
        tag, *columns = msgpack.unpackb(packed, raw=True)
        if tag in _VERSIONS_AT:
            return sum(len(columns[at]) // _NUMBER_BYTES for at in _VERSIONS_AT[tag])
        return len(columns[0])
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise LedgerError(f"a stream entry is unreadable: {error or type(error).__name__}") from error


def decode(shard: ArchivedShard, stream: Iterable[StreamEntry], first_sequence: int) -> list[Row]:
    """The rows of some stream entries, the first with the given sequence.

    Raises LedgerError when one of them is not of a known form.
    """
    rows: list[Row] = []
    append = rows.append
    next_id = entry_id(shard.number, first_sequence)
    suffix = f":{shard.shard_id}"
    for stream_id, packed in stream:
        try:
            at_ms = int(stream_id.partition("-")[0])
            tag, *columns = msgpack.unpackb(packed, raw=True)
            _DECODERS[tag](columns, _Place(at_ms, next_id + len(rows), suffix), append)
        except (ValueError, TypeError, KeyError, IndexError, struct.error, msgpack.UnpackException) as error:
            raise LedgerError(
                f"{shard.shard_id}: the ledger's stream entry {stream_id} is of no known form: "
                f"{type(error).__name__} {error}"
            ) from error
    return rows


class _Place(NamedTuple):
    """What rows of one stream entry share: their time, the first one's id, what system accounts end in."""

    at_ms: int
    first_id: int
    suffix: str


_Append = Callable[[Row], None]


def _post(columns: _Columns, place: _Place, append: _Append) -> None:
    at_ms, next_id, suffix = place
    unpack, details = BODY_HEAD.unpack_from, _details
    *bundle, payer_balances, payer_versions, payee_balances, payee_versions = columns
    numbers = map(_numbers, (payer_balances, payer_versions, payee_balances, payee_versions))
    for (
        transaction_id,
        fingerprint,
        body,
    ), payer_balance, payer_version, payee_balance, payee_version in zip(
        _carried_out(*bundle), *numbers, strict=True
    ):
        amount, currency, _, _, kind, payer_length, payee_length = unpack(body)
        payee_at = _HEAD_SIZE + payer_length
        tail_at = payee_at + payee_length
        payer, payee = body[_HEAD_SIZE:payee_at].decode(), body[payee_at:tail_at].decode()
        if payer[0] == "@":
            payer += suffix
        if payee[0] == "@":
            payee += suffix
        reference, external, initiated = details(kind, body[tail_at:])
        currency = currency.decode()
        append(
            (next_id, payer, payer_version, at_ms, kind, transaction_id, fingerprint, 0, 2, payee, currency,
             -amount, 0, payer_balance, None, reference, external, initiated, "")
        )  # fmt: skip
        append(
            (next_id + 1, payee, payee_version, at_ms, kind, transaction_id, fingerprint, 1, 2, payer,
             currency, amount, 0, payee_balance, None, reference, external, initiated, "")
        )  # fmt: skip
        next_id += 2


def _carried_out(
    codes: bytes, decisions: bytes, terms: bytes, bodies: bytes
) -> list[tuple[bytes, bytes, bytes]]:
    """Transaction id, fingerprint and body of those transfers of a bundle that were carried out."""
    ids = [decision[:_ID_BYTES] for decision in split_decisions(decisions)]
    prints = [term[:_FINGERPRINT_BYTES] for term in split_short(terms)]
    rows = zip(ids, prints, split_bodies(bodies), strict=True)
    if codes == _ALL:
        return list(rows)
    return [row for row, code in zip(rows, codes, strict=True) if code == Outcome.COMMITTED]


def _numbers(column: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(column) // _NUMBER_BYTES}q", column)


def _decide(columns: _Columns, place: _Place, append: _Append) -> None:
    _half(columns, place, append, leg=0)


def _finish(columns: _Columns, place: _Place, append: _Append) -> None:
    _half(columns, place, append, leg=1)


def _half(columns: _Columns, place: _Place, append: _Append, *, leg: int) -> None:
    """One leg of each transfer between two shards: 0 the payer's, 1 the payee's."""
    at_ms, next_id, suffix = place
    unpack, details = BODY_HEAD.unpack_from, _details
    *bundle, balances, versions = columns
    for (transaction_id, fingerprint, body), balance, version in zip(
        _carried_out(*bundle), _numbers(balances), _numbers(versions), strict=True
    ):
        amount, currency, _, _, kind, payer_length, payee_length = unpack(body)
        payee_at = _HEAD_SIZE + payer_length
        tail_at = payee_at + payee_length
        account, other = body[_HEAD_SIZE:payee_at].decode(), body[payee_at:tail_at].decode()
        if leg:
            account, other = other, account
        else:
            amount = -amount
        if account[0] == "@":
            account += suffix
        if other[0] == "@":
            other += suffix
        reference, external, initiated = details(kind, body[tail_at:])
        append(
            (next_id, account, version, at_ms, kind, transaction_id, fingerprint, leg, 2, other,
             currency.decode(), amount, 0, balance, None, reference, external, initiated, "")
        )  # fmt: skip
        next_id += 1


def _legs(columns: _Columns, place: _Place, append: _Append) -> None:
    at_ms, next_id, suffix = place
    keys, bodies, deltas, held_deltas, balances, versions = columns
    for key, body, delta, held_delta, balance, version in zip(
        keys, bodies, deltas, held_deltas, balances, versions, strict=True
    ):
        _, currency, _, _, kind, other_length, length = BODY_HEAD.unpack_from(body)
        account_at = _HEAD_SIZE + other_length
        tail_at = account_at + length
        _, leg, leg_count, _, related_id, _ = LEG_TAIL.unpack_from(body, tail_at)
        account, other = body[account_at:tail_at].decode(), body[_HEAD_SIZE:account_at].decode()
        reference, external, initiated = _details(kind, body[tail_at + _TAIL_SIZE :])
        append(
            (next_id, account + suffix if account[0] == "@" else account, version, at_ms, kind, key[:16],
             key[16:24], _EXPIRY_LEG if kind == _EXPIRY else leg, leg_count,
             other + suffix if other.startswith("@") else other, currency.decode(), delta, held_delta,
             balance, None if related_id == NO_ID else related_id, reference, external, initiated, "")
        )  # fmt: skip
        next_id += 1


def _open(columns: _Columns, place: _Place, append: _Append) -> None:
    at_ms, next_id, suffix = place
    for raw, currency, floor, maximum, transfer_maximum in zip(*columns, strict=True):
        attributes = json.dumps(
            {"minimum_balance": floor, "maximum_balance": maximum, "maximum_transfer": transfer_maximum}
        )
        _append_bare(append, (next_id, at_ms, suffix), (raw, _OPEN, currency, 0, 0), attributes)
        next_id += 1


def _state(columns: _Columns, place: _Place, append: _Append) -> None:
    at_ms, next_id, suffix = place
    for row in zip(*columns, strict=True):
        _append_bare(append, (next_id, at_ms, suffix), row, "")
        next_id += 1


def _append_bare(
    append: _Append, place: tuple[int, int, str], row: tuple[bytes, int, bytes, int, int], attributes: str
) -> None:
    """An entry without a transaction; ``row`` is name, kind, currency, balance, version."""
    next_id, at_ms, suffix = place
    raw, kind, currency, balance, version = row
    account = raw.decode()
    append(
        (next_id, account + suffix if account[0] == "@" else account, version, at_ms, kind, None, None, 0, 0,
         "", currency.decode(), 0, 0, balance, None, "", "", "", attributes)
    )  # fmt: skip


def _details(kind: int, packed: bytes) -> tuple[str, str, str]:
    """Reference, external id and initiator, as ``shard_node.transfers`` packs them."""
    if not packed:
        return "", "", ""
    if kind == _TRANSFER:
        reference = packed.decode()
        return (reference.replace(_ZERO, _PICTURE_OF_ZERO) if _ZERO in reference else reference), "", ""
    external_end = 2 + packed[0]
    initiated_end = external_end + packed[1]
    texts = packed[2:external_end], packed[external_end:initiated_end], packed[initiated_end:]
    external, initiated, reference = (text.decode().replace(_ZERO, _PICTURE_OF_ZERO) for text in texts)
    return reference, external, initiated


_DECODERS: Final[dict[bytes, Callable[[_Columns, _Place, _Append], None]]] = {
    b"open": _open,
    b"post": _post,
    b"decide": _decide,
    b"finish": _finish,
    b"legs": _legs,
    b"state": _state,
}
