"""Batches are split by the newest map, carried out by shards and coordinators, and answered in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from router.execution import dispatch, maps
from router.execution.dispatch import Dispatcher, Results
from router.requests.transactions import TransactionRequest, Transactions
from shard_node.client.asking import NoReply
from shard_node.contract import Answer, Bundle, Outcome
from shard_node.limits import NO_BALANCE
from tests.router.transaction_cluster import (
    FUNDS_MINOR,
    SHARDS,
    MakeShards,
    TransactionCluster,
    execute,
    funded,
    model_shards,
    transfer,
)

COMMITTED, UNKNOWN = Outcome.COMMITTED, Outcome.OUTCOME_UNKNOWN


# ---------------------------------------------------------------- answers in the order of the batch


def test_each_answer_comes_to_its_row(make_shards: MakeShards) -> None:
    """Outcomes, legs and balances of a batch over all pairs of shards are those of their own rows."""
    cluster, names = funded(make_shards(SHARDS))
    payers = [pair[0] for pair in names]
    payees = [pair[1] for pair in names]
    requests, expected = [], []
    paid, got = dict.fromkeys(payers, 0), dict.fromkeys(payees, 0)
    for number in range(27):
        payer, payee = payers[number % 3], payees[number // 3 % 3]
        minor, outcome = number + 1, (COMMITTED, 0)
        # Every fourth is too much; every fifth goes to an account that is not there.
        if number % 4 == 3:
            minor, outcome = 50 * FUNDS_MINOR, (Outcome.INSUFFICIENT_FUNDS, 0)
        elif number % 5 == 4:
            payee, outcome = next(cluster.names(number % 3)) + "-gone", (Outcome.ACCOUNT_NOT_FOUND, 1)
        else:
            paid[payer] += minor
            got[payee] += minor
        expected.append(outcome)
        requests.append(
            cluster.reader.transfer(transfer(payer, payee, f"{minor // 100}.{minor % 100:02}", number))
        )
    results = execute(cluster, Transactions(requests))
    assert list(zip(results.outcomes, results.legs, strict=True)) == expected
    for name, minor in paid.items():
        assert cluster.account(name).available_minor == FUNDS_MINOR - minor
    for name, minor in got.items():
        assert cluster.account(name).available_minor == FUNDS_MINOR + minor
    assert len(results.balances) == 2 * len(requests)
    for row, (told, _) in enumerate(expected):
        known = results.balances[2 * row : 2 * row + 2] != NO_BALANCE
        assert known.tolist() == [told is COMMITTED] * 2
    for leg in (0, 1):
        balances_follow(cluster, requests, results, leg)


def balances_follow(
    cluster: TransactionCluster, requests: list[TransactionRequest], results: Results, leg: int
) -> None:
    """Before each row its account was as another row left it, or as it began."""
    after: dict[str, set[int]] = {}
    before: dict[str, set[int]] = {}
    for row, request in enumerate(requests):
        if results.outcomes[row] == COMMITTED:
            one, balance = request.transaction.legs[leg], int(results.balances[2 * row + leg])
            change = one.amount_minor if leg else -one.amount_minor
            after.setdefault(one.account, {FUNDS_MINOR}).add(balance)
            before.setdefault(one.account, set()).add(balance - change)
    for name, balances in after.items():
        assert balances - before[name] == {cluster.account(name).available_minor}


def test_no_balances_unless_asked(make_shards: MakeShards) -> None:
    """A batch that asks for none gets none, and moves the money all the same."""
    cluster, names = funded(make_shards(SHARDS))
    rows = [cluster.reader.transfer(transfer(names[0][0], names[to][1], seed=to)) for to in range(SHARDS)]
    results = execute(cluster, Transactions(rows, with_balances=False))
    assert results.outcomes.tolist() == [COMMITTED] * SHARDS
    assert len(results.balances) == 0
    assert cluster.account(names[0][0]).available_minor == FUNDS_MINOR - 100 * SHARDS


def test_one_call_a_shard_and_one_to_a_coordinator() -> None:
    """All that crosses goes in one call, an attempt for each pair of shards; who calls is in every bundle."""
    cluster, names = funded(model_shards(SHARDS))
    rows = [
        cluster.reader.transfer(transfer(names[payer][0], names[payee][1], seed=3 * payer + payee))
        for payer in range(SHARDS)
        for payee in range(SHARDS)
    ]
    execute(cluster, Transactions(rows * 2), principal="somebody")
    (parts,) = cluster.asked
    pairs = [(part.decider, part.participants) for part in parts]
    assert sorted(pairs) == [(payer, (payee,)) for payer in range(3) for payee in range(3) if payer != payee]
    for part in parts:
        bundle = Bundle.unpack(part.bundle)
        assert bundle.principal == "somebody"
        assert len(bundle.transactions) == len(part.rows) == 2


def test_many_attempts_go_in_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """No coordinator is asked for more attempts than a shard takes in one call."""
    monkeypatch.setattr(dispatch, "MAX_ATTEMPTS", 4)
    cluster, names = funded(model_shards(SHARDS))
    rows = [
        cluster.reader.transfer(transfer(names[payer][0], names[payee][1], seed=3 * payer + payee))
        for payer in range(SHARDS)
        for payee in range(SHARDS)
    ]
    results = execute(cluster, Transactions(rows))
    assert [len(parts) for parts in cluster.asked] == [4, 2]
    assert set(results.outcomes) == {COMMITTED}


# ---------------------------------------------------------------- who does not answer


def crossing_and_local(cluster: TransactionCluster, names: list[list[str]]) -> Transactions:
    """A transfer within shard 0, one within shard 1, and one from 0 to 1."""
    pairs = [(names[0][0], names[0][1]), (names[1][0], names[1][1]), (names[0][0], names[1][0])]
    return Transactions([cluster.reader.transfer(transfer(*pair, seed=n)) for n, pair in enumerate(pairs)])


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries no time passes but that of the cluster's own clock."""
    monkeypatch.setattr(maps, "LAST_RETRY_SECONDS", maps.FIRST_RETRY_SECONDS)


