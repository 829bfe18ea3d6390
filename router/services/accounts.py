"""Opening, reading, freezing and closing accounts, a batch over all its shards."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from router.execution import at_owner, spread
from router.requests import CURRENCY, BadField, read_opening
from router.services import refusals
from shard_node.contract import AccountRecord, AccountState, Outcome
from shard_node.errors import ExponentUnknownError, RegistryError, ShardNodeError
from shard_node.money import to_text
from tallystick.v1 import wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from router.execution import Maps
    from router.requests import FieldReader, Opening
    from shard_node.client import Shard
    from shard_node.cluster import Currencies
    from shard_node.contract import AccountTerms, Kind

_STATES = {
    AccountState.OPEN: wallet_pb2.ACCOUNT_STATE_OPEN,
    AccountState.FROZEN: wallet_pb2.ACCOUNT_STATE_FROZEN,
    AccountState.CLOSED: wallet_pb2.ACCOUNT_STATE_CLOSED,
}


def account_message(account_id: str, account: AccountRecord, digits: int) -> wallet_pb2.Account:
    """An account as callers see it; ``digits`` is its currency's exponent."""
    message = wallet_pb2.Account(
        account_id=account_id,
        currency=account.currency,
        available=to_text(account.available_minor, digits),
        held=to_text(account.held_minor, digits),
        version=account.version,
        state=_STATES[account.state],
        minimum_balance=to_text(account.minimum_minor, digits),
    )
    if account.maximum_balance_minor:
        message.maximum_balance = to_text(account.maximum_balance_minor, digits)
    if account.maximum_transfer_minor:
        message.maximum_transfer = to_text(account.maximum_transfer_minor, digits)
    return message


async def open_accounts(
    directory: Maps,
    fields: FieldReader,
    currencies: Currencies,
    requests: Sequence[wallet_pb2.OpenAccountRequest],
    deadline_seconds: float,
) -> list[wallet_pb2.AccountResult]:
    """Opens each account on its shard. Opening is idempotent, so a retry needs no id.

    The first account of a currency has the currency's exponent stored with the cluster, before it opens.
    """
    openings, results = await _read_openings(fields, currencies, requests)

    def answer(position: int, outcome: Outcome, account: AccountRecord) -> wallet_pb2.AccountResult:
        if outcome is not Outcome.COMMITTED:
            return _refused(refusals.refusal(outcome, "account_id"))
        terms, digits = openings[position]
        return wallet_pb2.AccountResult(account=account_message(terms.account, account, digits))

    async def work(shard: Shard, positions: list[int]) -> list[wallet_pb2.AccountResult]:
        outcomes, accounts = await shard.open([openings[p].terms for p in positions])
        return [answer(*row) for row in zip(positions, outcomes, accounts, strict=True)]

    async def check(shard: Shard, positions: list[int]) -> list[wallet_pb2.AccountResult]:
        accounts = await shard.accounts([requests[p].account_id for p in positions])
        return [
            answer(p, *_would_open(openings[p].terms, account))
            for p, account in zip(positions, accounts, strict=True)
        ]

    for only_check, do in ((False, work), (True, check)):
        slots = {p: one.terms.slot for p, one in openings.items() if requests[p].validate_only is only_check}
        results |= await _answers(directory, slots, do, deadline_seconds)
    return [results[position] for position in range(len(requests))]


async def _read_openings(
    fields: FieldReader, currencies: Currencies, requests: Sequence[wallet_pb2.OpenAccountRequest]
) -> tuple[dict[int, Opening], dict[int, wallet_pb2.AccountResult]]:
    """What each account is to be opened with, by the stored exponents; and the results of all others."""
    known = currencies.exponents
    openings: dict[int, Opening] = {}
    results: dict[int, wallet_pb2.AccountResult] = {}

    def read(position: int) -> None:
        try:
            openings[position] = read_opening(fields, requests[position])
        except BadField as bad:
            openings.pop(position, None)
            results[position] = _refused(refusals.invalid(bad))

    new = {
        position
        for position, request in enumerate(requests)
        if request.currency not in known and CURRENCY.fullmatch(request.currency)
    }
    try:
        if new:
            with suppress(ExponentUnknownError):
                await currencies.require_exponents({requests[position].currency for position in new})
        for position in range(len(requests)):
            read(position)
        wanted = {
            requests[p].currency: openings[p].digits
            for p in new
            if p in openings and requests[p].currency not in known and not requests[p].validate_only
        }
        if wanted:
            await currencies.store_exponents(wanted)
            # Another router may have been first, and have had another release of the package.
            for position in new:
                read(position)
    except RegistryError as error:
        for position in range(len(requests)):
            if position in new and requests[position].currency not in known:
                openings.pop(position, None)
                results[position] = _refused(refusals.no_answer(error))
            else:
                read(position)
    return openings, results


