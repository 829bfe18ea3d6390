"""The command `tallystick`: the commands put together.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage; `verify` has its own.
"""

from __future__ import annotations

import logging
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deploy import (
    cli_accounts,
    cli_audit,
    cli_bench,
    cli_cluster,
    cli_history,
    cli_import,
    cli_money,
    cli_operate,
    cli_replay,
    cli_status,
)
from deploy.options import out
from deploy.plain_errors import plain_errors


class _Group(TyperGroup):
    """Runs every command under `plain_errors`."""

    def invoke(self, ctx: Any) -> Any:
        with plain_errors():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Group,
    name="tallystick",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _say_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        out.print(f"tallystick {metadata.version('tallystick')}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_say_version),
    ] = False,
) -> None:
    """Move money across Redis shards, and prove that none was made or lost."""


for part in (
    cli_cluster,
    cli_accounts,
    cli_money,
    cli_import,
    cli_status,
    cli_operate,
    cli_history,
    cli_audit,
    cli_replay,
    cli_bench,
):
    part.add_to(app)


def main() -> None:
    """Runs the command line."""
    # A server that comes or goes is news to kazoo at every try; the commands say themselves what matters.
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    app()


if __name__ == "__main__":
    main()
