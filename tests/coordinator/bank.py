"""A payer and a payee on two real shards, for tests that walk through the protocol step by step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from coordinator.driver import Driver
from coordinator.protocol import Commit, Part
from coordinator.resolver import Resolver
from shard_node.client.asking import NoReply, ask, ask_all
from shard_node.client.directory import Cluster
from shard_node.client.shard import Shard
from shard_node.cluster.slots import slot
from shard_node.contract.bundles import each
from shard_node.contract.calls import ATTEMPT_BYTES, Attempt, Call, Decide, Finish, Post, Prepare, Reply
from shard_node.contract.outcomes import Outcome, without_side
from shard_node.contract.transfers import Kind, Terms, Transfers
from shard_node.errors import ShardUnavailableError
from tests.coordinator.moving import move_slot
from tests.real_shards import RealShards

if TYPE_CHECKING:
    from collections.abc import Sequence

PAYER_HAS = 100


def name_on(shards: RealShards, index: int, prefix: str) -> str:
    """An account id whose slot the shard owns."""
    return next(name for n in count() if shards.topology.owner[slot(name := f"{prefix}-{n}")] == index)


class LossyShard(Shard):
    """Carries out each call, but loses the replies of those functions named in ``losing``."""

    losing: frozenset[str] = frozenset()

    async def call(self, call: Any) -> Any:
        """The call is carried out; its reply may never come."""
        reply = await super().call(call)
        if call.FUNCTION in self.losing:
            raise ShardUnavailableError("the reply is lost")
        return reply


def random_id() -> bytes:
    """A UUIDv4."""
    raw = bytearray(os.urandom(16))
    raw[6] = 0x40 | raw[6] & 0x0F
    return bytes(raw)


@dataclass(slots=True)
class Ground:
    """Shards with accounts on them, coordinators, resolvers, and moves of slots."""

    shards: RealShards
    cluster: Cluster

    @property
    def names(self) -> Sequence[str]:
        """The accounts that it looks after."""
        return ()

    async def close(self) -> None:
        """Closes the connections."""
        for shard in self.cluster.shards:
            await shard.close()

    async def open_account(self, name: str, has_minor: int) -> None:
        """Opens an account, and pays in what it has."""
        shard = self.shard_of(name)
        await shard.open([name], [slot(name)], ["EUR"], [0])
        if has_minor:
            deposit = Terms(
                has_minor, "EUR", slot(name), slot(name), Kind.DEPOSIT, "@world:EUR", name, b"\0\0"
            )
            reply = await shard.call(Post(Transfers.of([(random_id(), deposit)]).bundle()))
            assert reply.codes == (bytes((Outcome.COMMITTED,)),)

    def shard_of(self, name: str) -> Shard:
        """The shard that the account is on."""
        return self.cluster.shards[self.cluster.owner[slot(name)]]

    @property
    def current(self) -> Cluster:
        """What a directory would hand out."""
        return self.cluster

    async def ask(self, index: int, call: Any) -> Any:
        """One call, as a message that arrives now."""
        return await ask(self.cluster.shards[index], call)

    async def resolve(self, *order: int) -> None:
        """What a resolver does, to entries of any age, until nothing is left; on all shards or on these."""
        resolver = Resolver("test", None, None)  # type: ignore[arg-type]  # neither is needed to resolve
        for _ in range(3):
            for index in order or range(len(self.cluster.shards)):
                await resolver.resolve(self.cluster, self.cluster.shards[index], 0)

    def losing(self, *functions: str) -> None:
        """From now on the replies of these functions are lost."""
        lossy: list[Shard] = []
        for shard in self.cluster.shards:
            replaced = LossyShard(shard.shard_id, shard.fence, shard.redis)
            replaced.losing = frozenset(functions)
            lossy.append(replaced)
        self.cluster = Cluster(self.cluster.topology, tuple(lossy))

    async def in_doubt(self) -> tuple[int, int]:
        """How many entries are prepared and how many unsettled, on all shards; a bundle is one."""
        counters = [await shard.counters() for shard in self.cluster.shards]
        return sum(c.prepared for c in counters), sum(c.unsettled for c in counters)

    async def alarms(self) -> int:
        """Legs that were found missing."""
        return sum([(await shard.counters()).alarms for shard in self.cluster.shards])

    # ------------------------------------------------------------------ resize

    async def move(self, account_id: str, target: int) -> None:
        """Moves the account's slot, with all that belongs to it, and raises the epochs.

        Raises SlotInUseError when an attempt or a commit stands in the way.
        """
        await move_slot(self.cluster, slot(account_id), target)
        owners = {slot(name): self.cluster.owner[slot(name)] for name in self.names}
        owners[slot(account_id)] = target
        await self.shards.own(owners)
        for shard in self.cluster.shards:
            await shard.close()
        self.cluster = cluster_of(self.shards)


@dataclass(slots=True)
class Bank(Ground):
    """A payer and a payee."""

    payer: str
    payee: str

    @property
    def names(self) -> Sequence[str]:
        """Payer and payee."""
        return self.payer, self.payee

    @classmethod
    async def open(cls, shards: RealShards) -> Bank:
        """A payer with money on shard 0 and a payee without on shard 1."""
        bank = cls(shards, cluster_of(shards), name_on(shards, 0, "payer"), name_on(shards, 1, "payee"))
        await bank.open_account(bank.payer, PAYER_HAS)
        await bank.open_account(bank.payee, 0)
        return bank

    def transfer(
        self, amount: int = 30, *, transaction_id: bytes | None = None, reference: bytes = b""
    ) -> Transfers:
        """A transfer from payer to payee, with a random UUIDv4 when no id is given."""
        terms = Terms(
            amount,
            "EUR",
            slot(self.payer),
            slot(self.payee),
            Kind.TRANSFER,
            self.payer,
            self.payee,
            reference,
        )
        return Transfers.of([(transaction_id or random_id(), terms)])

    def attempt(self, transfers: Transfers) -> Attempt:
        """A new try of transfers, as one bundle."""
        return Attempt(os.urandom(ATTEMPT_BYTES), transfers.bundle())

    def part(self, attempt: Attempt) -> Part:
        """An attempt between the two shards as they are now."""
        owner = self.cluster.owner
        return Part(owner[slot(self.payer)], owner[slot(self.payee)], attempt)

    async def commit(self, transfers: Transfers) -> list[int]:
        """A whole commit by a coordinator of its own, which then settles; a code a row."""
        driver = Driver(self)  # type: ignore[arg-type]  # of a directory it needs the cluster only
        commit = await driver.commit([self.part(self.attempt(transfers))], self.cluster)
        await driver.settle_now()
        (part,) = commit.parts
        return list(each(part.outcomes, len(transfers)))

    async def run(self, transfers: Transfers) -> Outcome:
        """The same; the first row's outcome."""
        return Outcome(without_side((await self.commit(transfers))[0]))

    async def start(self, transfers: Transfers | Attempt, steps: int) -> Commit:
        """A coordinator that carries out ``steps`` of prepare, decide and finish, and then dies."""
        attempt = transfers if isinstance(transfers, Attempt) else self.attempt(transfers)
        machine = Commit([self.part(attempt)], self.cluster.shard_ids)
        calls: dict[int, Call] = dict(machine.prepare())
        for step in (machine.decide, machine.finish, machine.conclude)[:steps]:
            answers = await ask_all(self.cluster, calls)
            calls = dict(step(answers) or {})
        return machine

    async def prepare(self, attempt: Attempt, index: int = 1) -> list[int]:
        """Step 1 as a message that arrives now; a code a row."""
        return codes(await self.ask(index, Prepare([attempt])), attempt.bundle.count)

    async def decide(self, attempt: Attempt, verdicts: bytes = b"") -> list[int]:
        """Step 2, on the payers' shard 0 for the payees' shard 1."""
        call = Decide([attempt], [self.cluster.shard_ids[1]], [verdicts])
        return codes(await self.ask(0, call), attempt.bundle.count)

    async def finish(self, attempt: Attempt, verdict: Outcome = Outcome.COMMITTED) -> list[int]:
        """Step 3 or 4, of all rows."""
        call = Finish([attempt.attempt_id], [bytes((verdict,))])
        return codes(await self.ask(1, call), attempt.bundle.count)

    async def post(self, transfers: Transfers, index: int = 0) -> list[int]:
        """All in one call."""
        return codes(await self.ask(index, Post(transfers.bundle())), len(transfers))

    async def balances(self) -> tuple[int, int]:
        """What payer and payee have."""
        found = []
        for name in (self.payer, self.payee):
            (account,) = await self.shard_of(name).accounts([name])
            assert account is not None
            assert account.held_minor == 0
            found.append(account.available_minor)
        return found[0], found[1]


def codes(answer: object, count: int = 1) -> list[int]:
    """The codes of a reply about one bundle that must be there, a code a row."""
    assert isinstance(answer, Reply)
    (column,) = answer.codes
    return list(each(column, count))


def joined(*batches: Transfers) -> Transfers:
    """All rows of some batches, in their order."""
    return Transfers(*([v for batch in batches for v in getattr(batch, n)] for n in Transfers.__slots__))


def cluster_of(shards: RealShards) -> Cluster:
    """The shards as the topology names them now."""
    topology = shards.topology
    return Cluster(topology, tuple(shards.shard(index) for index in range(len(topology.shards))))


__all__ = ["Bank", "Ground", "NoReply", "cluster_of", "codes", "joined", "name_on", "random_id"]
