"""What the client sends for each operation, and makes of the answers; it asks again by the same id."""

import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from tallystick import (
    Account,
    Client,
    ClientSettings,
    HoldNotActive,
    HoldResult,
    InvalidArgument,
    JournalLeg,
    JournalResult,
    NewAccount,
    Outcome,
    OutcomeUnknown,
    PurchaseNotFound,
    RefundExceedsPurchase,
    Refused,
    Transfer,
    TransferResult,
)
from tallystick.rotation import RouterState
from tallystick.status import Failure
from tallystick.surroundings import Surroundings
from tallystick.transport import CallFailed, Method, RequestT, ResponseT
from tallystick.v1 import outcome_pb2, wallet_pb2

ID, OTHER = str(uuid.UUID(int=7)), uuid.UUID(int=8)
COMMITTED, VALID = outcome_pb2.OUTCOME_COMMITTED, outcome_pb2.OUTCOME_VALID
QUICK = ClientSettings(first_retry_delay_s=0.001, longest_retry_delay_s=0.01, router_rest_s=0.01)
LOST = CallFailed(Failure(OutcomeUnknown("lost"), RouterState.BROKEN))


@dataclass
class Scripted:
    """A way to one router that keeps what was sent and answers as told."""

    answers: list[Message | CallFailed]
    sent: list[tuple[str, Message]] = field(default_factory=list)

    async def call(
        self, router: int, method: Method[RequestT, ResponseT], request: RequestT, timeout_s: float
    ) -> ResponseT:
        """The next answer."""
        assert (router, timeout_s > 0) == (0, True)
        # A copy: what was sent is what the request was then.
        kept = type(cast("Message", request))()
        kept.CopyFrom(cast("Message", request))
        self.sent.append((method.name, kept))
        answer = self.answers.pop(0)
        if isinstance(answer, CallFailed):
            raise answer
        return cast("ResponseT", answer)

    async def close(self) -> None:
        """Nothing to close."""

    def drop(self) -> None:
        """Nothing to let go of."""


def client_of(scripted: Scripted) -> Client:
    """A client whose only router is the script."""
    return Client("router:1", settings=QUICK, surroundings=Surroundings(connect=lambda _: scripted))


def moved(outcome: outcome_pb2.Outcome = COMMITTED, **fields: Any) -> wallet_pb2.TransferResponse:
    """An answer of a router."""
    return wallet_pb2.TransferResponse(transaction_id=ID, outcome=outcome, **fields)


def refused(kind: type[Refused], message: str = "", name: str = "") -> CallFailed:
    """A call that the service refused."""
    return CallFailed(Failure(kind(message, ID, name), RouterState.ANSWERED, verdict=True))


Call = Callable[[Client], Coroutine[Any, Any, Any]]
TEXTS: dict[str, Any] = {"transaction_id": ID, "reference": "r"}
SPENT = moved(from_available="7.00", to_available="3.00")
SPENT_RESULT = TransferResult(ID, Outcome.COMMITTED, Decimal("7.00"), Decimal("3.00"))
HELD = wallet_pb2.HoldResponse(transaction_id=ID, outcome=COMMITTED, available="7.00")
HELD_RESULT = HoldResult(ID, Outcome.COMMITTED, Decimal("7.00"))
ACCOUNT = wallet_pb2.Account(account_id="a", currency="EUR", state=wallet_pb2.ACCOUNT_STATE_FROZEN)

