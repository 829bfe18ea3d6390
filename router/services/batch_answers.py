"""The answer to a batch of transfers as bytes: no message is made for a row.

A row's result differs from all others with its outcome by its id alone, so each outcome is serialized once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.requests import Bytes
from router.services.refusals import refusal
from shard_node.contract import Outcome
from shard_node.serving import as_varint
from tallystick.v1 import outcome_pb2, wallet_pb2

_ID_CHARS = 36
_LEG_FIELDS = ("from_account", "to_account")
_COMMITTED = int(Outcome.COMMITTED)


def answer(texts: Bytes, outcomes: Sequence[int] | Bytes, legs: Sequence[int] | Bytes | None = None) -> bytes:
    """A serialized BatchTransferResponse: each transfer's id, 36 characters, and what became of it.

    ``legs`` are the numbers of the legs that refusals concern. A result is field 1; within it the id is field
    1, and the rest is the same for all with one outcome that concerns the same leg.
    """
    count = len(texts)
    head, tail = (np.frombuffer(part, np.uint8) for part in _frame(_COMMITTED))
    table = np.empty((count, len(head) + _ID_CHARS + len(tail)), np.uint8)
    table[:, : len(head)] = head
    table[:, len(head) : -len(tail)] = texts
    table[:, -len(tail) :] = tail
    committed, width = table.tobytes(), table.shape[1]
    codes = np.frombuffer(bytes(outcomes), np.uint8)
    others = np.flatnonzero(codes != _COMMITTED).tolist()
    if not others:
        return committed
    frames: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    pieces: list[bytes] = []
    done = 0
    for row in others:
        key = int(outcomes[row]), int(legs[row]) if legs is not None else 0
        if key not in frames:
            frames[key] = _frame(*key)
        before, after = frames[key]
        pieces += (committed[done * width : row * width], before, texts[row].tobytes(), after)
        done = row + 1
    pieces.append(committed[done * width :])
    return b"".join(pieces)


def _frame(code: int, leg: int = 0) -> tuple[bytes, bytes]:
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
