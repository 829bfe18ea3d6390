"""What the commands that move money or change accounts answer: sentences and tables, or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from deploy.moments import moment_text
from deploy.terminal import Table, error_document, good, out, write_json
from shard_node.money import to_text
from tallystick import Account, Outcome, TallystickError

if TYPE_CHECKING:
    from shard_node.cluster import Exponents
    from shard_node.ledger.proof import CurrencyTotals

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
        answer: dict[str, Any] = {"accounts": [document(account) for account in accounts]}
        write_json(answer | ({"errors": errors} if errors else {}) | ({} if more is None else {"more": more}))
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


def document(value: Any, *names: str) -> dict[str, Any]:
    """The fields of these names in JSON, or all fields of a dataclass: amounts as text, moments in UTC."""
    wanted = names or [field.name for field in fields(value)]
    return {name: _plain(getattr(value, name)) for name in wanted}


def totals_document(totals: Mapping[str, CurrencyTotals], exponents: Exponents) -> dict[str, dict[str, Any]]:
    """What a ledger's entries add up to in each currency, in JSON."""
    return {
        currency: {
            "accounts": sums.accounts,
            "customers": minor_text(sums.customers_minor, currency, exponents),
            "in_flight": minor_text(sums.in_flight_minor, currency, exponents),
            "deposits": minor_text(sums.deposits_minor, currency, exponents),
            "withdrawals": minor_text(sums.withdrawals_minor, currency, exponents),
            "system": minor_text(sums.system_minor, currency, exponents),
        }
        for currency, sums in sorted(totals.items())
    }


def show_totals(totals: Mapping[str, CurrencyTotals], exponents: Exponents, *names: str) -> None:
    """Prints of each currency how many accounts there are, and the sums of these names."""
    columns = ("accounts", *(name.replace("_", " ") for name in names))
    table = Table("currency", *columns, right=columns)
    for currency, sums in totals_document(totals, exponents).items():
        table.add_row(currency, f"{sums['accounts']:,}", *(sums[name] for name in names))
    out.table(table)


def minor_text(minor: int, currency: str, exponents: Exponents) -> str:
    """An amount in the currency's unit; in words where nobody knows how many decimals the currency has."""
    return to_text(minor, exponents[currency]) if currency in exponents else f"{minor} minor units"


def _limit(amount: Decimal | None) -> str:
    return "" if amount is None else f"{amount:f}"


def _plain(value: object) -> object:
    match value:
        case Decimal():
            return f"{value:f}"
        case datetime():
            return moment_text(value)
        case IntEnum():
            return value.name.lower()
    return value
