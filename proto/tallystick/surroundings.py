"""What the client takes from the world: time, chance, new ids and the way to the routers."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tallystick.ids import new_transaction_id
from tallystick.transport import GrpcTransport, Transport


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Passed in, so that tests can decide on each.

    Attributes:
        clock: monotonic seconds.
        sleep: waits that many seconds.
        jitter: a number from 0 to 1; it spreads retries, so it need not be secret.
        new_id: a new transaction id as text.
        connect: makes the way to the routers with these addresses.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    new_id: Callable[[], str] = new_transaction_id
    connect: Callable[[Sequence[str]], Transport] = GrpcTransport
