"""The Lua library and the plain Python model agree, call by call and in all they keep."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shard_node.calls import Call, Decide, Finish, Post, Prepare, Resolve, Settle
from shard_node.limits import MAX_MINOR
from shard_node.outcomes import PAYEE, Outcome
from shard_node.records import Account, AccountState
from shard_node.redis_process import RedisProcess
from shard_node.slots import slot
from shard_node.transfers import Kind, Terms, Transfers
from tests.model import Faults, ShardModel
from tests.real_shards import RealShards
from tests.shard_node.kept import BIG, kept_by, kept_in

ACCOUNTS = ["alice", "bob", "carol", "{alice}:usd", "@world:EUR", "@world:USD"]
CURRENCIES = ["EUR", "USD"]
BOUNDS = [MAX_MINOR, MAX_MINOR - 1, MAX_MINOR // 2, MAX_MINOR // 2 + 1, BIG, BIG + 1]


def mostly(usual: Sequence[Any], rare: Sequence[Any]) -> st.SearchStrategy[Any]:
    """A usual value four times of five: else nearly every call would be refused for its first reason."""
    return st.integers(0, 4).flatmap(lambda n: st.sampled_from(usual if n else rare))


AMOUNTS = mostly(range(1, 21), BOUNDS)


def _v7(time_ms: int, tail: int) -> bytes:
    return time_ms.to_bytes(6) + bytes([0x70, 0, 0x80]) + tail.to_bytes(7)


IDS = [bytes([i] * 6 + [0x40] + [i] * 9) for i in range(4)] + [_v7(1000 * (i // 2 + 1), i) for i in range(6)]

transfers = st.builds(
    lambda i, amount, currency, payer, payee, reference: (
        i,
        Terms(amount, currency, slot(payer), slot(payee), Kind.TRANSFER, payer, payee, reference),
    ),
    st.sampled_from(IDS),
    AMOUNTS,
    mostly(["EUR"], ["USD"]),
    mostly(["alice", "bob", "@world:EUR"], ACCOUNTS),
    mostly(["alice", "bob", "{alice}:usd"], ACCOUNTS),
    mostly([b""], [b"invoice 7"]),
).filter(lambda row: row[1].payer != row[1].payee)
batches = st.lists(transfers, min_size=1, max_size=4).map(Transfers.of)
verdicts = st.sampled_from([0, 0, 0, Outcome.ACCOUNT_FROZEN + PAYEE, Outcome.ACCOUNT_NOT_FOUND + PAYEE])


class Comparison(RuleBasedStateMachine):
    """Makes the same calls to a real shard and to the model."""

    servers: list[RedisProcess]
    faults = Faults()

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = ShardModel(faults=self.faults)
        self.keys: list[tuple[bytes, bytes]] = []
        self.batches: list[Transfers] = []

    @initialize()
    def begin(self) -> None:
        """An empty shard with three open accounts, one of them with a credit line."""
        shards = RealShards([self.servers[0].address], self.servers[:1])
        self.runner.run(shards.wipe())
        self.context = shards.open(0)
        self.shard = self.runner.run(self.context.__aenter__())
        self.open_accounts()

    def open_accounts(self) -> None:
        """Those that are there from the start."""
        for account_id, floor in (("alice", -100), ("bob", 0), ("{alice}:usd", 0)):
            self.open_account(account_id, "EUR", floor)

    def teardown(self) -> None:
        """Closes the connections."""
        if hasattr(self, "context"):
            self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()

    def both(self, call: Call) -> None:
        """One call to both; the replies must be equal."""
        real = self.runner.run(self.shard.call(call))
        expected = self.model.call(call)
        for name in ("codes", "payer_balances", "payee_balances"):
            assert list(getattr(real, name)) == list(getattr(expected, name)), (name, call)

    @rule(
        account_id=st.sampled_from(ACCOUNTS[:4]),
        currency=st.sampled_from(CURRENCIES),
        floor=st.sampled_from([0, -100, -MAX_MINOR + 1]),
    )
    def open_account(self, account_id: str, currency: str, floor: int) -> None:
        """Opens an account, or finds it there."""
        codes, accounts = self.runner.run(
            self.shard.open([account_id], [slot(account_id)], [currency], [floor])
        )
        assert (codes[0], accounts[0]) == self.model.open(account_id, currency, floor)

    @rule(account_id=st.sampled_from(ACCOUNTS[:4]), state=mostly([AccountState.OPEN], list(AccountState)))
    def set_state(self, account_id: str, state: AccountState) -> None:
        """Freezes, closes or reopens an account behind the library's back."""
        account = self.model.accounts.get(account_id)
        if account is not None:
            changed = Account(
                account.available_minor, 0, account.version, account.floor_minor, state, account.currency
            )
            self.model.accounts[account_id] = changed
            self.runner.run(self.poke(account_id, changed))

    async def poke(self, account_id: str, account: Account) -> None:
        """Writes an account's record by a plain command."""
        await self.shard.redis.hset("accounts", account_id, account.pack())

    @rule(data=st.data())
    def post(self, data: st.DataObject) -> None:
        """Transfers within the shard."""
        self.both(Post(self.draw_batch(data)))

    @rule(data=st.data())
    def prepare(self, data: st.DataObject) -> None:
        """Step 1."""
        self.both(Prepare(self.draw_batch(data)))

    @rule(data=st.data())
    def decide(self, data: st.DataObject) -> None:
        """Step 2, some settlements along with it."""
        batch = self.draw_batch(data)
        told = data.draw(st.lists(verdicts, min_size=len(batch), max_size=len(batch)))
        settled = data.draw(st.lists(st.sampled_from(self.keys), max_size=2))
        self.both(Decide(batch, told, [key for key, _ in settled]))

    @rule(data=st.data(), verdict=st.sampled_from([Outcome.COMMITTED, Outcome.ABORTED, Outcome.SETTLED]))
    def finish(self, data: st.DataObject, verdict: int) -> None:
        """Steps 3 and 4, also for legs that are not there."""
        chosen = self.draw_keys(data)
        self.both(Finish([key for key, _ in chosen], [verdict] * len(chosen)))

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """Steps 1 to 3 as a coordinator makes them, so that deep states are common."""
        batch = self.draw_batch(data)
        self.both(Prepare(batch))
        self.both(Decide(batch, [0] * len(batch)))
        committed = [k for k in batch.keys if k in self.model.unsettled]
        self.both(Finish(committed, [Outcome.COMMITTED] * len(committed)))

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Step 5 by itself."""
        self.both(Settle([key for key, _ in self.draw_keys(data)]))

    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        """A resolver's question."""
        chosen = self.draw_keys(data)
        self.both(Resolve([key for key, _ in chosen], [body for _, body in chosen]))

    @rule()
    def rotate(self) -> None:
        """The older generation is forgotten."""
        assert self.runner.run(self.shard.rotate()) == self.model.rotate()

    def draw_batch(self, data: st.DataObject) -> Transfers:
        """A new batch, or more often one that was sent before."""
        if self.batches and data.draw(st.sampled_from([True, True, False])):
            known: Transfers = data.draw(st.sampled_from(self.batches))
            return known
        batch: Transfers = data.draw(batches)
        self.batches.append(batch)
        self.keys += list(zip(batch.keys, batch.bodies, strict=True))
        return batch

    def draw_keys(self, data: st.DataObject) -> list[tuple[bytes, bytes]]:
        """Some keys seen before, or one never seen."""
        unseen = Transfers.of([(bytes([9] * 16), Terms(5, "EUR", 1, 2, Kind.TRANSFER, "alice", "bob", b""))])
        known = self.keys or [(unseen.keys[0], unseen.bodies[0])]
        return data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=4))

    @invariant()
    def nothing_else_differs(self) -> None:
        """Accounts, outcomes, applied legs, prepared, unsettled and counters are the same."""
        if hasattr(self, "shard"):
            assert self.runner.run(kept_in(self.shard)) == kept_by(self.model)


