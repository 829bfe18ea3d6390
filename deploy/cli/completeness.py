"""How far the archive is complete, as commands say it; and what they do when they are asked for more.

A command that asks for more than the archive has waits a little, for the archiver is mostly some tenths of a
second behind. Then it answers up to the moment that is known, says what is missing, and exits with 2.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, NoReturn, TypeVar

import typer

from deploy.cli.options import parsed_duration
from deploy.moments import local_text, moment_text
from deploy.terminal import doubtful, err
from tallystick import AccountNotFound, NotYetArchived

T = TypeVar("T")

# Not known, rather than wrong (1) or so (0).
EXIT_NOT_KNOWN = 2
DEFAULT_WAIT = timedelta(seconds=5)
# For a question that does not wait: what a router needs when it is busy.
LEAST_SECONDS = 1.0
# How far a shard's clock may be from this one.
CLOCK_MARGIN = timedelta(minutes=1)
# The ledger's resolution.
TICK = timedelta(milliseconds=1)

WaitOption = Annotated[
    timedelta | None,
    typer.Option(
        "--wait",
        parser=parsed_duration,
        metavar="DURATION",
        help="How long to wait until what is asked for is archived. After that the answer goes as far as all "
        "is known, and the exit code is 2. Default: 5s.",
        show_default=False,
    ),
]


def until_text(complete_until: datetime | None) -> str:
    """Up to when an answer is complete, in words."""
    if complete_until is None:
        return "up to when this is complete is not known"
    return f"complete up to {local_text(complete_until)}"


def until_document(complete_until: datetime | None) -> str | None:
    """The same in JSON."""
    return None if complete_until is None else moment_text(complete_until)


def answered(
    ask: Callable[..., T], asked: datetime, wait: timedelta | None, shorter: Callable[[datetime], T]
) -> tuple[T, NotYetArchived | None]:
    """The answer to a question that waits until all is archived up to ``asked``; and why it falls short.

    Args:
        ask: called with ``wait_for`` and ``timeout_s``; without them it does not wait.
        asked: the moment that the question is about.
        wait: for how long at the most; None for the usual time.
        shorter: the question that is asked instead when that does not suffice, up to a moment that is known.
            Where none is, the command ends.
    """
    timeout_s = max((DEFAULT_WAIT if wait is None else wait).total_seconds(), LEAST_SECONDS)
    try:
        return ask(wait_for=asked, timeout_s=timeout_s), None
    except NotYetArchived as late:
        until = late.complete_until
        if until is None:
            end_not_known(late)
        # By the ledger's own time all is there. Of the last minute that does not do: it is the shards' time,
        # and what the caller has seen happen may be dated after ``asked``.
        if asked <= min(until, datetime.now(UTC) - CLOCK_MARGIN):
            return ask(), None
        try:
            return shorter(until), late
        except AccountNotFound as absent:
            err.print(str(absent))
            end_not_known(late)


def end_if_late(late: NotYetArchived | None) -> None:
    """Says what is missing, and ends the command, if something is."""
    if late is not None:
        end_not_known(late)


def end_not_known(late: NotYetArchived) -> NoReturn:
    """Says what is missing, and ends the command."""
    err.print(
        doubtful("not known yet"),
        f": {late.message}; does the archiver run? 'tallystick status' tells",
    )
    raise typer.Exit(EXIT_NOT_KNOWN)
