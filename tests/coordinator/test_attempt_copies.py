"""A transaction that comes twice in an attempt is not refused for the sake of its own first copy."""

from __future__ import annotations

from dataclasses import replace

from coordinator.attempts import Attempt, Commit
from shard_node.contract import Outcome, Prepare, Prepared, Transaction, bundle_of
from tests.coordinator.attempt_explorer import SLOTS, TRANSACTIONS
from tests.model import EngineModel

SHARD_IDS = ("0", "1", "2")
EARLIER, LATER = (start_ms.to_bytes(6) + bytes(10) for start_ms in (20, 21))
SPLIT = TRANSACTIONS["split"]


def _owned_by(*owners: int) -> Transaction:
    legs = (replace(leg, owner=owner) for leg, owner in zip(SPLIT.legs, owners, strict=True))
    return replace(SPLIT, legs=tuple(legs))


def _shards_after_a_dead_try() -> list[EngineModel]:
    """An account on each of three shards; `third` may take the transaction once.

    An earlier try is prepared on shard 1 and dead. Then the deciding slot moves there.
    """
    shards = [EngineModel() for _ in SHARD_IDS]
    for name, place in SLOTS.items():
        shards[place].open(name, "EUR", place, 0, 3 if name == "third" else 0)
        shards[place].accounts[name] = shards[place].accounts[name]._replace(available_minor=1)
    shards[1].call(Prepare([Prepared(EARLIER, "0", 1, bundle_of([_owned_by(0, 1, 2)]))]))
    shards[0].move_slot(SLOTS["first"], shards[1])
    return shards


def _codes_of_two_copies(shards: list[EngineModel]) -> bytes:
    """What shard 1 decides of the transaction, twice in a bundle."""
    attempt = Attempt(LATER, 1, [2], bundle_of([_owned_by(0, 0, 1)] * 2), 2)
    commit = Commit([attempt], SHARD_IDS)
    prepared = {shard: shards[shard].call(call) for shard, call in commit.prepare().items()}
    decided = {shard: shards[shard].call(call) for shard, call in commit.decide(prepared).items()}
    commit.finish(decided)
    return attempt.codes


def test_a_copy_of_what_is_busy_is_left_alone() -> None:
    """R9: the deciding shard is BUSY with an earlier try, a participant has room for one copy."""
    shards = _shards_after_a_dead_try()
    assert _codes_of_two_copies(shards) == bytes((Outcome.BUSY, Outcome.SKIPPED))
    assert shards[1].remembered(SPLIT.decision) is None
