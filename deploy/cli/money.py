"""`tallystick transfer`, `purchase`, `refund`, `hold`, `capture`, `void` and `journal`: one at a time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.legs import LegsError, parse_legs, read_legs
from deploy.cli.operation import Operation
from deploy.cli.options import (
    AccountId,
    AmountText,
    Currency,
    InitiatedByOption,
    parsed_duration,
    with_options,
)
from tallystick import SyncClient

_HoldId = Annotated[str, typer.Argument(metavar="HOLD", help="The transaction id of the hold.")]

_SECOND = timedelta(seconds=1)


def _parsed_life(text: str) -> timedelta:
    life = parsed_duration(text)
    if life % _SECOND:
        raise typer.BadParameter(f"{text!r} is not a whole number of seconds")
    return life


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for command in (transfer, purchase, refund, hold, capture, void, journal):
        app.command()(command)


@with_options
def transfer(
    operation: Operation,
    from_account: Annotated[str, typer.Argument(metavar="FROM")],
    to_account: Annotated[str, typer.Argument(metavar="TO")],
    amount: AmountText,
    currency: Currency,
    *,
    expected_version: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Only while FROM is at this version, as `account` tells it."),
    ] = None,
) -> None:
    """Move money between two accounts, whatever shards they are on."""
    result = operation.send(
        SyncClient.transfer,
        from_account,
        to_account,
        amount,
        currency,
        return_balances=True,
        expected_version=expected_version,
    )
    operation.show_both(result, from_account, to_account, currency)


@with_options
def purchase(
    operation: Operation,
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER")],
    merchant: Annotated[str, typer.Argument(metavar="MERCHANT")],
    amount: AmountText,
    currency: Currency,
    *,
    order_id: Annotated[str, typer.Option(help="The merchant's name for it; kept in the ledger.")] = "",
) -> None:
    """A customer pays a merchant; such a payment can be refunded."""
    result = operation.send(SyncClient.purchase, customer, merchant, amount, currency, order_id=order_id)
    operation.show_both(result, customer, merchant, currency)


@with_options
def refund(
    operation: Operation,
    purchase_id: Annotated[
        str, typer.Argument(metavar="PURCHASE", help="The transaction id of the purchase.")
    ],
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER")],
    amount: AmountText,
    currency: Currency,
) -> None:
    """Money of a purchase back to its customer; over all refunds never more than was paid."""
    result = operation.send(SyncClient.refund, purchase_id, customer, amount, currency)
    # The merchant is the purchase's, and not named here.
    operation.show(result, (customer, result.to_available, currency))


@with_options
def hold(
    operation: Operation,
    account_id: AccountId,
    amount: AmountText,
    currency: Currency,
    *,
    life: Annotated[
        timedelta,
        typer.Option(
            parser=_parsed_life, metavar="TIME", help='How long it lasts, 1s to 31d: "90s", "30m", "7d".'
        ),
    ] = "7d",  # type: ignore[assignment]  # the parser makes it a timedelta
) -> None:
    """Reserve money of an account for a time. The id it answers with is what `capture` and `void` take."""
    result = operation.send(SyncClient.hold, account_id, amount, currency, life_seconds=life // _SECOND)
    operation.show(result, (account_id, result.available, currency))


@with_options
def capture(
    operation: Operation,
    hold_id: _HoldId,
    account_id: AccountId,
    to_account: Annotated[str, typer.Argument(metavar="TO")],
    amount: AmountText,
    currency: Currency,
) -> None:
    """Pay from a hold of ACCOUNT, fully or in part, once; the rest is available again."""
    result = operation.send(SyncClient.capture, hold_id, account_id, to_account, amount, currency)
    operation.show_both(result, account_id, to_account, currency)


@with_options
def void(operation: Operation, hold_id: _HoldId, account_id: AccountId) -> None:
    """End a hold of ACCOUNT; all of it is available again."""
    result = operation.send(SyncClient.void, hold_id, account_id)
    operation.show(result, (account_id, result.available, ""))


@with_options
def journal(
    operation: Operation,
    legs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ACCOUNT=AMOUNT...",
            help="alice=-10.00 takes from alice, bob=7.00:EUR names a currency.",
            show_default=False,
        ),
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE.csv",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Legs from a file with the columns account_id, amount, currency.",
        ),
    ] = None,
    currency: Annotated[str, typer.Option(help="The currency of legs that name none.")] = "",
    initiated_by: InitiatedByOption = "",
) -> None:
    """2 to 100 legs that sum to zero in every currency, on any shards: all of them happen, or none."""
    if (file is None) == (not legs):
        raise LegsError("name the legs as arguments, or their file with --file: one of the two")
    parsed = read_legs(file, currency) if file is not None else parse_legs(legs or [], currency)
    result = operation.send(SyncClient.post_journal, parsed, initiated_by=initiated_by)
    # A repetition of what was done before comes without balances.
    balances = zip(parsed, result.available, strict=False)
    operation.show(result, *((leg.account_id, available, leg.currency) for leg, available in balances))