@pytest.mark.usefixtures("patient")
def test_a_stale_map_is_tried_again_with_a_newer_one() -> None:
    """What a shard with another epoch refused is carried out by the next map, and nothing else again."""
    cluster, names = funded(model_shards(SHARDS), 1, 2)
    cluster.silences = {1: [NoReply.STALE, NoReply.STALE]}
    cluster.asked.clear()
    results = execute(cluster, crossing_and_local(cluster, names))
    assert results.outcomes.tolist() == [COMMITTED] * 3
    assert cluster.maps.current.topology.version == 2
    assert [len(parts) for parts in cluster.asked] == [1, 1]
    assert cluster.account(names[0][0]).available_minor == FUNDS_MINOR - 200


@pytest.mark.usefixtures("patient")
def test_a_coordinator_with_a_newer_map_refuses_the_batch() -> None:
    """Attempts split by another map than the coordinator's are split again."""
    cluster, names = funded(model_shards(SHARDS), 1, 2)
    asked = cluster.commit_attempts

    async def meanwhile(*parts: Any, **more: Any) -> Any:
        await cluster.maps.newer_than(1, 0.0)
        return await asked(*parts, **more)

    dispatcher = Dispatcher(cluster.maps, Committing(meanwhile), cluster.ask)
    batch = crossing_and_local(cluster, names)
    results = asyncio.run(dispatcher.execute(batch, time.monotonic() + 10.0))
    assert results.outcomes.tolist() == [COMMITTED] * 3
    assert [len(parts) for parts in cluster.asked] == [1, 1]


class Committing:
    """A committer that is one function."""

    def __init__(self, commit_attempts: Callable[..., Any]) -> None:
        self.commit_attempts = commit_attempts


