"""What operators ask of a cluster, answered alike by routers and coordinators."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.local.launcher import ClusterSpec, LocalCluster
from shard_node.cluster.slots import slot
from shard_node.contract import Outcome, new_attempt_id
from tests.router.bank import Bank, payment, wait_for
from tests.router.contract import Client, Contract
from tests.router.samples import wall_ms
from tests.router.test_wallet_bad_input import invalid

pytestmark = pytest.mark.cluster


@pytest.fixture(params=["router", "coordinator"])
def anyone(request: pytest.FixtureRequest, contract: Contract, cluster: LocalCluster) -> Iterator[Client]:
    """The ClusterService of a router, and of a coordinator."""
    addresses = cluster.router_addresses if request.param == "router" else cluster.coordinator_addresses
    with grpc.insecure_channel(addresses[0]) as channel:
        yield contract.client("ClusterService", channel)


def verified(operators: Client) -> Any:
    """The result of one verification, after its progress was found to rise to the end."""
    responses = list(operators.stream("Verify"))
    read = [response.accounts_read for response in responses]
    assert read == sorted(read)
    assert not any(response.HasField("result") for response in responses[:-1])
    result = responses[-1].result
    assert read[-1] == responses[-1].accounts_total == result.accounts
    return result


def verified_at_rest(operators: Client) -> Any:
    """The first result that is not BUSY: settlements still count as calls a moment after a transfer."""

    def probe() -> Any:
        result = verified(operators)
        return None if operators.name("Verdict", result.verdict) == "VERDICT_BUSY" else result

    return wait_for(probe, "rest")


def test_topology(anyone: Client, cluster: LocalCluster) -> None:
    """Every slot has one owner, and every shard's primary is where its Redis is."""
    topology = anyone.call("GetTopology")
    assert topology.cluster_id
    assert topology.version >= 1
    slots = [n for shard in topology.shards for r in shard.slots for n in range(r.first, r.last + 1)]
    assert sorted(slots) == list(range(16384))
    assert sum(shard.slot_count for shard in topology.shards) == 16384
    assert all(shard.epoch >= 1 for shard in topology.shards)
    assert {shard.shard_id: shard.primary for shard in topology.shards} == cluster.shard_addresses


def test_members(anyone: Client, cluster: LocalCluster) -> None:
    """Every process that serves is a member, by its name, kind, address and process id."""
    found = {
        (anyone.name("MemberKind", member.kind), member.name): (member.address, member.pid)
        for member in anyone.call("ListMembers").members
    }
    expected = {
        ("MEMBER_KIND_SHARD_NODE", name): (address, cluster.pid(name))
        for name, address in cluster.shard_addresses.items()
    }
    for kind, addresses in (
        ("router", cluster.router_addresses),
        ("coordinator", cluster.coordinator_addresses),
    ):
        for number, address in enumerate(addresses):
            name = f"{kind}-{number}"
            expected[f"MEMBER_KIND_{kind.upper()}", name] = (address, cluster.pid(name))
    # It serves nothing that anybody calls.
    expected["MEMBER_KIND_ARCHIVER", "archiver-0"] = ("", cluster.pid("archiver-0"))
    assert found == expected


def test_backlogs(anyone: Client, cluster: LocalCluster, bank: Bank) -> None:
    """Every shard says how much waits for the archiver, how much may, and how far it is archived."""
    for tag in bank.tags:
        bank.open(tag, "1.00")

    def archived() -> Any:
        backlogs = anyone.call("ListBacklogs").backlogs
        return None if any(backlog.entries_waiting for backlog in backlogs) else backlogs

    backlogs = wait_for(archived, "the archiver")
    assert [backlog.shard_id for backlog in backlogs] == list(cluster.shard_addresses)
    assert not any(backlog.unknown for backlog in backlogs)
    assert all(backlog.entries_limit > 0 for backlog in backlogs)
    assert all(backlog.archived_batch > 0 for backlog in backlogs)


def test_nothing_in_doubt(anyone: Client, bank: Bank) -> None:
    """A transfer is settled soon after it is done, and then nothing of it is in doubt."""
    asked = payment(*bank.pair(bank.routes["across shards"]))
    bank.wallet.call("Transfer", **asked)

    def probe() -> Any:
        response = anyone.call("ListInDoubt")
        doubtful = {entry.transaction_id for entry in response.transfers}
        return None if asked["transaction_id"] in doubtful else response

    assert not wait_for(probe, "settlement").truncated


