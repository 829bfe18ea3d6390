"""Bytes that are no message, from a client that sends raw ones: INVALID_ARGUMENT in words, in every RPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass

from deploy.local.launcher import LocalCluster
from router.services.batch_calls import MAX_ECHOED_CHARS
from shard_node.limits import MAX_BATCH, MAX_MESSAGE_BYTES
from tests.router.bank import Bank, Route, payment
from tests.router.contract import CALL_TIMEOUT_SECONDS, PACKAGE, Contract, Refusal, read_refusal
from tests.router.test_wallet_bad_input import invalid

pytestmark = pytest.mark.cluster

SERVICES = ("WalletService", "LedgerService", "ClusterService")
NOT_UTF8 = b"\xff\xfe"
# A length that leads past the end.
CORRUPT = b"\x0a\x09x"

Send = Callable[[str, bytes], bytes]
"""A method's full name and the bytes of its request, to the bytes of its (first) answer."""


@pytest.fixture(scope="module")
def send(cluster: LocalCluster) -> Iterator[Send]:
    """Sends bytes as they are, however many."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(cluster.router_addresses[0], options=options) as channel:

        def call(method: str, data: bytes) -> bytes:
            made: Any = channel.unary_stream(method)
            first: bytes = next(made(data, timeout=CALL_TIMEOUT_SECONDS))
            return first

        yield call


def methods(contract: Contract) -> Iterator[tuple[str, Descriptor]]:
    """Every method of all services, with its request."""
    for service in SERVICES:
        for method in contract.pool.FindServiceByName(f"{PACKAGE}.{service}").methods:
            yield f"/{PACKAGE}.{service}/{method.name}", method.input_type


def texts(message: Descriptor) -> Iterator[tuple[str, bytes]]:
    """Each text of a message: its path, and the message with nothing but that text, which is not UTF-8."""
    for field in message.fields:
        name = f"{field.name}[0]" if field.is_repeated else field.name
        if field.type == field.TYPE_STRING:
            yield name, delimited(field.number, NOT_UTF8)
        elif field.type == field.TYPE_MESSAGE:
            assert field.message_type is not None
            for inner, data in texts(field.message_type):
                yield f"{name}.{inner}", delimited(field.number, data)


def kind_of(contract: Contract, name: str) -> Any:
    """The class of a message."""
    return GetMessageClass(contract.pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def delimited(number: int, content: bytes) -> bytes:
    """A field of fewer than 128 bytes."""
    return bytes((number << 3 | 2, len(content))) + content


def refused(send: Send, method: str, data: bytes) -> tuple[Refusal, str]:
    """How a call that must be refused was, and in which words."""
    with pytest.raises(grpc.RpcError) as error:
        send(method, data)
    assert isinstance(error.value, grpc.Call)
    return read_refusal(error.value), error.value.details() or ""


def test_every_text_of_every_method(contract: Contract, send: Send) -> None:
    """A text that is not UTF-8 is named by its path; batches answer it row by row."""
    asked = [(method, path, data) for method, request in methods(contract) for path, data in texts(request)]
    assert len(asked) > 60
    for method, path, data in asked:
        if "/Batch" in method:
            continue
        refusal, words = refused(send, method, data)
        assert refusal == invalid(path), (method, path)
        assert words == f"{path}: is not UTF-8 text"


def test_what_is_no_message(contract: Contract, send: Send) -> None:
    """Every method says so, in words, with the details of a refusal."""
    for method, request in methods(contract):
        refusal, words = refused(send, method, CORRUPT)
        assert refusal == invalid(""), method
        assert words.startswith("the message cannot be read"), method
        assert request.full_name in words


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES + 1, 2 * MAX_MESSAGE_BYTES])
def test_a_message_that_is_too_long(contract: Contract, send: Send, size: int) -> None:
    """INVALID_ARGUMENT with the limit, not the core's RESOURCE_EXHAUSTED, which says "send it again"."""
    for method in ("WalletService/Transfer", "WalletService/BatchTransfer", "LedgerService/ListEntries"):
        refusal, words = refused(send, f"/{PACKAGE}.{method}", bytes(size))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert words == f"the message has {size} bytes, at most {MAX_MESSAGE_BYTES} are taken"


