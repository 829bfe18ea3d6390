"""The careful reading of messages: it changes nothing but texts that are not UTF-8, and ends on any bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shard_node.limits import MAX_BATCH, MAX_MESSAGE_BYTES
from shard_node.serving.decoding import MAX_FIELDS, UndecodableError, _Reading, decode, decode_rows
from tallystick.v1 import ledger_pb2, wallet_pb2

TEXTS = st.text(max_size=300)


@given(st.lists(st.builds(wallet_pb2.TransferRequest, reference=TEXTS, from_account=TEXTS)), st.booleans())
def test_a_message_in_order_stays_as_it_is(rows: list[wallet_pb2.TransferRequest], flag: bool) -> None:  # noqa: FBT001
    """Read carefully, a message that protobuf takes is the same bytes, and nothing in it is found wrong."""
    data = wallet_pb2.BatchTransferRequest(transfers=rows, return_balances=flag).SerializeToString()
    reading = _Reading()
    assert reading.message(wallet_pb2.BatchTransferRequest.DESCRIPTOR, data, ()) == data
    assert reading.paths == []


@given(st.binary(max_size=60))
@example(b"\x0a\x80")
@example(b"\x0b\x0c")
@example(b"\xff" * 20)
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    """Whatever comes, the answer is a message or UndecodableError, which says something."""
    for kind in (wallet_pb2.PostJournalRequest, ledger_pb2.ListEntriesRequest):
        with contextlib.suppress(UndecodableError):
            decode(kind, data)


def test_fields_that_are_not_known_are_kept() -> None:
    """A newer client's fields do not hinder the search for the text that is wrong."""
    unknown = b"\xa5\x06\x01\x02\x03\x04" + b"\xa9\x06" + bytes(8) + b"\xa0\x06\x80\x01"
    message, paths = decode_rows(wallet_pb2.TransferRequest, unknown + b"\x32\x02a\xff")
    assert paths == [("reference",)]
    assert message.SerializeToString().endswith(unknown)
    assert message.reference == "a\N{REPLACEMENT CHARACTER}"


def test_the_limit_is_named() -> None:
    """One byte too many, and the error has both sizes."""
    with pytest.raises(
        UndecodableError, match=f"{MAX_MESSAGE_BYTES + 1} bytes, at most {MAX_MESSAGE_BYTES}"
    ) as e:
        decode(wallet_pb2.TransferRequest, bytes(MAX_MESSAGE_BYTES + 1))
    assert e.value.metadata() == {"limit_bytes": str(MAX_MESSAGE_BYTES)}


def test_too_many_fields_are_not_made_messages_of() -> None:
    """Empty messages of two bytes each are refused by their number: they would take up a hundredfold."""
    data = b"\x12\x00" * MAX_FIELDS
    assert len(decode(wallet_pb2.PostJournalRequest, data).legs) == MAX_FIELDS
    for one_more in (b"\x12\x00", b"\x18\x01", b"\x12\x01\xff"):
        with pytest.raises(UndecodableError, match=f"more than {MAX_FIELDS} fields"):
            decode(wallet_pb2.PostJournalRequest, data + one_more)


def test_the_largest_batch_is_read_carefully() -> None:
    """Each of its rows has all the fields that there are, and each text is wrong: all are named."""
    numbers = [field.number for field in wallet_pb2.TransferRequest.DESCRIPTOR.fields]
    texts = [
        field.number
        for field in wallet_pb2.TransferRequest.DESCRIPTOR.fields
        if field.type == field.TYPE_STRING
    ]
    row = b"".join(
        bytes((number << 3 | 2, 1, 0xFF)) if number in texts else bytes((number << 3, 1))
        for number in numbers
    )
    message, paths = decode_rows(
        wallet_pb2.BatchTransferRequest, (bytes((0x0A, len(row))) + row) * MAX_BATCH + b"\x10\x01"
    )
    assert len(message.transfers) == MAX_BATCH
    assert len(paths) == MAX_BATCH * len(texts)
    assert paths[-1] == ("transfers", MAX_BATCH - 1, "reference")