def test_without_a_newer_map_stale_becomes_unknown() -> None:
    """At the deadline nothing is known of what was refused for its epoch all the time."""
    cluster, names = funded(model_shards(SHARDS))
    cluster.silences = {1: [NoReply.STALE] * 1000}
    results = execute(cluster, crossing_and_local(cluster, names), seconds=0.3)
    assert results.outcomes.tolist() == [COMMITTED, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("silence", "outcome"),
    [(NoReply.LOST, UNKNOWN), (NoReply.FULL, Outcome.RESOURCE_EXHAUSTED)],
)
def test_no_answer_of_a_shard(silence: NoReply, outcome: Outcome) -> None:
    """A lost answer is unknown, though it was carried out; a full shard has begun nothing. Others go on."""
    cluster, names = funded(model_shards(SHARDS))
    cluster.silences = {1: [silence, silence]}
    results = execute(cluster, crossing_and_local(cluster, names))
    assert results.outcomes.tolist() == [COMMITTED, outcome, outcome]
    moved = 100 if silence is NoReply.LOST else 0
    assert cluster.account(names[1][1]).available_minor == FUNDS_MINOR + moved


@pytest.mark.usefixtures("patient")
def test_full_after_another_try_is_unknown() -> None:
    """A try that begins nothing says nothing of the one before, which may have committed."""
    cluster, names = funded(model_shards(SHARDS), 1, 2)
    cluster.silences = {1: [NoReply.STALE, NoReply.STALE, NoReply.FULL, NoReply.FULL]}
    results = execute(cluster, crossing_and_local(cluster, names))
    assert results.outcomes.tolist() == [COMMITTED, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize("reason", [NoReply.LOST, NoReply.FULL])
def test_no_answer_of_coordinators(reason: NoReply) -> None:
    """What no coordinator answered concerns what crosses alone."""
    cluster, names = funded(model_shards(SHARDS))

    async def silent(*_: Any, **__: Any) -> NoReply:
        return reason

    dispatcher = Dispatcher(cluster.maps, Committing(silent), cluster.ask)
    batch = crossing_and_local(cluster, names)
    results = asyncio.run(dispatcher.execute(batch, time.monotonic() + 10.0))
    told = UNKNOWN if reason is NoReply.LOST else Outcome.RESOURCE_EXHAUSTED
    assert results.outcomes.tolist() == [COMMITTED, COMMITTED, told]


async def test_the_deadline_ends_the_wait_and_not_the_work() -> None:
    """What has no answer by the deadline is unknown in the copy that is told, and is carried out."""
    cluster, names = await asyncio.to_thread(funded, model_shards(SHARDS))
    gate = asyncio.Event()

    async def slow(shard: Any, command: Any) -> Any:
        if shard is cluster.shards[1]:
            await gate.wait()
        return await cluster.ask(shard, command)

    dispatcher = Dispatcher(cluster.maps, cluster, slow)
    results = await dispatcher.execute(crossing_and_local(cluster, names), time.monotonic())
    assert results.outcomes.tolist() == [COMMITTED, UNKNOWN, COMMITTED]
    gate.set()
    await dispatcher.finish_all()
    assert results.outcomes.tolist() == [COMMITTED, UNKNOWN, COMMITTED]
    assert cluster.account(names[1][1]).available_minor == FUNDS_MINOR + 100


@pytest.mark.parametrize("code", [0, Outcome.BUSY, Outcome.SETTLED, Outcome.ELSEWHERE, 25, 63, 255])
def test_steps_of_the_protocol_are_never_told(code: int) -> None:
    """What is no public outcome is unknown to callers: never done, never refused."""
    cluster, names = funded(model_shards(SHARDS))

    async def odd(shard: Any, command: Any) -> Answer:
        return Answer((bytes((code,)),), (b"",), (b"",), ((),))

    batch = Transactions([cluster.reader.transfer(transfer(names[0][0], names[0][1]))])
    dispatcher = Dispatcher(cluster.maps, cluster, odd)
    results = asyncio.run(dispatcher.execute(batch, time.monotonic() + 10.0))
    assert results.outcomes.tolist() == [UNKNOWN]
    assert results.balances.tolist() == [NO_BALANCE] * 2
