"""`tallystick account ...`: one account: its life, its balance, and money in and out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import typer

from deploy.cli.answers import show_accounts
from deploy.cli.operation import Operation
from deploy.cli.options import (
    AccountId,
    AmountText,
    Asking,
    Currency,
    DataOption,
    InitiatedByOption,
    JsonOption,
    RouterOption,
    ValidateOption,
    with_options,
)
from deploy.local import wallet
from deploy.terminal import about, bad, err, out, sentence_of
from tallystick import Account, SyncClient

DEFAULT_LIMIT = 100

_BankOption = Annotated[
    str,
    typer.Option("--bank-transaction-id", metavar="ID", help="The bank's name for it; kept in the ledger."),
]


@dataclass(frozen=True, slots=True)
class Change:
    """The options of a command that changes an account, and moves nothing."""

    validate_only: ValidateOption = False
    as_json: JsonOption = False
    router: RouterOption = None
    data: DataOption = None

    def make(self, method: Callable[..., Account], account_id: str, *arguments: Any, **fields: Any) -> None:
        """Calls a method of `SyncClient`, and prints the account that it answers with."""
        about(account_id=account_id)
        with wallet(self.router, self.data) as client:
            account = method(client, account_id, *arguments, validate_only=self.validate_only, **fields)
        show_accounts([account], as_json=self.as_json)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    accounts = typer.Typer(help="Open an account, look at accounts, bring money in or take it out.")
    accounts.command("open")(open_account)
    accounts.command("show")(show)
    accounts.command("list")(list_accounts)
    for command in (deposit, withdraw, freeze, unfreeze, close):
        accounts.command()(command)
    app.add_typer(accounts, name="account", no_args_is_help=True)


@with_options
def open_account(
    change: Change,
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
) -> None:
    """Open an account. Opening it again with the same attributes changes nothing."""
    change.make(
        SyncClient.open_account,
        account_id,
        currency,
        minimum_balance,
        maximum_balance=maximum_balance,
        maximum_transfer=maximum_transfer,
    )


@with_options
def show(asking: Asking, account_ids: Annotated[list[str], typer.Argument(metavar="ACCOUNT...")]) -> None:
    """Show accounts and their balances."""
    with wallet(asking.router, asking.data) as client:
        results = client.get_accounts(account_ids)
    failed = {result.account_id: result.error for result in results if result.error is not None}
    shown = [result.account for result in results if result.account is not None]
    show_accounts(shown, as_json=asking.as_json, failed=failed)
    for account_id, error in failed.items():
        err.print(bad("error:"), f" {account_id}: {sentence_of(error)}")
    if failed:
        raise typer.Exit(1)


@with_options
def list_accounts(
    asking: Asking,
    *,
    prefix: Annotated[str, typer.Option(help="Only accounts whose id begins so.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = DEFAULT_LIMIT,
) -> None:
    """List accounts and their balances, in order of slot, then of id.

    Closed accounts are among them; the system's own, @world, are not: `tallystick verify` adds them up.
    """
    with wallet(asking.router, asking.data) as client:
        # One more than asked for tells whether there is more.
        accounts = list(islice(client.accounts(prefix), limit + 1))
    more, accounts = len(accounts) > limit, accounts[:limit]
    show_accounts(accounts, as_json=asking.as_json, more=more)
    if asking.as_json:
        return
    if not accounts:
        out.print("no accounts")
    if more:
        out.print(f"there are more than {limit}; --limit shows more")


@with_options
def deposit(
    operation: Operation,
    account_id: AccountId,
    amount: AmountText,
    currency: Currency,
    *,
    bank_transaction_id: _BankOption = "",
    initiated_by: InitiatedByOption = "",
) -> None:
    """Bring money from outside into an account."""
    fields = {"bank_transaction_id": bank_transaction_id, "initiated_by": initiated_by}
    result = operation.send(SyncClient.deposit, account_id, amount, currency, **fields)
    operation.show(result, (account_id, result.to_available, currency))


@with_options
def withdraw(
    operation: Operation,
    account_id: AccountId,
    amount: AmountText,
    currency: Currency,
    *,
    bank_transaction_id: _BankOption = "",
    initiated_by: InitiatedByOption = "",
) -> None:
    """Take money from an account to outside."""
    fields = {"bank_transaction_id": bank_transaction_id, "initiated_by": initiated_by}
    result = operation.send(SyncClient.withdraw, account_id, amount, currency, **fields)
    operation.show(result, (account_id, result.from_available, currency))


@with_options
def freeze(change: Change, account_id: AccountId) -> None:
    """Let an account neither pay nor be paid. Freezing it again does nothing."""
    change.make(SyncClient.freeze_account, account_id)


@with_options
def unfreeze(change: Change, account_id: AccountId) -> None:
    """Let a frozen account take part again."""
    change.make(SyncClient.unfreeze_account, account_id)


@with_options
def close(change: Change, account_id: AccountId) -> None:
    """Close an account for ever. It must have a balance of zero, no hold, and nothing on its way."""
    change.make(SyncClient.close_account, account_id)
