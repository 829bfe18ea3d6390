"""gRPC's errors become the package's own, and an unknown outcome never becomes a refusal."""

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tallystick import Client, JournalLeg
from tallystick.errors import (
    ERROR_TYPES,
    Aborted,
    AccountNotFound,
    InvalidArgument,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    PurchaseNotFound,
    Refused,
    TransactionIdExpired,
)
from tallystick.rotation import RouterState
from tallystick.status import from_refusal, from_rpc_error
from tallystick.v1 import wallet_pb2_grpc
from tests.client.stand_in import StandIn


def rpc_error(
    code: grpc.StatusCode, *details: Message, text: str = "said so", raw: bytes | None = None
) -> grpc.aio.AioRpcError:
    """An error as grpc.aio raises it, with these google.rpc details."""
    trailing = grpc.aio.Metadata()
    if details or raw is not None:
        status = status_pb2.Status(code=code.value[0], message=text)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        trailing.add("grpc-status-details-bin", status.SerializeToString() if raw is None else raw)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, text)


def info(reason: str, domain: str = "tallystick", **metadata: str) -> Message:
    """The service's ErrorInfo."""
    made: Message = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)
    return made


@pytest.mark.parametrize("number", ERROR_TYPES)
def test_reason_decides_on_the_type(number: int) -> None:
    """Every reason of the service becomes its own error, whatever the code.

    A refusal is its verdict, but for those that say nothing of what became of the id before.
    """
    failure = from_rpc_error(
        rpc_error(grpc.StatusCode.FAILED_PRECONDITION, info(Outcome(number).name)), "id-1"
    )
    assert type(failure.error) is ERROR_TYPES[number]
    assert failure.error.transaction_id == "id-1"
    assert failure.router is RouterState.ANSWERED
    without_the_id = (InvalidArgument, PurchaseNotFound, TransactionIdExpired)
    refused = isinstance(failure.error, Refused)
    assert failure.verdict == (refused and not isinstance(failure.error, without_the_id))


def test_bad_request_names_the_field() -> None:
    """BadRequest's first violation gives the field and the limit."""
    violation = error_details_pb2.BadRequest.FieldViolation(field="amount", description="not above zero")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    error = from_rpc_error(rpc_error(grpc.StatusCode.INVALID_ARGUMENT, info("INVALID_ARGUMENT"), bad)).error
    assert isinstance(error, InvalidArgument)
    assert (error.field, error.message) == ("amount", "not above zero")


def test_retry_info_says_how_long() -> None:
    """RetryInfo's delay is kept in seconds."""
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=250_000_000))
    error = from_rpc_error(
        rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, info("RESOURCE_EXHAUSTED"), retry)
    ).error
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 1.25


def test_metadata_names_the_transaction_when_the_caller_does_not() -> None:
    """The id the service names is kept; the caller's own goes first."""
    error = rpc_error(grpc.StatusCode.ABORTED, info("ABORTED", transaction_id="theirs"))
    assert from_rpc_error(error).error.transaction_id == "theirs"
    assert from_rpc_error(error, "ours").error.transaction_id == "ours"


LIBRARY_CODES = [
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
]


@pytest.mark.parametrize("code", LIBRARY_CODES)
def test_without_details_a_code_of_the_library_is_unknown(code: grpc.StatusCode) -> None:
    """What gRPC itself says tells nothing of the transfer: not even "too much" means "not begun"."""
    failure = from_rpc_error(rpc_error(code))
    assert type(failure.error) is OutcomeUnknown
    assert not failure.verdict
    silent = code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert failure.router is (RouterState.SILENT if silent else RouterState.BROKEN)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("SERVER: Received message larger than max (20 vs. 10)", True),
        ("CLIENT: Sent message larger than max (20 vs. 10)", True),
        ("grpc: received message larger than max (20 vs. 10)", True),
        ("SERVER: Sent message larger than max (20 vs. 10)", False),
        ("CLIENT: Received message larger than max (20 vs. 10)", False),
        ("too much", False),
    ],
)
def test_a_request_too_large_for_grpc_is_not_sent_again(text: str, refused: bool) -> None:  # noqa: FBT001
    """It would be too large again. Of an answer that is too large nothing is known: the work was done."""
    failure = from_rpc_error(rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, text=text))
    assert type(failure.error) is (InvalidArgument if refused else OutcomeUnknown)
    assert not failure.verdict


