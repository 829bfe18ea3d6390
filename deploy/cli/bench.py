"""`tallystick bench`: how fast a cluster is, and what a transfer costs.

The load generators need packages that nothing else here does; they come with the extra `bench`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from typer.core import TyperCommand

from deploy.errors import DeployError

# All options, --help among them, are the load generator's own.
_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


class MissingPackageError(DeployError):
    """A package of an extra is not installed."""


def add_to(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command(cls=TyperCommand, context_settings=_PASSED_ON)(bench)


def bench(context: typer.Context) -> None:
    """Measure transfers a second, latencies and CPU time; one line of JSON (--json) and a table."""
    run_bench(context.args, "tallystick bench")


def run_bench(arguments: Sequence[str], name: str) -> None:
    """Runs the load generator's command line under that name; ends the process (SystemExit).

    Raises MissingPackageError when a package is not installed that it needs.
    """
    try:
        # Here: every other command works, and starts faster, without these packages.
        from bench.load_command import main  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{error.name} is not installed, which load generators need: pip install 'tallystick[bench]'"
        ) from error
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    # What is wrong with the options is said as it is of every command.
    sys.exit(app(args=list(arguments), prog_name=name, standalone_mode=False))
