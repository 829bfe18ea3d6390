"""What a caller of BatchTransfer reads is the same whether the hot loop or the careful one served it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.execution import Dispatcher
from router.requests import TransactionReader, batch_reader
from router.services import WalletService, refusals
from router.services.batch_answers import answer
from router.services.refusals import refusal
from shard_node.client import ask
from shard_node.cluster.slots import SLOT_COUNT
from shard_node.contract import Answer, Outcome
from tallystick.v1 import outcome_pb2, wallet_pb2
from tests.exponents import CurrenciesStandIn
from tests.router.batch_agreement import agree
from tests.router.batch_samples import SETTINGS, UNUSUAL, Request, batches_in_order, with_field
from tests.router.samples import NOW_MS, reader, uuid7
from tests.router.stand_ins import (
    COMMITTED,
    Clock,
    CommittersStandIn,
    Context,
    MapsStandIn,
    ShardStandIn,
    cluster_cut_at,
    first_amounts,
)

if TYPE_CHECKING:
    from router.requests import Bytes

# What shards and coordinators say, by amount, and of which leg.
VERDICTS = (
    (Outcome.COMMITTED, 0),
    (Outcome.INSUFFICIENT_FUNDS, 0),
    (Outcome.COMMITTED, 0),
    (Outcome.BALANCE_LIMIT, 1),
    (Outcome.OUTCOME_UNKNOWN, 0),
    (Outcome.ACCOUNT_NOT_FOUND, 1),
)


def _verdicts(bundle: bytes) -> tuple[bytes, bytes]:
    """Codes and legs."""
    found = [VERDICTS[amount % len(VERDICTS)] for amount in first_amounts(bundle)]
    return bytes(code for code, _ in found), bytes(leg for _, leg in found)


class JudgingShard(ShardStandIn):
    """A shard whose answer depends on the amount alone."""

    async def call(self, command: Any) -> Answer:
        """A verdict a row."""
        codes, legs = _verdicts(command.bundle)
        return replace(await super().call(command), codes=(codes,), legs=(legs,))


class JudgingCommitters(CommittersStandIn):
    """Coordinators whose answer depends on the amount alone."""

    async def commit_attempts(self, parts: Any, *rest: Any, **more: Any) -> Any:
        """A verdict a row."""
        response: Any = await super().commit_attempts(parts, *rest, **more)
        for part, result in zip(parts, response.results, strict=True):
            result.codes, result.legs = _verdicts(part.bundle)
        return response


async def served(
    requests: Sequence[Request], *, return_balances: bool, by_columns: bool
) -> tuple[bool, wallet_pb2.BatchTransferResponse]:
    """Whether the answer came from the hot loop, and what a caller reads."""
    shards = JudgingShard("left"), JudgingShard("right")
    maps = MapsStandIn(Clock(), cluster_cut_at(1, SLOT_COUNT // 2, *shards))
    currencies: Any = CurrenciesStandIn()
    service = WalletService(Dispatcher(maps, JudgingCommitters(), ask), maps, reader(), currencies)
    asked = wallet_pb2.BatchTransferRequest(transfers=requests, return_balances=return_balances)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_reader, "LEAST_BYTES", 0 if by_columns else 2**40)
        careful = Mock(side_effect=TransactionReader(reader()).transfers)
        patch.setattr(TransactionReader, "transfers", careful)
        answered = await service.BatchTransfer(asked.SerializeToString(), Context())
    return not careful.called, wallet_pb2.BatchTransferResponse.FromString(answered)


@settings(SETTINGS, max_examples=80)
@given(
    batches=st.lists(batches_in_order(4), min_size=1, max_size=2),
    unusual=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(UNUSUAL)), max_size=2),
    return_balances=st.booleans(),
)
def test_both_ways_a_caller_is_told_the_same(
    batches: list[list[Request]], unusual: list[tuple[int, tuple[str, Any, bool]]], *, return_balances: bool
) -> None:
    """Results and balances are the same, and the hot loop serves what it takes."""
    # Also of two currencies.
    requests = list(chain.from_iterable(batches))
    for row, (field, value, _) in unusual:
        at = row % len(requests)
        requests[at] = with_field(requests[at], field, value)
    hot, told = asyncio.run(served(requests, return_balances=return_balances, by_columns=True))
    careful, expected = asyncio.run(served(requests, return_balances=return_balances, by_columns=False))
    assert (hot, careful) == (agree(requests), False)
    assert told == expected
    assert len(told.results) == len(requests)


REFUSED = [
    # What does not fit is refused before any outcome.
    *(
        code
        for code in Outcome
        if Outcome.COMMITTED < code < Outcome.VALID and code != Outcome.INVALID_ARGUMENT
    ),
    *(Outcome.SETTLED, Outcome.STALE_EPOCH),
]


def _table(texts: Sequence[str]) -> Bytes:
    return np.frombuffer("".join(texts).encode(), np.uint8).reshape(len(texts), -1)


@pytest.mark.parametrize("kind", [list, bytearray, bytes])
@pytest.mark.parametrize(
    "codes",
    [[COMMITTED], [COMMITTED] * 3, REFUSED, [REFUSED[0]] * 2, [COMMITTED, *REFUSED, COMMITTED]],
    ids=["one", "all committed", "all refused", "all refused alike", "mixed"],
)
def test_answer(codes: list[int], kind: Callable[[list[int]], Sequence[int]]) -> None:
    """The bytes are those that protobuf makes of the same results, however the outcomes are mixed."""
    texts = [uuid7(NOW_MS, seed) for seed in range(len(codes))]
    texts[0] = texts[0].upper()
    expected = wallet_pb2.BatchTransferResponse()
    for text, code in zip(texts, codes, strict=True):
        if code == COMMITTED:
            expected.results.add(transaction_id=text, outcome=outcome_pb2.OUTCOME_COMMITTED)
        else:
            why = refusal(code, "from_account")
            expected.results.add(transaction_id=text, outcome=why.outcome, refusal=why)
    told = answer(_table(texts), kind(codes), bytes(len(codes)))
    assert wallet_pb2.BatchTransferResponse.FromString(told) == expected
    assert told == expected.SerializeToString()


def test_the_leg_that_is_refused() -> None:
    """Results with one outcome differ by the account that it concerns; the bytes are protobuf's."""
    codes = [Outcome.ACCOUNT_FROZEN, Outcome.ACCOUNT_FROZEN, COMMITTED, Outcome.ACCOUNT_FROZEN]
    legs = np.array([1, 0, 0, 1], np.uint8)
    texts = [uuid7(NOW_MS, seed) for seed in range(len(codes))]
    expected = wallet_pb2.BatchTransferResponse()
    for text, code, leg in zip(texts, codes, legs.tolist(), strict=True):
        result = expected.results.add(transaction_id=text, outcome=refusals.wire_outcome(code))
        if code != COMMITTED:
            result.refusal.CopyFrom(refusal(code, ("from_account", "to_account")[leg]))
    outcomes = np.array(codes, np.uint8)
    told = answer(_table(texts), outcomes.tolist(), legs.tolist())
    assert told == answer(_table(texts), outcomes, legs) == expected.SerializeToString()


@given(st.lists(st.sampled_from([COMMITTED, *REFUSED]), min_size=1, max_size=6))
def test_any_outcomes(codes: list[int]) -> None:
    """Each result has its own id and its own outcome."""
    texts = [uuid7(NOW_MS, seed) for seed in range(len(codes))]
    told = wallet_pb2.BatchTransferResponse.FromString(
        answer(_table(texts), bytearray(codes), bytes(len(codes)))
    )
    assert [result.transaction_id for result in told.results] == texts
    for result, code in zip(told.results, codes, strict=True):
        if code == COMMITTED:
            assert result == wallet_pb2.TransferResponse(
                transaction_id=result.transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
            )
        else:
            assert (result.refusal, result.outcome) == (
                refusal(code, "from_account"),
                refusals.wire_outcome(code),
            )
