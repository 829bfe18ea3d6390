"""A payer and a payee on two real shards, for tests that walk through the protocol step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from coordinator.attempts import Attempt, Commit, each
from coordinator.driver import Driver
from coordinator.pace import Pace
from coordinator.resolver import Resolver
from shard_node.client import Cluster, Shard, ask
from shard_node.cluster.slots import slot
from shard_node.cluster.topology import Topology
from shard_node.contract import (
    AccountRecord,
    AccountTerms,
    Answer,
    Command,
    Decide,
    Decided,
    Finish,
    Kind,
    Outcome,
    Post,
    Prepare,
    Prepared,
    Transaction,
)
from shard_node.errors import ShardUnavailableError
from tests.coordinator.payloads import (
    CURRENCY,
    WORLD,
    attempt_id_now,
    attempts_at,
    posted_bundle,
    transfer,
)
from tests.real_shards import RealShards

if TYPE_CHECKING:
    from shard_node.client import NoReply

PAYER_HAS = 100


class Mapped(Protocol):
    """Whoever goes by a topology."""

    topology: Topology


def name_on(shards: Mapped, index: int, prefix: str) -> str:
    """An account id whose slot the shard owns."""
    owner = shards.topology.owner
    return next(name for n in count() if owner[slot(name := f"{prefix}-{n}")] == index)


class LossyShard(Shard):
    """Carries out each command, but loses the answers of those named in ``losing``."""

    losing: frozenset[str] = frozenset()

    async def call(self, command: Command) -> Answer:
        """The command is carried out; its answer may never come."""
        answer = await super().call(command)
        if command.COMMAND.removeprefix("tallystick.") in self.losing:
            raise ShardUnavailableError("the answer is lost")
        return answer


class SilentShard(Shard):
    """A shard that answers nothing."""

    async def call(self, command: Command) -> Answer:
        """Fails."""
        raise ShardUnavailableError("no answer")


@dataclass(slots=True)
class Ground:
    """Shards with accounts on them, coordinators, resolvers, and moves of slots."""

    shards: RealShards
    cluster: Cluster

    @property
    def current(self) -> Cluster:
        """What a directory would hand out."""
        return self.cluster

    async def close(self) -> None:
        """Closes the connections."""
        for shard in self.cluster.shards:
            await shard.close()

    # ------------------------------------------------------------------ accounts

    async def open_account(self, name: str, has_minor: int, **limits: int) -> None:
        """Opens an account, and pays in what it has. ``limits`` are those of AccountTerms."""
        await self.shard_of(name).open([AccountTerms(name, slot(name), CURRENCY, **limits)])
        if has_minor:
            deposit = transfer(WORLD, name, has_minor, Kind.DEPOSIT)
            assert await self.post([deposit], self.cluster.owner[slot(name)]) == [Outcome.COMMITTED]

    def shard_of(self, name: str) -> Shard:
        """The shard that the account is on."""
        return self.cluster.shards[self.cluster.owner[slot(name)]]

    async def account(self, name: str) -> AccountRecord:
        """An account that is there."""
        (record,) = await self.shard_of(name).accounts([name])
        assert record is not None
        return record

    # ------------------------------------------------------------------ coordinators

    async def commit(self, *rows: Transaction) -> list[tuple[Outcome, int]]:
        """A whole commit by a coordinator of its own, which then settles; outcome and leg of each."""
        driver, parts = Driver(self), attempts_at(rows, self.cluster.owner)
        await driver.commit([attempt for attempt, _ in parts], self.cluster)
        await driver.settle_now()
        found: dict[int, tuple[Outcome, int]] = {}
        for attempt, numbers in parts:
            legs = each(attempt.legs, attempt.count)
            for number, code, leg in zip(numbers, each(attempt.outcomes, attempt.count), legs, strict=True):
                found[number] = Outcome(code), leg
        return [found[number] for number in range(len(rows))]

    async def run(self, row: Transaction) -> Outcome:
        """The same; the outcome of one transaction."""
        ((outcome, _),) = await self.commit(row)
        return outcome

    def attempt(self, *rows: Transaction, attempt_id: bytes | None = None) -> Attempt:
        """A new attempt at transactions that have the same shards."""
        ((attempt, _),) = attempts_at(rows, self.cluster.owner, lambda: attempt_id or attempt_id_now())
        return attempt

    async def start(self, attempt: Attempt, steps: int) -> tuple[Commit, dict[int, Command]]:
        """A coordinator that carries out ``steps`` of prepare, decide and finish; its next calls."""
        machine = Commit([attempt], self.cluster.shard_ids)
        pace = Pace(self.cluster)
        calls: dict[int, Command] = dict(machine.prepare())
        for step in (machine.decide, machine.finish, machine.conclude)[:steps]:
            calls = dict(step(await pace.ask_all(calls)) or {})
        return machine, calls

    async def ask(self, index: int, command: Command) -> Answer | NoReply:
        """One command, as a message that arrives now."""
        return await ask(self.cluster.shards[index], command)

    async def prepare(self, attempt: Attempt, number: int = 1) -> list[int]:
        """Step 1 on one participant, as a message that arrives now; a code a transaction."""
        decider = self.cluster.shard_ids[attempt.deciding_shard]
        call = Prepare([Prepared(attempt.attempt_id, decider, number, attempt.bundle)])
        return codes(await self.ask(attempt.participants[number - 1], call), attempt.count)

    async def decide(self, attempt: Attempt) -> list[int]:
        """Step 2."""
        names = [self.cluster.shard_ids[index] for index in attempt.participants]
        call = Decide([Decided(attempt.attempt_id, names, b"", b"", attempt.bundle)])
        return codes(await self.ask(attempt.deciding_shard, call), attempt.count)

    async def finish(self, attempt: Attempt, code: Outcome = Outcome.COMMITTED, number: int = 1) -> list[int]:
        """Step 3 on one participant, with one code for all transactions."""
        call = Finish([attempt.attempt_id], [bytes((code,))])
        return codes(await self.ask(attempt.participants[number - 1], call), attempt.count)

    async def post(self, rows: Sequence[Transaction], index: int = 0) -> list[int]:
        """All in one command."""
        return codes(await self.ask(index, Post(posted_bundle(rows))), len(rows))

    async def resolve(self, *order: int) -> None:
        """What a resolver does, to entries of any age, until nothing is left; on all shards or on these."""
        resolver = Resolver("test", None, self)  # type: ignore[arg-type]  # no lock is needed to resolve
        for _ in range(3):
            for index in order or range(len(self.cluster.shards)):
                await resolver.resolve(self.cluster, self.cluster.shards[index], 0)

    # ------------------------------------------------------------------ faults, and what is left

    def losing(self, *commands: str) -> None:
        """From now on the answers of these commands are lost."""
        lossy: list[Shard] = []
        for shard in self.cluster.shards:
            replaced = LossyShard(shard.shard_id, shard.fence, shard.redis)
            replaced.losing = frozenset(commands)
            lossy.append(replaced)
        self.cluster = Cluster(self.cluster.topology, tuple(lossy))

    def silence(self, index: int) -> Cluster:
        """The cluster with one shard that answers nothing."""
        shards: list[Shard] = list(self.cluster.shards)
        old = shards[index]
        shards[index] = SilentShard(old.shard_id, old.fence, old.redis)
        return Cluster(self.cluster.topology, tuple(shards))

    async def in_doubt(self) -> tuple[int, int]:
        """How many attempts are prepared, and how many commits unsettled, on all shards."""
        found = [await shard.info() for shard in self.cluster.shards]
        return sum(one.prepared_attempts for one in found), sum(one.unsettled_commits for one in found)

    async def alarms(self) -> int:
        """Legs that were found missing."""
        return sum([(await shard.info()).alarms for shard in self.cluster.shards])

    async def move(self, account_id: str, target: int) -> None:
        """Moves the account's slot, with all it holds. Raises the server's error where it may not."""
        self.shards.move(slot(account_id), target)
        await self.close()
        self.cluster = self.shards.cluster()

    async def rotate(self, index: int) -> None:
        """A shard forgets its older generation."""
        assert await self.cluster.shards[index].rotate() is not None


@dataclass(slots=True)
class Bank(Ground):
    """A payer and a payee."""

    payer: str
    payee: str

    @classmethod
    async def open(cls, shards: RealShards) -> Bank:
        """A payer with money on shard 0 and a payee without on shard 1."""
        names = name_on(shards, 0, "payer"), name_on(shards, 1, "payee")
        bank = cls(shards, shards.cluster(), *names)
        await bank.open_account(bank.payer, PAYER_HAS)
        await bank.open_account(bank.payee, 0)
        return bank

    def transfer(
        self, amount: int = 30, *, transaction_id: bytes | None = None, details: bytes = b""
    ) -> Transaction:
        """A transfer from payer to payee, with a random UUIDv4 when no id is given."""
        return transfer(self.payer, self.payee, amount, transaction_id=transaction_id, details=details)

    async def balances(self) -> tuple[int, int]:
        """What payer and payee have, of which nothing is held."""
        payer, payee = await self.account(self.payer), await self.account(self.payee)
        assert (payer.held_minor, payee.held_minor) == (0, 0)
        return payer.available_minor, payee.available_minor


def codes(answer: Any, count: int = 1) -> list[int]:
    """The codes of an answer about one bundle that must be there, a code a transaction."""
    assert isinstance(answer, Answer)
    (column,) = answer.codes
    return list(each(column, count))
