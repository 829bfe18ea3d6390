"""gRPC calls out of greenlets.

Locust's users are greenlets, so nothing may block their thread, but gRPC's core has threads and waits of its
own. gRPC's gevent support, `init_gevent`, runs those waits in gevent's pool of native threads. That pool has
ten threads, and a plain blocking call holds one until its answer comes: the eleventh user would wait for the
first one's answer, unseen. Calls as futures share one waiting thread a channel, however many are in flight,
and cost no more. An asyncio client in a thread of its own would be cheaper a call, but its poller is started
with Python's `threading`, which gevent has replaced: it crashes.

Bytes go in and out: no message objects are made on the way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import gevent
import grpc
from gevent.event import Event
from grpc.experimental import gevent as grpc_gevent

from bench.locust_rig.answers import Answer

# After Locust has replaced the standard library's threads, before the first channel.
grpc_gevent.init_gevent()

_SERVICE = "/tallystick.v1.WalletService/"
_OPTIONS = (
    ("grpc.max_send_message_length", 16 * 2**20),
    ("grpc.max_receive_message_length", 16 * 2**20),
    # A second try inside gRPC would hide a failure, and its time.
    ("grpc.enable_retries", 0),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

Call = Callable[[bytes], "Done"]


@dataclass(frozen=True, slots=True)
class Done:
    """A call that has ended. ``killed``: Locust ended the user meanwhile; it must go once it has counted."""

    answer: Answer
    killed: bool


@dataclass(frozen=True, slots=True)
class RouterCalls:
    """The calls of one router."""

    transfer: Call
    batch_transfer: Call


class Routers:
    """A channel to each router, shared by all users of this process; users take the routers in turn."""

    def __init__(self, addresses: Sequence[str], timeout_seconds: float) -> None:
        self._channels = [grpc.insecure_channel(address, options=_OPTIONS) for address in addresses]
        self._turns = itertools.cycle([_calls(channel, timeout_seconds) for channel in self._channels])

    def next(self) -> RouterCalls:
        """The router whose turn it is."""
        return next(self._turns)

    def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            channel.close()


def _calls(channel: grpc.Channel, timeout_seconds: float) -> RouterCalls:
    def call(method: str) -> Call:
        # Neither serializer nor parser: bytes.
        multi_callable: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_SERVICE + method)
        return lambda request: _shielded(lambda: multi_callable.future(request, timeout=timeout_seconds))

    return RouterCalls(call("Transfer"), call("BatchTransfer"))


def _shielded(begin: Callable[[], grpc.Future[bytes]]) -> Done:
    """Makes a call in a greenlet of its own, which nobody kills, and waits for its end.

    Locust stops a user by killing its greenlet, wherever it is. What was sent may have moved money, so its
    answer is waited for and counted; and gRPC waits for locks while it sends, so that a kill there would
    lose a call that had begun. The call's deadline bounds the wait.
    """
    caller = gevent.spawn(_answer, begin)
    killed = False
    while not caller.ready():
        try:
            caller.join()
        except gevent.GreenletExit:
            killed = True
    return Done(caller.get(), killed)


def _answer(begin: Callable[[], grpc.Future[bytes]]) -> Answer:
    future = begin()
    ended = Event()
    future.add_done_callback(lambda _: ended.set())
    ended.wait()
    error = future.exception()
    return future.result() if error is None else cast("grpc.RpcError", error)
