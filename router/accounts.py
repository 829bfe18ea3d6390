"""Opening and reading accounts, a batch over all its shards."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from coordinator.money import decimals, to_text
from router import refusals
from router.engine import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS
from router.requests import BadField
from shard_node.errors import ShardFullError, ShardNodeError, StaleEpochError
from shard_node.outcomes import Outcome
from shard_node.records import AccountState
from tallystick.v1 import wallet_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from router.engine import Maps
    from router.requests import RequestReader
    from shard_node.records import Account
    from shard_node.shard import Shard

_STATES = {
    AccountState.OPEN: wallet_pb2.ACCOUNT_STATE_OPEN,
    AccountState.FROZEN: wallet_pb2.ACCOUNT_STATE_FROZEN,
    AccountState.CLOSED: wallet_pb2.ACCOUNT_STATE_CLOSED,
}


def account_message(account_id: str, account: Account) -> wallet_pb2.Account:
    """An account as callers see it."""
    digits = decimals(account.currency) or 0
    return wallet_pb2.Account(
        account_id=account_id,
        currency=account.currency,
        available=to_text(account.available_minor, digits),
        held=to_text(account.held_minor, digits),
        version=account.version,
        state=_STATES[account.state],
        minimum_balance=to_text(account.floor_minor, digits),
    )


async def open_accounts(
    directory: Maps,
    reader: RequestReader,
    requests: Sequence[wallet_pb2.OpenAccountRequest],
    deadline_seconds: float,
) -> list[wallet_pb2.AccountResult]:
    """Opens each account on its shard. Opening is idempotent, so a retry needs no id."""
    slots: dict[int, int] = {}
    floors: dict[int, int] = {}
    results: dict[int, wallet_pb2.AccountResult] = {}
    for position, request in enumerate(requests):
        try:
            slots[position] = reader.account_slot(request.account_id, "account_id")
            floors[position] = reader.minimum_balance(request.minimum_balance, request.currency)
        except BadField as bad:
            slots.pop(position, None)
            results[position] = _refused(refusals.invalid(bad))

    async def work(shard: Shard, positions: list[int]) -> list[wallet_pb2.AccountResult]:
        outcomes, accounts = await shard.open(
            [requests[p].account_id for p in positions],
            [slots[p] for p in positions],
            [requests[p].currency for p in positions],
            [floors[p] for p in positions],
        )
        return [
            _refused(_with_field(refusals.refusal(outcome), "account_id"))
            if outcome is Outcome.ACCOUNT_EXISTS
            else wallet_pb2.AccountResult(account=account_message(requests[p].account_id, account))
            for p, outcome, account in zip(positions, outcomes, accounts, strict=True)
        ]

    results |= await _spread(directory, slots, work, deadline_seconds)
    return [results[position] for position in range(len(requests))]


async def read_accounts(
    directory: Maps, reader: RequestReader, account_ids: Sequence[str], deadline_seconds: float
) -> list[wallet_pb2.AccountResult]:
    """Reads each account from its shard."""
    slots: dict[int, int] = {}
    results: dict[int, wallet_pb2.AccountResult] = {}
    for position, account_id in enumerate(account_ids):
        try:
            slots[position] = reader.account_slot(account_id, "account_id")
        except BadField as bad:
            results[position] = _refused(refusals.invalid(bad))

    async def work(shard: Shard, positions: list[int]) -> list[wallet_pb2.AccountResult]:
        accounts = await shard.accounts([account_ids[p] for p in positions])
        return [
            _refused(_with_field(refusals.refusal(Outcome.ACCOUNT_NOT_FOUND), "account_id"))
            if account is None
            else wallet_pb2.AccountResult(account=account_message(account_ids[p], account))
            for p, account in zip(positions, accounts, strict=True)
        ]

    results |= await _spread(directory, slots, work, deadline_seconds)
    return [results[position] for position in range(len(account_ids))]


async def _spread(
    directory: Maps,
    slots: dict[int, int],
    work: Callable[[Shard, list[int]], Awaitable[list[wallet_pb2.AccountResult]]],
    deadline_seconds: float,
) -> dict[int, wallet_pb2.AccountResult]:
    """Does ``work`` for each shard's positions, again with a newer map where one is stale."""
    results: dict[int, wallet_pb2.AccountResult] = {}
    open_positions = list(slots)
    pause = FIRST_RETRY_SECONDS
    while open_positions:
        cluster = directory.current
        groups: dict[int, list[int]] = {}
        for position in open_positions:
            groups.setdefault(cluster.owner[slots[position]], []).append(position)
        answers = await asyncio.gather(
            *(work(cluster.shards[shard], positions) for shard, positions in groups.items()),
            return_exceptions=True,
        )
        open_positions = []
        late = time.monotonic() + pause >= deadline_seconds
        for positions, answer in zip(groups.values(), answers, strict=True):
            if isinstance(answer, StaleEpochError) and not late:
                open_positions += positions
            elif isinstance(answer, ShardNodeError):
                full = isinstance(answer, ShardFullError)
                why = refusals.refusal(Outcome.RESOURCE_EXHAUSTED if full else Outcome.OUTCOME_UNKNOWN)
                why.message = f"{answer}: ask again"
                results |= dict.fromkeys(positions, _refused(why))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                results |= dict(zip(positions, answer, strict=True))
        if open_positions:
            await directory.newer_than(cluster.topology.version, pause)
            pause = min(pause * 2, LAST_RETRY_SECONDS)
    return results


def _refused(why: wallet_pb2.Refusal) -> wallet_pb2.AccountResult:
    return wallet_pb2.AccountResult(refusal=why)


def _with_field(why: wallet_pb2.Refusal, field: str) -> wallet_pb2.Refusal:
    why.field = field
    return why
