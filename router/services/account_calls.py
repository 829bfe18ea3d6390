"""The calls about accounts: opening, reading, freezing and closing them, a batch over all its shards."""

# ruff: noqa: N802 -- the contract names its calls so

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from router.execution import AccountQuery, account_page, at_owner, deadline_of, spread
from router.requests import CURRENCY, BadField, read_opening
from router.services import refusals
from router.services.calls import Calls
from shard_node.contract import AccountRecord, AccountState, Kind, Outcome
from shard_node.errors import ExponentUnknownError, RegistryError, ShardNodeError
from shard_node.money import to_text
from tallystick.v1 import wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from router.requests import Opening
    from shard_node.client import Shard
    from shard_node.cluster import Currencies
    from shard_node.contract import AccountTerms

_STATES = {
    AccountState.OPEN: wallet_pb2.ACCOUNT_STATE_OPEN,
    AccountState.FROZEN: wallet_pb2.ACCOUNT_STATE_FROZEN,
    AccountState.CLOSED: wallet_pb2.ACCOUNT_STATE_CLOSED,
}


def _message(account_id: str, account: AccountRecord, digits: int) -> wallet_pb2.Account:
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


class AccountCalls(Calls):
    """Calls about accounts. All are idempotent, so a retry needs no id."""

    async def OpenAccount(self, request: wallet_pb2.OpenAccountRequest, context: Any) -> wallet_pb2.Account:
        """Opens one account."""
        (result,) = await self._kept.run(self._open([request], deadline_of(context)))
        return await _account_or_abort(result, context)

    async def BatchOpenAccounts(
        self, request: wallet_pb2.BatchOpenAccountsRequest, context: Any
    ) -> wallet_pb2.BatchAccountsResponse:
        """Opens up to MAX_BATCH accounts."""
        count = len(request.accounts)
        await refusals.check_size("accounts", count, context)
        await refusals.check_room(self._kept, count, context)
        results = await self._kept.run(self._open(request.accounts, deadline_of(context)), count)
        return wallet_pb2.BatchAccountsResponse(results=results)

    async def GetAccount(self, request: wallet_pb2.GetAccountRequest, context: Any) -> wallet_pb2.Account:
        """Reads one account."""
        (result,) = await self._kept.run(self._read_all([request.account_id], deadline_of(context)))
        return await _account_or_abort(result, context)

    async def BatchGetAccounts(
        self, request: wallet_pb2.BatchGetAccountsRequest, context: Any
    ) -> wallet_pb2.BatchAccountsResponse:
        """Reads up to MAX_BATCH accounts."""
        await refusals.check_size("account_ids", len(request.account_ids), context)
        results = await self._kept.run(self._read_all(request.account_ids, deadline_of(context)))
        return wallet_pb2.BatchAccountsResponse(results=results)

    async def ListAccounts(
        self, request: wallet_pb2.ListAccountsRequest, context: Any
    ) -> wallet_pb2.ListAccountsResponse:
        """A page of all accounts."""
        deadline_seconds = deadline_of(context)
        try:
            query = AccountQuery.read(request)
            page = await self._kept.run(account_page(self._directory, query, deadline_seconds))
        except BadField as bad:
            await refusals.abort(context, refusals.invalid(bad))
        except ShardNodeError as error:
            await refusals.abort(context, refusals.no_answer(error))
        results = await self._kept.run(self._read_all(page.account_ids, deadline_seconds))
        accounts = [await _account_or_abort(result, context) for result in results]
        return wallet_pb2.ListAccountsResponse(accounts=accounts, next_page_token=page.next_token)

    async def FreezeAccount(
        self, request: wallet_pb2.FreezeAccountRequest, context: Any
    ) -> wallet_pb2.Account:
        """From now on it neither pays nor is paid."""
        return await self._set_state(Kind.FREEZE, request, context)

    async def UnfreezeAccount(
        self, request: wallet_pb2.UnfreezeAccountRequest, context: Any
    ) -> wallet_pb2.Account:
        """It takes part again."""
        return await self._set_state(Kind.UNFREEZE, request, context)

    async def CloseAccount(self, request: wallet_pb2.CloseAccountRequest, context: Any) -> wallet_pb2.Account:
        """For ever."""
        return await self._set_state(Kind.CLOSE, request, context)

    # ------------------------------------------------------------------ within

    async def _open(
        self, requests: Sequence[wallet_pb2.OpenAccountRequest], deadline_seconds: float
    ) -> list[wallet_pb2.AccountResult]:
        """Opens each account on its shard.

        The first account of a currency has the currency's exponent stored with the cluster, before it opens.
        """
        openings, results = await self._openings(requests)

        def answer(position: int, outcome: Outcome, account: AccountRecord) -> wallet_pb2.AccountResult:
            if outcome is not Outcome.COMMITTED:
                return _refused(refusals.refusal(outcome, "account_id"))
            terms, digits = openings[position]
            return wallet_pb2.AccountResult(account=_message(terms.account, account, digits))

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
            slots = {
                p: one.terms.slot for p, one in openings.items() if requests[p].validate_only is only_check
            }
            results |= await self._answers(slots, do, deadline_seconds)
        return [results[position] for position in range(len(requests))]

    async def _openings(
        self, requests: Sequence[wallet_pb2.OpenAccountRequest]
    ) -> tuple[dict[int, Opening], dict[int, wallet_pb2.AccountResult]]:
        """What each account is to be opened with, by the stored exponents; and the results of all others."""
        known = self._currencies.exponents
        openings: dict[int, Opening] = {}
        results: dict[int, wallet_pb2.AccountResult] = {}

        def read(position: int) -> None:
            try:
                openings[position] = read_opening(self._fields, requests[position])
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
                    await self._currencies.require_exponents(
                        {requests[position].currency for position in new}
                    )
            for position in range(len(requests)):
                read(position)
            wanted = {
                requests[p].currency: openings[p].digits
                for p in new
                if p in openings and requests[p].currency not in known and not requests[p].validate_only
            }
            if wanted:
                await self._currencies.store_exponents(wanted)
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

    async def _read_all(
        self, account_ids: Sequence[str], deadline_seconds: float
    ) -> list[wallet_pb2.AccountResult]:
        """Reads each account from its shard."""
        slots: dict[int, int] = {}
        results: dict[int, wallet_pb2.AccountResult] = {}
        for position, account_id in enumerate(account_ids):
            try:
                slots[position] = self._fields.account_slot(account_id, "account_id")
            except BadField as bad:
                results[position] = _refused(refusals.invalid(bad))

        async def work(shard: Shard, positions: list[int]) -> list[wallet_pb2.AccountResult]:
            accounts = await shard.accounts([account_ids[p] for p in positions])
            # One of a currency that has none is refused by itself.
            with suppress(ExponentUnknownError):
                await self._currencies.require_exponents(
                    {account.currency for account in accounts if account}
                )
            return [
                _found(account_ids[p], account, self._currencies)
                for p, account in zip(positions, accounts, strict=True)
            ]

        results |= await self._answers(slots, work, deadline_seconds)
        return [results[position] for position in range(len(account_ids))]

    async def _set_state(self, target: Kind, request: Any, context: Any) -> wallet_pb2.Account:
        account_id = request.account_id

        async def ask(shard: Shard) -> wallet_pb2.AccountResult:
            (outcome,), (account,) = await shard.set_state(
                [(account_id, target)], validate_only=request.validate_only
            )
            if outcome not in (Outcome.COMMITTED, Outcome.VALID):
                return _refused(refusals.refusal(outcome, "account_id"))
            if account:
                await self._currencies.require_exponents((account.currency,))
            return _found(account_id, account, self._currencies)

        try:
            slot = self._fields.account_slot(account_id, "account_id")
            setting = at_owner(self._directory, slot, ask, deadline_of(context))
            result = await self._kept.run(setting)
        except BadField as bad:
            await refusals.abort(context, refusals.invalid(bad))
        except ShardNodeError as error:
            await refusals.abort(context, refusals.no_answer(error))
        return await _account_or_abort(result, context)

    async def _answers(
        self,
        slots: dict[int, int],
        work: Callable[[Shard, list[int]], Awaitable[list[wallet_pb2.AccountResult]]],
        deadline_seconds: float,
    ) -> dict[int, wallet_pb2.AccountResult]:
        """What the shards answer to each position."""
        found = await spread(self._directory, slots, work, deadline_seconds)
        return {
            position: _refused(refusals.no_answer(answer)) if isinstance(answer, ShardNodeError) else answer
            for position, answer in found.items()
        }


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
    return wallet_pb2.AccountResult(account=_message(account_id, account, digits))


def _refused(why: wallet_pb2.Refusal) -> wallet_pb2.AccountResult:
    return wallet_pb2.AccountResult(refusal=why)


async def _account_or_abort(result: wallet_pb2.AccountResult, context: Any) -> wallet_pb2.Account:
    if result.HasField("refusal"):
        await refusals.abort(context, result.refusal)
    return result.account