@pytest.mark.parametrize("count", [3, 300])
def test_a_row_that_cannot_be_decoded_fails_alone(
    contract: Contract, bank: Bank, route: Route, send: Send, count: int
) -> None:
    """Of a batch of transfers each other row is carried out; the bad ones are refused by their field."""
    payer, payee = bank.pair(route)
    kind = kind_of(contract, "BatchTransferRequest")
    response = kind_of(contract, "BatchTransferResponse")
    rows = [payment(payer, payee, "0.01") for _ in range(count)]
    spoilt = {0: "reference", 1: "currency", count - 1: "to_account"}
    for row, field in spoilt.items():
        rows[row][field] = "SPOILT"
    data = kind(transfers=rows).SerializeToString().replace(b"SPOILT", b"S\xc3\xffILT")
    results = response.FromString(send(f"/{PACKAGE}.WalletService/BatchTransfer", data)).results
    assert [result.transaction_id for result in results] == [row["transaction_id"] for row in rows]
    for row, result in enumerate(results):
        if row in spoilt:
            assert bank.outcome(result) == "INVALID_ARGUMENT"
            assert (result.refusal.field, result.refusal.message) == (spoilt[row], "is not UTF-8 text")
        else:
            assert bank.outcome(result) == "COMMITTED"
    assert bank.available(payee) == f"{(count - 3) / 100:.2f}"


def test_batches_of_accounts(contract: Contract, bank: Bank, send: Send) -> None:
    """A text that is not UTF-8 fails its row, whichever field it is in, and the other rows are answered."""
    name = bank.name(bank.tags[0])
    response = kind_of(contract, "BatchAccountsResponse")
    good = {"account_id": name, "currency": "EUR"}
    kind = kind_of(contract, "OpenAccountRequest")
    fields = [field.name for field in kind.DESCRIPTOR.fields if field.type == field.TYPE_STRING]
    rows = [kind(**{**good, field: "SPOILT"}).SerializeToString() for field in fields]
    data = b"".join(
        delimited(1, row.replace(b"SPOILT", b"S\xc3\xffILT"))
        for row in (*rows, kind(**good).SerializeToString())
    )
    results = response.FromString(send(f"/{PACKAGE}.WalletService/BatchOpenAccounts", data)).results
    assert [bank.outcome(result.refusal) for result in results[:-1]] == ["INVALID_ARGUMENT"] * len(fields)
    assert [result.refusal.field for result in results[:-1]] == fields
    assert results[-1].account.account_id == name
    data = delimited(1, NOT_UTF8) + delimited(1, name.encode())
    first, second = response.FromString(send(f"/{PACKAGE}.WalletService/BatchGetAccounts", data)).results
    assert (bank.outcome(first.refusal), first.refusal.field) == ("INVALID_ARGUMENT", "account_id")
    assert second.account.account_id == name


def test_an_answer_always_fits(contract: Contract, bank: Bank, send: Send) -> None:
    """An id that is none is cut: with it whole, the answer to a row that moved money could not be sent."""
    payer, payee = bank.pair(bank.routes["same shard"])
    kind = kind_of(contract, "BatchTransferRequest")
    response = kind_of(contract, "BatchTransferResponse")
    rows = [payment(payer, payee), payment(payer, payee, transaction_id="x" * (MAX_MESSAGE_BYTES - 2000))]
    data = kind(transfers=rows).SerializeToString()
    moved, long = response.FromString(send(f"/{PACKAGE}.WalletService/BatchTransfer", data)).results
    assert bank.outcome(moved) == "COMMITTED"
    assert (bank.outcome(long), long.transaction_id) == ("INVALID_ARGUMENT", "x" * MAX_ECHOED_CHARS)


def test_more_fields_than_are_read_carefully(send: Send) -> None:
    """Of a message that would keep the router busy for seconds only that it cannot be read is said."""
    row = b"\x38\x01" * 20
    data = delimited(1, row) * MAX_BATCH + delimited(1, delimited(6, NOT_UTF8))
    refusal, words = refused(send, f"/{PACKAGE}.WalletService/BatchTransfer", data)
    assert refusal == invalid("")
    assert words.startswith("the message cannot be read")


def test_more_fields_than_any_request_has(send: Send) -> None:
    """They are refused by their number: of 16 MiB in all, protobuf would make messages of a gigabyte."""
    for method in ("BatchTransfer", "BatchOpenAccounts", "PostJournal"):
        refusal, words = refused(send, f"/{PACKAGE}.WalletService/{method}", b"\x12\x00" * (20 * MAX_BATCH))
        assert refusal == invalid("")
        assert "fields, no request has so many" in words
