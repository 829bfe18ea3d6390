"""Options that several commands share, and two consoles: answers to standard output, the rest to error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.connection import DEFAULT_DATA, ROUTER_VARIABLE

RouterOption = Annotated[
    str | None,
    typer.Option(
        "--router",
        metavar="HOST:PORT[,...]",
        help=f"Router to talk to. Default: that of --data, or of the variable {ROUTER_VARIABLE}.",
        show_default=False,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help=f"Data folder of a cluster on this machine. Default: {DEFAULT_DATA}.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]

out = Console()
err = Console(stderr=True)
