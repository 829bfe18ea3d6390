"""LedgerService: history and audit over gRPC. Served by every router; without a ledger it says so.

Nothing here moves money. The database blocks, so it is asked in threads (``ledger_reader``); when it does
not answer the call is UNAVAILABLE, never empty. Every answer, also that nothing was found, says up to which
moment it is complete (``ledger_completeness``).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc

from router.execution import (
    MAX_WAIT_SECONDS,
    CompleteAnswers,
    LedgerReader,
    NotYetArchivedError,
    TooManyQuestionsError,
    deadline_of,
)
from router.requests import BadField, FieldReader
from router.requests import ledger as ledger_requests
from router.services import refusals
from router.services.ledger_messages import balance_message, entry_message, finding_message, timestamp
from router.services.ledger_watch import (
    SlowReaderError,
    TooManyWatchersError,
    WatchEndedError,
    Watchers,
    WatchSettings,
)
from shard_node.cluster import Exponents
from shard_node.contract import Outcome
from shard_node.errors import ShardNodeError
from shard_node.ledger.proof import QuickCheck
from shard_node.ledger.questions import BadTokenError
from shard_node.serving import statuses
from tallystick.v1 import ledger_pb2, ledger_pb2_grpc, wallet_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from google.protobuf.timestamp_pb2 import Timestamp

    from router.execution import Maps
    from shard_node.ledger.questions import History

T = TypeVar("T")

# Checks at once: each reads every account.
MAX_CHECKS = 2

# What is said when nothing is found: outcome, field, message.
_Nothing = tuple[Outcome, str, str]
_NO_ENTRIES = Outcome.ACCOUNT_NOT_FOUND, "account_id", "account not found: no entry is archived"
_NO_BALANCE = _NO_ENTRIES[0], _NO_ENTRIES[1], f"{_NO_ENTRIES[2]} from that time or before"
_NO_TRANSACTION = (
    Outcome.TRANSACTION_NOT_FOUND,
    "transaction_id",
    "transaction not found: no entry is archived, so it moved nothing, or did so later",
)


class LedgerService(ledger_pb2_grpc.LedgerServiceServicer):
    """Validates, asks, answers. ``history`` is None where no ledger was named."""

    def __init__(
        self, history: History | None, directory: Maps, settings: WatchSettings | None = None
    ) -> None:
        self._history = history
        self._directory = directory
        # For ids alone.
        self._fields = FieldReader(Exponents())
        self._reader = LedgerReader()
        self._answers: CompleteAnswers | None = None
        self._watchers: Watchers | None = None
        if history:
            self._answers = CompleteAnswers(history, lambda: directory.current.shards, self._reader)
            self._watchers = Watchers(history, self._reader, self._answers, settings or WatchSettings())
        self._checks = 0

    def close_watches(self) -> None:
        """Ends every watch and every wait, so that a server which is stopping need not wait for them."""
        if self._watchers:
            self._watchers.close()
        if self._answers:
            self._answers.close()

    def close(self) -> None:
        """Takes no more questions."""
        self._reader.close()

    async def ListEntries(  # noqa: N802 -- the contract's names, here and below
        self, request: ledger_pb2.ListEntriesRequest, context: Any
    ) -> ledger_pb2.ListEntriesResponse:
        """A page of one account's entries."""
        history, _ = await self._ledger(context)
        wanted = await _read(partial(ledger_requests.page_request, request), context)

        def ask() -> tuple[list[ledger_pb2.Entry], str] | None:
            page = history.page(wanted.query, wanted.page_size, wanted.token)
            if page is None:
                return None
            return [entry_message(entry, history) for entry in page.entries], page.next_token

        (entries, token), complete_until = await self._ask(ask, _NO_ENTRIES, request, context)
        return ledger_pb2.ListEntriesResponse(
            entries=entries, next_page_token=token, complete_until=complete_until
        )

    async def GetTransfer(  # noqa: N802
        self, request: ledger_pb2.GetLedgerTransferRequest, context: Any
    ) -> ledger_pb2.LedgerTransfer:
        """All entries of one transaction."""
        history, _ = await self._ledger(context)
        transaction_id, payer = await _read(
            lambda: ledger_requests.transaction_request(request, self._fields), context
        )

        def ask() -> list[ledger_pb2.Entry] | None:
            found = history.transaction(transaction_id, payer)
            return [entry_message(entry, history) for entry in found] or None

        entries, complete_until = await self._ask(ask, _NO_TRANSACTION, request, context)
        return ledger_pb2.LedgerTransfer(
            transaction_id=request.transaction_id, entries=entries, complete_until=complete_until
        )

    async def GetBalanceAt(  # noqa: N802
        self, request: ledger_pb2.GetBalanceAtRequest, context: Any
    ) -> ledger_pb2.BalanceAt:
        """The balance of an account at a moment."""
        history, _ = await self._ledger(context)
        account_id, time_ms = await _read(partial(ledger_requests.balance_request, request), context)

        def ask() -> ledger_pb2.BalanceAt | None:
            found = history.balance_at(account_id, time_ms)
            return None if found is None else balance_message(found, history)

        balance, complete_until = await self._ask(ask, _NO_BALANCE, request, context)
        balance.MergeFrom(ledger_pb2.BalanceAt(complete_until=complete_until))
        return balance

    async def WatchEntries(  # noqa: N802
        self, request: ledger_pb2.WatchEntriesRequest, context: Any
    ) -> None:
        """Entries as they are archived."""
        await self._ledger(context)
        wanted = await _read(partial(ledger_requests.watch_request, request), context)
        assert self._watchers is not None  # noqa: S101 -- as there is a ledger
        try:
            await self._watchers.serve(wanted, context)
        except BadField as bad:
            await refusals.abort(context, refusals.invalid(bad))
        except (SlowReaderError, TooManyWatchersError) as error:
            await _exhausted(context, str(error))
        except TooManyQuestionsError:
            await _exhausted(context, "the ledger has too many questions: go on soon from the last cursor")
        except (ShardNodeError, WatchEndedError) as error:
            await _unavailable(context, str(error))

    async def ConsistencyCheck(  # noqa: N802
        self, request: ledger_pb2.ConsistencyCheckRequest, context: Any
    ) -> AsyncIterator[ledger_pb2.ConsistencyCheckResponse]:
        """The quick check of :mod:`shard_node.ledger.proof.quick_check`."""
        history, answers = await self._ledger(context)
        max_backlog = await _read(partial(ledger_requests.max_backlog, request), context)
        if self._checks >= MAX_CHECKS:
            await _exhausted(context, f"{self._checks} checks are under way already: ask again soon")
        self._checks += 1
        check = QuickCheck(history, self._directory.current.shards, self._reader.ask)
        try:
            complete_until = timestamp((await answers.look()).until_ms)
            async for checked, total in check.run():
                yield ledger_pb2.ConsistencyCheckResponse(accounts_checked=checked, accounts_total=total)
        except TooManyQuestionsError:
            await _exhausted(context, "the ledger has too many questions: ask again soon")
        except ShardNodeError as error:
            await _unavailable(context, str(error))
        finally:
            self._checks -= 1
        found = check.findings
        result = ledger_pb2.ConsistencyResult(
            consistent=found.total == 0 and check.entries_waiting <= max_backlog,
            findings=[finding_message(finding) for finding in found.kept],
            findings_total=found.total,
            entries_archived=check.entries_archived,
            entries_waiting=check.entries_waiting,
            in_flight=check.in_flight,
            complete_until=complete_until,
        )
        yield ledger_pb2.ConsistencyCheckResponse(
            accounts_checked=check.accounts_checked, accounts_total=check.accounts_checked, result=result
        )

    # ------------------------------------------------------------------ within

    async def _ledger(self, context: Any) -> tuple[History, CompleteAnswers]:
        if self._history is None or self._answers is None:
            await statuses.abort(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                "NO_LEDGER",
                "this router has no ledger: start it with --ledger URL, the database that the archivers fill",
            )
        return self._history, self._answers

    async def _ask(
        self,
        question: Callable[[], T | None],
        nothing: _Nothing,
        request: ledger_requests.Waiting,
        context: Any,
    ) -> tuple[T, Timestamp | None]:
        """The answer to a question, and up to when it is complete: as far as the request waits for.

        ``nothing`` is how the call ends when the answer is None.
        """
        _, answers = await self._ledger(context)
        wait_for_ms = await _read(partial(ledger_requests.wait_for, request), context)
        try:
            answer, found = await answers.ask(question, wait_for_ms, deadline_of(context, MAX_WAIT_SECONDS))
        except TooManyQuestionsError:
            await _exhausted(context, "the ledger has too many questions: ask again soon")
        except BadTokenError as error:
            await refusals.abort(context, refusals.invalid(BadField("page_token", str(error))))
        except NotYetArchivedError as error:
            await _not_yet(context, error)
        except ShardNodeError as error:
            await _unavailable(context, str(error))
        complete_until = timestamp(found.until_ms)
        if answer is None:
            outcome, field, message = nothing
            message = f"{message}; {_complete_text(complete_until)}"
            await _refuse(context, outcome, message, field, **_complete_metadata(complete_until))
        return answer, complete_until


