"""A payer and a payee on two real shards, for tests that walk through the protocol step by step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from typing import Any

from coordinator.driver import Driver, ask, ask_all
from coordinator.protocol import Answer, Commit, NoReply
from coordinator.resolver import Resolver
from shard_node.calls import Call, Post
from shard_node.directory import Cluster
from shard_node.errors import ShardUnavailableError
from shard_node.outcomes import Outcome, without_side
from shard_node.shard import Shard
from shard_node.slots import slot
from shard_node.transfers import Kind, Terms, Transfers, unpack_body
from tests.real_shards import RealShards, read_hash

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


@dataclass(slots=True)
class Bank:
    """The two accounts and the shards they are on."""

    shards: RealShards
    cluster: Cluster
    payer: str
    payee: str

    @classmethod
    async def open(cls, shards: RealShards) -> Bank:
        """A payer with money on shard 0 and a payee without on shard 1."""
        bank = cls(shards, _cluster(shards), name_on(shards, 0, "payer"), name_on(shards, 1, "payee"))
        for index, name in enumerate((bank.payer, bank.payee)):
            await bank.cluster.shards[index].open([name], [slot(name)], ["EUR"], [0])
        deposit = Terms(
            PAYER_HAS, "EUR", slot(bank.payer), slot(bank.payer), Kind.DEPOSIT, "@world:EUR", bank.payer, b""
        )
        reply = await bank.cluster.shards[0].call(Post(Transfers.of([(os.urandom(16), deposit)])))
        assert list(reply.codes) == [Outcome.COMMITTED]
        return bank

    async def close(self) -> None:
        """Closes the connections."""
        for shard in self.cluster.shards:
            await shard.close()

    def transfer(
        self, amount: int = 30, *, transaction_id: bytes | None = None, reference: bytes = b""
    ) -> Transfers:
        """A transfer from payer to payee, with a random UUIDv4 when no id is given."""
        if transaction_id is None:
            raw = bytearray(os.urandom(16))
            raw[6] = 0x40 | raw[6] & 0x0F
            transaction_id = bytes(raw)
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
        return Transfers.of([(transaction_id, terms)])

    # ------------------------------------------------------------------ coordinators

    async def run(self, transfers: Transfers) -> Outcome:
        """A whole commit by a coordinator of its own, which then settles; the first row's outcome."""
        driver = Driver(self)  # type: ignore[arg-type]  # of a directory it needs the cluster only
        commit = await driver.commit(transfers, self.cluster)
        await driver.settle_now()
        return Outcome(without_side(commit.outcomes[0]))

    @property
    def current(self) -> Cluster:
        """What a directory would hand out."""
        return self.cluster

    async def start(self, transfers: Transfers, steps: int) -> Commit:
        """A coordinator that carries out ``steps`` of prepare, decide and finish, and then dies."""
        machine = Commit(transfers, self.cluster.owner)
        calls: dict[int, Call] = dict(machine.prepare())
        for step in (machine.decide, machine.finish, machine.conclude)[:steps]:
            answers = await ask_all(self.cluster, calls)
            calls = dict(step(answers) or {})
        return machine

    async def ask(self, index: int, call: Call) -> Answer:
        """One call, as a message that arrives now."""
        return await ask(self.cluster.shards[index], call)

    async def resolve(self) -> None:
        """What a resolver does, to entries of any age, until nothing is left."""
        resolver = Resolver("test", None, None)  # type: ignore[arg-type]  # neither is needed to resolve
        for _ in range(3):
            for shard in self.cluster.shards:
                await resolver.resolve(self.cluster, shard, 0)

    def losing(self, *functions: str) -> None:
        """From now on the replies of these functions are lost."""
        lossy: list[Shard] = []
        for shard in self.cluster.shards:
            replaced = LossyShard(shard.shard_id, shard.fence, shard.redis)
            replaced.losing = frozenset(functions)
            lossy.append(replaced)
        self.cluster = Cluster(self.cluster.topology, tuple(lossy))

    # ------------------------------------------------------------------ what is

    async def balances(self) -> tuple[int, int]:
        """What payer and payee have."""
        found = []
        for name in (self.payer, self.payee):
            shard = self.cluster.shards[self.cluster.owner[slot(name)]]
            (account,) = await shard.accounts([name])
            assert account is not None
            assert account.held_minor == 0
            found.append(account.available_minor)
        return found[0], found[1]

    async def in_doubt(self) -> tuple[int, int]:
        """How many entries are prepared and how many unsettled, on all shards."""
        counters = [await shard.counters() for shard in self.cluster.shards]
        return sum(c.prepared for c in counters), sum(c.unsettled for c in counters)

    async def alarms(self) -> int:
        """Legs that were found missing."""
        return sum([(await shard.counters()).alarms for shard in self.cluster.shards])

    # ------------------------------------------------------------------ resize

    async def move(self, account_id: str, target: int) -> None:
        """Moves the account's slot, with all that belongs to it, and raises the epochs."""
        await _move_slot(self.cluster, slot(account_id), target)
        owners = {slot(name): self.cluster.owner[slot(name)] for name in (self.payer, self.payee)}
        owners[slot(account_id)] = target
        await self.shards.own(owners)
        for shard in self.cluster.shards:
            await shard.close()
        self.cluster = _cluster(self.shards)


def _cluster(shards: RealShards) -> Cluster:
    topology = shards.topology
    return Cluster(topology, tuple(shards.shard(index) for index in range(len(topology.shards))))


async def _move_slot(cluster: Cluster, moved: int, target_index: int) -> None:
    """By plain commands, while nobody calls: what a resize will have to carry over."""
    source, target = cluster.shards[cluster.owner[moved]].redis, cluster.shards[target_index].redis
    names = await source.smembers(f"slot:{moved}")
    for name in names:
        await target.hset("accounts", name, await source.hget("accounts", name))
        await target.sadd(f"slot:{moved}", name)
    await source.hdel("accounts", *names)
    await source.delete(f"slot:{moved}")
    for table in ("done:current", "done:previous"):
        for key, value in (await read_hash(source, table)).items():
            # Outcomes have the payer's slot in their key, applied legs the payee's as their value.
            if int.from_bytes(key[16:] if len(key) == 18 else value, "little") == moved:
                await target.hset(table, key, value)
                await source.hdel(table, key)
    for table in ("prepared", "unsettled"):
        for key, value in (await read_hash(source, table)).items():
            terms = unpack_body(value[6:])
            if moved == (terms.payee_slot if table == "prepared" else terms.payer_slot):
                await target.hset(table, key, value)
                await source.hdel(table, key)


__all__ = ["Bank", "NoReply", "name_on"]
