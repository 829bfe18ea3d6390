"""What `python -m bench.scaling` is asked for: numbers of shards, the load on each, and what to plan for.

Load processes get the settings too, and find no class of a package's `__main__`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from bench.errors import BenchError
from bench.settings import MAX_SERVERS, BenchSettings

_Share = typer.Option(min=0.01, max=1.0, help="Share of its core that a process may use in the plan.")


@dataclass(frozen=True, slots=True)
class ScalingSettings(BenchSettings):
    """What to measure, and what to plan for. ``shard_counts`` are numbers of shards, such as "1,2,4"."""

    shard_counts: Annotated[
        str, typer.Option("--shards", metavar="N,N,...", help=f"Numbers of shards, 1 to {MAX_SERVERS} each.")
    ] = "1,2,4,8,16"
    planned_rate: Annotated[
        float, typer.Option("--rate", min=1, max=1e9, help="Transfers a second to plan for.")
    ] = 1_000_000.0
    # Of a Redis, and of routers, coordinators and archivers.
    shard_busy: Annotated[float, _Share] = 0.8
    process_busy: Annotated[float, _Share] = 0.8

    def __post_init__(self) -> None:
        BenchSettings.__post_init__(self)
        _ = self.counts

    @property
    def counts(self) -> list[int]:
        """The numbers of shards, each once, rising; BenchError when one is none or none crosses."""
        try:
            counts = sorted({int(word) for word in self.shard_counts.split(",")})
        except ValueError:
            raise BenchError(f"--shards: {self.shard_counts!r} is no list of numbers") from None
        for count in counts:
            if not 1 <= count <= MAX_SERVERS:
                raise BenchError(f"--shards: {count} is not within 1 to {MAX_SERVERS}")
        if counts[-1] < 2:
            raise BenchError("--shards: name 2 or more: on one shard nothing crosses")
        return counts
