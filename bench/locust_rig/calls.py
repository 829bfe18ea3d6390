"""Calls of ready-made bytes to the routers, out of greenlets: no message object is made on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
from gevent.event import Event

from tallystick.locust.greenlets import Done, to_its_end
from tallystick.transport import CHANNEL_OPTIONS

_SERVICE = "/tallystick.v1.WalletService/"

# Its error, if it has one, is a grpc.RpcError.
Call = Callable[[bytes], Done[bytes]]


@dataclass(frozen=True, slots=True)
class RouterCalls:
    """The calls of one router."""

    transfer: Call
    batch_transfer: Call


class Routers:
    """A channel to each router, shared by all users of this process; users take the routers in turn."""

    def __init__(self, addresses: Sequence[str], timeout_seconds: float) -> None:
        self._channels = [grpc.insecure_channel(address, options=CHANNEL_OPTIONS) for address in addresses]
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

        def answer(request: bytes) -> bytes:
            future = multi_callable.future(request, timeout=timeout_seconds)
            ended = Event()
            future.add_done_callback(lambda _: ended.set())
            ended.wait()
            return future.result()

        return lambda request: to_its_end(lambda: answer(request))

    return RouterCalls(call("Transfer"), call("BatchTransfer"))
