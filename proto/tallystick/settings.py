"""Every limit and wait of the client, in one place, each with its reason."""

from dataclasses import dataclass

from tallystick import limits
from tallystick.errors import InvalidArgument

SERVICE_BATCH_LIMIT = 8192
"""The most items the service takes in one batch (the contract)."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How much the client sends at once, how long it waits and how it asks again.

    Attributes:
        timeout_s: how long a call may take in all, its retries included, when the
            call does not say.
        attempt_timeout_s: how long one try may take, so that a router that hangs
            leaves time to ask another one.
        batch_limit: most transfers in one BatchTransfer. Past about 2000 a batch
            only adds latency: a shard works on one function call at a time.
        batch_floor: do not split waiting transfers into smaller batches than this
            to fill idle places: a call costs as much as some hundred transfers.
        batches_in_flight: batches on their way at once to each router. A few keep
            every part of the cluster busy; more only wait in the router's queue.
        queue_limit: most single transfers that wait for a place. Past it `transfer`
            raises Overloaded at once, rather than let memory and latency grow.
        first_retry_delay_s: the wait before the second try, doubled for each next.
        longest_retry_delay_s: where the doubling ends.
        router_rest_s: how long a router that failed is passed over, doubled for
            each next failure in a row.
        longest_router_rest_s: where that doubling ends.
        close_grace_s: how long `close` waits for the batches in flight.
    """

    timeout_s: float = 10.0
    attempt_timeout_s: float = 4.0
    batch_limit: int = 2048
    batch_floor: int = 512
    batches_in_flight: int = 3
    queue_limit: int = 65_536
    first_retry_delay_s: float = 0.02
    longest_retry_delay_s: float = 1.0
    router_rest_s: float = 0.25
    longest_router_rest_s: float = 5.0
    close_grace_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("batch_limit", "batch_floor", "batches_in_flight", "queue_limit"):
            if limits.instance(getattr(self, name), int, name) < 1:
                raise InvalidArgument(f"must be 1 or more, is {getattr(self, name)}", field=name)
        if self.batch_limit > SERVICE_BATCH_LIMIT:
            raise InvalidArgument(
                f"must be at most {SERVICE_BATCH_LIMIT}, is {self.batch_limit}", field="batch_limit"
            )
        for name in ("timeout_s", "attempt_timeout_s", "first_retry_delay_s", "router_rest_s"):
            limits.seconds(getattr(self, name), name)
