"""Transfers as bytes of the contract's messages, whole batches at a time, with the answers to expect.

A generator that builds a message object for each transfer costs as much as the cluster that it measures. All
texts here have a fixed width, so that a batch is a table of bytes that numpy fills in column by column; what
an answer must be, byte for byte, when every transfer is committed, falls out of the same table.
Invariant: no transaction id is made twice, by whatever process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tallystick.v1 import outcome_pb2, wallet_pb2

CURRENCY = "EUR"
# Of one width, with a digit less for those without money.
_PREFIX, _POOR_PREFIX, _DIGITS = "locust-", "locust-p", 7
MAX_ACCOUNTS = 10**_DIGITS
# Who pays with nothing, when refusals are asked for: enough to be on every shard.
POOR_ACCOUNTS = 256
# Single transfers are built so many at a time, since numpy's calls cost the same for one as for hundreds.
_SINGLES_AT_ONCE = 256
# 100.00 to 999.99: as varied as real ones, and of one width.
_FIRST_CENTS, _AMOUNTS = 10_000, 90_000
_SAMPLE_ID = "00000000-0000-7000-8000-000000000000"
_SAMPLE_AMOUNT = "100.00"

Table = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """A request, and the answer when all of its transfers are committed; ``size`` transfers."""

    size: int
    request: bytes
    committed: bytes


@dataclass(frozen=True, slots=True)
class Single:
    """A request, and how the answer begins when it is committed: the balances after it follow."""

    request: bytes
    committed_prefix: bytes


def account_id(number: int) -> str:
    """The id of an account with a credit line."""
    return f"{_PREFIX}{number:0{_DIGITS}}"


def poor_account_id(number: int) -> str:
    """The id of an account that never has money."""
    return f"{_POOR_PREFIX}{number:0{_DIGITS - 1}}"


class TransferRequests:
    """Draws transfers, uniformly over the pairs of accounts.

    Args:
        accounts: how many accounts there are to choose from; 2 to MAX_ACCOUNTS.
        reject_share: the share, 0 to 1, of transfers whose payer has no funds.
        random: the source of accounts, amounts and ids; it must differ from process to process.
        clock_ns: Unix time in nanoseconds, for the ids.
    """

    def __init__(
        self,
        accounts: int,
        reject_share: float = 0.0,
        random: np.random.Generator | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if not 2 <= accounts <= MAX_ACCOUNTS:
            raise ValueError(f"accounts must be 2 to {MAX_ACCOUNTS}, not {accounts}")
        self._accounts = accounts
        self._reject_share = reject_share
        self._random = np.random.default_rng() if random is None else random
        self._clock_ns = clock_ns
        self._ids = _numbered(_PREFIX, _DIGITS, accounts)
        self._poor_ids = _numbered(_POOR_PREFIX, _DIGITS - 1, POOR_ACCOUNTS)
        self._amounts = _texts(
            [f"{c // 100}.{c % 100:02}" for c in range(_FIRST_CENTS, _FIRST_CENTS + _AMOUNTS)]
        )
        self._singles: list[Single] = []

    def batch(self, size: int) -> Batch:
        """The next ``size`` transfers as one BatchTransferRequest."""
        requests, answers = self._draw(size)
        return Batch(size, requests.tobytes(), answers.tobytes())

    def single(self) -> Single:
        """The next transfer as one TransferRequest."""
        if not self._singles:
            requests, answers = self._draw(_SINGLES_AT_ONCE)
            # Without the tag and the length that an item of a batch has.
            sent, awaited = requests[:, 2:].tobytes(), answers[:, 2:].tobytes()
            wide, narrow = REQUEST_BYTES - 2, ANSWER_BYTES - 2
            self._singles = [
                Single(sent[at * wide : (at + 1) * wide], awaited[at * narrow : (at + 1) * narrow])
                for at in range(_SINGLES_AT_ONCE)
            ]
        return self._singles.pop()

    def _draw(self, size: int) -> tuple[Table, Table]:
        """Rows of requests and of the answers to them, as items of a batch."""
        payers = self._random.integers(0, self._accounts, size)
        # Anyone but the payer himself.
        payees = (payers + self._random.integers(1, self._accounts, size)) % self._accounts
        ids = transaction_ids(size, self._random, self._clock_ns)
        requests = np.repeat(_REQUEST, size, axis=0)
        requests[:, _ID] = ids
        requests[:, _PAYER] = self._ids.take(payers, axis=0)
        requests[:, _PAYEE] = self._ids.take(payees, axis=0)
        requests[:, _AMOUNT] = self._amounts.take(self._random.integers(0, _AMOUNTS, size), axis=0)
        if self._reject_share:
            poor = np.flatnonzero(self._random.random(size) < self._reject_share)
            chosen = self._random.integers(0, POOR_ACCOUNTS, len(poor))
            requests[poor, _PAYER] = self._poor_ids[chosen]
        answers = np.repeat(_ANSWER, size, axis=0)
        answers[:, _ANSWER_ID] = ids
        return requests, answers


def transaction_ids(size: int, random: np.random.Generator, clock_ns: Callable[[], int]) -> Table:
    """UUIDv7 as text (RFC 9562, section 5.7), a row of 36 characters each: the time, and 74 random bits."""
    stamp = f"{(clock_ns() // 1_000_000) & (1 << 48) - 1:012x}"
    drawn = np.frombuffer(random.bytes(10 * size), np.uint8).reshape(size, 10)
    digits = _HEX[drawn[:, :9]].view(np.uint8)
    texts = np.repeat(_texts([f"{stamp[:8]}-{stamp[8:]}{_SAMPLE_ID[13:]}"]), size, axis=0)
    texts[:, 15:18] = digits[:, :3]
    # The variant, binary 10, and two random bits.
    texts[:, 19] = _VARIANTS[drawn[:, 9] & 0b11]
    texts[:, 20:23] = digits[:, 3:6]
    texts[:, 24:36] = digits[:, 6:18]
    return texts


def _texts(texts: list[str]) -> Table:
    """ASCII texts of one width, a row each."""
    return np.frombuffer("".join(texts).encode("ascii"), np.uint8).reshape(len(texts), -1)


def _numbered(prefix: str, digits: int, count: int) -> Table:
    """The prefix and the numbers from 0, a row each: millions of them, so not as Python's texts."""
    numbers = np.arange(count)
    texts = np.repeat(_texts([prefix + "0" * digits]), count, axis=0)
    for place in range(digits):
        texts[:, -1 - place] += (numbers // 10**place % 10).astype(np.uint8)
    return texts


def _request_row() -> bytes:
    request = wallet_pb2.BatchTransferRequest()
    request.transfers.add(
        transaction_id=_SAMPLE_ID,
        from_account=account_id(0),
        to_account=account_id(1),
        amount=_SAMPLE_AMOUNT,
        currency=CURRENCY,
    )
    return request.SerializeToString()


def _answer_row() -> bytes:
    answer = wallet_pb2.BatchTransferResponse()
    answer.results.add(transaction_id=_SAMPLE_ID, outcome=outcome_pb2.OUTCOME_COMMITTED)
    return answer.SerializeToString()


def _place(row: bytes, text: str) -> slice:
    """Where a text is in a row."""
    at = row.index(text.encode("ascii"))
    return slice(at, at + len(text))


_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode("ascii"), np.uint16)
_VARIANTS = np.frombuffer(b"89ab", np.uint8)
# The templates are made by protobuf itself, so that they are what the contract says.
_REQUEST = np.frombuffer(_request_row(), np.uint8).reshape(1, -1)
_ANSWER = np.frombuffer(_answer_row(), np.uint8).reshape(1, -1)
REQUEST_BYTES = _REQUEST.shape[1]
ANSWER_BYTES = _ANSWER.shape[1]
_ID = _place(_request_row(), _SAMPLE_ID)
_PAYER = _place(_request_row(), account_id(0))
_PAYEE = _place(_request_row(), account_id(1))
_AMOUNT = _place(_request_row(), _SAMPLE_AMOUNT)
_ANSWER_ID = _place(_answer_row(), _SAMPLE_ID)
