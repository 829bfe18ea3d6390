"""Opens the accounts that a payments file names, and gives every payer something to pay with.

`tallystick import --open-accounts` is for trying things out: nobody's payments file says who has how much.
Invariant: a payer is funded once for each result file, also when the file is edited and imported again
long after: a deposit is written down before it is sent, like a row. Without the result file its id still
protects it, as a row's does: it comes from the payer's first row and carries that row's time.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import uuid
from collections.abc import Iterable, Sequence
from typing import Protocol
from uuid import UUID

from deploy.errors import DeployError
from deploy.importing.knowledge import FOUND, WORLD_PREFIX, Knowledge, Record, Standing, now_text
from deploy.importing.payments_file import Instruction, instruction
from deploy.importing.results_file import Result, said_of
from deploy.importing.witness import Finding, Memory, Witness, asking_now, must_be_fresh
from tallystick import (
    AccountExists,
    AccountResult,
    Amount,
    InvalidArgument,
    NewAccount,
    Outcome,
    Refused,
    RetryableError,
    TransactionIdExpired,
    Transfer,
    TransferResult,
)

_REFERENCE = "funded by import"
_LATER = "run the same command again later, or without --open-accounts"

# For ids without a time: then the deposit is exactly-once within the deduplication window, as the row is.
_NAMESPACE = UUID("6f4a1f0c-5a0e-5c53-9a5b-0f6d5d1f8a11")
# Deposits on their way at once: there is no batch call for them, and one call waits for a disk.
_DEPOSITS_IN_FLIGHT = 128
_V7 = 7
_VERSION_BITS = _V7 << 76
_VARIANT_BITS = 0b10 << 62
_TIME_MASK = ((1 << 48) - 1) << 80
_RANDOM_MASK = (((1 << 12) - 1) << 64) | ((1 << 62) - 1)


def deposit_id(row_transaction_id: str, account_id: str) -> str | None:
    """The id of the deposit that funds an account, from the first row it pays; None if that has no UUID."""
    try:
        row_id = UUID(row_transaction_id)
    except ValueError:
        return None
    if row_id.version != _V7:
        return str(uuid.uuid5(_NAMESPACE, f"{row_id}/{account_id}"))
    digest = hashlib.blake2b(f"{row_id}/{account_id}".encode(), digest_size=16, person=b"tallystick fund")
    random_bits = int.from_bytes(digest.digest()) & _RANDOM_MASK
    return str(UUID(int=(row_id.int & _TIME_MASK) | _VERSION_BITS | _VARIANT_BITS | random_bits))


class Wallet(Memory, Protocol):
    """What an import needs of `tallystick.Client`."""

    async def open_accounts(
        self, accounts: Iterable[NewAccount], *, timeout_s: float | None = None
    ) -> list[AccountResult]:
        """See `Client.open_accounts`."""

    async def deposit(
        self,
        account_id: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        timeout_s: float | None = None,
    ) -> TransferResult:
        """See `Client.deposit`."""

    async def transfers(
        self, batch: Iterable[Transfer], *, timeout_s: float | None = None
    ) -> list[TransferResult]:
        """See `Client.transfers`."""


class Funding:
    """Opens and funds; keeps who was met in this run by their hashes, for a file may name very many."""

    def __init__(
        self, client: Wallet, knowledge: Knowledge, witness: Witness, amount: str, timeout_s: float
    ) -> None:
        self._client = client
        self._knowledge = knowledge
        self._witness = witness
        self._amount = amount
        self._timeout_s = timeout_s
        self._opened: set[int] = set()
        self._funded: set[int] = set()
        self._places = asyncio.Semaphore(_DEPOSITS_IN_FLIGHT)

    async def prepare(self, instructions: Sequence[Instruction]) -> None:
        """Opens and funds what these name for the first time. Refusals are left to the rows themselves.

        Raises DeployError when the cluster does not answer in time.
        """
        try:
            await self._open(instructions)
            await self._fund(instructions)
        except RetryableError as error:
            raise DeployError(f"accounts could not be opened and funded: {error}") from error

    async def _open(self, instructions: Sequence[Instruction]) -> None:
        # Every currency that the rows name for an account, in their order: the first may be a mistake.
        wanted: dict[str, dict[str, None]] = {}
        for one in instructions:
            for account_id in (one.from_account, one.to_account):
                # Accounts of the system are there by themselves.
                if hash(account_id) not in self._opened and not account_id.startswith("@"):
                    wanted.setdefault(account_id, {})[one.currency] = None
        currencies = {account_id: iter(named) for account_id, named in wanted.items()}
        while currencies:
            asked = {account_id: next(left, None) for account_id, left in currencies.items()}
            new = [NewAccount(account_id, code) for account_id, code in asked.items() if code is not None]
            refused = await self._open_with(new)
            currencies = {account_id: currencies[account_id] for account_id in refused}

    async def _open_with(self, new: Sequence[NewAccount]) -> list[str]:
        """Opens accounts; the ids of those that were refused."""
        refused = []
        for result in await self._client.open_accounts(new, timeout_s=self._timeout_s):
            if isinstance(result.error, RetryableError):
                raise result.error
            if result.error is None or isinstance(result.error, AccountExists):
                self._opened.add(hash(result.account_id))
            else:
                refused.append(result.account_id)
        return refused

    async def _fund(self, instructions: Sequence[Instruction]) -> None:
        new, doubtful = [], []
        for one in instructions:
            payer = one.from_account
            if hash(payer) in self._funded or hash(payer) not in self._opened:
                continue
            known = self._knowledge.funding(payer)
            identity = deposit_id(one.transaction_id, payer)
            if known is not None and known.standing is Standing.DOUBT:
                doubtful.append(known.instruction)
            elif known is None and identity is not None:
                world = f"{WORLD_PREFIX}{one.currency}"
                texts = (identity, world, payer, self._amount, one.currency, _REFERENCE)
                new.append(instruction(texts))
            elif known is None:
                continue
            self._funded.add(hash(payer))
        asked_at = asking_now() if doubtful else math.inf
        new += await self._unfunded(doubtful)
        self._knowledge.intend(new, now_text())
        deposits = (self._deposit(one, asked_at) for one in new)
        done = await asyncio.gather(*deposits, return_exceptions=True)
        self._knowledge.learn(Record(one, Standing.CERTAIN) for one in done if isinstance(one, Result))
        for problem in done:
            if isinstance(problem, BaseException):
                raise problem

    async def _unfunded(self, doubtful: Sequence[Instruction]) -> list[Instruction]:
        """Of deposits that an earlier import may have made, those to make (again), under their old id."""
        again = []
        for one, finding in zip(doubtful, await self._witness.findings(doubtful), strict=True):
            if finding is Finding.MOVED:
                self._knowledge.learn([Record(Result(one, Outcome.COMMITTED, FOUND), Standing.CERTAIN)])
            elif finding is Finding.ABSENT or one.is_timed:
                again.append(one)
            else:
                raise DeployError(
                    f"an earlier import may have funded {one.to_account}, and whether it did cannot be "
                    f"proved now ({self._witness.reason}): {_LATER}"
                )
        return again

    async def _deposit(self, instruction: Instruction, asked_at: float) -> Result:
        payer = instruction.to_account
        try:
            async with self._places:
                must_be_fresh(asked_at)
                await self._client.deposit(
                    payer,
                    instruction.amount,
                    instruction.currency,
                    transaction_id=instruction.transaction_id,
                    reference=instruction.reference,
                    timeout_s=self._timeout_s,
                )
        except InvalidArgument as error:
            if error.field in {"amount", "transaction_id"}:
                # Our own mistake, not the row's: without funds its rows would be refused for good.
                raise DeployError(f"{payer} cannot be funded: {error.message}") from error
            return Result(instruction, error.outcome, said_of(error))
        except TransactionIdExpired as error:
            (finding,) = await self._witness.findings([instruction])
            if finding is Finding.UNPROVABLE:
                raise DeployError(
                    f"whether {payer} was funded long ago cannot be proved now ("
                    f"{self._witness.reason}): {_LATER}"
                ) from error
            moved = finding is Finding.MOVED
            return Result(instruction, Outcome.COMMITTED if moved else error.outcome, FOUND if moved else "")
        except Refused as error:
            # Its reason meets the row itself.
            return Result(instruction, error.outcome, said_of(error))
        return Result(instruction, Outcome.COMMITTED)
