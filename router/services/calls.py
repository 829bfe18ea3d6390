"""What all calls of the WalletService stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.execution import KeptTasks, Validator
from router.requests import TransactionReader
from tallystick.v1 import wallet_pb2_grpc

if TYPE_CHECKING:
    from router.execution import Dispatcher, Maps, PurchaseArchive
    from router.requests import FieldReader
    from shard_node.cluster import Currencies


class Calls(wallet_pb2_grpc.WalletServiceServicer):
    """Validates, hands on, answers.

    Work on money runs in tasks of its own, which a caller that hangs up does not cancel. ``archive`` has
    the purchases that shards have forgotten; without one they cannot be refunded.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        directory: Maps,
        fields: FieldReader,
        currencies: Currencies,
        archive: PurchaseArchive | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._directory = directory
        self._fields = fields
        self._currencies = currencies
        self._archive = archive
        self._reader = TransactionReader(fields)
        self._validator = Validator(directory)
        self._kept = KeptTasks()

    async def finish_all(self) -> None:
        """Waits for everything under way."""
        await self._kept.finish_all()
        await self._dispatcher.finish_all()