OPERATIONS: dict[str, tuple[Call, Message, Message, Any]] = {
    "Deposit": (
        lambda c: c.deposit(
            "a", 3, "EUR", transaction_id=ID, reference="r", bank_transaction_id="b", initiated_by="i"
        ),
        wallet_pb2.DepositRequest(
            account_id="a", amount="3", currency="EUR", bank_transaction_id="b", initiated_by="i", **TEXTS
        ),
        SPENT,
        SPENT_RESULT,
    ),
    "Withdraw": (
        lambda c: c.withdraw(
            "a", 3, "EUR", transaction_id=ID, reference="r", bank_transaction_id="b", initiated_by="i"
        ),
        wallet_pb2.WithdrawRequest(
            account_id="a", amount="3", currency="EUR", bank_transaction_id="b", initiated_by="i", **TEXTS
        ),
        SPENT,
        SPENT_RESULT,
    ),
    "Purchase": (
        lambda c: c.purchase("a", "m", "3.00", "EUR", transaction_id=ID, order_id="o", reference="r"),
        wallet_pb2.PurchaseRequest(
            customer_account="a", merchant_account="m", amount="3.00", currency="EUR", order_id="o", **TEXTS
        ),
        SPENT,
        SPENT_RESULT,
    ),
    "Refund": (
        lambda c: c.refund(OTHER, "a", Decimal(3), "EUR", transaction_id=ID, reference="r"),
        wallet_pb2.RefundRequest(
            purchase_transaction_id=str(OTHER), customer_account="a", amount="3", currency="EUR", **TEXTS
        ),
        SPENT,
        SPENT_RESULT,
    ),
    "Hold": (
        lambda c: c.hold("a", 3, "EUR", life_seconds=60, transaction_id=ID, reference="r"),
        wallet_pb2.HoldRequest(account_id="a", amount="3", currency="EUR", life_seconds=60, **TEXTS),
        HELD,
        HELD_RESULT,
    ),
    "Capture": (
        lambda c: c.capture(OTHER, "a", "m", 3, "EUR", transaction_id=ID, reference="r"),
        wallet_pb2.CaptureRequest(
            hold_transaction_id=str(OTHER),
            account_id="a",
            to_account="m",
            amount="3",
            currency="EUR",
            **TEXTS,
        ),
        SPENT,
        SPENT_RESULT,
    ),
    "Void": (
        lambda c: c.void(OTHER, "a", transaction_id=ID, reference="r"),
        wallet_pb2.VoidRequest(hold_transaction_id=str(OTHER), account_id="a", **TEXTS),
        HELD,
        HELD_RESULT,
    ),
    "PostJournal": (
        lambda c: c.post_journal(
            [JournalLeg("a", "-3.00", "EUR"), JournalLeg("b", Decimal("3.00"), "EUR")],
            transaction_id=ID,
            reference="r",
            initiated_by="i",
        ),
        wallet_pb2.PostJournalRequest(
            legs=[
                wallet_pb2.JournalLeg(account_id="a", amount="-3.00", currency="EUR"),
                wallet_pb2.JournalLeg(account_id="b", amount="3.00", currency="EUR"),
            ],
            initiated_by="i",
            **TEXTS,
        ),
        wallet_pb2.PostJournalResponse(transaction_id=ID, outcome=COMMITTED, available=["7.00", ""]),
        JournalResult(ID, Outcome.COMMITTED, (Decimal("7.00"), None)),
    ),
}

STATES: dict[str, tuple[Call, Message]] = {
    "FreezeAccount": (
        lambda c: c.freeze_account("a", validate_only=True),
        wallet_pb2.FreezeAccountRequest(account_id="a", validate_only=True),
    ),
    "UnfreezeAccount": (
        lambda c: c.unfreeze_account("a"),
        wallet_pb2.UnfreezeAccountRequest(account_id="a"),
    ),
    "CloseAccount": (lambda c: c.close_account("a"), wallet_pb2.CloseAccountRequest(account_id="a")),
}


@pytest.mark.parametrize("method", OPERATIONS)
async def test_what_is_sent_and_what_comes_back(method: str) -> None:
    """Every argument is in the request, in its own field, and every field of the answer in the result."""
    call, request, response, result = OPERATIONS[method]
    scripted = Scripted([response])
    async with client_of(scripted) as client:
        assert await call(client) == result
    assert scripted.sent == [(method, request)]


@pytest.mark.parametrize("method", OPERATIONS)
async def test_a_lost_answer_is_asked_for_again_by_the_same_id(method: str) -> None:
    """Nothing but the very same request is sent again, so nothing can happen twice."""
    call, request, response, result = OPERATIONS[method]
    scripted = Scripted([LOST, LOST, response])
    async with client_of(scripted) as client:
        assert await call(client) == result
    assert scripted.sent == [(method, request)] * 3


