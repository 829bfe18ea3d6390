"""What became of an instruction that the shards may have forgotten: the ledger never forgets.

Only an archive that has all that happened before the question proves that something did not move. A message
of an earlier import may still be on its way at that moment. What is sent now meets it within the
deduplication window, and one of the two moves nothing, as long as no message is carried out later than a
window after it was sent. That is assumed, not enforced: a router that stood still for so long, with the
message unread in its socket and the importing machine gone without a word, would carry it out. UUIDv7 are
safe even then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Final, Protocol
from uuid import UUID

from deploy.errors import DeployError
from deploy.importing.knowledge import FOUND, WORLD_PREFIX, Knowledge, Record, Standing
from deploy.importing.payments_file import Instruction
from deploy.importing.results_file import Result
from deploy.moments import EVERYTHING
from tallystick import (
    Outcome,
    Refused,
    RetryableError,
    TallystickError,
    TransactionNotFound,
    TransferRecord,
)
from tallystick.ledger import Entry

# A question costs the database some milliseconds, and waits for the archiver. A router lets 256 wait.
_QUESTIONS_AT_ONCE: Final = 128
# The archiver is a second behind, or has stopped.
_WAIT_SECONDS: Final = 10.0


# No deduplication window is shorter than two minutes: what was found absent must be sent, with all tries of
# it, within one of the question.
_PROOF_SECONDS: Final = 30.0


def asking_now() -> float:
    """When a question is asked: seconds that count also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def must_be_fresh(asked_at: float) -> None:
    """Raises DeployError when too much time has passed since then to send what was found absent."""
    if asking_now() - asked_at > _PROOF_SECONDS:
        raise DeployError("the import stood still for too long to go on safely: run the same command again")


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
        from_account: str | None = None,
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

    def __init__(self, ledger: Ledger, memory: Memory, knowledge: Knowledge) -> None:
        self._ledger = ledger
        self._memory = memory
        self._knowledge = knowledge
        self._places = asyncio.Semaphore(_QUESTIONS_AT_ONCE)
        self.reason = ""

    async def findings(self, instructions: Sequence[Instruction]) -> list[Finding]:
        """One for each instruction, in order."""
        known = self._knowledge.find(one.key for one in instructions)
        return await asyncio.gather(*(self._finding(one, known.get(one.key, ())) for one in instructions))

    async def conclusions(self, doubts: Sequence[Record]) -> list[Record]:
        """What is to be written down of each, in order."""
        findings = await self.findings([record.instruction for record in doubts])
        return [
            self.conclusion(record.result, finding) for record, finding in zip(doubts, findings, strict=True)
        ]

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

    async def _finding(self, one: Instruction, known: Sequence[Record]) -> Finding:
        if not one.has_uuid:
            return Finding.ABSENT
        rivals = [
            record
            for record in known
            if record.instruction.from_account == one.from_account
            and record.instruction.fingerprint != one.fingerprint
        ]
        if any(record.result.outcome is Outcome.COMMITTED for record in rivals):
            return Finding.TAKEN
        async with self._places:
            if not self.reason:
                try:
                    return _read(one, await self._entries(one))
                except (Refused, RetryableError) as error:
                    self.reason = str(error)
            if any(record.standing is not Standing.CERTAIN for record in rivals):
                # The payee is not remembered: it cannot tell apart what has one id, payer and amount.
                return Finding.UNPROVABLE
            return await self._remembered(one)

    async def _entries(self, instruction: Instruction) -> Sequence[Entry]:
        try:
            return await self._ledger.transfer(
                instruction.transaction_id, wait_for=EVERYTHING, timeout_s=_WAIT_SECONDS
            )
        except TransactionNotFound:
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
