"""What the commands that move money or change accounts answer: sentences and tables, or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from deploy.terminal import Table, error_document, good, out, write_json
from shard_node.money import to_text
from tallystick import Account, Outcome, TallystickError

if TYPE_CHECKING:
    from shard_node.cluster import Exponents

# Account, what it has available where that is known, and the currency, if that is.
Balance = tuple[str, Decimal | None, str]


def show_result(transaction_id: str, outcome: Outcome, balances: Iterable[Balance], *, as_json: bool) -> None:
    """Prints what became of an operation, and what its accounts have available, where known."""
    # Not known for a repetition of what was done before.
    known = [(a, f"{available:f}", currency) for a, available, currency in balances if available is not None]
    if as_json:
        write_json(
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
    out.print(good(outcome.name), f" {transaction_id}")
    for account_id, available, currency in known:
        amount = f"{available} {currency}".rstrip()
        out.print(f"  {account_id}: {amount} available")


def show_accounts(
    accounts: Sequence[Account],
    *,
    as_json: bool,
    failed: Mapping[str, TallystickError] | None = None,
    more: bool | None = None,
) -> None:
    """Prints accounts as they stand.

    In JSON also the errors of those that ``failed``, and whether there are ``more``, where that is given.
    """
    if as_json:
        errors = [{"account_id": name, **error_document(error)} for name, error in (failed or {}).items()]
        document: dict[str, Any] = {"accounts": [_account_document(account) for account in accounts]}
        write_json(
            document | ({"errors": errors} if errors else {}) | ({} if more is None else {"more": more})
        )
        return
    limits = {
        "maximum": [_limit(account.maximum_balance) for account in accounts],
        "per transfer": [_limit(account.maximum_transfer) for account in accounts],
    }
    # Few accounts have such limits: without any, no column.
    limits = {name: column for name, column in limits.items() if any(column)}
    table = Table(
        "account",
        "currency",
        "available",
        "held",
        "minimum",
        *limits,
        "version",
        "state",
        right={"available", "held", "minimum", *limits, "version"},
        folds={"account"},
    )
    for number, account in enumerate(accounts):
        table.add_row(
            account.account_id,
            account.currency,
            f"{account.available:f}",
            f"{account.held:f}",
            f"{account.minimum_balance:f}",
            *(column[number] for column in limits.values()),
            str(account.version),
            account.state.name.lower(),
        )
    if accounts:
        out.table(table)


def minor_text(minor: int, currency: str, exponents: Exponents) -> str:
    """An amount in the currency's unit; in words where nobody knows how many decimals the currency has."""
    return to_text(minor, exponents[currency]) if currency in exponents else f"{minor} minor units"


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
