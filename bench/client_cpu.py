"""`python -m bench.client_cpu`: what a single call costs in the Python client itself, in CPU microseconds.

The service is a stand-in in a process of its own that commits everything, so the figure is of the client
alone: its Python, protobuf and gRPC, all threads. With a cluster it is measured by `python -m bench.singles`.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from bench.command import Progress, command
from bench.generator_cpu import Run, document, measure, show
from bench.settings import BenchSettings
from bench.singles import CallersOption, singles_handler


def _measure(settings: BenchSettings, progress: Progress) -> Sequence[Run]:
    """Measure the client against a stand-in in another process."""
    return measure(settings, progress, singles_handler)


main = command(
    _measure,
    show,
    document,
    BenchSettings(unary=True, concurrency=2000, seconds=3.0, runs=3),
    ("concurrency", "accounts", "seconds", "runs"),
    concurrency=CallersOption,
)

if __name__ == "__main__":
    typer.run(main)
