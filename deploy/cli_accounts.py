"""`tallystick account ...` and `tallystick transfer`: one account, one transfer at a time."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated

import typer
from rich.table import Table

from deploy.connection import wallet
from deploy.options import DataOption, RouterOption, err, out
from tallystick import Account, RetryableError, TransferResult, new_transaction_id

_IdOption = Annotated[
    str | None,
    typer.Option(
        "--transaction-id",
        metavar="UUID",
        help="Give the id of an earlier try to repeat it safely. Default: a new UUIDv7.",
        show_default=False,
    ),
]
_ReferenceOption = Annotated[str, typer.Option("--reference", help="Up to 256 bytes, kept in the ledger.")]
_AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT")]
_Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help='In the currency\'s unit: "12.50".')]
_Currency = Annotated[str, typer.Argument(metavar="CURRENCY", help="An ISO 4217 code: EUR.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    accounts = typer.Typer(help="Open an account, look at accounts, bring money in or take it out.")
    accounts.command("open")(open_account)
    accounts.command("show")(show_accounts)
    accounts.command("deposit")(deposit)
    accounts.command("withdraw")(withdraw)
    app.add_typer(accounts, name="account", no_args_is_help=True)
    app.command()(transfer)


def open_account(
    account_id: _AccountId,
    currency: _Currency,
    *,
    minimum_balance: Annotated[
        str, typer.Option(metavar="AMOUNT", help='The lowest balance allowed, "-100" for a credit line.')
    ] = "0",
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Open an account. Opening it again with the same attributes changes nothing."""
    with wallet(router, data) as client:
        _show([client.open_account(account_id, currency, minimum_balance)])


def show_accounts(
    account_ids: Annotated[list[str], typer.Argument(metavar="ACCOUNT...")],
    *,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Show accounts and their balances."""
    with wallet(router, data) as client:
        results = client.get_accounts(account_ids)
    _show(result.account for result in results if result.account is not None)
    missing = [result for result in results if result.error is not None]
    for result in missing:
        err.print(f"[bold red]error:[/] {result.account_id}: {result.error}", soft_wrap=True)
    if missing:
        raise typer.Exit(1)


def deposit(
    account_id: _AccountId,
    amount: _Amount,
    currency: _Currency,
    *,
    reference: _ReferenceOption = "",
    transaction_id: _IdOption = None,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Bring money from outside into an account."""
    identity = transaction_id or new_transaction_id()
    with wallet(router, data) as client, _Announced(identity):
        result = client.deposit(account_id, amount, currency, transaction_id=identity, reference=reference)
    _show_result(result, ((account_id, result.to_available),), currency)


def withdraw(
    account_id: _AccountId,
    amount: _Amount,
    currency: _Currency,
    *,
    reference: _ReferenceOption = "",
    transaction_id: _IdOption = None,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Take money from an account to outside."""
    identity = transaction_id or new_transaction_id()
    with wallet(router, data) as client, _Announced(identity):
        result = client.withdraw(account_id, amount, currency, transaction_id=identity, reference=reference)
    _show_result(result, ((account_id, result.from_available),), currency)


def transfer(
    from_account: Annotated[str, typer.Argument(metavar="FROM")],
    to_account: Annotated[str, typer.Argument(metavar="TO")],
    amount: _Amount,
    currency: _Currency,
    *,
    reference: _ReferenceOption = "",
    transaction_id: _IdOption = None,
    router: RouterOption = None,
    data: DataOption = None,
) -> None:
    """Move money between two accounts, whatever shards they are on."""
    identity = transaction_id or new_transaction_id()
    with wallet(router, data) as client, _Announced(identity):
        result = client.transfer(
            from_account,
            to_account,
            amount,
            currency,
            transaction_id=identity,
            reference=reference,
            return_balances=True,
        )
    balances = ((from_account, result.from_available), (to_account, result.to_available))
    _show_result(result, balances, currency)


class _Announced:
    """Says the id of a transfer that may or may not have happened: whoever repeats it needs that id."""

    def __init__(self, transaction_id: str) -> None:
        self._transaction_id = transaction_id

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (RetryableError, KeyboardInterrupt)):
            err.print(
                f"transaction {self._transaction_id}: not known yet whether it happened", soft_wrap=True
            )


def _show(accounts: Iterable[Account]) -> None:
    table = Table("account", "currency", "available", "held", "minimum", "version", "state")
    for column in table.columns[2:6]:
        column.justify = "right"
    for account in accounts:
        table.add_row(
            account.account_id,
            account.currency,
            f"{account.available:f}",
            f"{account.held:f}",
            f"{account.minimum_balance:f}",
            str(account.version),
            account.state.name.lower(),
        )
    if table.rows:
        out.print(table)


def _show_result(
    result: TransferResult, balances: Iterable[tuple[str, Decimal | None]], currency: str
) -> None:
    out.print(
        f"[bold green]{result.outcome.name}[/] {result.transaction_id}", highlight=False, soft_wrap=True
    )
    for account_id, available in balances:
        # Not known for a repetition of a transfer done before.
        if available is not None:
            out.print(f"  {account_id}: {available:f} {currency} available", highlight=False, soft_wrap=True)
