"""A small cluster behind a dispatcher: its shards are the plain model or real ones.

The dispatcher, the split of batches and the coordinator's steps are the product's own; the network is not.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from coordinator.attempt_steps import Batch as Steps
from coordinator.attempts import Answers, Attempt, Calls
from router.execution.dispatch import Dispatcher, Results
from router.execution.validation import Validator, Verdict
from router.requests import Batch, Part, TransactionReader, TransactionRequest, Transactions
from shard_node.client.asking import NoReply
from shard_node.client.directory import Cluster
from shard_node.cluster.slots import SLOT_COUNT, slot
from shard_node.cluster.topology import ShardInfo, SlotRange, Topology
from shard_node.contract import (
    ALL_OWNERS,
    BUNDLE_HEAD,
    AccountRecord,
    AccountTerms,
    Answer,
    Command,
    Outcome,
    RememberedOutcome,
    Settle,
    new_attempt_id,
    start_ms,
    unpack_outcomes,
)
from tallystick.v1 import coordinator_pb2, wallet_pb2
from tests.engine.shard import EngineShard
from tests.model import EngineModel
from tests.router.samples import NOW_MS, transactions, uuid7
from tests.router.stand_ins import Clock, MapsStandIn

STALE = bytes((Outcome.STALE_EPOCH,))
SHARDS = 3
# Of each account at the beginning.
FUNDS_MINOR = 1000


class CallableShard(Protocol):
    """A shard as these tests need it: :class:`RealShard` or :class:`ModelShard`."""

    def call(self, command: Command) -> Answer:
        """Carries out a command."""

    def open(self, *accounts: AccountTerms) -> list[Outcome]:
        """Opens accounts."""

    def account(self, name: str) -> AccountRecord:
        """An account that is there."""

    async def horizon_ms(self) -> int:
        """Ids of an earlier time may be forgotten: none."""

    async def outcomes(self, decisions: Sequence[bytes]) -> list[RememberedOutcome | None]:
        """What is remembered under decisions."""

    async def check(self, bundle: bytes, owner: int) -> bytes:
        """A code for each leg of that owner."""


class RealShard(EngineShard):
    """A shard with the engine."""

    async def horizon_ms(self) -> int:
        """Nothing is forgotten."""
        return 0

    async def outcomes(self, decisions: Sequence[bytes]) -> list[RememberedOutcome | None]:
        """What is remembered under decisions."""
        return unpack_outcomes(self.fenced("outcomes", b"".join(decisions)))

    async def check(self, bundle: bytes, owner: int) -> bytes:
        """A code for each leg of that owner."""
        codes: bytes = self.fenced("check", owner, bundle)
        return codes


class ModelShard:
    """The plain model of a shard, at a fixed time."""

    def __init__(self) -> None:
        self.model = EngineModel(now_ms=NOW_MS)

    def call(self, command: Command) -> Answer:
        """Carries out a command."""
        return self.model.call(command)

    def open(self, *accounts: AccountTerms) -> list[Outcome]:
        """Opens accounts."""
        opened = []
        for one in accounts:
            terms = (one.account, one.currency, one.slot, one.minimum_minor)
            opened.append(self.model.open(*terms)[0])
        return opened

    def account(self, name: str) -> AccountRecord:
        """An account that is there."""
        record = AccountRecord.unpack(self.model.account_record(name))
        assert record is not None
        return record

    async def horizon_ms(self) -> int:
        """Nothing is forgotten."""
        return 0

    async def outcomes(self, decisions: Sequence[bytes]) -> list[RememberedOutcome | None]:
        """What is remembered under decisions."""
        found = [self.model.outcome(one) for one in decisions]
        return [
            RememberedOutcome(
                Outcome(one.code), one.leg, one.at_ms, one.amount_minor, one.currency, one.fingerprint
            )
            if one
            else None
            for one in found
        ]

    async def check(self, bundle: bytes, owner: int) -> bytes:
        """A code for each leg of that owner."""
        return self.model.check(bundle, None if owner == ALL_OWNERS else owner)


MakeShards = Callable[[int], list[CallableShard]]


def topology(version: int, shards: int) -> Topology:
    """Shards 0, 1, ... with as many slots each."""
    cuts = [number * SLOT_COUNT // shards for number in range(shards + 1)]
    return Topology(
        "test",
        version,
        tuple(
            ShardInfo(f"shard-{number}", version, "", (SlotRange(first, last - 1),))
            for number, (first, last) in enumerate(itertools.pairwise(cuts))
        ),
    )


@dataclass(slots=True)
class TransactionCluster:
    """Shards, a dispatcher before them, and what keeps them from answering.

    ``silences`` are reasons why the next calls to a shard, by its number, are not answered: none of them is
    carried out but those that are LOST. ``maps`` are the ones that become known, each after the one before.
    """

    shards: Sequence[CallableShard]
    maps: MapsStandIn
    silences: dict[int, list[NoReply]] = field(default_factory=dict)
    # What the coordinator was asked, call by call.
    asked: list[list[Part]] = field(default_factory=list)

    @classmethod
    def of(cls, shards: Sequence[CallableShard], *versions: int) -> TransactionCluster:
        """A cluster whose maps differ in their version alone."""
        clusters = [
            Cluster(topology(version, len(shards)), cast("Any", tuple(shards)))
            for version in versions or (1,)
        ]
        return cls(shards, MapsStandIn(Clock(), *clusters))

    @property
    def dispatcher(self) -> Dispatcher:
        """A dispatcher before this cluster."""
        return Dispatcher(self.maps, self, self.ask)

    def check(self, request: TransactionRequest) -> Verdict:
        """What a transaction would get."""
        (verdict,) = asyncio.run(Validator(self.maps).check([request], time.monotonic() + 10.0))
        return verdict

    @property
    def reader(self) -> TransactionReader:
        """Reads requests at the shards' time."""
        return transactions()

    def names(self, shard: int) -> Iterator[str]:
        """Account ids that belong to a shard."""
        owner = self.maps.current.owner
        return (name for number in itertools.count() if owner[slot(name := f"account-{number}")] == shard)

    def open(self, name: str, *, minimum_minor: int = 0) -> None:
        """Opens an account of euros on its shard."""
        shard = self.shards[self.maps.current.owner[slot(name)]]
        terms = AccountTerms(name, slot(name), "EUR", minimum_minor)
        assert shard.open(terms) == [Outcome.COMMITTED]

    def account(self, name: str) -> AccountRecord:
        """An account as its shard has it."""
        return self.shards[self.maps.current.owner[slot(name)]].account(name)

    async def ask(self, shard: Any, command: Command) -> Answer | NoReply:
        """One call to a shard; as :func:`shard_node.client.ask`."""
        number = next(number for number, one in enumerate(self.shards) if one is shard)
        return self._call(number, command)

    def _call(self, number: int, command: Command) -> Answer | NoReply:
        silence = self.silences[number].pop(0) if self.silences.get(number) else None
        if silence is None or silence is NoReply.LOST:
            answer = self.shards[number].call(command)
            return silence or answer
        return silence

    async def commit_attempts(
        self, parts: Sequence[Part], topology_version: int, deadline_seconds: float, *, with_balances: bool
    ) -> coordinator_pb2.CommitAttemptsResponse | NoReply:
        """What a coordinator does, without a network."""
        assert deadline_seconds > 0
        self.asked.append(list(parts))
        if topology_version != self.maps.current.topology.version:
            return coordinator_pb2.CommitAttemptsResponse(
                results=[coordinator_pb2.AttemptResult(codes=STALE) for _ in parts]
            )
        attempts = [
            Attempt(
                new_attempt_id(NOW_MS),
                part.decider,
                part.participants,
                part.bundle,
                BUNDLE_HEAD.unpack_from(part.bundle)[2],
            )
            for part in parts
        ]
        batch = Steps(
            attempts,
            [info.shard_id for info in self.maps.current.topology.shards],
            lambda: new_attempt_id(NOW_MS),
            lambda attempt_id: start_ms(attempt_id) < NOW_MS,
            with_balances=with_balances,
        )
        self._walk(batch)
        assert not batch.missing
        for number, pairs in batch.settled.items():
            self.shards[number].call(Settle(pairs))
        return coordinator_pb2.CommitAttemptsResponse(results=[_result(attempt) for attempt in attempts])

    def _walk(self, batch: Steps) -> None:
        steps = batch.steps()
        answers: Answers = {}
        calls: Calls = next(steps)
        while True:
            answers = {number: self._call(number, command) for number, command in calls.items()}
            try:
                calls = steps.send(answers)
            except StopIteration:
                return


