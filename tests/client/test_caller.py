"""Calls outside the batches: tried again in time, by the next router, and never wrongly called undone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from tallystick.caller import Caller
from tallystick.errors import (
    ClientClosed,
    InsufficientFunds,
    NotYetArchived,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    Refused,
    TallystickError,
)
from tallystick.retry import RetryPolicy
from tallystick.rotation import Rotation, RouterState
from tallystick.status import Failure
from tallystick.surroundings import Surroundings
from tallystick.transport import (
    DEPOSIT,
    GET_ACCOUNT,
    GET_ACCOUNTS,
    OPEN_ACCOUNTS,
    CallFailed,
    Method,
    RequestT,
    ResponseT,
)
from tallystick.v1 import wallet_pb2

GONE = Failure(OutcomeUnknown("UNAVAILABLE"), RouterState.BROKEN)
BUSY = Failure(Overloaded("busy", retry_after_s=0.5), RouterState.ANSWERED)
NOT_ALLOWED = Failure(Refused("PERMISSION_DENIED"), RouterState.ANSWERED)
NOT_YET = Failure(NotYetArchived("shard-0 lags"), RouterState.ANSWERED)
POOR = Failure(InsufficientFunds("3.00 missing"), RouterState.ANSWERED, verdict=True)
DONE = wallet_pb2.TransferResponse(transaction_id="id-1", outcome=Outcome.COMMITTED.value)


@dataclass
class Scripted:
    """Routers that answer from a script, and a clock that only they and the waits move."""

    script: Sequence[object]
    call_takes_s: float = 0.0
    now_s: float = 0.0
    routers: list[int] = field(default_factory=list)
    timeouts_s: list[float] = field(default_factory=list)
    sleeps_s: list[float] = field(default_factory=list)
    requests: list[object] = field(default_factory=list)

    async def call(
        self, router: int, method: Method[RequestT, ResponseT], request: RequestT, timeout_s: float
    ) -> ResponseT:
        """The next of the script."""
        self.routers.append(router)
        self.timeouts_s.append(timeout_s)
        self.requests.append(request)
        self.now_s += self.call_takes_s
        answer = self.script[len(self.routers) - 1]
        if isinstance(answer, Failure):
            raise CallFailed(answer)
        return cast("ResponseT", answer)

    async def close(self) -> None:
        """Nothing to close."""

    def drop(self) -> None:
        """Nothing to let go of."""

    async def sleep(self, delay_s: float) -> None:
        """Only the clock moves."""
        self.sleeps_s.append(delay_s)
        self.now_s += delay_s


def caller(world: Scripted, routers: int = 2) -> Caller:
    """Waits of 1, 2, 4 seconds without luck; one try may take 3 seconds."""
    surroundings = Surroundings(clock=lambda: world.now_s, sleep=world.sleep)
    policy = RetryPolicy(first_delay_s=1.0, longest_delay_s=4.0, jitter=lambda: 1.0)
    return Caller(world, Rotation(routers, 1, 10.0, 10.0), policy, surroundings, attempt_timeout_s=3.0)


async def deposit(world: Scripted, deadline_s: float = 10.0) -> wallet_pb2.TransferResponse:
    """One deposit under id-1."""
    request = wallet_pb2.DepositRequest(transaction_id="id-1")
    return await caller(world).call(DEPOSIT, request, deadline_s, "id-1")


async def failed_deposit(world: Scripted, deadline_s: float = 10.0) -> TallystickError:
    """How the deposit failed."""
    with pytest.raises(TallystickError) as caught:
        await deposit(world, deadline_s)
    return caught.value


async def test_next_try_goes_to_the_next_router_with_the_same_request() -> None:
    """After a failure another router is asked, after a wait, for the very same thing."""
    world = Scripted([GONE, GONE, DONE])
    assert await deposit(world) is DONE
    assert world.routers[:2] == [0, 1]
    assert world.sleeps_s == [1.0, 2.0]
    assert world.requests[0] == world.requests[2]


async def test_verdict_is_final_even_after_an_unknown_try() -> None:
    """The service's word on this id is the truth, whatever happened before."""
    error = await failed_deposit(Scripted([GONE, POOR]))
    assert type(error) is InsufficientFunds
    assert error.transaction_id == "id-1"


async def test_refusal_without_details_is_final_only_if_nothing_was_begun() -> None:
    """A proxy that refuses the first try ended it; after an unknown try it knows nothing."""
    assert type(await failed_deposit(Scripted([NOT_ALLOWED]))) is Refused
    assert type(await failed_deposit(Scripted([BUSY, NOT_ALLOWED]))) is Refused
    assert type(await failed_deposit(Scripted([GONE, NOT_ALLOWED]))) is OutcomeUnknown


async def test_deadline_bounds_tries_and_waits() -> None:
    """No try begins that the next wait would put past the deadline; the last knows how long it has."""
    world = Scripted([GONE] * 9, call_takes_s=0.5)
    assert type(await failed_deposit(world, deadline_s=6.0)) is OutcomeUnknown
    assert world.sleeps_s == [1.0, 2.0]
    assert world.timeouts_s == [3.0, 3.0, 2.0]
    assert world.now_s <= 6.0


async def test_retry_info_comes_on_top_of_the_wait() -> None:
    """The service's wish is honoured; overload alone ends as overload."""
    world = Scripted([BUSY] * 9)
    error = await failed_deposit(world, deadline_s=5.0)
    assert world.sleeps_s == [1.5, 2.5]
    assert type(error) is Overloaded


