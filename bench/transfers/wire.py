"""Requests as bytes, whole blocks of them at once, and the bytes of the answer that each should get.

A generator shares its processors with what it measures, and message objects would cost it more than the
service spends on a transfer. All fields of a load's transfers have fixed widths, so a block of requests is a
table of bytes, and its columns are filled by lookup. The invariant: what comes out is what the contract's own
stubs would serialize, every transfer under an id of its own.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.transfers.choices import BoolArray
from bench.transfers.workload import AMOUNTS, CURRENCY, Payments, Workload
from tallystick.v1 import outcome_pb2, wallet_pb2

ByteArray = NDArray[np.uint8]

ID_WIDTH = 36
# In front of each item of a repeated field: its number and type, and its length in one byte. An item without
# it is a message of its own.
ITEM_HEADER_BYTES = 2
_LONGEST_ITEM = 127
# Rows of a block: fewer cost more each, more would keep the event loop from its answers for milliseconds.
_BLOCK_ROWS = 4096
# In an id as text: version and variant, the six digits around them, and the twelve at its end, are random.
_RANDOM_BYTES = 10
_VERSION, _VARIANT, _NODE = slice(14, 18), slice(19, 23), slice(24, 36)
# A BatchTransferResponse with a single item, committed.
BLANK_ANSWER = wallet_pb2.BatchTransferResponse(
    results=[
        wallet_pb2.TransferResponse(transaction_id="-" * ID_WIDTH, outcome=outcome_pb2.OUTCOME_COMMITTED)
    ]
).SerializeToString()


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """So many requests, and the answers when all are committed: a row each, the item of a repeated field."""

    requests: ByteArray
    answers: ByteArray
    refused: BoolArray

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """The rows of a block that one call carries: from ``first`` to before ``last``."""

    block: Block
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def batch_request(self) -> bytes:
        """A BatchTransferRequest."""
        return self.block.requests[self.first : self.last].tobytes()

    def single_request(self) -> bytes:
        """A TransferRequest: the first row."""
        return self.block.requests[self.first, ITEM_HEADER_BYTES:].tobytes()

    def committed_answer(self) -> bytes:
        """The BatchTransferResponse that says of every transfer that it is committed."""
        return self.block.answers[self.first : self.last].tobytes()

    def single_answer(self) -> bytes:
        """How the TransferResponse to the first row begins when it is committed: balances may follow."""
        return self.block.answers[self.first, ITEM_HEADER_BYTES:].tobytes()

    def refused(self) -> Sequence[bool]:
        """For each transfer whether it must be refused."""
        flags: list[bool] = self.block.refused[self.first : self.last].tolist()
        return flags

    def ids(self) -> Sequence[str]:
        """The transaction ids, in order."""
        start = 2 * ITEM_HEADER_BYTES
        rows = self.block.answers[self.first : self.last, start : start + ID_WIDTH]
        text = rows.tobytes().decode()
        return [text[at : at + ID_WIDTH] for at in range(0, len(text), ID_WIDTH)]


class Wire:
    """Makes blocks for payments between these accounts.

    Ids come from the operating system's randomness, not from the load's seed: those of an earlier run would
    be answered from memory.

    Args:
        accounts: the ids of the accounts, all of one length.
        clock_ms: Unix time in milliseconds.
    """

    def __init__(
        self, accounts: Sequence[str], clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._clock_ms = clock_ms
        self._random = np.random.Generator(np.random.SFC64(secrets.randbits(256)))
        self._accounts = _table([account.encode() for account in accounts])
        self._amounts = _table([amount.encode() for amount in AMOUNTS])
        self._pairs = _hex_pairs(lambda byte: byte)
        # RFC 9562, section 5.7: the version is 7, the variant's two bits are 10.
        self._version_pairs = _hex_pairs(lambda byte: 0x70 | byte & 0x0F)
        self._variant_pairs = _hex_pairs(lambda byte: 0x80 | byte & 0x3F)
        name, amount = "a" * self._accounts.itemsize, "1" * self._amounts.itemsize
        blank = wallet_pb2.BatchTransferRequest()
        blank.transfers.add(
            transaction_id="-" * ID_WIDTH,
            from_account=name,
            to_account=name,
            amount=amount,
            currency=CURRENCY,
        )
        self._blank_request = np.frombuffer(blank.SerializeToString(), np.uint8)
        if len(self._blank_request) > ITEM_HEADER_BYTES + _LONGEST_ITEM:
            raise ValueError(f"a request of {len(self._blank_request)} bytes has a length of two bytes")
        self._blank_answer = np.frombuffer(BLANK_ANSWER, np.uint8)

    def block(self, payments: Payments) -> Block:
        """Requests for payments, each under a new UUIDv7."""
        count = len(payments.amounts)
        requests: ByteArray = np.empty((count, len(self._blank_request)), dtype=np.uint8)
        requests[:] = self._blank_request
        answers: ByteArray = np.empty((count, len(self._blank_answer)), dtype=np.uint8)
        answers[:] = self._blank_answer
        # After an item's header and each field's own: number and type, and length.
        at = 2 * ITEM_HEADER_BYTES
        ids = requests[:, at : at + ID_WIDTH]
        self._fill_ids(ids)
        answers[:, at : at + ID_WIDTH] = ids
        at += ID_WIDTH
        for table, positions in (
            (self._accounts, payments.payers),
            (self._accounts, payments.payees),
            (self._amounts, payments.amounts),
        ):
            at += ITEM_HEADER_BYTES
            width = table.itemsize
            requests[:, at : at + width] = table[positions].view(np.uint8).reshape(count, width)
            at += width
        return Block(requests, answers, payments.refused)

    def _fill_ids(self, ids: ByteArray) -> None:
        stamp = f"{self._clock_ms():012x}"
        ids[:] = np.frombuffer(f"{stamp[:8]}-{stamp[8:]}-7000-8000-000000000000".encode(), np.uint8)
        count = len(ids)
        random = np.frombuffer(self._random.bytes(_RANDOM_BYTES * count), np.uint8).reshape(count, -1)
        for part, columns in (
            (_VERSION, (self._version_pairs[random[:, 0]], self._pairs[random[:, 1]])),
            (_VARIANT, (self._variant_pairs[random[:, 2]], self._pairs[random[:, 3]])),
        ):
            ids[:, part] = np.stack(columns, axis=1).view(np.uint8)
        ids[:, _NODE] = self._pairs[random[:, 4:]].view(np.uint8)


class Supply:
    """Calls, ready to be sent, of at most ``transfers_a_call`` transfers each."""

    def __init__(self, workload: Workload, wire: Wire, transfers_a_call: int) -> None:
        self._workload = workload
        self._wire = wire
        self._rows = transfers_a_call * max(1, _BLOCK_ROWS // transfers_a_call)
        self._call: Call | None = None

    def start(self, seed: str) -> None:
        """From here on the transfers depend on this seed alone."""
        self._workload.start(seed)
        self._call = None

    def next(self, size: int) -> Call:
        """The next call, with so many transfers."""
        last = self._call
        if last is None or last.last + size > len(last.block):
            block = self._wire.block(self._workload.draw(self._rows))
            self._call = Call(block, 0, size)
        else:
            self._call = Call(last.block, last.last, last.last + size)
        return self._call


def _table(texts: Sequence[bytes]) -> NDArray[np.void]:
    """Texts of one length, to be looked up by position."""
    width = len(texts[0])
    if any(len(text) != width for text in texts):
        raise ValueError("texts of a table must have one length")
    return np.frombuffer(b"".join(texts), dtype=np.dtype((np.void, width)))


def _hex_pairs(change: Callable[[int], int]) -> NDArray[np.uint16]:
    """For each byte the two hex digits of what ``change`` makes of it, as the two bytes of a number."""
    return np.frombuffer(b"".join(b"%02x" % change(byte) for byte in range(256)), np.uint16)
