"""A wallet service over stand-ins, and requests for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.rpc import error_details_pb2

from router.execution import Dispatcher, PurchaseArchive
from router.services import WalletService
from shard_node.client import ask
from shard_node.cluster.slots import slot
from tallystick.v1 import wallet_pb2
from tests.exponents import CurrenciesStandIn
from tests.router.samples import reader, uuid7
from tests.router.stand_ins import (
    AbortedError,
    Clock,
    CommittersStandIn,
    Context,
    MapsStandIn,
    ShardStandIn,
    cluster_cut_at,
)

Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]

LOW, HIGH = sorted(["alice", "bob"], key=slot)
# Of the same shard as LOW.
FRIEND = "{" + LOW + "}"


@dataclass(slots=True)
class Bench:
    """A service over two stand-in shards: LOW is on the left one, HIGH on the right one."""

    archive: PurchaseArchive | None = None
    currencies: CurrenciesStandIn = field(default_factory=CurrenciesStandIn)
    left: ShardStandIn = field(default_factory=lambda: ShardStandIn("left"))
    right: ShardStandIn = field(default_factory=lambda: ShardStandIn("right"))
    committers: CommittersStandIn = field(default_factory=CommittersStandIn)
    service: WalletService = field(init=False)

    def __post_init__(self) -> None:
        maps = MapsStandIn(Clock(), cluster_cut_at(1, slot(HIGH), self.left, self.right))
        self.service = WalletService(
            Dispatcher(maps, self.committers, ask),
            maps,
            reader(exponents=self.currencies.exponents),
            self.currencies,
            self.archive,
        )

    async def batch(self, *transfers: wallet_pb2.TransferRequest) -> list[wallet_pb2.TransferResponse]:
        """The results of a batch."""
        request = wallet_pb2.BatchTransferRequest(transfers=transfers)
        answer = await self.service.BatchTransfer(request.SerializeToString(), Context())
        return list(wallet_pb2.BatchTransferResponse.FromString(answer).results)


def payment(number: int, **fields: Any) -> wallet_pb2.TransferRequest:
    """A transfer that stays on the left shard; its amount tells it from others."""
    made = wallet_pb2.TransferRequest(
        transaction_id=uuid7(0, number),
        from_account=LOW,
        to_account=FRIEND,
        amount=f"{number / 100:.2f}",
        currency="EUR",
    )
    made.MergeFrom(wallet_pb2.TransferRequest(**fields))
    return made


def a_hold(number: int, **fields: Any) -> wallet_pb2.HoldRequest:
    """A hold on the left shard, told from others by its amount."""
    made = wallet_pb2.HoldRequest(
        transaction_id=uuid7(0, number), account_id=LOW, amount=f"{number / 100:.2f}", currency="EUR"
    )
    made.MergeFrom(wallet_pb2.HoldRequest(**fields))
    return made


async def aborted(call: Handler, request: Any) -> tuple[Context, error_details_pb2.ErrorInfo]:
    """How a call that must be refused ended, and what it said of the reason."""
    context = Context()
    with pytest.raises(AbortedError):
        await call(request, context)
    (info,) = context.detail(error_details_pb2.ErrorInfo)
    return context, info


async def turns() -> None:
    """Lets the loop do all that is ready."""
    for _ in range(20):
        await asyncio.sleep(0)
