"""A process of its own that carries out orders: a load generator must not share its interpreter's lock.

It is spawned, not forked: it is as fresh as a service's own process, and gRPC does not fork well. It ends
with the context that started it, whatever happens to either side; a failed order is an error of who gave it.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from bench.errors import BenchError

# A process that sees its pipe closed has only connections to close.
_JOIN_SECONDS = 10.0

A = TypeVar("A")


class Handler(Protocol):
    """What a worker does. It lives in the worker; orders and answers are pickled."""

    def carry_out(self, order: Any) -> Any:
        """The answer to an order. Raises BenchError, whose text the other side gets."""

    def close(self) -> None:
        """Gives back what it holds."""


@dataclass(frozen=True, slots=True)
class _Failed:
    message: str


class Worker:
    """One process, which ends with this context. ``make`` is called there and must be picklable."""

    def __init__(self, name: str, make: Callable[[], Handler]) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._orders, self._far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._far_end, make), name=name, daemon=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid or 0

    def send(self, order: object) -> None:
        """Gives an order; its answer is for `receive`."""
        try:
            self._orders.send(order)
        except OSError as error:
            raise self._ended() from error

    def receive(self, kind: type[A], timeout_seconds: float) -> A:
        """The answer to the oldest order not answered yet; BenchError when it failed, or takes too long."""
        try:
            if not self._orders.poll(timeout_seconds):
                raise BenchError(f"{self._name} did not answer within {timeout_seconds:.0f} s")
            answer = self._orders.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(answer, _Failed):
            raise BenchError(answer.message)
        if not isinstance(answer, kind):
            raise TypeError(f"{self._name} answered {answer!r}, not with a {kind.__name__}")
        return answer

    def _ended(self) -> BenchError:
        self._process.join(_JOIN_SECONDS)
        return BenchError(f"{self._name} ended by itself, status {self._process.exitcode}")

    def __enter__(self) -> Self:
        self._process.start()
        # Only the process itself may hold its end, or its death would go unnoticed.
        self._far_end.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._orders.close()
        # In the middle of a failed run nobody waits for it.
        self._process.join(_JOIN_SECONDS if error is None else 0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(orders: Connection, make: Callable[[], Handler]) -> None:
    """The process: answers orders until the other end is closed."""
    # A terminal's Ctrl-C is for the process that started this one, which then ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handler: Handler | None = None
    try:
        while True:
            order = orders.recv()
            try:
                handler = handler or make()
                orders.send(handler.carry_out(order))
            except BenchError as error:
                orders.send(_Failed(str(error)))
    except (EOFError, BrokenPipeError):
        pass
    finally:
        if handler is not None:
            handler.close()
