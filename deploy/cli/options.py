"""Options that several commands share, and commands that take such options together."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, get_type_hints

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


def _identity_of(transaction_id: str | None) -> str:
    """The id as given, a new one only when none was. The service refuses an empty one."""
    return new_transaction_id() if transaction_id is None else transaction_id


IdOption = Annotated[
    str,
    typer.Option(
        "--transaction-id",
        metavar="UUID",
        help="Give the id of an earlier try to repeat it safely. Default: a new UUIDv7.",
        show_default=False,
        callback=_identity_of,
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


@dataclass(frozen=True, slots=True)
class Asking:
    """The options of a command that asks a router."""

    as_json: JsonOption = False
    router: RouterOption = None
    data: DataOption = None


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer is to see it: the fields of its first parameter, a dataclass, are options."""
    hints = get_type_hints(command, include_extras=True)
    group, *own = inspect.signature(command).parameters.values()
    kind = hints.pop(group.name)
    shared = inspect.signature(kind).parameters.values()
    hints |= get_type_hints(kind, include_extras=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(kind(**{one.name: given.pop(one.name) for one in shared}), **given)

    parameters = (*own, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shared))
    signature = inspect.Signature([one.replace(annotation=hints[one.name]) for one in parameters])
    vars(run).update(__signature__=signature)
    run.__annotations__ = hints
    return run


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