async def test_grpc_still_says_it_in_these_words() -> None:
    """A server of 1 KiB refuses a longer request: the client does not try again."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1024)])
    service = StandIn()
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}") as client:
            with pytest.raises(InvalidArgument, match="larger than max"):
                await client.post_journal([JournalLeg(f"account-{n}", "1.00", "EUR") for n in range(100)])
    finally:
        await server.stop(None)


def test_a_field_is_not_said_twice() -> None:
    """The status's message begins with the field, the error has it apart, and the text names it once."""
    error = from_rpc_error(
        rpc_error(
            grpc.StatusCode.FAILED_PRECONDITION,
            info("ACCOUNT_FROZEN", field="to_account"),
            text="to_account: the account is frozen",
        )
    ).error
    assert (error.field, error.message) == ("to_account", "the account is frozen")
    assert str(error) == "to_account: the account is frozen"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.ABORTED, Aborted),
        (grpc.StatusCode.NOT_FOUND, Refused),
        (grpc.StatusCode.ALREADY_EXISTS, Refused),
        (grpc.StatusCode.FAILED_PRECONDITION, Refused),
        (grpc.StatusCode.UNIMPLEMENTED, Refused),
        (grpc.StatusCode.PERMISSION_DENIED, Refused),
    ],
)
def test_without_details_other_codes_refuse_but_are_no_verdict(
    code: grpc.StatusCode, kind: type[Refused]
) -> None:
    """They say this try did nothing; of earlier tries of the same id they say nothing."""
    failure = from_rpc_error(rpc_error(code))
    assert type(failure.error) is kind
    assert failure.error.message == f"{code.name}: said so"
    assert failure.router is RouterState.ANSWERED
    assert not failure.verdict


@pytest.mark.parametrize(
    "error",
    [
        rpc_error(grpc.StatusCode.UNAVAILABLE, info("INSUFFICIENT_FUNDS", domain="example.com")),
        rpc_error(grpc.StatusCode.UNAVAILABLE, raw=b"\xff\xff no message"),
        rpc_error(
            grpc.StatusCode.UNAVAILABLE, raw=status_pb2.Status(code=5, message="other").SerializeToString()
        ),
        grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), None),
    ],
    ids=["another domain", "not a message", "contradicts the status", "no text"],
)
def test_foreign_or_broken_details_count_as_none(error: grpc.RpcError) -> None:
    """Details that are not the service's own decide nothing."""
    failure = from_rpc_error(error)
    assert type(failure.error) is OutcomeUnknown
    assert failure.router is RouterState.BROKEN


def test_reason_newer_than_the_client_falls_back_to_the_code() -> None:
    """An unheard-of reason is a refusal when the code says so, and unknown when it does not."""
    refused = from_rpc_error(rpc_error(grpc.StatusCode.NOT_FOUND, info("SHELF_NOT_FOUND")))
    assert type(refused.error) is Refused
    unknown = from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, info("SHELF_MOVED")))
    assert type(unknown.error) is OutcomeUnknown


def test_item_of_a_batch_keeps_what_the_service_said() -> None:
    """A refusal inside a batch response becomes the same error as on a unary call."""
    error = from_refusal(Outcome.ACCOUNT_NOT_FOUND, "no such account", "to_account", "id-1")
    assert isinstance(error, AccountNotFound)
    assert (error.message, error.field, error.transaction_id) == ("no such account", "to_account", "id-1")


@pytest.mark.parametrize("outcome", [0, 999])
def test_item_with_an_unheard_of_outcome_is_unknown(outcome: int) -> None:
    """No outcome, or one newer than the client, may mean anything: it is not called refused."""
    assert type(from_refusal(outcome, "", "", "id-1")) is OutcomeUnknown