@pytest.mark.parametrize("method", OPERATIONS)
async def test_an_answer_to_another_id_is_unknown(method: str) -> None:
    """An answer that belongs to another transaction says nothing of ours."""
    call, _, response, _ = OPERATIONS[method]
    strange = type(response)()
    strange.CopyFrom(response)
    strange.transaction_id = str(OTHER)  # type: ignore[attr-defined]
    async with client_of(Scripted([strange])) as client:
        with pytest.raises(OutcomeUnknown) as caught:
            await call(client)
    assert caught.value.transaction_id == ID


@pytest.mark.parametrize("method", OPERATIONS)
async def test_valid_is_not_taken_for_done(method: str) -> None:
    """A router that says VALID where money was to move is not believed, and never read as done."""
    call, _, response, _ = OPERATIONS[method]
    only_valid = type(response)()
    only_valid.CopyFrom(response)
    only_valid.outcome = VALID  # type: ignore[attr-defined]
    async with client_of(Scripted([only_valid])) as client:
        with pytest.raises(OutcomeUnknown):
            await call(client)


async def test_validate_only_is_sent_and_answered() -> None:
    """Each operation can be checked only; the outcome is then VALID, and no result counts as committed."""
    hold_response = wallet_pb2.HoldResponse(transaction_id=ID, outcome=VALID)
    journal_response = wallet_pb2.PostJournalResponse(transaction_id=ID, outcome=VALID, available=["", ""])
    given: dict[str, Any] = {"transaction_id": ID, "validate_only": True}
    legs = [JournalLeg("a", -3, "EUR"), JournalLeg("b", 3, "EUR")]
    calls: list[tuple[Call, Message]] = [
        (lambda c: c.deposit("a", 3, "EUR", **given), moved(VALID)),
        (lambda c: c.withdraw("a", 3, "EUR", **given), moved(VALID)),
        (lambda c: c.purchase("a", "m", 3, "EUR", **given), moved(VALID)),
        (lambda c: c.refund(OTHER, "a", 3, "EUR", **given), moved(VALID)),
        (lambda c: c.capture(OTHER, "a", "m", 3, "EUR", **given), moved(VALID)),
        (lambda c: c.hold("a", 3, "EUR", **given), hold_response),
        (lambda c: c.void(OTHER, "a", **given), hold_response),
        (lambda c: c.post_journal(legs, **given), journal_response),
        (lambda c: c.transfer("a", "b", 3, "EUR", **given), batch(moved(VALID))),
    ]
    for call, response in calls:
        scripted = Scripted([response])
        async with client_of(scripted) as client:
            result = await call(client)
        assert result.outcome is Outcome.VALID
        ((_, request),) = scripted.sent
        asked = request.transfers[0] if isinstance(request, wallet_pb2.BatchTransferRequest) else request
        assert cast("wallet_pb2.HoldRequest", asked).validate_only


def batch(*results: wallet_pb2.TransferResponse) -> wallet_pb2.BatchTransferResponse:
    """The answer to a batch."""
    return wallet_pb2.BatchTransferResponse(results=results)


async def test_checked_items_travel_among_others() -> None:
    """In a batch an item that is only checked is VALID without error; one that was not to be is unknown."""
    ids = [str(uuid.UUID(int=number)) for number in (1, 2)]
    answers = [wallet_pb2.TransferResponse(transaction_id=name, outcome=VALID) for name in ids]
    committed = wallet_pb2.TransferResponse(transaction_id=ids[1], outcome=COMMITTED)
    scripted = Scripted([batch(*answers), batch(committed)])
    items = [Transfer("a", "b", 1, "EUR", ids[0], validate_only=True), Transfer("a", "b", 1, "EUR", ids[1])]
    async with client_of(scripted) as client:
        first, second = await client.transfers(items)
    assert (first.outcome, first.committed, first.error) == (Outcome.VALID, False, None)
    # What was answered with nonsense was asked again.
    assert second.committed
    assert [len(cast("wallet_pb2.BatchTransferRequest", sent).transfers) for _, sent in scripted.sent] == [
        2,
        1,
    ]


