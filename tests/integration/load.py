"""A load of random transfers that remembers what it was told of each, and proves it afterwards."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from dataclasses import dataclass, field

import grpc

from deploy.local.launcher import LocalCluster
from tallystick.v1 import cluster_pb2, cluster_pb2_grpc, wallet_pb2, wallet_pb2_grpc
from tallystick.v1.outcome_pb2 import (
    OUTCOME_COMMITTED,
    OUTCOME_OUTCOME_UNKNOWN,
    OUTCOME_RESOURCE_EXHAUSTED,
    Outcome,
)

START_CENTS = 100_00
BATCH = 20
# How long anything may take to be resolved: entries are 5 s old before recovery looks at them.
RESOLVE_SECONDS = 30.0
CALL_SECONDS = 8.0
NOT_KNOWN = {OUTCOME_OUTCOME_UNKNOWN, OUTCOME_RESOURCE_EXHAUSTED}


@dataclass
class Load:
    """Transfers between its own accounts, sent to all routers in turn."""

    cluster: LocalCluster
    accounts: list[str]
    seed: int = 1
    sent: dict[str, wallet_pb2.TransferRequest] = field(default_factory=dict)
    # The definite outcome that a caller was given, by transaction id.
    told: dict[str, Outcome] = field(default_factory=dict)
    acknowledged: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.channels = [grpc.aio.insecure_channel(a) for a in self.cluster.router_addresses]
        self.wallets = [wallet_pb2_grpc.WalletServiceStub(channel) for channel in self.channels]
        self.operators = [cluster_pb2_grpc.ClusterServiceStub(channel) for channel in self.channels]

    @classmethod
    async def begin(cls, cluster: LocalCluster, accounts: int = 200) -> Load:
        """Opens and funds accounts spread over all shards."""
        group = uuid.uuid4().hex[:8]
        load = cls(cluster, [f"{group}:{i}" for i in range(accounts)])
        opened = await load.wallets[0].BatchOpenAccounts(
            wallet_pb2.BatchOpenAccountsRequest(
                accounts=[wallet_pb2.OpenAccountRequest(account_id=a, currency="EUR") for a in load.accounts]
            )
        )
        assert all(result.HasField("account") for result in opened.results)
        await asyncio.gather(
            *(
                load.wallets[0].Deposit(
                    wallet_pb2.DepositRequest(
                        transaction_id=str(uuid.uuid4()), account_id=a, amount="100.00", currency="EUR"
                    )
                )
                for a in load.accounts
            )
        )
        return load

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self.channels:
            await channel.close()

    async def run(self, batches: int, workers: int = 4) -> None:
        """Sends that many batches; failures are remembered as not known."""
        left = iter(range(batches))

        async def work() -> None:
            for number in left:
                requests = [self._request() for _ in range(BATCH)]
                await self._send(requests, number % len(self.wallets))

        await asyncio.gather(*(work() for _ in range(workers)))

    async def acknowledge(self, count: int) -> None:
        """Waits until so many transfers were acknowledged."""
        async with self.acknowledged:
            await asyncio.wait_for(
                self.acknowledged.wait_for(lambda: len(self.told) >= count), RESOLVE_SECONDS
            )

    async def prove(self) -> None:
        """Resolves all that is not known, and checks every outcome against every balance."""
        await self._nothing_in_doubt()
        unknown = [i for i in self.sent if i not in self.told]
        recorded = dict(zip(unknown, await asyncio.gather(*map(self._recorded, unknown)), strict=True))
        await self._retry(unknown)
        for transaction_id, outcome in recorded.items():
            # Recovery has resolved it one way, and the retry must get the same.
            assert outcome in (None, self.told[transaction_id])
        before = await self._balances()
        expected = dict.fromkeys(self.accounts, START_CENTS)
        for transaction_id, outcome in self.told.items():
            if outcome == OUTCOME_COMMITTED:
                request = self.sent[transaction_id]
                cents = round(float(request.amount) * 100)
                expected[request.from_account] -= cents
                expected[request.to_account] += cents
        assert before == expected
        # Each repeated id gets the outcome its first caller was told, and moves nothing.
        told = dict(self.told)
        await self._retry(list(told))
        assert self.told == told
        assert await self._balances() == expected
        assert await self._verdict() == cluster_pb2.VERDICT_BALANCED

    # ------------------------------------------------------------------ within

    def _request(self) -> wallet_pb2.TransferRequest:
        payer, payee = self.random.sample(self.accounts, 2)
        # Some lack funds: refusals must be as stable as commits.
        cents = self.random.choice((1, 250, 999, 60_00))
        request = wallet_pb2.TransferRequest(
            transaction_id=str(uuid.UUID(int=self.random.getrandbits(128), version=4)),
            from_account=payer,
            to_account=payee,
            amount=f"{cents // 100}.{cents % 100:02}",
            currency="EUR",
        )
        self.sent[request.transaction_id] = request
        return request

    async def _send(self, requests: list[wallet_pb2.TransferRequest], router: int) -> None:
        try:
            response = await self.wallets[router].BatchTransfer(
                wallet_pb2.BatchTransferRequest(transfers=requests), timeout=CALL_SECONDS
            )
        except grpc.aio.AioRpcError:
            return
        for result in response.results:
            if result.outcome not in NOT_KNOWN:
                first = self.told.setdefault(result.transaction_id, result.outcome)
                assert first == result.outcome
        async with self.acknowledged:
            self.acknowledged.notify_all()

    async def _retry(self, transaction_ids: list[str]) -> None:
        """Sends them again with the same ids, until each has a definite outcome."""
        deadline = time.monotonic() + RESOLVE_SECONDS
        waiting, router = set(transaction_ids), 0
        known_again: set[str] = set()
        while waiting:
            assert time.monotonic() < deadline, f"{len(waiting)} have no outcome"
            chunk = list(waiting)[:500]
            router = (router + 1) % len(self.wallets)
            try:
                response = await self.wallets[router].BatchTransfer(
                    wallet_pb2.BatchTransferRequest(transfers=[self.sent[i] for i in chunk]),
                    timeout=CALL_SECONDS,
                )
            except grpc.aio.AioRpcError:
                continue
            for result in response.results:
                if result.outcome not in NOT_KNOWN:
                    assert self.told.setdefault(result.transaction_id, result.outcome) == result.outcome
                    known_again.add(result.transaction_id)
            waiting -= known_again

    async def _recorded(self, transaction_id: str) -> Outcome | None:
        request = wallet_pb2.GetTransferRequest(
            transaction_id=transaction_id, from_account=self.sent[transaction_id].from_account
        )
        try:
            found: wallet_pb2.GetTransferResponse = await self.wallets[0].GetTransfer(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return None
        return found.outcome

    async def _nothing_in_doubt(self) -> None:
        deadline = time.monotonic() + RESOLVE_SECONDS
        while True:
            try:
                response = await self.operators[0].ListInDoubt(cluster_pb2.ListInDoubtRequest())
                if not response.transfers:
                    return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            assert time.monotonic() < deadline, "transfers stay in doubt"
            await asyncio.sleep(0.1)

    async def _balances(self) -> dict[str, int]:
        response = await self.wallets[0].BatchGetAccounts(
            wallet_pb2.BatchGetAccountsRequest(account_ids=self.accounts)
        )
        return {
            result.account.account_id: round(float(result.account.available) * 100)
            for result in response.results
        }

    async def _verdict(self) -> cluster_pb2.Verdict:
        deadline = time.monotonic() + RESOLVE_SECONDS
        while True:
            result: cluster_pb2.VerifyResult | None = None
            async for response in self.operators[0].Verify(cluster_pb2.VerifyRequest()):
                result = response.result
            assert result is not None
            if result.verdict != cluster_pb2.VERDICT_BUSY:
                return result.verdict
            assert time.monotonic() < deadline, "the cluster stays busy"
            await asyncio.sleep(0.1)