async def test_a_wait_for_all_the_time_there_is_ends_as_not_yet() -> None:
    """It is asked for again while there is time for a whole try, and not in the moment that is left."""
    question = wallet_pb2.GetAccountRequest()
    world = Scripted([GONE, NOT_YET, GONE], call_takes_s=0.5)
    with pytest.raises(NotYetArchived):
        await caller(world).call(GET_ACCOUNT, question, 4.4)
    assert len(world.timeouts_s) == 2
    answer = wallet_pb2.Account()
    world = Scripted([NOT_YET, answer], call_takes_s=0.5)
    assert await caller(world).call(GET_ACCOUNT, question, 4.4) is answer


async def test_overload_after_an_unknown_try_stays_unknown() -> None:
    """That nothing was begun holds for the last try only."""
    assert type(await failed_deposit(Scripted([GONE, *[BUSY] * 9]))) is OutcomeUnknown


async def test_closed_client_begins_no_other_try() -> None:
    """What waits for its next try when the client closes ends with what is known."""
    world = Scripted([GONE, DONE])
    calls = caller(world)

    async def close_meanwhile(delay_s: float) -> None:
        calls.close()

    calls._surroundings = Surroundings(clock=lambda: world.now_s, sleep=close_meanwhile)
    with pytest.raises(OutcomeUnknown):
        await calls.call(DEPOSIT, wallet_pb2.DepositRequest(), 10.0, "id-1")
    with pytest.raises(ClientClosed):
        await calls.call(DEPOSIT, wallet_pb2.DepositRequest(), 10.0, "id-1")
    assert len(world.routers) == 1


REFUSALS = {"?": Outcome.OUTCOME_UNKNOWN, "busy": Outcome.RESOURCE_EXHAUSTED, "bad": Outcome.INVALID_ARGUMENT}


def found(*account_ids: str) -> wallet_pb2.BatchAccountsResponse:
    """An answer with these accounts, or with one of `REFUSALS`: "?" stands for one that is not known yet."""
    return wallet_pb2.BatchAccountsResponse(
        results=[
            wallet_pb2.AccountResult(refusal=wallet_pb2.Refusal(outcome=REFUSALS[account_id].value))
            if account_id in REFUSALS
            else wallet_pb2.AccountResult(account=wallet_pb2.Account(account_id=account_id))
            for account_id in account_ids
        ]
    )


async def opened(world: Scripted, *account_ids: str) -> list[str]:
    """For each account to open its id, or the name of its error."""

    def request(places: Sequence[int]) -> wallet_pb2.BatchOpenAccountsRequest:
        accounts = [wallet_pb2.OpenAccountRequest(account_id=account_ids[place]) for place in places]
        return wallet_pb2.BatchOpenAccountsRequest(accounts=accounts)

    results = await caller(world).call_for_accounts(OPEN_ACCOUNTS, request, account_ids, 10.0)
    return [type(result.error).__name__ if result.error else result.account_id for result in results]


async def read(world: Scripted, *account_ids: str) -> list[str]:
    """For each account its id, or the name of its error."""

    def request(places: Sequence[int]) -> wallet_pb2.BatchGetAccountsRequest:
        return wallet_pb2.BatchGetAccountsRequest(account_ids=[account_ids[place] for place in places])

    results = await caller(world).call_for_accounts(GET_ACCOUNTS, request, account_ids, 10.0)
    return [type(result.error).__name__ if result.error else result.account_id for result in results]


async def test_accounts_without_an_answer_are_asked_for_again_alone() -> None:
    """Two of three are known: the next call asks for the third, and its answer lands in its place."""
    world = Scripted([found("a", "?", "c"), found("b")])
    assert await read(world, "a", "b", "c") == ["a", "b", "c"]
    assert world.requests[1] == wallet_pb2.BatchGetAccountsRequest(account_ids=["b"])


async def test_accounts_left_out_of_an_answer_are_asked_for_again() -> None:
    """Fewer results than accounts: those without one are not known."""
    assert await read(Scripted([found("a"), found("b")]), "a", "b") == ["a", "b"]


async def test_answers_in_the_wrong_order_are_not_taken() -> None:
    """An account is never returned under another's name."""
    assert await read(Scripted([found("b", "a"), found("a", "b")]), "a", "b") == ["a", "b"]


async def test_accounts_end_as_what_is_known_at_the_deadline() -> None:
    """Items known keep their answers, the others carry the error."""
    assert await read(Scripted([found("a", "?")] + [found("?")] * 9), "a", "b") == ["a", "Unavailable"]
    assert await read(Scripted([found("a", "?"), *[GONE] * 9]), "a", "b") == ["a", "Unavailable"]
    assert await read(Scripted([NOT_ALLOWED]), "a", "b") == ["Refused", "Refused"]
    assert await read(Scripted([found("a", "?"), NOT_ALLOWED]), "a", "b") == ["a", "Refused"]


async def test_an_account_that_may_be_open_is_never_called_refused() -> None:
    """What a later try says of the request alone, or of itself, says nothing of the one before."""
    assert await opened(Scripted([found("a", "?"), found("bad")]), "a", "b") == ["a", "OutcomeUnknown"]
    assert await opened(Scripted([found("?"), *[found("busy")] * 9]), "a") == ["OutcomeUnknown"]
    assert await opened(Scripted([found("busy"), found("bad")]), "a") == ["InvalidArgument"]
