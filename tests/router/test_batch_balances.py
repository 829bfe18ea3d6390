"""Batches with balances: the answer made of columns is the one that is made row by row."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from router.requests import FieldReader, batch_reader
from router.services import WalletService
from tallystick.v1 import outcome_pb2, wallet_pb2
from tests.exponents import EXPONENTS, CurrenciesStandIn
from tests.router.samples import NOW_MS, uuid7
from tests.router.stand_ins import Context
from tests.router.transaction_cluster import SHARDS, funded, model_shards


def answered(request: wallet_pb2.BatchTransferRequest) -> wallet_pb2.BatchTransferResponse:
    """What a cluster of its own answers, each account of which has ten euros."""
    cluster, _ = funded(model_shards(SHARDS))
    fields = FieldReader(EXPONENTS, lambda: NOW_MS)
    service = WalletService(cluster.dispatcher, cluster.maps, fields, CurrenciesStandIn())
    answer = asyncio.run(service.BatchTransfer(request.SerializeToString(), Context()))
    return wallet_pb2.BatchTransferResponse.FromString(answer)


def batch(count: int, *, return_balances: bool) -> wallet_pb2.BatchTransferRequest:
    """Transfers within and across shards, some of which are refused, repeated, or of another currency."""
    _, names = funded(model_shards(SHARDS))
    accounts, random = [name for pair in names for name in pair], Random(count)
    request = wallet_pb2.BatchTransferRequest(return_balances=return_balances)
    for number in range(count):
        payer, payee = random.sample(accounts, 2)
        request.transfers.add(
            transaction_id=uuid7(NOW_MS, random.randrange(count) if number % 10 == 0 else number),
            from_account=payer,
            to_account="nobody" if number % 17 == 0 else payee,
            amount=f"{random.randrange(1, 400) / 100:.2f}",
            currency="USD" if number % 13 == 0 else "EUR",
            reference="x" * (number % 3),
        )
    return request


@pytest.mark.parametrize("return_balances", [True, False])
@pytest.mark.parametrize("count", [120, 400])
def test_both_ways_answer_alike(
    monkeypatch: pytest.MonkeyPatch, count: int, *, return_balances: bool
) -> None:
    """Outcomes, refusals and balances are the same, with many of each among them."""
    request = batch(count, return_balances=return_balances)
    assert request.ByteSize() > batch_reader.LEAST_BYTES
    by_columns = answered(request)
    monkeypatch.setattr(batch_reader, "LEAST_BYTES", 1 << 30)
    row_by_row = answered(request)
    assert list(by_columns.results) == list(row_by_row.results)
    done = [one for one in by_columns.results if one.outcome == outcome_pb2.OUTCOME_COMMITTED]
    assert count / 5 < len(done) < count * 0.95
    assert any(one.HasField("from_available") for one in done) is return_balances
    assert {one.refusal.field for one in by_columns.results} >= {"", "to_account", "from_account"}


def test_a_flag_of_another_form_is_read_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no serializer writes behind the rows is left to protobuf, and answered by what it says."""
    request = batch(120, return_balances=False).SerializeToString()
    reader = batch_reader.BatchReader(EXPONENTS)
    latest = NOW_MS.to_bytes(6)
    assert reader.read(request, latest)
    taken = reader.read(request + b"\x10\x01", latest)
    assert taken
    assert taken.with_balances
    for behind in (b"\x10\x00", b"\x10\x02", b"\x10", b"\x10\x81\x00", b"\x10\x01\x10\x01", b"\x18\x01"):
        assert reader.read(request + behind, latest) is None
