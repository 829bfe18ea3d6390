"""From the stream of a shard of the Lua library to the rows of the archive.

A shard appends one stream entry a function call: the columns of the ledger entries that the call made.
Here they become rows, in the order in which the shard made them. This is the hot loop of the archiver. A
stream entry of an unknown form is an error, never skipped: what is not understood must not be trimmed.

| columns | entries |
|---|---|
| open, names, currencies, floors, maximum balances, maximum transfers | one each, version 0 |
| post, codes, decisions, terms, bodies, payer balances and versions, payee ones | two each: payer, payee |
| decide, codes, decisions, terms, bodies, balances, versions | one each: the payer |
| finish, codes, decisions, terms, bodies, balances, versions | one each: the payee |
| legs, leg keys, leg bodies, deltas, held deltas, balances, versions | one each |
| state, names, kinds, currencies, balances, versions | one each, without a transaction |

Those of transfers are strings, as :mod:`shard_node.contract.bundles` packs them, of a whole bundle: codes, a
byte a row or one for all, say which rows were carried out (1); the columns of numbers, q each, are of these
alone.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import Any, Final, NamedTuple

import msgpack

from shard_node.contract import BODY_HEAD, LEG_TAIL, NO_ID, Kind, Outcome, split_decisions, split_short
from shard_node.errors import LedgerError
from shard_node.ledger.store.rows import ArchivedShard, Columns, Entry, Row, Rows, columns_of
from shard_node.ledger.store.schema import entry_id

# A stream entry: its id, "milliseconds-number", and its packed columns.
StreamEntry = tuple[str, bytes]
_Packed = Sequence[Any]

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
# A body in its column: its length, then its head.
_BODY: Final = struct.Struct("<H" + BODY_HEAD.format.removeprefix("<"))
_LENGTH_SIZE: Final = _BODY.size - _HEAD_SIZE


def row_count(packed: bytes) -> int:
    """How many rows a stream entry makes. Raises LedgerError when it is unreadable."""
    try:
        tag, *columns = msgpack.unpackb(packed, raw=True)
        if tag in _VERSIONS_AT:
            return sum(len(columns[at]) // _NUMBER_BYTES for at in _VERSIONS_AT[tag])
        return len(columns[0])
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise LedgerError(f"a stream entry is unreadable: {error or type(error).__name__}") from error


def decode(shard: ArchivedShard, stream: Iterable[StreamEntry], first_sequence: int) -> Rows:
    """The rows of some stream entries, the first with the given sequence.

    Raises LedgerError when one of them is not of a known form.
    """
    columns: list[list[Any]] = [[] for _ in Entry._fields]
    next_id = entry_id(shard.number, first_sequence)
    suffix = f":{shard.shard_id}"
    for stream_id, packed in stream:
        try:
            at_ms = int(stream_id.partition("-")[0])
            tag, *values = msgpack.unpackb(packed, raw=True)
            made = _DECODERS[tag](values, _Place(at_ms, next_id, suffix))
            if len({len(column) for column in made}) != 1:
                raise ValueError("its columns are not of one length")  # noqa: TRY301 -- told as all else is
        except (ValueError, TypeError, KeyError, IndexError, struct.error, msgpack.UnpackException) as error:
            raise LedgerError(
                f"{shard.shard_id}: the ledger's stream entry {stream_id} is of no known form: "
                f"{type(error).__name__} {error}"
            ) from error
        for column, more in zip(columns, made, strict=True):
            column.extend(more)
        next_id += len(made[0])
    return Rows(columns)


class _Place(NamedTuple):
    """What rows of one stream entry share: their time, the first one's id, what system accounts end in."""

    at_ms: int
    first_id: int
    suffix: str


class _Sent(NamedTuple):
    """Those transfers of a bundle that were carried out, by column."""

    transaction_ids: Sequence[bytes]
    fingerprints: Sequence[bytes]
    amounts: Sequence[int]
    kinds: Sequence[int]
    currencies: Sequence[str]
    payers: Sequence[str]
    payees: Sequence[str]
    references: Sequence[str]
    external_ids: Sequence[str]
    initiators: Sequence[str]