@pytest.mark.parametrize("method", STATES)
async def test_states_of_accounts(method: str) -> None:
    """Freezing, unfreezing and closing answer with the account."""
    call, request = STATES[method]
    scripted = Scripted([LOST, ACCOUNT])
    async with client_of(scripted) as client:
        account = await call(client)
    assert isinstance(account, Account)
    assert account.account_id == "a"
    assert scripted.sent == [(method, request)] * 2


async def test_limits_of_a_new_account() -> None:
    """Limits that are given are sent, those that are not stay empty; the service's own come back."""
    limited = wallet_pb2.Account(account_id="a", maximum_balance="9.00", maximum_transfer="2.50")
    opened = wallet_pb2.BatchAccountsResponse(results=[wallet_pb2.AccountResult(account=limited)])
    scripted = Scripted([limited, ACCOUNT, opened])
    async with client_of(scripted) as client:
        account = await client.open_account("a", "EUR", maximum_balance=9, maximum_transfer="2.5")
        assert (account.maximum_balance, account.maximum_transfer) == (Decimal(9), Decimal("2.50"))
        account = await client.open_account("a", "EUR", validate_only=True)
        assert (account.maximum_balance, account.maximum_transfer) == (None, None)
        await client.open_accounts([NewAccount("a", "EUR", maximum_balance=9, validate_only=True)])
        with pytest.raises(InvalidArgument, match="maximum_transfer: must be"):
            await client.open_account("a", "EUR", maximum_transfer=2.5)  # type: ignore[arg-type]
    asked = wallet_pb2.OpenAccountRequest(account_id="a", currency="EUR", minimum_balance="0")
    expected = [{"maximum_balance": "9", "maximum_transfer": "2.5"}, {"validate_only": True}]
    for (_, sent), more in zip(scripted.sent, expected, strict=False):
        wanted = wallet_pb2.OpenAccountRequest(**cast("dict[str, Any]", more))
        wanted.MergeFrom(asked)
        assert sent == wanted
    (last,) = cast("wallet_pb2.BatchOpenAccountsRequest", scripted.sent[2][1]).accounts
    assert (last.maximum_balance, last.validate_only) == ("9", True)


async def test_refusals_have_types_of_their_own() -> None:
    """What a service refuses is raised as its own error, and not asked again."""
    scripted = Scripted([refused(RefundExceedsPurchase, "2.00 left", "amount"), refused(PurchaseNotFound)])
    async with client_of(scripted) as client:
        with pytest.raises(RefundExceedsPurchase, match=r"2\.00 left") as caught:
            await client.refund(OTHER, "a", 3, "EUR")
        assert caught.value.field == "amount"
        with pytest.raises(PurchaseNotFound):
            await client.refund(OTHER, "a", 3, "EUR")
    assert len(scripted.sent) == 2


async def test_a_float_in_a_leg_names_its_place() -> None:
    """The error says which leg it is in, and nothing is sent."""
    scripted = Scripted([])
    async with client_of(scripted) as client:
        with pytest.raises(InvalidArgument, match=r"legs\[1\]\.amount: must be"):
            await client.post_journal([JournalLeg("a", -3, "EUR"), JournalLeg("b", 3.0, "EUR")])  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument) as caught:
            await client.post_journal([JournalLeg("a", Decimal("1E+999999"), "EUR")])
    assert caught.value.field == "legs[0].amount"
    assert scripted.sent == []


async def test_ids_are_made_anew_for_every_call() -> None:
    """Two operations without an id of their own never share one."""
    async with client_of(scripted := Scripted([refused(HoldNotActive), refused(HoldNotActive)])) as client:
        for _ in range(2):
            with pytest.raises(HoldNotActive):
                await client.hold("a", 3, "EUR")
    ids = {cast("wallet_pb2.HoldRequest", sent).transaction_id for _, sent in scripted.sent}
    assert len(ids) == len(scripted.sent) == 2
    assert {uuid.UUID(name).version for name in ids} == {7}
