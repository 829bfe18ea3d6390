"""The Lua library and the plain Python model agree, call by call and in all they keep."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shard_node.agent.redis_process import RedisProcess
from shard_node.cluster.slots import slot
from shard_node.contract.bundles import Bundle, each
from shard_node.contract.calls import (
    ATTEMPT_BYTES,
    Attempt,
    Call,
    Decide,
    Finish,
    Post,
    Prepare,
    Reply,
    ResolveAttempts,
    SettleCommits,
)
from shard_node.contract.outcomes import PAYEE, Outcome
from shard_node.contract.records import Account, AccountState
from shard_node.contract.transfers import Details, Kind, Terms, Transfers, pack_details
from shard_node.limits import MAX_BATCH, MAX_MINOR
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
    lambda i, amount, currency, kind, payer, payee, text: (
        i,
        Terms(
            amount,
            currency,
            slot(payer),
            slot(payee),
            kind,
            payer,
            payee,
            text if kind is Kind.TRANSFER else pack_details(Details(text)),
        ),
    ),
    st.sampled_from(IDS),
    AMOUNTS,
    mostly(["EUR"], ["USD"]),
    mostly([Kind.TRANSFER], [Kind.PURCHASE]),
    mostly(["alice", "bob", "@world:EUR"], ACCOUNTS),
    mostly(["alice", "bob", "{alice}:usd"], ACCOUNTS),
    mostly([b""], [b"invoice 7"]),
).filter(lambda row: row[1].payer != row[1].payee)
PEERS = ["shard-0", "shard-7"]


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    """Some transfers, at times one of them twice."""
    rows = draw(st.lists(transfers, min_size=1, max_size=4))
    again = draw(mostly([[]], [rows[:1]]))
    return Transfers.of([*rows, *again]).bundle()


def rows_of(choices: Sequence[int], count: int) -> st.SearchStrategy[bytes]:
    """One of these codes a row."""
    return st.lists(st.sampled_from(choices), min_size=count, max_size=count).map(bytes)


def verdicts_of(bundle: Bundle) -> st.SearchStrategy[bytes]:
    """What a Decide may be told of a bundle: mostly to commit all of it."""
    refusals = [0, 0, 0, Outcome.ACCOUNT_FROZEN + PAYEE, Outcome.ACCOUNT_NOT_FOUND + PAYEE]
    return st.one_of(st.just(b""), rows_of(refusals, bundle.count))


def ends_of(bundle: Bundle) -> st.SearchStrategy[bytes]:
    """What a Finish may be told of it: one code for all rows, or one each."""
    codes = [Outcome.COMMITTED, Outcome.COMMITTED, Outcome.ABORTED, Outcome.SETTLED, Outcome.ELSEWHERE]
    return st.one_of(st.sampled_from(codes).map(lambda code: bytes((code,))), rows_of(codes, bundle.count))


def give_names(model: ShardModel, names: dict[bytes, bytes]) -> None:
    """Calls the model's new commits, by their attempts, as the real shard calls them."""
    for attempt_id, name in names.items():
        model.commits[name] = model.commits.pop(attempt_id)
    for decision, record in model.decided.items():
        if record.commit in names:
            model.decided[decision] = record._replace(commit=names[record.commit])


