"""`tallystick account ...`: one account: its life, its balance, and money in and out."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from deploy.cli.answers import show_accounts, show_result
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
)
from deploy.local import wallet
from deploy.terminal import about, bad, err, out, sentence_of

DEFAULT_LIMIT = 100

_BankOption = Annotated[
    str,
    typer.Option("--bank-transaction-id", metavar="ID", help="The bank's name for it; kept in the ledger."),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    accounts = typer.Typer(help="Open an account, look at accounts, bring money in or take it out.")
    accounts.command("open")(open_account)
    accounts.command("show")(show)
    accounts.command("list")(list_accounts)
    for command in (deposit, withdraw, freeze, unfreeze, close):
        accounts.command()(command)
    app.add_typer(accounts, name="account", no_args_is_help=True)


def open_account(
    account_id: AccountId,
    currency: Currency,
    *,
    minimum_balance: Annotated[
        str, typer.Option(metavar="AMOUNT", help='The lowest balance allowed, "-100" for a credit line.')
    ] = "0",
    maximum_balance: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="The most it may hold.", show_default=False)
    ] = None,
    maximum_transfer: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT", help="The most that one transfer, hold or journal may take.", show_default=False
        ),
    ] = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Open an account. Opening it again with the same attributes changes nothing."""
    about(account_id=account_id)
    with wallet(router, data) as client:
        account = client.open_account(
            account_id,
            currency,
            minimum_balance,
            maximum_balance=maximum_balance,
            maximum_transfer=maximum_transfer,
            validate_only=validate_only,
        )
    show_accounts([account], as_json=as_json)


def show(
    account_ids: Annotated[list[str], typer.Argument(metavar="ACCOUNT...")],
    *,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Show accounts and their balances."""
    with wallet(router, data) as client:
        results = client.get_accounts(account_ids)
    failed = {result.account_id: result.error for result in results if result.error is not None}
    shown = [result.account for result in results if result.account is not None]
    show_accounts(shown, as_json=as_json, failed=failed)
    for account_id, error in failed.items():
        err.print(bad("error:"), f" {account_id}: {sentence_of(error)}")
    if failed:
        raise typer.Exit(1)


def list_accounts(
    *,
    prefix: Annotated[str, typer.Option(help="Only accounts whose id begins so.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = DEFAULT_LIMIT,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """List accounts and their balances, in order of slot, then of id.

    Closed accounts are among them; the system's own, @world, are not: `tallystick verify` adds them up.
    """
    with wallet(router, data) as client:
        # One more than asked for tells whether there is more.
        accounts = list(islice(client.accounts(prefix), limit + 1))
    more, accounts = len(accounts) > limit, accounts[:limit]
    show_accounts(accounts, as_json=as_json, more=more)
    if as_json:
        return
    if not accounts:
        out.print("no accounts")
    if more:
        out.print(f"there are more than {limit}; --limit shows more")


def deposit(
    account_id: AccountId,
    amount: AmountText,
    currency: Currency,
    *,
    bank_transaction_id: _BankOption = "",
    initiated_by: InitiatedByOption = "",
    reference: ReferenceOption = "",
    transaction_id: IdOption = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Bring money from outside into an account."""
    identity = identity_of(transaction_id)
    with wallet(router, data) as client:
        about(transaction_id=identity)
        result = client.deposit(
            account_id,
            amount,
            currency,
            transaction_id=identity,
            reference=reference,
            bank_transaction_id=bank_transaction_id,
            initiated_by=initiated_by,
            validate_only=validate_only,
        )
    show_result(identity, result.outcome, [(account_id, result.to_available, currency)], as_json=as_json)


def withdraw(
    account_id: AccountId,
    amount: AmountText,
    currency: Currency,
    *,
    bank_transaction_id: _BankOption = "",
    initiated_by: InitiatedByOption = "",
    reference: ReferenceOption = "",
    transaction_id: IdOption = None,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Take money from an account to outside."""
    identity = identity_of(transaction_id)
    with wallet(router, data) as client:
        about(transaction_id=identity)
        result = client.withdraw(
            account_id,
            amount,
            currency,
            transaction_id=identity,
            reference=reference,
            bank_transaction_id=bank_transaction_id,
            initiated_by=initiated_by,
            validate_only=validate_only,
        )
    show_result(identity, result.outcome, [(account_id, result.from_available, currency)], as_json=as_json)


def freeze(
    account_id: AccountId,
    *,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Let an account neither pay nor be paid. Freezing it again does nothing."""
    about(account_id=account_id)
    with wallet(router, data) as client:
        account = client.freeze_account(account_id, validate_only=validate_only)
    show_accounts([account], as_json=as_json)


def unfreeze(
    account_id: AccountId,
    *,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Let a frozen account take part again."""
    about(account_id=account_id)
    with wallet(router, data) as client:
        account = client.unfreeze_account(account_id, validate_only=validate_only)
    show_accounts([account], as_json=as_json)


def close(
    account_id: AccountId,
    *,
    validate_only: ValidateOption = False,
    as_json: JsonOption = False,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Close an account for ever. It must have a balance of zero, no hold, and nothing on its way."""
    about(account_id=account_id)
    with wallet(router, data) as client:
        account = client.close_account(account_id, validate_only=validate_only)
    show_accounts([account], as_json=as_json)