async def read_accounts(
    directory: Maps,
    fields: FieldReader,
    currencies: Currencies,
    account_ids: Sequence[str],
    deadline_seconds: float,
) -> list[wallet_pb2.AccountResult]:
    """Reads each account from its shard."""
    slots: dict[int, int] = {}
    results: dict[int, wallet_pb2.AccountResult] = {}
    for position, account_id in enumerate(account_ids):
        try:
            slots[position] = fields.account_slot(account_id, "account_id")
        except BadField as bad:
            results[position] = _refused(refusals.invalid(bad))

    async def work(shard: Shard, positions: list[int]) -> list[wallet_pb2.AccountResult]:
        accounts = await shard.accounts([account_ids[p] for p in positions])
        # One of a currency that has none is refused by itself.
        with suppress(ExponentUnknownError):
            await currencies.require_exponents({account.currency for account in accounts if account})
        return [
            _found(account_ids[p], account, currencies)
            for p, account in zip(positions, accounts, strict=True)
        ]

    results |= await _answers(directory, slots, work, deadline_seconds)
    return [results[position] for position in range(len(account_ids))]


async def set_state(
    directory: Maps,
    fields: FieldReader,
    currencies: Currencies,
    target: Kind,
    request: wallet_pb2.FreezeAccountRequest
    | wallet_pb2.UnfreezeAccountRequest
    | wallet_pb2.CloseAccountRequest,
    deadline_seconds: float,
) -> wallet_pb2.AccountResult:
    """Freezes, unfreezes or closes an account; idempotent, so a retry needs no id."""
    account_id = request.account_id
    try:
        slot = fields.account_slot(account_id, "account_id")
    except BadField as bad:
        return _refused(refusals.invalid(bad))

    async def ask(shard: Shard) -> wallet_pb2.AccountResult:
        (outcome,), (account,) = await shard.set_state(
            [(account_id, target)], validate_only=request.validate_only
        )
        if outcome in (Outcome.COMMITTED, Outcome.VALID):
            if account:
                await currencies.require_exponents((account.currency,))
            return _found(account_id, account, currencies)
        return _refused(refusals.refusal(outcome, "account_id"))

    try:
        return await at_owner(directory, slot, ask, deadline_seconds)
    except ShardNodeError as error:
        return _refused(refusals.no_answer(error))


async def currency_of(directory: Maps, account_id: str, slot: int, deadline_seconds: float) -> str | None:
    """An account's currency, which never changes; None when there is no such account.

    Raises the errors of :mod:`shard_node.errors`.
    """
    (account,) = await at_owner(directory, slot, lambda shard: shard.accounts([account_id]), deadline_seconds)
    return account.currency if account else None


def _would_open(terms: AccountTerms, account: AccountRecord | None) -> tuple[Outcome, AccountRecord]:
    """What opening would answer, and the account as it would stand."""
    made = AccountRecord(
        available_minor=0,
        held_minor=0,
        version=0,
        minimum_minor=terms.minimum_minor,
        maximum_balance_minor=terms.maximum_balance_minor,
        maximum_transfer_minor=terms.maximum_transfer_minor,
        reserved_minor=0,
        slot=terms.slot,
        state=AccountState.OPEN,
        currency=terms.currency,
    )
    if account is None:
        return Outcome.COMMITTED, made
    same = all(
        getattr(account, name) == getattr(made, name)
        for name in ("currency", "minimum_minor", "maximum_balance_minor", "maximum_transfer_minor")
    )
    return (Outcome.COMMITTED if same else Outcome.ACCOUNT_EXISTS), account


async def _answers(
    directory: Maps,
    slots: dict[int, int],
    work: Callable[[Shard, list[int]], Awaitable[list[wallet_pb2.AccountResult]]],
    deadline_seconds: float,
) -> dict[int, wallet_pb2.AccountResult]:
    """What the shards answer to each position."""
    found = await spread(directory, slots, work, deadline_seconds)
    return {
        position: _refused(refusals.no_answer(answer)) if isinstance(answer, ShardNodeError) else answer
        for position, answer in found.items()
    }


def _found(
    account_id: str, account: AccountRecord | None, currencies: Currencies
) -> wallet_pb2.AccountResult:
    """The account; refused when its currency's exponent, and so what it has, is not known."""
    if account is None:
        return _refused(refusals.refusal(Outcome.ACCOUNT_NOT_FOUND, "account_id"))
    try:
        digits = currencies.exponents[account.currency]
    except ExponentUnknownError as error:
        return _refused(refusals.no_answer(error))
    return wallet_pb2.AccountResult(account=account_message(account_id, account, digits))


def _refused(why: wallet_pb2.Refusal) -> wallet_pb2.AccountResult:
    return wallet_pb2.AccountResult(refusal=why)
