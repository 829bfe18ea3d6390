"""What the commands that move money or change accounts answer: sentences and tables, or JSON.

Invariant: whoever may have to send something again learns its transaction id, and is never told "failed"
where that is not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from coordinator.money import to_text
from deploy.options import err, out
from tallystick import Account, Outcome, RetryableError, TallystickError

if TYPE_CHECKING:
    from shard_node.currencies import Exponents

# Account, what it has available where that is known, and the currency, if that is.
Balance = tuple[str, Decimal | None, str]


@contextmanager
def announced(transaction_id: str, *, as_json: bool) -> Iterator[None]:
    """Says the id of an operation that may or may not have happened: whoever repeats it needs that id.

    With ``as_json`` any error is also an answer on standard output.
    """
    try:
        yield
    except TallystickError as error:
        if as_json:
            print_json({"transaction_id": transaction_id, **_error_document(error)})
        if isinstance(error, RetryableError):
            _say_not_known(transaction_id)
        raise
    except KeyboardInterrupt:
        _say_not_known(transaction_id)
        raise


@contextmanager
def refused(account_id: str, *, as_json: bool) -> Iterator[None]:
    """With ``as_json`` makes an error of what is done to an account an answer on standard output too."""
    try:
        yield
    except TallystickError as error:
        if as_json:
            print_json({"account_id": account_id, **_error_document(error)})
        raise


def show_result(transaction_id: str, outcome: Outcome, balances: Iterable[Balance], *, as_json: bool) -> None:
    """Prints what became of an operation, and what its accounts have available, where known."""
    # Not known for a repetition of what was done before.
    known = [(a, f"{available:f}", currency) for a, available, currency in balances if available is not None]
    if as_json:
        print_json(
            {
                "transaction_id": transaction_id,
                "outcome": outcome.name,
                "balances": [
                    {"account_id": account_id, "available": available, "currency": currency}
                    for account_id, available, currency in known
                ],
            }
        )
        return
    out.print(f"[bold green]{outcome.name}[/] {transaction_id}", highlight=False, soft_wrap=True)
    for account_id, available, currency in known:
        amount = f"{available} {currency}".rstrip()
        out.print(f"  {escape(account_id)}: {amount} available", highlight=False, soft_wrap=True)


def show_accounts(accounts: Iterable[Account], *, as_json: bool) -> None:
    """Prints accounts as they stand."""
    shown = list(accounts)
    if as_json:
        print_json({"accounts": [_account_document(account) for account in shown]})
        return
    limits = {
        "maximum": [_limit(account.maximum_balance) for account in shown],
        "per transfer": [_limit(account.maximum_transfer) for account in shown],
    }
    # Few accounts have such limits: without any, no column.
    limits = {name: column for name, column in limits.items() if any(column)}
    table = Table("account", "currency", "available", "held", "minimum", *limits, "version", "state")
    for column in table.columns[2:-1]:
        column.justify = "right"
    for number, account in enumerate(shown):
        table.add_row(
            escape(account.account_id),
            account.currency,
            f"{account.available:f}",
            f"{account.held:f}",
            f"{account.minimum_balance:f}",
            *(column[number] for column in limits.values()),
            str(account.version),
            account.state.name.lower(),
        )
    if table.rows:
        out.print(table)


def minor_text(minor: int, currency: str, exponents: Exponents) -> str:
    """An amount in the currency's unit; in words where nobody knows how many decimals the currency has."""
    return to_text(minor, exponents[currency]) if currency in exponents else f"{minor} minor units"


def print_json(document: Any) -> None:
    """A document for programs, on standard output."""
    out.print_json(json.dumps(document))


def _say_not_known(transaction_id: str) -> None:
    err.print(f"transaction {transaction_id}: not known yet whether it happened", soft_wrap=True)


def _limit(amount: Decimal | None) -> str:
    return "" if amount is None else f"{amount:f}"


def _account_document(account: Account) -> dict[str, Any]:
    return {
        "account_id": account.account_id,
        "currency": account.currency,
        "available": f"{account.available:f}",
        "held": f"{account.held:f}",
        "minimum_balance": f"{account.minimum_balance:f}",
        "maximum_balance": _limit(account.maximum_balance) or None,
        "maximum_transfer": _limit(account.maximum_transfer) or None,
        "version": account.version,
        "state": account.state.name.lower(),
    }


def _error_document(error: TallystickError) -> dict[str, str]:
    return {
        "outcome": error.outcome.name,
        "message": error.message or error.summary,
        "field": error.field,
    }
