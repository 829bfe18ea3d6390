"""One ticket for each transfer that waits for its outcome.

A ticket is all the client keeps of a transfer, and it is on the hot path: slots, no
task, and either one future (a single transfer) or a share in one (an item of a batch).
"""

import asyncio
from abc import ABC, abstractmethod

from tallystick.errors import TallystickError
from tallystick.v1 import wallet_pb2
from tallystick.values import TransferResult


class Ticket(ABC):
    """A transfer that waits.

    Attributes:
        request: what is sent, the same at every try.
        transaction_id: the id in the request, as text.
        deadline_s: when the caller stops waiting, on the client's monotonic clock.
        attempts: tries that failed so far.
        begun: whether one of them may have done the work.
        return_balances: whether the caller asked for the balances after it.
    """

    __slots__ = ("attempts", "begun", "deadline_s", "request", "return_balances", "transaction_id")

    def __init__(
        self,
        request: wallet_pb2.TransferRequest,
        transaction_id: str,
        deadline_s: float,
        return_balances: bool,  # noqa: FBT001 - positional, as keywords cost time here
    ) -> None:
        self.request = request
        self.transaction_id = transaction_id
        self.deadline_s = deadline_s
        self.return_balances = return_balances
        self.attempts = 0
        self.begun = False

    @abstractmethod
    def done(self) -> bool:
        """Whether nobody waits any more: it is settled, or its caller was cancelled."""

    @abstractmethod
    def settle(self, result: TransferResult) -> None:
        """Hand over the outcome; does nothing when done."""

    def fail(self, error: TallystickError) -> None:
        """Settle with an error."""
        self.settle(TransferResult(self.transaction_id, error.outcome, error=error))


class SingleTicket(Ticket):
    """A transfer with a future of its own, which raises the error."""

    __slots__ = ("future",)

    def __init__(
        self,
        request: wallet_pb2.TransferRequest,
        transaction_id: str,
        deadline_s: float,
        return_balances: bool,  # noqa: FBT001 - as above
        future: "asyncio.Future[TransferResult]",
    ) -> None:
        # Not through super(): it is a tenth of what a transfer costs here.
        self.request = request
        self.transaction_id = transaction_id
        self.deadline_s = deadline_s
        self.return_balances = return_balances
        self.attempts = 0
        self.begun = False
        self.future = future

    def done(self) -> bool:
        """Whether the future has its result, or was cancelled."""
        return self.future.done()

    def settle(self, result: TransferResult) -> None:
        """Wake the caller."""
        future = self.future
        if future.done():
            return
        if result.error is None:
            future.set_result(result)
        else:
            future.set_exception(result.error)


class Piece:
    """Some items of a batch that wait together.

    Args:
        size: how many, one or more.
        future: done once all have their results.
    """

    __slots__ = ("_future", "_missing", "_results")

    def __init__(self, size: int, future: "asyncio.Future[None]") -> None:
        self._results: list[TransferResult | None] = [None] * size
        self._missing = size
        self._future = future

    def settled(self, index: int) -> bool:
        """Whether this item has its result, or the caller of the whole batch was cancelled."""
        return self._results[index] is not None or self._future.done()

    def settle(self, index: int, result: TransferResult) -> None:
        """Keep one item's result, unless it has one; the last one wakes the caller."""
        if self._results[index] is not None or self._future.done():
            return
        self._results[index] = result
        self._missing -= 1
        if not self._missing:
            self._future.set_result(None)

    async def wait(self) -> list[TransferResult]:
        """All the results, in order."""
        await self._future
        return [result for result in self._results if result is not None]


class PieceTicket(Ticket):
    """One item of a piece, which carries its error in its result."""

    __slots__ = ("_index", "_piece")

    def __init__(
        self,
        request: wallet_pb2.TransferRequest,
        deadline_s: float,
        return_balances: bool,  # noqa: FBT001 - as above
        piece: Piece,
        index: int,
    ) -> None:
        super().__init__(request, request.transaction_id, deadline_s, return_balances)
        self._piece = piece
        self._index = index

    def done(self) -> bool:
        """Whether this item has its result, or the caller of the whole batch was cancelled."""
        return self._piece.settled(self._index)

    def settle(self, result: TransferResult) -> None:
        """Fill this item's place."""
        self._piece.settle(self._index, result)
