"""A router that does nothing: it answers every transfer at once, and counts what it was sent.

With it a sender's own speed and its counting are known apart from a cluster's. It understands only calls
whose transfers are all of one length, with ids of 36 characters, as `bench.transfers` builds them. Faults are
planted by count, so that what the sender must report is known to the transfer. What it saw is a line of JSON
at its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import numpy as np
import uvloop
from google.rpc import code_pb2, error_details_pb2, status_pb2

from bench.stand_in.service import serve
from bench.transfers import BLANK_ANSWER, ID_WIDTH, ITEM_HEADER_BYTES
from tallystick.v1 import cluster_pb2, outcome_pb2, wallet_pb2

_WALLET, _CLUSTER = "tallystick.v1.WalletService", "tallystick.v1.ClusterService"
# In an item of a batch: after its own header, and that of the id, the message's first field.
_ID = slice(2 * ITEM_HEADER_BYTES, 2 * ITEM_HEADER_BYTES + ID_WIDTH)
_ANSWER = np.frombuffer(BLANK_ANSWER, np.uint8).reshape(1, -1)
# How the id of the account ends that has seen all changes.
_FIRST_ACCOUNT = "-000000"

Context = grpc.aio.ServicerContext[bytes, bytes]
Handler = Callable[[bytes, Context], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Faults:
    """What to do wrong; 0: never. Transfers, and calls, are counted from 1."""

    # Every so many transfers one has no funds.
    poor_every: int = 0
    # Every so many transfers one meets a frozen account.
    frozen_every: int = 0
    # Every so many calls one is carried out, but its answer lost.
    lost_every: int = 0
    # Of every so many calls one, if it is a batch, is answered in the wrong order.
    swapped_every: int = 0
    # So many in all are answered as committed, and move nothing.
    unmoved: int = 0
    # How long each answer takes.
    delay_ms: float = 0.0


@dataclass
class Seen:
    """What came in. ``outcomes`` counts the transfers' answers by name, or those of a call under its fault.

    The faults are LOST and SWAPPED.
    """

    calls: int = 0
    transfers: int = 0
    accounts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class StandIn:
    """The handlers. All of them take and give bytes, for it must cost less than what it measures."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.seen = Seen()

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a server needs to be this stand-in."""
        wallet: dict[str, Handler] = {
            "Transfer": self._transfer,
            "BatchTransfer": self._batch_transfer,
            "BatchOpenAccounts": self._batch_open_accounts,
            "BatchGetAccounts": self._batch_get_accounts,
        }
        cluster: dict[str, Handler] = {"GetTopology": self._get_topology}
        return [
            grpc.method_handlers_generic_handler(
                service, {name: grpc.unary_unary_rpc_method_handler(call) for name, call in calls.items()}
            )
            for service, calls in ((_WALLET, wallet), (_CLUSTER, cluster))
        ]

    async def _transfer(self, request: bytes, context: Context) -> bytes:
        call, first = await self._begin(1)
        await self._lose(context, call, 1)
        outcome = self._outcome(first)
        self.seen.outcomes[outcome_name(outcome)] += 1
        if outcome != outcome_pb2.OUTCOME_COMMITTED:
            await _refuse(context, outcome_name(outcome))
        answer = wallet_pb2.TransferResponse(
            transaction_id=wallet_pb2.TransferRequest.FromString(request).transaction_id, outcome=outcome
        )
        return answer.SerializeToString()

    async def _batch_transfer(self, request: bytes, context: Context) -> bytes:
        width = ITEM_HEADER_BYTES + request[1]
        size, odd = divmod(len(request), width)
        if odd:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the transfers differ in length")
        call, first = await self._begin(size)
        await self._lose(context, call, size)
        answers = np.repeat(_ANSWER, size, axis=0)
        answers[:, _ID] = np.frombuffer(request, np.uint8).reshape(size, width)[:, _ID]
        outcomes: Counter[outcome_pb2.Outcome] = Counter({outcome_pb2.OUTCOME_COMMITTED: size})
        if self._faults.poor_every or self._faults.frozen_every:
            row_by_row = [self._outcome(first + place) for place in range(size)]
            answers[:, -1] = row_by_row
            outcomes = Counter(row_by_row)
        if _is_turn(call, self._faults.swapped_every):
            self.seen.outcomes["SWAPPED"] += size
            return answers[::-1].tobytes()
        for outcome, count in outcomes.items():
            self.seen.outcomes[outcome_name(outcome)] += count
        return answers.tobytes()

    async def _batch_open_accounts(self, request: bytes, _: Context) -> bytes:
        response = wallet_pb2.BatchAccountsResponse()
        for account in wallet_pb2.BatchOpenAccountsRequest.FromString(request).accounts:
            response.results.add().account.MergeFrom(_account(account.account_id, 0))
        self.seen.accounts += len(response.results)
        return response.SerializeToString()

    async def _batch_get_accounts(self, request: bytes, _: Context) -> bytes:
        """The first account has seen all changes: two for each transfer."""
        moved = sum(self.seen.outcomes[name] for name in ("COMMITTED", "LOST", "SWAPPED"))
        changes = 2 * max(0, moved - self._faults.unmoved)
        response = wallet_pb2.BatchAccountsResponse()
        for account in wallet_pb2.BatchGetAccountsRequest.FromString(request).account_ids:
            version = changes if account.endswith(_FIRST_ACCOUNT) else 0
            response.results.add().account.MergeFrom(_account(account, version))
        return response.SerializeToString()

    async def _get_topology(self, _: bytes, __: Context) -> bytes:
        return cluster_pb2.Topology(cluster_id="stand-in").SerializeToString()

    async def _begin(self, size: int) -> tuple[int, int]:
        """Counts a call of so many transfers; its number, and that of its first transfer."""
        first = self.seen.transfers + 1
        self.seen.calls += 1
        call = self.seen.calls
        self.seen.transfers += size
        if self._faults.delay_ms:
            await asyncio.sleep(self._faults.delay_ms / 1000)
        return call, first

    async def _lose(self, context: Context, call: int, size: int) -> None:
        if _is_turn(call, self._faults.lost_every):
            self.seen.outcomes["LOST"] += size
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")

    def _outcome(self, number: int) -> outcome_pb2.Outcome:
        faults = self._faults
        if _is_turn(number, faults.poor_every):
            return outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS
        if _is_turn(number, faults.frozen_every):
            return outcome_pb2.OUTCOME_ACCOUNT_FROZEN
        return outcome_pb2.OUTCOME_COMMITTED


def _account(name: str, version: int) -> wallet_pb2.Account:
    zero = {"available": "0.00", "held": "0.00", "minimum_balance": "0.00"}
    return wallet_pb2.Account(account_id=name, currency="EUR", version=version, **zero)


def outcome_name(outcome: outcome_pb2.Outcome) -> str:
    """An outcome as the contract's reasons name it: COMMITTED, INSUFFICIENT_FUNDS."""
    return outcome_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_")


def _is_turn(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


async def _refuse(context: Context, reason: str) -> None:
    status = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=reason)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="tallystick"))
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION,
        reason,
        (("grpc-status-details-bin", status.SerializeToString()),),
    )


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.stand_in", description=__doc__)
    for name in ("poor", "frozen", "lost", "swapped"):
        parser.add_argument(f"--{name}-every", type=int, default=0, metavar="N")
    parser.add_argument("--unmoved", type=int, default=0, metavar="N")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    stand_in = StandIn(Faults(**vars(parser.parse_args())))
    uvloop.run(serve(stand_in.handlers()))
    print(json.dumps(vars(stand_in.seen)))


if __name__ == "__main__":
    main()