def _post(columns: _Packed, place: _Place) -> Columns:
    """Two legs of each transfer, next to each other: the payer's, the payee's."""
    *bundle, payer_balances, payer_versions, payee_balances, payee_versions = columns
    sent = _carried_out(place.suffix, *bundle)
    (ids, prints, amounts, kinds, currencies, payers, payees, *texts) = sent
    count = 2 * len(ids)

    def mixed(payers: Sequence[Any], payees: Sequence[Any]) -> list[Any]:
        column: list[Any] = [None] * count
        column[::2], column[1::2] = payers, payees
        return column

    return (
        range(place.first_id, place.first_id + count),
        mixed(payers, payees),
        mixed(_numbers(payer_versions), _numbers(payee_versions)),
        [place.at_ms] * count,
        mixed(kinds, kinds),
        mixed(ids, ids),
        mixed(prints, prints),
        [0, 1] * len(ids),
        [2] * count,
        mixed(payees, payers),
        mixed(currencies, currencies),
        mixed([-amount for amount in amounts], amounts),
        [0] * count,
        mixed(_numbers(payer_balances), _numbers(payee_balances)),
        [None] * count,
        *[mixed(text, text) for text in texts],
        [""] * count,
    )


def _decide(columns: _Packed, place: _Place) -> Columns:
    return _half(columns, place, leg=0)


def _finish(columns: _Packed, place: _Place) -> Columns:
    return _half(columns, place, leg=1)


def _half(columns: _Packed, place: _Place, *, leg: int) -> Columns:
    """One leg of each transfer between two shards: 0 the payer's, 1 the payee's."""
    *bundle, balances, versions = columns
    sent = _carried_out(place.suffix, *bundle)
    count = len(sent.transaction_ids)
    return (
        range(place.first_id, place.first_id + count),
        sent.payees if leg else sent.payers,
        _numbers(versions),
        [place.at_ms] * count,
        sent.kinds,
        sent.transaction_ids,
        sent.fingerprints,
        [leg] * count,
        [2] * count,
        sent.payers if leg else sent.payees,
        sent.currencies,
        sent.amounts if leg else [-amount for amount in sent.amounts],
        [0] * count,
        _numbers(balances),
        [None] * count,
        sent.references,
        sent.external_ids,
        sent.initiators,
        [""] * count,
    )


def _carried_out(suffix: str, codes: bytes, decisions: bytes, terms: bytes, bodies: bytes) -> _Sent:
    """Raises ValueError when the columns are not of one length, or a value is cut short."""
    columns: Columns = (
        [decision[:_ID_BYTES] for decision in split_decisions(decisions)],
        [term[:_FINGERPRINT_BYTES] for term in split_short(terms)],
        *_bodies(bodies),
    )
    lengths = {len(column) for column in columns}
    if codes != _ALL:
        lengths.add(len(codes))
        carried_out = [code == Outcome.COMMITTED for code in codes]
        columns = [list(compress(column, carried_out)) for column in columns]
    if len(lengths) != 1:
        raise ValueError(f"a bundle's columns have {sorted(lengths)} rows")
    ids, prints, amounts, kinds, currencies, payers, payees, details = columns
    codes_of = {currency: currency.decode() for currency in set(currencies)}
    return _Sent(
        ids,
        prints,
        amounts,
        kinds,
        [codes_of[currency] for currency in currencies],
        _named(payers, suffix),
        _named(payees, suffix),
        *_texts(kinds, details),
    )


