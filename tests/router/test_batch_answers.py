"""What a caller of BatchTransfer reads is the same whether the hot loop or the careful one served it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from router.execution.engine import Engine
from router.execution.journal_engine import JournalEngine
from router.requests.reader import RequestReader
from shard_node.contract.calls import Post

from router.requests import batches
from router.services import refusals
from router.services.batch_answers import answer
from router.services.refusals import refusal
from router.services.wallet_service import WalletService
from shard_node.cluster.slots import SLOT_COUNT
from shard_node.contract.outcomes import PAYEE, Outcome
from tallystick.v1 import outcome_pb2, wallet_pb2
from tests.exponents import CurrenciesStandIn
from tests.router.batch_samples import SETTINGS, UNUSUAL, Request, agree, batches_in_order, with_field
from tests.router.samples import NOW_MS, reader, uuid7
from tests.router.stand_ins import (
    COMMITTED,
    Clock,
    CommittersStandIn,
    Context,
    MapsStandIn,
    ShardStandIn,
    cluster_cut_at,
    unpacked,
)

if TYPE_CHECKING:
    from router.requests.byte_tables import Bytes
    from shard_node.contract.calls import Call
    from shard_node.contract.journal_calls import JournalCall

# What shards say, by amount; and what a coordinator says.
VERDICTS = (
    Outcome.COMMITTED,
    Outcome.INSUFFICIENT_FUNDS,
    Outcome.COMMITTED,
    Outcome.BALANCE_LIMIT | PAYEE,
    Outcome.OUTCOME_UNKNOWN,
    Outcome.ACCOUNT_NOT_FOUND | PAYEE,
)


def _verdicts(amounts: bytes) -> bytes:
    return bytes(VERDICTS[amount % len(VERDICTS)] for amount in unpacked(amounts))


class JudgingShard(ShardStandIn):
    """A shard whose answer depends on the amount alone."""

    async def call(self, call: Call | JournalCall) -> Any:
        """A verdict a row."""
        assert isinstance(call, Post)
        return replace(await super().call(call), codes=(_verdicts(call.bundle.amounts),))


class JudgingCommitters(CommittersStandIn):
    """Coordinators whose answer depends on the amount alone."""

    async def commit(self, parts: Any, *rest: Any, **more: Any) -> Any:
        """A verdict a row."""
        response: Any = await super().commit(parts, *rest, **more)
        for (_, _, bundle), result in zip(parts, response.results, strict=True):
            result.outcomes = _verdicts(bundle.amounts)
        return response


async def served(
    requests: Sequence[Request], *, return_balances: bool
) -> tuple[bool, wallet_pb2.BatchTransferResponse]:
    """Whether the answer came from the hot loop, and what a caller reads; balances are taken out of it."""
    shards = JudgingShard("left"), JudgingShard("right")
    maps, committers = MapsStandIn(Clock(), cluster_cut_at(1, SLOT_COUNT // 2, *shards)), JudgingCommitters()
    service = WalletService(
        Engine(maps, committers), JournalEngine(maps, committers), maps, reader(), CurrenciesStandIn()
    )
    asked = wallet_pb2.BatchTransferRequest(transfers=requests, return_balances=return_balances)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "LEAST_BYTES", 0)
        patch.setattr(RequestReader, "transfers", careful := Mock(wraps=service._reader.transfers))
        answered = await service.BatchTransfer(asked.SerializeToString(), Context())
    told = wallet_pb2.BatchTransferResponse.FromString(answered)
    for result in told.results:
        result.ClearField("from_available")
        result.ClearField("to_available")
    return not careful.called, told


@settings(SETTINGS, max_examples=80)
@given(
    requests=batches_in_order(),
    unusual=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(UNUSUAL)), max_size=2),
)
def test_both_ways_a_caller_is_told_the_same(
    requests: list[Request], unusual: list[tuple[int, tuple[str, Any, bool]]]
) -> None:
    """Who asks for balances, and so takes the careful way, gets the same results but for these."""
    for row, (field, value, _) in unusual:
        at = row % len(requests)
        requests[at] = with_field(requests[at], field, value)
    hot, told = asyncio.run(served(requests, return_balances=False))
    careful, expected = asyncio.run(served(requests, return_balances=True))
    assert hot == agree(requests)
    assert not careful
    assert told == expected
    assert len(told.results) == len(requests)


REFUSED = [
    # What does not fit is refused before any outcome.
    *(
        code
        for code in Outcome
        if Outcome.COMMITTED < code < Outcome.VALID and code != Outcome.INVALID_ARGUMENT
    ),
    *(code | PAYEE for code in (Outcome.ACCOUNT_FROZEN, Outcome.CURRENCY_MISMATCH, Outcome.BALANCE_LIMIT)),
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
            why = refusal(code)
            expected.results.add(transaction_id=text, outcome=why.outcome, refusal=why)
    told = answer(_table(texts), kind(codes))
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
    told = wallet_pb2.BatchTransferResponse.FromString(answer(_table(texts), bytearray(codes)))
    assert [result.transaction_id for result in told.results] == texts
    for result, code in zip(told.results, codes, strict=True):
        if code == COMMITTED:
            assert result == wallet_pb2.TransferResponse(
                transaction_id=result.transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
            )
        else:
            assert (result.refusal, result.outcome) == (refusal(code), refusal(code).outcome)