def _result(attempt: Attempt) -> coordinator_pb2.AttemptResult:
    owners = range(len(attempt.participants) + 1)
    balances: Mapping[int, bytes] = attempt.balances
    return coordinator_pb2.AttemptResult(
        codes=attempt.outcomes,
        legs=attempt.legs,
        balances=[balances.get(owner, b"") for owner in owners],
    )


def model_shards(count: int) -> list[CallableShard]:
    """Shards of the plain model."""
    return [ModelShard() for _ in range(count)]


def execute(cluster: TransactionCluster, batch: Batch, seconds: float = 10.0, principal: str = "") -> Results:
    """What became of a batch."""

    async def run() -> Results:
        dispatcher = cluster.dispatcher
        results = await dispatcher.execute(batch, time.monotonic() + seconds, principal)
        await dispatcher.finish_all()
        return results

    return asyncio.run(run())


def transfer(payer: str, payee: str, amount: str = "1.00", seed: int = 0) -> wallet_pb2.TransferRequest:
    """One transfer of euros."""
    return wallet_pb2.TransferRequest(
        transaction_id=uuid7(NOW_MS, seed),
        from_account=payer,
        to_account=payee,
        amount=amount,
        currency="EUR",
    )


def funded(shards: Sequence[CallableShard], *versions: int) -> tuple[TransactionCluster, list[list[str]]]:
    """A cluster, and by shard the names of two accounts with money."""
    cluster = TransactionCluster.of(shards, *versions)
    names = [list(itertools.islice(cluster.names(shard), 2)) for shard in range(len(shards))]
    fund(cluster, [name for pair in names for name in pair])
    return cluster, names


def fund(cluster: TransactionCluster, names: Sequence[str]) -> None:
    """Opens accounts, and deposits money on each."""
    deposits = []
    for number, name in enumerate(names):
        cluster.open(name)
        deposits.append(
            cluster.reader.deposit(
                wallet_pb2.DepositRequest(
                    transaction_id=uuid7(NOW_MS, 10_000 + number),
                    account_id=name,
                    amount=f"{FUNDS_MINOR // 100}.00",
                    currency="EUR",
                )
            )
        )
    assert set(execute(cluster, Transactions(deposits)).outcomes) == {Outcome.COMMITTED}
