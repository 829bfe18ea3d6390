"""What routers ask of a coordinator, checked as far as that needs no look at a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.attempts import Attempt
from shard_node.contract import MAX_ATTEMPTS, BundleHead
from shard_node.limits import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tallystick.v1 import coordinator_pb2


class FieldError(ValueError):
    """A field of a request that nobody can work with, and a sentence that says why."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


def read_attempts(
    request: coordinator_pb2.CommitAttemptsRequest, new_attempt_id: Callable[[], bytes]
) -> list[Attempt]:
    """The attempts, under ids of their own. Raises FieldError."""
    if len(request.attempts) > MAX_ATTEMPTS:
        raise FieldError("attempts", f"{len(request.attempts)} of them, not at most {MAX_ATTEMPTS}")
    attempts = []
    for index, one in enumerate(request.attempts):
        try:
            head = BundleHead.read(one.bundle)
        except ValueError as error:
            raise FieldError(f"attempts[{index}].bundle", str(error)) from None
        participants = list(one.participants)
        owners, numbers = head.owners(one.bundle), set(range(1 + len(participants)))
        if owners != numbers or len(participants) == 0:
            why = f"{len(participants)} of them, where the bundle has the owners {sorted(owners)}"
            raise FieldError(f"attempts[{index}].participants", why)
        if len({one.decider, *participants}) < len(numbers):
            raise FieldError(f"attempts[{index}].participants", "a shard that takes part twice")
        attempts.append(Attempt(new_attempt_id(), one.decider, participants, one.bundle, head.transactions))
    transactions = sum(attempt.count for attempt in attempts)
    if transactions > MAX_BATCH:
        raise FieldError("attempts", f"{transactions} transactions, not at most {MAX_BATCH}")
    return attempts


def require_shards(attempts: Sequence[Attempt], shard_count: int) -> None:
    """Raises FieldError where an attempt names a shard that the topology does not have."""
    for index, attempt in enumerate(attempts):
        if max(attempt.deciding_shard, *attempt.participants) >= shard_count:
            why = f"a shard beyond the {shard_count} of the topology"
            field = "decider" if attempt.deciding_shard >= shard_count else "participants"
            raise FieldError(f"attempts[{index}].{field}", why)