QUICK = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

# That a difference is there is enough: no search for the smallest one.
FIRST_DIFFERENCE = settings(QUICK, max_examples=1000, database=None, phases=[Phase.generate])


@pytest.fixture
def comparison(redis_servers: list[RedisProcess]) -> Iterator[type[Comparison]]:
    """The comparison against a real server."""
    Comparison.servers = redis_servers
    yield Comparison
    Comparison.faults = Faults()


@pytest.mark.timeout(600)  # a difference takes minutes to be made small
def test_library_and_model_agree(comparison: type[Comparison]) -> None:
    """Any sequence of calls gets the same replies and leaves the same state."""
    run_state_machine_as_test(comparison, settings=QUICK)


@pytest.mark.parametrize("fault", ["outcome_rewritten", "settled_forgotten", "applied_forgotten"])
def test_a_difference_is_found(comparison: type[Comparison], fault: str) -> None:
    """A model that breaks one rule is told from the library."""
    comparison.faults = Faults(**{fault: True})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(comparison, settings=FIRST_DIFFERENCE)


async def test_a_full_batch_is_answered_in_order(shards: RealShards) -> None:
    """8192 rows, more than Lua can unpack at once: each row has its own answer, as in the model."""
    count = 8192
    names = [f"a{i}" for i in range(count + 1)]
    model = ShardModel()
    rows = []
    for i in range(count):
        payer, payee = names[i], names[i + 1]
        terms = Terms(i % 7 + 1, "EUR", slot(payer), slot(payee), Kind.TRANSFER, payer, payee, b"")
        rows.append((struct.pack(">QQ", 1, i + 1), terms))
    batch = Transfers.of(rows)
    async with shards.open(0) as shard:
        for first in range(0, len(names), 4096):
            part = names[first : first + 4096]
            floors = [-3 if int(name[1:]) % 3 else -100 for name in part]
            await shard.open(part, [slot(n) for n in part], ["EUR"] * len(part), floors)
            for name, floor in zip(part, floors, strict=True):
                model.open(name, "EUR", floor)
        every = [Outcome.COMMITTED] * count
        for call in (Prepare(batch), Decide(batch, [0] * count), Finish(batch.keys, every), Post(batch)):
            real, expected = await shard.call(call), model.call(call)
            assert list(real.codes) == list(expected.codes)
            assert list(real.payee_balances) == list(expected.payee_balances)
        assert await kept_in(shard) == kept_by(model)
