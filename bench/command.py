"""The frame of a measuring command: progress on standard error, figures on standard output, a clean end.

Whatever ends a command early (an error, Ctrl-C, the end of a CI job), what it started is stopped first.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import typer

from bench.settings import LONGEST_RUN_SECONDS, MAX_ACCOUNTS, MAX_RUNS, MAX_SERVERS
from deploy.terminal import Screen, err, faint, out, plain_errors, write_json

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Progress = Callable[[str], None]
Figures = TypeVar("Figures")

AccountsOption = Annotated[
    int, typer.Option(min=2, max=MAX_ACCOUNTS, help="Accounts, all with a credit line.")
]
SecondsOption = Annotated[float, typer.Option(min=0.1, max=LONGEST_RUN_SECONDS, help="How long a run lasts.")]
RunsOption = Annotated[int, typer.Option(min=1, max=MAX_RUNS, help="Runs; the median counts.")]
SeedOption = Annotated[int, typer.Option(help="The same seed draws the same transfers.")]
ShardsOption = Annotated[int, typer.Option(min=1, max=MAX_SERVERS, help="Redis shards.")]
ArchiversOption = Annotated[
    int,
    typer.Option(min=0, max=MAX_SERVERS, help="Archivers; with 0 the ledger waits on the shards."),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="One line of JSON on standard output; the tables go to standard error."),
]


def carry_out(
    work: Callable[[Progress], Figures],
    show: Callable[[Screen, Figures], None],
    document: Callable[[Figures], Mapping[str, object]],
    *,
    as_json: bool,
) -> None:
    """Measures, then prints tables, and with ``as_json`` the document on one line.

    Raises SystemExit, after a sentence that says why, when there are none to print: see `plain_errors`.
    """
    for ending in _ENDINGS:
        signal.signal(ending, _interrupt_once)
    with plain_errors(as_json=as_json):
        figures = work(lambda step: err.print(faint(step)))
        show(err if as_json else out, figures)
        if as_json:
            write_json(document(figures), one_line=True)


def _interrupt_once(*_: object) -> None:
    """What was started is stopped on the way out; a second signal must not cut that short."""
    for ending in _ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt
