"""The map of the cluster keeps its rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_node.cluster.slots import SLOT_COUNT
from shard_node.cluster.topology import ShardInfo, SlotRange, Topology, TopologyError


@given(st.integers(1, 64))
def test_initial_slots_are_dealt_out_evenly(count: int) -> None:
    """Every slot has one owner, and no shard has two slots more than another."""
    topology = Topology.initial("c", [f"shard-{i}" for i in range(count)])
    sizes = [shard.slot_count for shard in topology.shards]
    assert sum(sizes) == SLOT_COUNT
    assert max(sizes) - min(sizes) <= 1
    assert [topology.owner[shard.slots[0].first] for shard in topology.shards] == list(range(count))


def test_json_round_trip() -> None:
    """What is written is read."""
    topology = Topology.initial("c", ["shard-0", "shard-1"]).with_primary("shard-1", "127.0.0.1:7000")
    assert Topology.from_json(topology.to_json()) == topology


def test_a_new_primary_raises_epoch_and_version() -> None:
    """Callers with the old map are refused by that shard, and by no other."""
    before = Topology.initial("c", ["shard-0", "shard-1"])
    after = before.with_primary("shard-1", "127.0.0.1:7000")
    assert after.version == before.version + 1
    assert after.shard("shard-1").epoch == before.shard("shard-1").epoch + 1
    assert after.shard("shard-0") == before.shard("shard-0")


def test_fence_tells_clusters_shards_and_epochs_apart() -> None:
    """None of the three alone would do: addresses are reused and epochs are small."""
    one = Topology.initial("c1", ["shard-0", "shard-1"])
    two = Topology.initial("c2", ["shard-0", "shard-1"])
    raised = one.with_primary("shard-0", "a:1")
    fences = {t.fence(s) for t in (one, two, raised) for s in t.shards}
    assert fences == {"c1/shard-0/1", "c1/shard-1/1", "c2/shard-0/1", "c2/shard-1/1", "c1/shard-0/2"}


@pytest.mark.parametrize(
    ("ranges", "complaint"),
    [
        ([(0, 8191), (8193, 16383)], "slot 8192 has no owner"),
        ([(0, 8192), (8192, 16383)], "slot 8192 has two owners"),
        ([(0, 16384), (0, 0)], "not within"),
        ([(5, 4), (0, 16383)], "not within"),
    ],
)
def test_ill_formed_slots_are_refused(ranges: list[tuple[int, int]], complaint: str) -> None:
    """A slot with no owner or two would lose or fork an account."""
    shards = [ShardInfo(f"s{i}", 1, "", (SlotRange(*r),)) for i, r in enumerate(ranges)]
    with pytest.raises(TopologyError, match=complaint):
        Topology("c", 1, tuple(shards))


@pytest.mark.parametrize("shard_id", ["", "Shard", "a/b", "-a", "a" * 64])
def test_ill_formed_shard_ids_are_refused(shard_id: str) -> None:
    """They are part of fences and of paths in ZooKeeper."""
    shard = replace(Topology.initial("c", ["ok"]).shards[0], shard_id=shard_id)
    with pytest.raises(TopologyError, match="shard id"):
        Topology("c", 1, (shard,))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"cluster_id": "c", "version": 1, "shards": []}'])
def test_what_is_no_topology_is_refused(content: bytes) -> None:
    """Whatever somebody wrote into the node."""
    with pytest.raises(TopologyError):
        Topology.from_json(content)
