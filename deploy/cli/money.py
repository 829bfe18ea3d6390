"""`tallystick transfer`, `purchase`, `refund`, `hold`, `capture`, `void` and `journal`: one at a time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.answers import show_result
from deploy.cli.legs import LegsError, parse_legs, read_legs
from deploy.cli.options import (
    AccountId,
    AmountText,
    Currency,
    DataOption,
    IdOption,
    InitiatedByOption,
    JsonOption,
    ReferenceOption,
    RouterOption,
    ValidateOption,
    identity_of,
    parsed_duration,
)
from deploy.local import wallet
from deploy.terminal import about
from tallystick import JournalLeg

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


def transfer(
    from_account: Annotated[str, typer.Argument(metavar="FROM")],
    to_account: Annotated[str, typer.Argument(metavar="TO")],
    amount: AmountText,
    currency: Currency,
    *,
    expected_version: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Only while FROM is at this version, as `account` tells it."),
    ] = None,
    reference: ReferenceOption = "",
    transaction_id: IdOption = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Move money between two accounts, whatever shards they are on."""
    identity = identity_of(transaction_id)
    with wallet(router, data) as client:
        about(transaction_id=identity)
        result = client.transfer(
            from_account,
            to_account,
            amount,
            currency,
            transaction_id=identity,
            reference=reference,
            return_balances=True,
            validate_only=validate_only,
            expected_version=expected_version,
        )
    balances = ((from_account, result.from_available, currency), (to_account, result.to_available, currency))
    show_result(identity, result.outcome, balances, as_json=as_json)


def purchase(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER")],
    merchant: Annotated[str, typer.Argument(metavar="MERCHANT")],
    amount: AmountText,
    currency: Currency,
    *,
    order_id: Annotated[str, typer.Option(help="The merchant's name for it; kept in the ledger.")] = "",
    reference: ReferenceOption = "",
    transaction_id: IdOption = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """A customer pays a merchant; such a payment can be refunded."""
    identity = identity_of(transaction_id)
    with wallet(router, data) as client:
        about(transaction_id=identity)
        result = client.purchase(
            customer,
            merchant,
            amount,
            currency,
            order_id=order_id,
            transaction_id=identity,
            reference=reference,
            validate_only=validate_only,
        )
    balances = ((customer, result.from_available, currency), (merchant, result.to_available, currency))
    show_result(identity, result.outcome, balances, as_json=as_json)


def refund(
    purchase_id: Annotated[
        str, typer.Argument(metavar="PURCHASE", help="The transaction id of the purchase.")
    ],
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER")],
    amount: AmountText,
    currency: Currency,
    *,
    reference: ReferenceOption = "",
    transaction_id: IdOption = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Money of a purchase back to its customer; over all refunds never more than was paid."""
    identity = identity_of(transaction_id)
    with wallet(router, data) as client:
        about(transaction_id=identity)
        result = client.refund(
            purchase_id,
            customer,
            amount,
            currency,
            transaction_id=identity,
            reference=reference,
            validate_only=validate_only,
        )
    # The merchant is the purchase's, and not named here.
    show_result(identity, result.outcome, [(customer, result.to_available, currency)], as_json=as_json)


def hold(
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
    reference: ReferenceOption = "",
    transaction_id: IdOption = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Reserve money of an account for a time. The id it answers with is what `capture` and `void` take."""
    identity = identity_of(transaction_id)
    with wallet(router, data) as client:
        about(transaction_id=identity)
        result = client.hold(
            account_id,
            amount,
            currency,
            life_seconds=life // _SECOND,
            transaction_id=identity,
            reference=reference,
            validate_only=validate_only,
        )
    show_result(identity, result.outcome, [(account_id, result.available, currency)], as_json=as_json)


def capture(
    hold_id: _HoldId,
    account_id: AccountId,
    to_account: Annotated[str, typer.Argument(metavar="TO")],
    amount: AmountText,
    currency: Currency,
    *,
    reference: ReferenceOption = "",
    transaction_id: IdOption = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Pay from a hold of ACCOUNT, fully or in part, once; the rest is available again."""
    identity = identity_of(transaction_id)
    with wallet(router, data) as client:
        about(transaction_id=identity)
        result = client.capture(
            hold_id,
            account_id,
            to_account,
            amount,
            currency,
            transaction_id=identity,
            reference=reference,
            validate_only=validate_only,
        )
    balances = ((account_id, result.from_available, currency), (to_account, result.to_available, currency))
    show_result(identity, result.outcome, balances, as_json=as_json)


def void(
    hold_id: _HoldId,
    account_id: AccountId,
    *,
    reference: ReferenceOption = "",
    transaction_id: IdOption = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """End a hold of ACCOUNT; all of it is available again."""
    identity = identity_of(transaction_id)
    with wallet(router, data) as client:
        about(transaction_id=identity)
        result = client.void(
            hold_id,
            account_id,
            transaction_id=identity,
            reference=reference,
            validate_only=validate_only,
        )
    show_result(identity, result.outcome, [(account_id, result.available, "")], as_json=as_json)


def journal(
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
    reference: ReferenceOption = "",
    transaction_id: IdOption = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """2 to 100 legs that sum to zero in every currency, on any shards: all of them happen, or none."""
    if (file is None) == (not legs):
        raise LegsError("name the legs as arguments, or their file with --file: one of the two")
    parsed = read_legs(file, currency) if file is not None else parse_legs(legs or [], currency)
    identity = identity_of(transaction_id)
    with wallet(router, data) as client:
        about(transaction_id=identity)
        result = client.post_journal(
            [JournalLeg(leg.account_id, leg.amount, leg.currency) for leg in parsed],
            transaction_id=identity,
            reference=reference,
            initiated_by=initiated_by,
            validate_only=validate_only,
        )
    # A repetition of what was done before comes without balances.
    balances = (
        (leg.account_id, available, leg.currency)
        for leg, available in zip(parsed, result.available, strict=False)
    )
    show_result(identity, result.outcome, balances, as_json=as_json)
