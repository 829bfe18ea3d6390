"""A wallet service without a cluster: WalletService over real gRPC, with scripted faults.

It keeps balances and outcomes in memory and moves money once per transaction id, so that
a test can see whether a retry moved anything twice. `python -m tests.client.stand_in`
serves one in a process of its own and prints its port.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from decimal import Decimal

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tallystick.errors import Outcome
from tallystick.v1 import wallet_pb2, wallet_pb2_grpc

Context = grpc.aio.ServicerContext[Message, Message]
Fault = Callable[["StandIn", Context, Message], Awaitable[None]]
"""Runs before a call is served; it may end the call by aborting."""

CODES = {
    Outcome.INSUFFICIENT_FUNDS: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.ACCOUNT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Outcome.ACCOUNT_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Outcome.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Outcome.TRANSACTION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Outcome.OUTCOME_UNKNOWN: grpc.StatusCode.UNAVAILABLE,
    Outcome.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


async def refuse(context: Context, outcome: Outcome, message: str = "", *details: Message) -> None:
    """End a call as the routers do, with a google.rpc.Status."""
    code = CODES[outcome]
    status = status_pb2.Status(code=code.value[0], message=message)
    reason = error_details_pb2.ErrorInfo(reason=outcome.name, domain="tallystick")
    for detail in (reason, *details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort_with_status(rpc_status.to_status(status))


async def break_off(_: "StandIn", context: Context, __: Message) -> None:
    """Fail before anything is done, as a router that goes away does: no details."""
    await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


async def work_then_break_off(service: "StandIn", context: Context, request: Message) -> None:
    """Do the work and lose the reply."""
    if isinstance(request, wallet_pb2.BatchTransferRequest):
        for item in request.transfers:
            service.move(item)
    elif isinstance(request, wallet_pb2.DepositRequest):
        service.deposit(request)
    await context.abort(grpc.StatusCode.UNAVAILABLE, "reply lost")


def busy(retry_after_ms: int) -> Fault:
    """Refuse for load, with RetryInfo."""

    async def fault(_: "StandIn", context: Context, __: Message) -> None:
        delay = duration_pb2.Duration(nanos=retry_after_ms * 1_000_000)
        await refuse(
            context, Outcome.RESOURCE_EXHAUSTED, "busy", error_details_pb2.RetryInfo(retry_delay=delay)
        )

    return fault


def hold(begun: asyncio.Event, go_on: asyncio.Event) -> Fault:
    """Say that the call is here, and serve it when told to."""

    async def fault(_: "StandIn", __: Context, ___: Message) -> None:
        begun.set()
        await go_on.wait()

    return fault


class StandIn(wallet_pb2_grpc.WalletServiceServicer):
    """The service, with what a test scripts and what it can look at afterwards.

    Attributes:
        faults: run one a call, before it is served, until none is left.
        unknown_items: ids whose next batch result says OUTCOME_UNKNOWN, after the work.
        calls: method names in the order they came.
        batch_sizes: of each BatchTransfer.
        moves: how often money moved, by transaction id.
        balances: by account.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = deque(faults)
        self.unknown_items: set[str] = set()
        self.calls: list[str] = []
        self.batch_sizes: list[int] = []
        self.moves: Counter[str] = Counter()
        self.balances: dict[str, Decimal] = {}
        self._outcomes: dict[str, wallet_pb2.TransferResponse] = {}

    async def _enter(self, name: str, context: Context, request: Message) -> None:
        self.calls.append(name)
        if self.faults:
            await self.faults.popleft()(self, context, request)

    def move(self, item: wallet_pb2.TransferRequest) -> wallet_pb2.TransferResponse:
        """Do one transfer, once per id."""
        known = self._outcomes.get(item.transaction_id)
        if known is None:
            known = self._outcomes[item.transaction_id] = self._move(item)
        return known

    def _move(self, item: wallet_pb2.TransferRequest) -> wallet_pb2.TransferResponse:
        amount, balances = Decimal(item.amount), self.balances
        outcome = Outcome.COMMITTED
        if item.from_account not in balances or item.to_account not in balances:
            outcome = Outcome.ACCOUNT_NOT_FOUND
        elif balances[item.from_account] < amount:
            outcome = Outcome.INSUFFICIENT_FUNDS
        response = wallet_pb2.TransferResponse(transaction_id=item.transaction_id, outcome=outcome.value)
        if outcome is not Outcome.COMMITTED:
            response.refusal.outcome = response.outcome
            response.refusal.message = f"{item.from_account} to {item.to_account}"
            return response
        self.moves[item.transaction_id] += 1
        balances[item.from_account] -= amount
        balances[item.to_account] += amount
        response.from_available = str(balances[item.from_account])
        response.to_available = str(balances[item.to_account])
        return response

    def deposit(self, request: wallet_pb2.DepositRequest) -> wallet_pb2.TransferResponse:
        """Do one deposit, once per id."""
        name = request.transaction_id
        if name not in self._outcomes:
            self.moves[name] += 1
            self.balances[request.account_id] += Decimal(request.amount)
            self._outcomes[name] = wallet_pb2.TransferResponse(
                transaction_id=name,
                outcome=Outcome.COMMITTED.value,
                to_available=str(self.balances[request.account_id]),
            )
        return self._outcomes[name]

    def _account(self, account_id: str) -> wallet_pb2.Account:
        return wallet_pb2.Account(
            account_id=account_id,
            currency="EUR",
            available=str(self.balances[account_id]),
            held="0.00",
            version=1,
            state=wallet_pb2.ACCOUNT_STATE_OPEN,
            minimum_balance="0.00",
        )

    async def OpenAccount(  # noqa: N802
        self, request: wallet_pb2.OpenAccountRequest, context: Context
    ) -> wallet_pb2.Account:
        """Open, in euros only."""
        await self._enter("OpenAccount", context, request)
        if request.currency != "EUR":
            violation = error_details_pb2.BadRequest.FieldViolation(field="currency", description="only EUR")
            bad = error_details_pb2.BadRequest(field_violations=[violation])
            await refuse(context, Outcome.INVALID_ARGUMENT, "bad request", bad)
        self.balances.setdefault(request.account_id, Decimal("0.00"))
        return self._account(request.account_id)

    async def BatchOpenAccounts(  # noqa: N802
        self, request: wallet_pb2.BatchOpenAccountsRequest, context: Context
    ) -> wallet_pb2.BatchAccountsResponse:
        """Open each; an id in `unknown_items` is opened and answered with "unknown", once."""
        await self._enter("BatchOpenAccounts", context, request)
        results = []
        for item in request.accounts:
            self.balances.setdefault(item.account_id, Decimal("0.00"))
            if item.account_id in self.unknown_items:
                self.unknown_items.remove(item.account_id)
                refusal = wallet_pb2.Refusal(outcome=Outcome.OUTCOME_UNKNOWN.value)
                results.append(wallet_pb2.AccountResult(refusal=refusal))
            else:
                results.append(wallet_pb2.AccountResult(account=self._account(item.account_id)))
        return wallet_pb2.BatchAccountsResponse(results=results)

    async def GetAccount(self, request: wallet_pb2.GetAccountRequest, context: Context) -> wallet_pb2.Account:  # noqa: N802
        """Read."""
        await self._enter("GetAccount", context, request)
        if request.account_id not in self.balances:
            await refuse(context, Outcome.ACCOUNT_NOT_FOUND, "no such account")
        return self._account(request.account_id)

    async def BatchGetAccounts(  # noqa: N802
        self, request: wallet_pb2.BatchGetAccountsRequest, context: Context
    ) -> wallet_pb2.BatchAccountsResponse:
        """Read each."""
        await self._enter("BatchGetAccounts", context, request)
        refusal = wallet_pb2.Refusal(outcome=Outcome.ACCOUNT_NOT_FOUND.value, message="no such account")
        return wallet_pb2.BatchAccountsResponse(
            results=[
                wallet_pb2.AccountResult(account=self._account(account_id))
                if account_id in self.balances
                else wallet_pb2.AccountResult(refusal=refusal)
                for account_id in request.account_ids
            ]
        )

    async def BatchTransfer(  # noqa: N802
        self, request: wallet_pb2.BatchTransferRequest, context: Context
    ) -> wallet_pb2.BatchTransferResponse:
        """Move each; an id in `unknown_items` is moved and answered with "unknown", once."""
        await self._enter("BatchTransfer", context, request)
        self.batch_sizes.append(len(request.transfers))
        response = wallet_pb2.BatchTransferResponse()
        for item in request.transfers:
            result = response.results.add()
            result.CopyFrom(self.move(item))
            if item.transaction_id in self.unknown_items:
                self.unknown_items.remove(item.transaction_id)
                result.outcome = Outcome.OUTCOME_UNKNOWN.value
            if not request.return_balances:
                result.ClearField("from_available")
                result.ClearField("to_available")
        return response

    async def GetTransfer(  # noqa: N802
        self, request: wallet_pb2.GetTransferRequest, context: Context
    ) -> wallet_pb2.GetTransferResponse:
        """What became of it."""
        await self._enter("GetTransfer", context, request)
        known = self._outcomes.get(request.transaction_id)
        if known is None:
            await refuse(context, Outcome.TRANSACTION_NOT_FOUND, "never seen")
            raise AssertionError
        return wallet_pb2.GetTransferResponse(
            transaction_id=request.transaction_id,
            from_account=request.from_account,
            outcome=known.outcome,
            amount="1.00",
            currency="EUR",
        )

    async def Deposit(  # noqa: N802
        self, request: wallet_pb2.DepositRequest, context: Context
    ) -> wallet_pb2.TransferResponse:
        """Bring money in."""
        await self._enter("Deposit", context, request)
        if request.account_id not in self.balances:
            await refuse(context, Outcome.ACCOUNT_NOT_FOUND, "no such account")
        return self.deposit(request)

    async def Withdraw(  # noqa: N802
        self, request: wallet_pb2.WithdrawRequest, context: Context
    ) -> wallet_pb2.TransferResponse:
        """Take money out, if there is enough."""
        await self._enter("Withdraw", context, request)
        if self.balances[request.account_id] < Decimal(request.amount):
            await refuse(context, Outcome.INSUFFICIENT_FUNDS, "not enough")
        self.balances[request.account_id] -= Decimal(request.amount)
        return wallet_pb2.TransferResponse(
            transaction_id=request.transaction_id,
            outcome=Outcome.COMMITTED.value,
            from_available=str(self.balances[request.account_id]),
        )


@asynccontextmanager
async def serving(service: StandIn, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serve until the block ends; gives the address."""
    options = [("grpc.max_receive_message_length", 16 * 1024 * 1024), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(service, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def _serve_alone() -> None:
    service = StandIn()
    service.balances = {"alice": Decimal("1000000.00"), "bob": Decimal("0.00")}
    async with serving(service) as address:
        print(address, flush=True)  # noqa: T201 - who started this process waits for the line
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_alone())
