"""Options that several commands share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from deploy.local import DEFAULT_DATA, ROUTER_VARIABLE
from deploy.moments import parse_duration, parse_moment
from tallystick import new_transaction_id

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
LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL",
        help="The ledger's database, for SQLAlchemy. Default: that of --data.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]

TIME_HELP = (
    '"2026-03-01T12:30:00Z"; "2026-03-01" or "2026-03-01T12:30" in the time zone of this machine, or of TZ; '
    'or how long ago: "2h", "1d12h".'
)


def identity_of(transaction_id: str | None) -> str:
    """The id of what is done: as given, a new one only when none was. The service refuses an empty one."""
    return new_transaction_id() if transaction_id is None else transaction_id


def parsed_moment(text: str) -> datetime:
    """A moment that an option gives; a wrong one is wrong usage."""
    try:
        return parse_moment(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def parsed_duration(text: str) -> timedelta:
    """A length of time that an option gives; a wrong one is wrong usage."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