async def _read(read: Callable[[], T], context: Any) -> T:
    """What a request asks for, or its refusal."""
    try:
        return read()
    except BadField as bad:
        await refusals.abort(context, refusals.invalid(bad))


async def _not_yet(context: Any, error: NotYetArchivedError) -> NoReturn:
    complete_until = timestamp(error.found.until_ms)
    behind = [reach.shard_id for reach in error.lacking if reach.answered]
    silent = [reach.shard_id for reach in error.lacking if not reach.answered]
    await statuses.abort(
        context,
        grpc.StatusCode.UNAVAILABLE,
        "NOT_YET_ARCHIVED",
        f"{_complete_text(complete_until)}: {error}",
        metadata={
            "shards_behind": ",".join(behind),
            "shards_not_answering": ",".join(silent),
            **_complete_metadata(complete_until),
        },
    )


def _complete_text(complete_until: Timestamp | None) -> str:
    if complete_until is None:
        return "up to when the archive is complete is not known"
    return f"the archive is complete up to {complete_until.ToJsonString()}"


def _complete_metadata(complete_until: Timestamp | None) -> dict[str, str]:
    return {} if complete_until is None else {"complete_until": complete_until.ToJsonString()}


async def _exhausted(context: Any, message: str) -> NoReturn:
    await _refuse(context, Outcome.RESOURCE_EXHAUSTED, message)


async def _unavailable(context: Any, message: str) -> NoReturn:
    await _refuse(context, Outcome.OUTCOME_UNKNOWN, message)


async def _refuse(context: Any, outcome: Outcome, message: str, field: str = "", **metadata: str) -> NoReturn:
    refusal = wallet_pb2.Refusal(outcome=refusals.wire_outcome(outcome), message=message, field=field)
    await refusals.abort(context, refusal, **metadata)
