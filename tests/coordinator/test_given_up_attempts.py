"""An attempt that goes no further is ended by its own coordinator, not only by recovery."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.attempt_steps import Batch
from coordinator.attempts import Attempt
from shard_node.client import NoReply
from shard_node.contract import Answer, Command, Decide, Outcome, bundle_of
from tests.coordinator.attempt_explorer import SLOTS, TRANSACTIONS
from tests.model import EngineModel

SHARD_IDS = ("0", "1")
FIRST, SECOND = (start_ms.to_bytes(6) + bytes(10) for start_ms in (20, 21))


def _shards() -> list[EngineModel]:
    """An account on each, with money for one transaction."""
    shards = [EngineModel() for _ in SHARD_IDS]
    for name, shard in zip(("first", "second"), shards, strict=True):
        shard.open(name, "EUR", SLOTS[name])
        shard.accounts[name] = shard.accounts[name]._replace(available_minor=1)
    return shards


def _tried(shards: list[EngineModel], attempt_id: bytes, silence: NoReply | None = None) -> bytes:
    """What callers are answered of a debit on shard 1; ``silence`` is the answer to its decide."""
    pull = TRANSACTIONS["pull"]
    pull = replace(pull, legs=(pull.legs[0], replace(pull.legs[1], owner=1)))
    attempt = Attempt(attempt_id, 0, [1], bundle_of([pull]), 1)
    steps = Batch([attempt], SHARD_IDS, lambda: bytes(16), lambda _: False).steps()

    def answered(shard: int, call: Command) -> Answer | NoReply:
        return silence if silence and isinstance(call, Decide) else shards[shard].call(call)

    calls = next(steps)
    try:
        while True:
            calls = steps.send({shard: answered(shard, call) for shard, call in calls.items()})
    except StopIteration:
        return attempt.outcomes


@pytest.mark.parametrize(
    ("silence", "outcome"),
    [(NoReply.STALE, Outcome.STALE_EPOCH), (NoReply.FULL, Outcome.RESOURCE_EXHAUSTED)],
)
def test_a_next_try_finds_nothing_in_its_way(silence: NoReply, outcome: Outcome) -> None:
    """The deciding shard refuses to decide: the participant keeps nothing, and the next try commits."""
    shards = _shards()
    assert _tried(shards, FIRST, silence) == bytes((outcome,))
    assert shards[1].is_drained(SLOTS["second"])
    assert _tried(shards, SECOND) == bytes((Outcome.COMMITTED,))


def test_a_silent_shard_is_not_asked_again() -> None:
    """Whoever hears nothing of a decide leaves the attempt to recovery: it may have been decided."""
    shards = _shards()
    assert _tried(shards, FIRST, NoReply.LOST) == bytes((Outcome.OUTCOME_UNKNOWN,))
    assert FIRST in shards[1].attempts
