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
IdOption = Annotated[
    str | None,
    typer.Option(
        "--transaction-id",
        metavar="UUID",
        help="Give the id of an earlier try to repeat it safely. Default: a new UUIDv7.",
        show_default=False,
    ),
]
ReferenceOption = Annotated[str, typer.Option("--reference", help="Up to 256 bytes, kept in the ledger.")]
InitiatedByOption = Annotated[
    str, typer.Option("--initiated-by", metavar="WHO", help="Who had it done; kept in the ledger.")
]
ValidateOption = Annotated[
    bool, typer.Option("--validate-only", help="Make all checks; move, open or change nothing.")
]
AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT")]
AmountText = Annotated[str, typer.Argument(metavar="AMOUNT", help='In the currency\'s unit: "12.50".')]
Currency = Annotated[str, typer.Argument(metavar="CURRENCY", help="An ISO 4217 code: EUR.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]

out = Console()
err = Console(stderr=True)