def _bodies(joined: bytes) -> Columns:
    """Amounts, kinds, currencies, payers, payees and details of a column of bodies, packed as they are."""
    columns: tuple[list[Any], ...] = ([], [], [], [], [], [])
    amounts, kinds, currencies, payers, payees, details = (column.append for column in columns)
    unpack = _BODY.unpack_from
    at, size = 0, len(joined)
    while at < size:
        length, amount, currency, _, _, kind, payer_length, payee_length = unpack(joined, at)
        payer_at = at + _BODY.size
        payee_at = payer_at + payer_length
        details_at = payee_at + payee_length
        at += _LENGTH_SIZE + length
        if details_at > at or not payer_length or not payee_length:
            raise ValueError(f"a body of {length} bytes has no room for its accounts, or has none")
        amounts(amount)
        kinds(kind)
        currencies(currency)
        payers(joined[payer_at:payee_at])
        payees(joined[payee_at:details_at])
        details(joined[details_at:at])
    if at != size:
        raise ValueError(f"a column of {size} bytes has a body that ends at {at}")
    return columns


def _named(raw: Sequence[bytes], suffix: str) -> list[str]:
    """Account ids as the ledger has them: every shard has system accounts of the same names."""
    return [name + suffix if name[0] == "@" else name for name in map(bytes.decode, raw)]


def _numbers(column: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(column) // _NUMBER_BYTES}q", column)


def _texts(kinds: Sequence[int], details: Sequence[bytes]) -> Columns:
    """References, external ids and initiators, as ``shard_node.contract.transfers`` packs them."""
    if kinds.count(_TRANSFER) == len(kinds):
        references = [packed.decode().replace(_ZERO, _PICTURE_OF_ZERO) for packed in details]
        return references, [""] * len(kinds), [""] * len(kinds)
    told = [_details(kind, packed) for kind, packed in zip(kinds, details, strict=True)]
    return tuple(zip(*told, strict=True))


def _legs(columns: _Packed, place: _Place) -> Columns:
    at_ms, next_id, suffix = place
    rows: list[Row] = []
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
        rows.append(
            (next_id, account + suffix if account[0] == "@" else account, version, at_ms, kind, key[:16],
             key[16:24], _EXPIRY_LEG if kind == _EXPIRY else leg, leg_count,
             other + suffix if other.startswith("@") else other, currency.decode(), delta, held_delta,
             balance, None if related_id == NO_ID else related_id, reference, external, initiated, "")
        )  # fmt: skip
        next_id += 1
    return columns_of(rows)


def _open(columns: _Packed, place: _Place) -> Columns:
    at_ms, next_id, suffix = place
    rows: list[Row] = []
    for raw, currency, floor, maximum, transfer_maximum in zip(*columns, strict=True):
        attributes = json.dumps(
            {"minimum_balance": floor, "maximum_balance": maximum, "maximum_transfer": transfer_maximum}
        )
        rows.append(_bare((next_id, at_ms, suffix), (raw, _OPEN, currency, 0, 0), attributes))
        next_id += 1
    return columns_of(rows)


def _state(columns: _Packed, place: _Place) -> Columns:
    at_ms, next_id, suffix = place
    rows = [
        _bare((number, at_ms, suffix), row, "")
        for number, row in enumerate(zip(*columns, strict=True), next_id)
    ]
    return columns_of(rows)


def _bare(place: tuple[int, int, str], row: tuple[bytes, int, bytes, int, int], attributes: str) -> Row:
    """An entry without a transaction; ``row`` is name, kind, currency, balance, version."""
    next_id, at_ms, suffix = place
    raw, kind, currency, balance, version = row
    account = raw.decode()
    return (
        next_id, account + suffix if account[0] == "@" else account, version, at_ms, kind, None, None, 0, 0,
        "", currency.decode(), 0, 0, balance, None, "", "", "", attributes,
    )  # fmt: skip


def _details(kind: int, packed: bytes) -> tuple[str, str, str]:
    """Reference, external id and initiator of one."""
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


_DECODERS: Final[dict[bytes, Callable[[_Packed, _Place], Columns]]] = {
    b"open": _open,
    b"post": _post,
    b"decide": _decide,
    b"finish": _finish,
    b"legs": _legs,
    b"state": _state,
}
