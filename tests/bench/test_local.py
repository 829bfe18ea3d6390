"""What all measurements of a cluster share: parts by name, and checks that make figures count."""

from __future__ import annotations

import pytest

from bench.cluster.local import Part, by_part, check_moves, part_of
from bench.errors import BenchError


@pytest.mark.parametrize(
    ("process", "part"),
    [
        ("client", Part.CLIENT),
        ("client-3", Part.CLIENT),
        ("router-0", Part.ROUTER),
        ("coordinator-11", Part.COORDINATOR),
        ("redis:shard-0", Part.SHARD),
        ("shard-node:shard-12", Part.SHARD_NODE),
        ("archiver-0", Part.ARCHIVER),
        ("zookeeper", Part.ZOOKEEPER),
    ],
)
def test_every_process_is_of_a_part(process: str, part: Part) -> None:
    """By its name in the figures."""
    assert part_of(process) is part


def test_a_process_of_no_part_is_an_error() -> None:
    """Its time must not get lost."""
    with pytest.raises(BenchError, match="postgres"):
        by_part({"client": 1.0, "postgres": 2.0})


def test_processes_of_a_part_add_up() -> None:
    """In the order of the parts; those that are not there are left out."""
    sums = by_part({"redis:shard-1": 2.0, "router-0": 4.0, "redis:shard-0": 1.0})
    assert list(sums.items()) == [(Part.ROUTER, 4.0), (Part.SHARD, 3.0)]


def test_a_transfer_that_was_counted_and_did_not_move_fails_the_measurement() -> None:
    """Each transfer changes two accounts once; more or fewer changes are an error."""
    check_moves(2000, 1000)
    for changes in (1999, 2001):
        with pytest.raises(BenchError, match="1000 transfers"):
            check_moves(changes, 1000)
