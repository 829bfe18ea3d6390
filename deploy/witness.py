"""What became of an instruction that the shards may have forgotten: the ledger never forgets.

Only an archive that has all that happened before the question proves that something did not move. A message
of an earlier import that is still on its way at that moment is no danger: it meets what is sent now within
the deduplication window, and one of the two moves nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Final, Protocol
from uuid import UUID

from deploy.completeness import EVERYTHING
from deploy.knowledge import FOUND, WORLD_PREFIX, Record, Standing
from deploy.payments_file import Instruction
from deploy.results_file import Result
from tallystick import (
    InvalidArgument,
    Outcome,
    Refused,
    RetryableError,
    TallystickError,
    TransactionNotFound,
    TransferRecord,
)
from tallystick.ledger import Entry

# A question costs the database some milliseconds.
_QUESTIONS_AT_ONCE: Final = 16
# The archiver is a second behind, or has stopped.
_WAIT_SECONDS: Final = 10.0


class Finding(Enum):
    """What became of an instruction."""

    MOVED = "it moved this money"
    # By the same payer.
    TAKEN = "its id moved something else"
    ABSENT = "it moved nothing"
    UNPROVABLE = "whether it moved cannot be proved now"


class Ledger(Protocol):
    """What is needed of `tallystick.LedgerClient`."""

    async def transfer(
        self,
        transaction_id: str | UUID,
        from_account: str = "",
        *,
        wait_for: datetime | None = None,
        timeout_s: float | None = None,
    ) -> Sequence[Entry]:
        """See `LedgerClient.transfer`."""


class Memory(Protocol):
    """What is needed of `tallystick.Client`."""

    async def get_transfer(
        self, transaction_id: str | UUID, from_account: str, *, timeout_s: float | None = None
    ) -> TransferRecord:
        """See `Client.get_transfer`."""


class Witness:
    """Asks the ledger, and where that cannot tell, what the shards remember.

    ``reason`` says why the ledger cannot tell, once it could not: it is not asked again, for every further
    question would wait as long.
    """

    def __init__(self, ledger: Ledger, memory: Memory) -> None:
        self._ledger = ledger
        self._memory = memory
        self._places = asyncio.Semaphore(_QUESTIONS_AT_ONCE)
        self.reason = ""

    async def findings(self, instructions: Sequence[Instruction]) -> list[Finding]:
        """One for each instruction, in order; all that are in doubt under an id must come together."""
        uses = Counter((one.key, one.from_account) for one in instructions)
        return await asyncio.gather(
            *(self._finding(one, is_alone=uses[one.key, one.from_account] == 1) for one in instructions)
        )

    async def conclusions(self, doubts: Sequence[Record]) -> list[Record]:
        """What is to be written down of each, in order; all in doubt under an id must come together."""
        uses = Counter((one.instruction.key, one.instruction.from_account) for one in doubts)
        findings = await self.findings([record.instruction for record in doubts])
        concluded = []
        for record, finding in zip(doubts, findings, strict=True):
            one = record.instruction
            if finding is Finding.UNPROVABLE and one.is_timed and uses[one.key, one.from_account] == 1:
                # Such an id counts once for ever: the cluster itself tells a repetition.
                finding = Finding.ABSENT  # noqa: PLW2901 - both mean that it may be sent
            concluded.append(self.conclusion(record.result, finding))
        return concluded

    def conclusion(self, result: Result, finding: Finding) -> Record:
        """What a finding makes of what was known of an instruction."""
        match finding:
            case Finding.MOVED:
                outcome, message, standing = Outcome.COMMITTED, FOUND, Standing.CERTAIN
            case Finding.TAKEN:
                outcome, standing = Outcome.TRANSACTION_ID_REUSED, Standing.CERTAIN
                message = "the id moved something else"
            case Finding.ABSENT:
                outcome, standing = Outcome.OUTCOME_UNKNOWN, Standing.SENT
                message = "it had not moved when it was looked for"
            case Finding.UNPROVABLE:
                outcome, standing = Outcome.OUTCOME_UNKNOWN, Standing.DOUBT
                message = (
                    f"whether an earlier import moved it cannot be proved now ({self.reason}): "
                    "run the same command again"
                )
        return Record(result._replace(outcome=outcome, message=message), standing)

    async def _finding(self, instruction: Instruction, *, is_alone: bool) -> Finding:
        async with self._places:
            if not self.reason:
                try:
                    return _read(instruction, await self._entries(instruction))
                except (Refused, RetryableError) as error:
                    self.reason = str(error)
            # The payee is not remembered: it cannot tell apart what has one id, payer and amount.
            return await self._remembered(instruction) if is_alone else Finding.UNPROVABLE

    async def _entries(self, instruction: Instruction) -> Sequence[Entry]:
        try:
            return await self._ledger.transfer(
                instruction.transaction_id, wait_for=EVERYTHING, timeout_s=_WAIT_SECONDS
            )
        except (TransactionNotFound, InvalidArgument):
            # Under what is no transaction id nothing moves.
            return ()

    async def _remembered(self, instruction: Instruction) -> Finding:
        payer = instruction.from_account
        if payer.startswith(WORLD_PREFIX):
            payer = instruction.to_account
        try:
            found = await self._memory.get_transfer(instruction.transaction_id, payer)
        except TallystickError:
            return Finding.UNPROVABLE
        if found.outcome is not Outcome.COMMITTED:
            return Finding.ABSENT
        same = (found.amount, found.currency) == (_decimal(instruction.amount), instruction.currency)
        return Finding.MOVED if same else Finding.TAKEN


def _read(instruction: Instruction, entries: Sequence[Entry]) -> Finding:
    paid = [
        entry for entry in entries if entry.delta < 0 and _is_of(entry.account_id, instruction.from_account)
    ]
    if instruction.from_account.startswith(WORLD_PREFIX):
        # One id may have funded another account, from the same system account.
        paid = [entry for entry in paid if entry.counterparty == instruction.to_account]
    if not paid:
        return Finding.ABSENT
    wanted = (
        instruction.to_account,
        _decimal(instruction.amount),
        instruction.currency,
        instruction.reference,
    )
    matches = any((one.counterparty, -one.delta, one.currency, one.reference) == wanted for one in paid)
    return Finding.MOVED if matches else Finding.TAKEN


def _is_of(ledger_name: str, account_id: str) -> bool:
    """The ledger names a system account with its shard: "@world:EUR:shard-0"."""
    if account_id.startswith(WORLD_PREFIX):
        return ledger_name.startswith(f"{account_id}:")
    return ledger_name == account_id


def _decimal(amount: str) -> Decimal | None:
    try:
        return Decimal(amount)
    except InvalidOperation:
        return None