class Comparison(RuleBasedStateMachine):
    """Makes the same calls to a real shard and to the model."""

    servers: list[RedisProcess]
    faults = Faults()

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = ShardModel(faults=self.faults)
        self.known: list[Bundle] = []
        # All that were made, by their ids; an attempt always has the same bundle.
        self.attempts: dict[bytes, Attempt] = {}
        # Names of all commits there were.
        self.names: list[bytes] = []

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

    def both(self, call: Call) -> Any:
        """One call to both; the replies must be equal."""
        real, expected = self.runner.run(self.shard.call(call)), self.model.call(call)
        self.compare(call, real, expected)
        return real

    def compare(self, call: Call, real: Reply, expected: Reply) -> None:
        """Replies to one call; the model's commits get the real names."""
        counts = self.counts(call)
        codes = [
            [each(one, count) for one, count in zip(reply.codes, counts, strict=True)]
            for reply in (real, expected)
        ]
        assert codes[0] == codes[1], (call, codes)
        for column in ("payer_balances", "payee_balances"):
            assert list(getattr(real, column)) == list(getattr(expected, column)), (column, call)
        if isinstance(call, Decide):
            commits = zip(call.attempts, real.commits, strict=True)
            names = {attempt.attempt_id: name for attempt, name in commits if name}
            wanted = {name for name in expected.commits if name}
            assert set(names) == wanted, call
            assert not set(names.values()) & set(self.names), "a name is given once"
            self.names += names.values()
            for found, told in zip(real.elsewhere, expected.elsewhere, strict=True):
                assert sorted(found) == sorted(names.get(name, name) for name in told), call
            give_names(self.model, names)

    def counts(self, call: Call) -> list[int]:
        """How many rows each string of codes in the reply is for."""
        match call:
            case Post():
                return [call.bundle.count]
            case Prepare() | Decide():
                return [attempt.bundle.count for attempt in call.attempts]
            case Finish():
                return [self.attempts[attempt_id].bundle.count for attempt_id in call.attempt_ids]
            case SettleCommits():
                return []
            case ResolveAttempts():
                return [len(call.decisions)]

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

    @rule(data=st.data(), with_balances=st.booleans())
    def post(self, data: st.DataObject, *, with_balances: bool) -> None:
        """Transfers within the shard."""
        self.both(Post(self.draw_bundle(data), with_balances))

    @rule(data=st.data())
    def prepare(self, data: st.DataObject) -> None:
        """Step 1."""
        self.both(Prepare(self.draw_attempts(data)))

    @rule(data=st.data(), with_balances=st.booleans())
    def decide(self, data: st.DataObject, *, with_balances: bool) -> None:
        """Step 2, some settlements along with it."""
        attempts = self.draw_attempts(data)
        peers = [PEERS[attempt.attempt_id[-1] % len(PEERS)] for attempt in attempts]
        told = [data.draw(verdicts_of(attempt.bundle)) for attempt in attempts]
        self.both(Decide(attempts, peers, told, self.draw_names(data), with_balances))

    @rule(data=st.data(), with_balances=st.booleans())
    def finish(self, data: st.DataObject, *, with_balances: bool) -> None:
        """Steps 3 and 4, also for attempts that are not there, or twice in one call."""
        attempts = self.draw_attempts(data)
        attempts += data.draw(mostly([[]], [attempts[:1]]))
        told = [data.draw(ends_of(attempt.bundle)) for attempt in attempts]
        self.both(Finish([attempt.attempt_id for attempt in attempts], told, with_balances))

    @rule(data=st.data(), settled=st.booleans())
    def commit(self, data: st.DataObject, *, settled: bool) -> None:
        """All steps as a coordinator makes them, so that deep states are common."""
        attempts = self.draw_attempts(data)
        self.both(Prepare(attempts))
        peers = [PEERS[0]] * len(attempts)
        decided = self.both(Decide(attempts, peers, [b""] * len(attempts), with_balances=False))
        if not isinstance(decided, Reply):
            # Full: nothing new is begun.
            return
        self.both(Finish([attempt.attempt_id for attempt in attempts], decided.codes))
        if settled:
            self.both(SettleCommits([name for name in decided.commits if name]))

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Step 5 by itself."""
        self.both(SettleCommits(self.draw_names(data)))

    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        """A resolver's question about some rows of some attempts."""
        rows = [
            (attempt.attempt_id, decision, terms)
            for attempt in self.draw_attempts(data)
            for decision, terms, _ in attempt.bundle.rows()
        ]
        chosen = data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=4))
        self.both(ResolveAttempts(*[list(column) for column in zip(*chosen, strict=True)]))

    @rule()
    def rotate(self) -> None:
        """The older generation is forgotten."""
        assert self.runner.run(self.shard.rotate()) == self.model.rotate()

    def draw_bundle(self, data: st.DataObject) -> Bundle:
        """A new one, or more often one that was sent before."""
        if self.known and data.draw(st.sampled_from([True, True, False])):
            known: Bundle = data.draw(st.sampled_from(self.known))
            return known
        bundle: Bundle = data.draw(bundles())
        self.known.append(bundle)
        return bundle

    def draw_attempts(self, data: st.DataObject) -> list[Attempt]:
        """Some attempts, new ones or known ones; several may be at the same transfers."""
        return list(dict.fromkeys(self.draw_attempt(data) for _ in range(data.draw(mostly([1], [2, 3])))))

    def draw_attempt(self, data: st.DataObject) -> Attempt:
        """A new attempt, or as often a late message's."""
        if self.attempts and data.draw(st.sampled_from([True, False])):
            known: bytes = data.draw(st.sampled_from(list(self.attempts)))
            return self.attempts[known]
        return self.new_attempt(self.draw_bundle(data))

    def new_attempt(self, bundle: Bundle) -> Attempt:
        """One with an id of its own."""
        attempt = Attempt(len(self.attempts).to_bytes(ATTEMPT_BYTES), bundle)
        self.attempts[attempt.attempt_id] = attempt
        return attempt

    def draw_names(self, data: st.DataObject) -> list[bytes]:
        """Names of some commits, settled or not."""
        return data.draw(st.lists(st.sampled_from(self.names), max_size=2)) if self.names else []

    @invariant()
    def nothing_else_differs(self) -> None:
        """Accounts, outcomes, attempts, commits, what ended, times and counters are the same."""
        if hasattr(self, "shard"):
            assert self.runner.run(kept_in(self.shard)) == kept_by(self.model)