def test_verify(anyone: Client, bank: Bank) -> None:
    """Per currency customers and system accounts sum to zero, in its own decimals."""
    before = verified_at_rest(anyone)
    payer, payee = bank.pair(bank.routes["across shards"], "100.000", "TND")
    bank.wallet.call("Transfer", **payment(payer, payee, "33.333", "TND"))
    result = verified_at_rest(anyone)
    assert anyone.name("Verdict", result.verdict) == "VERDICT_BALANCED"
    assert {sums.total.strip("0.") for sums in result.currencies} == {""}
    old = {sums.currency: sums for sums in before.currencies}.get("TND")
    new = {sums.currency: sums for sums in result.currencies}["TND"]
    assert new.accounts == (old.accounts if old else 0) + 2
    assert Decimal(new.customers) == Decimal(old.customers if old else 0) + 100
    assert new.customers.endswith(".000")
    assert (new.system, new.in_flight, new.total) == (f"-{new.customers}", "0.000", "0.000")
    assert result.alarms == 0


def test_verify_finds_money_made(operators: Client, bank: Bank) -> None:
    """An account that is on two shards is found, in its currency alone."""
    account = "money-made-twice"
    bank.wallet.call("OpenAccount", account_id=account, currency="ALL")
    bank.fund(account, "0.01", "ALL")
    number = slot(account)
    shards = operators.call("GetTopology").shards
    owns = [any(one.first <= number <= one.last for one in shard.slots) for shard in shards]
    source, other = shards[owns.index(True)].shard_id, shards[owns.index(False)].shard_id
    _, chunk = bank.command(source, "slot.export", number, b"", 65536)
    bank.command(other, "slot.import", number, chunk)
    try:
        result = verified_at_rest(operators)
    finally:
        assert bank.command(other, "slot.drop", number, 100) == 0
    assert operators.name("Verdict", result.verdict) == "VERDICT_BROKEN"
    assert {sums.currency: sums.total for sums in result.currencies if sums.total.strip("0.")} == {
        "ALL": "0.01"
    }
    assert operators.name("Verdict", verified_at_rest(operators).verdict) == "VERDICT_BALANCED"


def test_verify_tells_of_alarms(contract: Contract, tmp_path: Path) -> None:
    """A shard that missed a leg breaks the verdict whatever the sums say."""
    with (
        LocalCluster(tmp_path / "data", ClusterSpec(shards=1)) as own,
        grpc.insecure_channel(own.router_addresses[0]) as channel,
    ):
        operators = contract.client("ClusterService", channel)
        bank = Bank(contract, own, contract.client("WalletService", channel), operators)
        # Committed, says whoever asks; but it was never prepared here.
        attempt_id, codes = new_attempt_id(wall_ms()), bytes((Outcome.COMMITTED,))
        (answered, _) = bank.command("shard-0", "finish", 0, attempt_id, codes)
        assert answered == [bytes((Outcome.MISSING_LEG,))]
        result = verified_at_rest(operators)
    assert (operators.name("Verdict", result.verdict), result.alarms) == ("VERDICT_BROKEN", 1)


def test_verify_under_way(operators: Client, bank: Bank) -> None:
    """While transfers run the verdict is BUSY at most: a moving cluster is never called broken."""
    accounts = [bank.open(tag, "100.00") for tag in bank.tags]
    asked = [payment(a, b, "0.01") for a in accounts for b in accounts if a != b]
    stop = threading.Event()

    def keep_moving() -> None:
        while not stop.is_set():
            fresh = [payment(one["from_account"], one["to_account"], "0.01") for one in asked]
            bank.wallet.call("BatchTransfer", transfers=fresh)

    mover = threading.Thread(target=keep_moving)
    mover.start()
    try:
        verdicts = {operators.name("Verdict", verified(operators).verdict) for _ in range(5)}
    finally:
        stop.set()
        mover.join()
    assert "VERDICT_BUSY" in verdicts
    assert verdicts <= {"VERDICT_BUSY", "VERDICT_BALANCED"}


@pytest.mark.parametrize(
    ("field", "value"), [("limit", 0), ("limit", 10_001), ("limit", -1), ("minimum_age_ms", -1)]
)
def test_bad_looks_at_what_is_in_doubt(anyone: Client, field: str, value: int) -> None:
    """What is out of range is refused as in every service, by its field; zero is out of range."""
    assert anyone.refused("ListInDoubt", **{field: value}) == invalid(field)
