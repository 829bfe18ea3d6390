"""The answer to a batch of transfers as bytes: no message is made for a row.

A row's result differs from all others with its outcome by its id alone, so each outcome is serialized once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.requests import Bytes
from router.services.refusals import refusal
from shard_node.contract import Outcome
from shard_node.limits import NO_BALANCE
from shard_node.money import to_text
from shard_node.serving import as_varint
from tallystick.v1 import outcome_pb2, wallet_pb2

_ID_CHARS = 36
_LEG_FIELDS = ("from_account", "to_account")
_COMMITTED = int(Outcome.COMMITTED)


def answer(
    texts: Bytes,
    outcomes: Sequence[int] | Bytes,
    legs: Sequence[int] | Bytes,
    balances: Sequence[bytes] = (),
) -> bytes:
    """A serialized BatchTransferResponse: each transfer's id, 36 characters, and what became of it.

    ``legs`` are the numbers of the legs that refusals concern; ``balances``, one a row, what
    :func:`balance_fields` gave, or nothing at all. A result is field 1; within it the id is field 1, and the
    rest is the same for all with one outcome that concerns the same leg.
    """
    if balances:
        return _with_balances(texts, outcomes, legs, balances)
    count = len(texts)
    head, tail = (np.frombuffer(part, np.uint8) for part in _frame(_COMMITTED, 0))
    table = np.empty((count, len(head) + _ID_CHARS + len(tail)), np.uint8)
    table[:, : len(head)] = head
    table[:, len(head) : -len(tail)] = texts
    table[:, -len(tail) :] = tail
    committed, width = table.tobytes(), table.shape[1]
    codes = np.frombuffer(bytes(outcomes), np.uint8)
    others = np.flatnonzero(codes != _COMMITTED).tolist()
    if not others:
        return committed
    frames = _Frames()
    pieces: list[bytes] = []
    done = 0
    for row in others:
        before, after = frames[int(outcomes[row]), int(legs[row])]
        pieces += (committed[done * width : row * width], before, texts[row].tobytes(), after)
        done = row + 1
    pieces.append(committed[done * width :])
    return b"".join(pieces)


def _with_balances(
    texts: Bytes, outcomes: Sequence[int] | Bytes, legs: Sequence[int] | Bytes, balances: Sequence[bytes]
) -> bytes:
    ids, frames = texts.tobytes(), _Frames()
    pieces: list[bytes] = []
    rows = zip(bytes(outcomes), bytes(legs), balances, strict=True)
    for at, (code, leg, told) in zip(range(0, len(ids), _ID_CHARS), rows, strict=True):
        before, after = frames[code, leg]
        if code == _COMMITTED and told:
            # Its length is one byte, with balances too.
            before = b"\n%c\n$" % (2 + _ID_CHARS + len(after) + len(told))
            after += told
        pieces += (before, ids[at : at + _ID_CHARS], after)
    return b"".join(pieces)


def balance_fields(balances: NDArray[np.int64], digits: Sequence[int]) -> list[bytes]:
    """Each row's fields 3 and 4 serialized, b"" where no balance is known.

    ``balances`` are minor units of all payers, then of all payees, NO_BALANCE where not known; ``digits`` are
    currencies' exponents, one for all rows or one a row.
    """
    count = len(balances) // 2
    exponents = digits if len(digits) == count else [digits[0]] * count
    payers, payees = balances[:count].tolist(), balances[count:].tolist()
    return [
        _text_field(b"\x1a", payer, exponent) + _text_field(b'"', payee, exponent)
        for payer, payee, exponent in zip(payers, payees, exponents, strict=True)
    ]


def _text_field(tag: bytes, minor: int, digits: int) -> bytes:
    if minor == NO_BALANCE:
        return b""
    text = to_text(minor, digits).encode()
    return b"%b%c%b" % (tag, len(text), text)


class _Frames(dict[tuple[int, int], tuple[bytes, bytes]]):
    """What stands before and after the id, by outcome and leg; each is serialized once."""

    def __missing__(self, key: tuple[int, int]) -> tuple[bytes, bytes]:
        found = self[key] = _frame(*key)
        return found


def _frame(code: int, leg: int) -> tuple[bytes, bytes]:
    """What stands before and after the id in every result with that outcome of that leg."""
    if code == _COMMITTED:
        result = wallet_pb2.TransferResponse(outcome=outcome_pb2.OUTCOME_COMMITTED)
    else:
        why = refusal(code, _LEG_FIELDS[leg])
        result = wallet_pb2.TransferResponse(outcome=why.outcome, refusal=why)
    tail = result.SerializeToString()
    # An empty field 1 of the answer, but for the length of what will be in it.
    length = as_varint(2 + _ID_CHARS + len(tail))
    return b"\n" + length + b"\n$", tail