QUICK = settings(
    max_examples=70,
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


@pytest.mark.parametrize(
    "fault",
    [
        "outcome_rewritten",
        "settled_forgotten",
        "elsewhere_committed",
        "ended_forgotten",
        "late_prepare",
    ],
)
def test_a_difference_is_found(comparison: type[Comparison], fault: str) -> None:
    """A model that breaks one rule is told from the library."""
    comparison.faults = Faults(**{fault: True})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(comparison, settings=FIRST_DIFFERENCE)


async def test_a_full_batch_is_answered_in_order(shards: RealShards) -> None:
    """8192 rows, more than Lua can unpack at once: each row has its own answer, as in the model."""
    names = [f"a{i}" for i in range(MAX_BATCH + 1)]
    model = ShardModel()
    rows = []
    for i in range(MAX_BATCH):
        payer, payee = names[i], names[i + 1]
        # Of what is prepared every fifth row is refused, for its currency.
        code = "EUR" if i % 5 else "USD"
        terms = Terms(i % 7 + 1, code, slot(payer), slot(payee), Kind.TRANSFER, payer, payee, b"")
        rows.append((struct.pack(">QQ", 1, i + 1), terms))
    bundle = Transfers.of(rows).bundle()
    attempt, late = Attempt(bytes(16), bundle), Attempt(bytes([1] * 16), bundle)
    async with shards.open(0) as shard:
        for first in range(0, len(names), 4096):
            part = names[first : first + 4096]
            floors = [-3 if int(name[1:]) % 3 else -100 for name in part]
            await shard.open(part, [slot(n) for n in part], ["EUR"] * len(part), floors)
            for name, floor in zip(part, floors, strict=True):
                model.open(name, "EUR", floor)

        async def both(call: Call) -> Reply:
            real, expected = await shard.call(call), model.call(call)
            assert [each(codes, MAX_BATCH) for codes in real.codes] == list(expected.codes)
            assert list(real.payer_balances) == list(expected.payer_balances)
            assert list(real.payee_balances) == list(expected.payee_balances)
            return real

        (prepared,) = (await both(Prepare([attempt]))).codes
        verdicts = bytes(0 if code == Outcome.PREPARED else code for code in prepared)
        decided = await both(Decide([attempt], ["shard-0"], [verdicts]))
        give_names(model, {attempt.attempt_id: decided.commits[0]})
        assert {Outcome.COMMITTED, Outcome.INSUFFICIENT_FUNDS} < set(decided.codes[0])
        columns = list(zip(*bundle.rows(), strict=True))
        await both(ResolveAttempts([late.attempt_id] * MAX_BATCH, *columns[:2]))
        assert (await both(Decide([late], ["shard-0"], [b""]))).elsewhere == [[decided.commits[0]]]
        assert await kept_in(shard) == kept_by(model)
        await both(Finish([attempt.attempt_id], decided.codes))
        await both(SettleCommits(decided.commits))
        await both(Post(bundle))
        assert await kept_in(shard) == kept_by(model)


async def test_a_full_batch_of_one_outcome(shards: RealShards) -> None:
    """Answered by one code for all rows, at each step."""
    names = [f"a{i}" for i in range(MAX_BATCH + 1)]
    rows = [
        (struct.pack(">QQ", 1, i + 1), Terms(i + 1, "EUR", slot(a), slot(b), Kind.TRANSFER, a, b, b""))
        for i, (a, b) in enumerate(pairwise(names))
    ]
    attempt = Attempt(bytes(16), Transfers.of(rows).bundle())
    async with shards.open(0) as shard:
        await shard.open(names, [slot(n) for n in names], ["EUR"] * len(names), [-MAX_MINOR] * len(names))
        assert (await shard.call(Prepare([attempt]))).codes == [bytes((Outcome.PREPARED,))]
        decided = await shard.call(Decide([attempt], ["shard-0"], [b""]))
        assert decided.codes == [bytes((Outcome.COMMITTED,))]
        assert struct.unpack(f"<{MAX_BATCH}q", decided.payer_balances[0]) == tuple(
            -1 - i for i in range(MAX_BATCH)
        )
        finished = await shard.call(Finish([attempt.attempt_id], decided.codes))
        assert finished.codes == [bytes((Outcome.FINISHED,))]
        assert (await shard.call(Finish([attempt.attempt_id], decided.codes))).codes == finished.codes
        kept = await kept_in(shard)
        last = len(names) - 1
        assert [kept["accounts"][n].available_minor for n in names] == [-1, *[-1] * (last - 1), MAX_BATCH]
