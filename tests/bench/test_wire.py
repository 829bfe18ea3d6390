"""Requests that are filled in by lookup are the messages that the contract's stubs would make."""

import time
import uuid

import numpy as np
import pytest

from bench.settings import Shape
from bench.transfers.wire import Block, Call, Wire
from bench.transfers.workload import AMOUNTS, CURRENCY, Workload, make_accounts
from tallystick.v1 import outcome_pb2, wallet_pb2

SHAPES = [Shape(accounts=300), Shape(accounts=300, same_shard=0.5, rejections=0.2)]


def block_of(shape: Shape, count: int, clock_ms: int = 1_750_000_000_123) -> tuple[Block, list[list[str]]]:
    """A block, and what its transfers are: payer, payee and amount of each."""
    accounts = make_accounts(shape)
    workload = Workload(shape, accounts, [0] * 8192 + [1] * 8192)
    payments = workload.draw(count)
    block = Wire(accounts.ids, lambda: clock_ms).block(payments)
    columns = zip(payments.payers, payments.payees, payments.amounts, strict=True)
    return block, [[accounts.ids[p], accounts.ids[q], AMOUNTS[a]] for p, q, a in columns]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 64), (17, 18), (17, 64)])
def test_a_batch_is_byte_for_byte_what_protobuf_makes(shape: Shape, first: int, last: int) -> None:
    """Request and expected answer, of any part of a block."""
    block, rows = block_of(shape, 64)
    call = Call(block, first, last)
    request = wallet_pb2.BatchTransferRequest()
    answer = wallet_pb2.BatchTransferResponse()
    for transaction_id, (payer, payee, amount) in zip(call.ids(), rows[first:last], strict=True):
        request.transfers.add(
            transaction_id=transaction_id,
            from_account=payer,
            to_account=payee,
            amount=amount,
            currency=CURRENCY,
        )
        answer.results.add(transaction_id=transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED)
    assert len(call) == last - first
    assert call.batch_request() == request.SerializeToString()
    assert call.single_request() == request.transfers[0].SerializeToString()
    assert call.committed_answer() == answer.SerializeToString()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_parses_as_its_transfers(shape: Shape) -> None:
    """The way a router reads it."""
    block, rows = block_of(shape, 500)
    parsed = wallet_pb2.BatchTransferRequest.FromString(Call(block, 0, 500).batch_request())
    assert [[t.from_account, t.to_account, t.amount] for t in parsed.transfers] == rows
    assert {t.currency for t in parsed.transfers} == {CURRENCY}


def test_ids_are_uuidv7_of_the_moment_in_canonical_text() -> None:
    """RFC 9562: version, variant, and 48 bits of milliseconds; text in lower case."""
    block, _ = block_of(SHAPES[0], 2000, clock_ms=1_750_000_000_123)
    for text in Call(block, 0, 2000).ids():
        transaction_id = uuid.UUID(text)
        assert str(transaction_id) == text
        assert transaction_id.version == 7
        assert transaction_id.variant == uuid.RFC_4122
        assert transaction_id.int >> 80 == 1_750_000_000_123


def test_every_random_bit_of_an_id_is_used() -> None:
    """All 74 of them are now set, now not; the others never change within a millisecond."""
    block, _ = block_of(SHAPES[0], 2000)
    numbers = [uuid.UUID(text).int for text in Call(block, 0, 2000).ids()]
    ones, zeros = 0, 0
    for number in numbers:
        ones |= number
        zeros |= ~number
    changing = ones & zeros & ((1 << 128) - 1)
    assert changing.bit_count() == 74
    assert changing == (0xFFF << 64) | ((1 << 62) - 1)


def test_ids_never_come_twice() -> None:
    """Not in one generator, not in two, though the load's seed and the millisecond are the same."""
    texts: list[str] = []
    for _ in range(2):
        accounts = make_accounts(SHAPES[0])
        workload = Workload(SHAPES[0], accounts, [0] * 16384)
        wire = Wire(accounts.ids, lambda: 1_750_000_000_123)
        for _ in range(2):
            workload.start("1/0/1")
            texts += Call(wire.block(workload.draw(5000)), 0, 5000).ids()
    assert len(set(texts)) == 20_000


def test_ids_are_of_now() -> None:
    """A router refuses those that are older than it remembers."""
    accounts = make_accounts(SHAPES[0])
    workload = Workload(SHAPES[0], accounts, [0] * 16384)
    before_ms = time.time_ns() // 1_000_000
    (text,) = Call(Wire(accounts.ids).block(workload.draw(1)), 0, 1).ids()
    assert before_ms <= uuid.UUID(text).int >> 80 <= time.time_ns() // 1_000_000


def test_flags_go_with_their_rows() -> None:
    """Which transfers must be refused is known of each part of a block."""
    block, rows = block_of(SHAPES[1], 200)
    assert block.refused.any()
    assert [row[0].partition(":")[2].startswith("x") for row in rows] == list(Call(block, 0, 200).refused())
    assert list(Call(block, 50, 90).refused()) == np.asarray(block.refused)[50:90].tolist()


def test_accounts_that_do_not_fit_are_refused() -> None:
    """Ids of two lengths have no columns; long ones would need a length of two bytes."""
    with pytest.raises(ValueError, match="one length"):
        Wire(["a", "bb"])
    with pytest.raises(ValueError, match="two bytes"):
        Wire(["a" * 64])
