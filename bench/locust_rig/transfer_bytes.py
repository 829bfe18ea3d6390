"""Transfers for Locust's users: drawn evenly, as bytes, each call with the answer to expect.

The bytes are made by `bench.transfers.wire`, whole batches at once. Amounts and accounts are those of
`bench.transfers.workload`, under ids of their own, so that a test does not meet what another measurement left
behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bench.transfers import AMOUNTS, Call, Payments, Wire

# As many as one machine's cluster holds; six digits.
MAX_ACCOUNTS = 1_000_000
# Who pays with nothing, when refusals are asked for: enough to be on every shard.
POOR_ACCOUNTS = 256
# Single transfers are built so many at a time, since numpy's calls cost the same for one as for hundreds.
_SINGLES_AT_ONCE = 256
# An item of a batch has its tag and its length in front of what is a message of its own in a single call.
ITEM_HEADER_BYTES = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """A BatchTransferRequest of ``size`` transfers, and the answer when all of them are committed."""

    size: int
    request: bytes
    committed: bytes


@dataclass(frozen=True, slots=True)
class Single:
    """A TransferRequest, and how the answer begins when it is committed: the balances after it follow."""

    request: bytes
    committed_prefix: bytes


def account_id(number: int) -> str:
    """The id of an account with a credit line."""
    return f"locust-{number:06}"


def poor_account_id(number: int) -> str:
    """The id of an account that never has money. As long as the others."""
    return f"locust-x{number:05}"


class TransferRequests:
    """Draws transfers, uniformly over the pairs of accounts.

    Args:
        accounts: how many accounts there are to choose from; 2 to MAX_ACCOUNTS.
        reject_share: the share, 0 to 1, of transfers whose payer has no funds.
        random: draws accounts and amounts. Ids are random in any case: two processes never make the same.
    """

    def __init__(
        self, accounts: int, reject_share: float = 0.0, random: np.random.Generator | None = None
    ) -> None:
        if not 2 <= accounts <= MAX_ACCOUNTS:
            raise ValueError(f"accounts must be 2 to {MAX_ACCOUNTS}, not {accounts}")
        self._accounts = accounts
        self._reject_share = reject_share
        self._random = np.random.default_rng() if random is None else random
        poor = POOR_ACCOUNTS if reject_share else 0
        self._wire = Wire(
            [account_id(number) for number in range(accounts)]
            + [poor_account_id(number) for number in range(poor)]
        )
        self._singles = self._endless_singles()

    def batch(self, size: int) -> Batch:
        """The next ``size`` transfers in one call."""
        call = Call(self._wire.block(self._draw(size)), 0, size)
        return Batch(size, call.batch_request(), call.committed_answer())

    def single(self) -> Single:
        """The next transfer in a call of its own."""
        return next(self._singles)

    def _endless_singles(self) -> Iterator[Single]:
        while True:
            block = self._wire.block(self._draw(_SINGLES_AT_ONCE))
            for place in range(_SINGLES_AT_ONCE):
                call = Call(block, place, place + 1)
                yield Single(call.single_request(), call.committed_answer()[ITEM_HEADER_BYTES:])

    def _draw(self, size: int) -> Payments:
        payers = self._random.integers(0, self._accounts, size)
        # Anyone but the payer himself.
        payees = (payers + self._random.integers(1, self._accounts, size)) % self._accounts
        refused = np.zeros(size, dtype=np.bool_)
        if self._reject_share:
            refused = self._random.random(size) < self._reject_share
            poor = self._accounts + self._random.integers(0, POOR_ACCOUNTS, size)
            payers = np.where(refused, poor, payers)
        return Payments(payers, payees, self._random.integers(0, len(AMOUNTS), size), refused)
