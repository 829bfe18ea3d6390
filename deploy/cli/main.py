"""The command `tallystick`: the commands put together.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 70 a defect of ours, 130 interrupted, 141 the reader
of a pipe went away; `verify`, `audit` and `check` have their own.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from deploy.cli import (
    accounts,
    audit,
    bench,
    cluster,
    history,
    import_payments,
    money,
    operate,
    replay,
    status,
)
from deploy.terminal import json_asked_for, out, plain_errors


class _Command(TyperCommand):
    """A command whose texts are UTF-8, for nothing else can be sent. Names of files may be anything."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for param in self.params:
            given = ctx.params.get(param.name)
            for text in given if isinstance(given, list) else [given]:
                if isinstance(text, str) and not _is_utf8(text):
                    raise typer.BadParameter(f"{text!r} is not UTF-8", ctx=ctx, param=cast("Any", param))
        return rest


class _Group(TyperGroup):
    """Runs every command, and reads its command line, under `plain_errors`."""

    def invoke(self, ctx: Any) -> Any:
        # Inside typer's own boundary, which would give an interruption and a closed pipe its own meaning.
        with plain_errors(as_json=json_asked_for(ctx.args)):
            return super().invoke(ctx)

    def main(self, args: Sequence[str] | None = None, *others: Any, **extra: Any) -> Any:
        words = sys.argv[1:] if args is None else args
        with plain_errors(as_json=json_asked_for(words)):
            exit_code = super().main(words, *others, **extra | {"standalone_mode": False})
        sys.exit(exit_code)


def _is_utf8(text: str) -> bool:
    # Python reads a byte of an argument that is no UTF-8 as half of a surrogate pair.
    return not any("\ud800" <= character <= "\udfff" for character in text)


app = typer.Typer(
    cls=_Group,
    name="tallystick",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _say_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        out.print(f"tallystick {metadata.version('tallystick')}")
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
    cluster,
    accounts,
    money,
    import_payments,
    status,
    operate,
    history,
    audit,
    replay,
    bench,
):
    part.add_to(app)


def _with_checked_texts(commands: typer.Typer) -> None:
    for command in commands.registered_commands:
        command.cls = _Command
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _with_checked_texts(group.typer_instance)


_with_checked_texts(app)


def main() -> None:
    """Runs the command line."""
    # Closed by who started this: then nobody reads it.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115 - the same
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal of another encoding shows what it can.
            stream.reconfigure(errors="backslashreplace")
    # Libraries report every try, with tracebacks; the commands say themselves what matters.
    logging.disable(logging.ERROR)
    app()
