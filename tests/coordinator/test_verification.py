"""All the money adds up to zero at every step, and what is in doubt is shown with accounts and amounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from coordinator import verification as verification_module
from coordinator.cluster_service import ClusterService
from coordinator.verification import CurrencyTotal, Verification, verify_by_page
from shard_node.client import Shard
from shard_node.cluster.slots import slot
from shard_node.contract import AccountTerms, Kind, Outcome
from tallystick.v1 import cluster_pb2
from tests.coordinator.bank import name_on
from tests.coordinator.journal_bank import HAS, JournalBank
from tests.coordinator.payloads import transfer
from tests.real_shards import RealShards
from tests.router.stand_ins import AbortedError, Context


@pytest.fixture
async def bank(shards: RealShards) -> AsyncIterator[JournalBank]:
    """Three accounts of 100 on three shards."""
    made = await JournalBank.open(shards)
    yield made
    await made.close()


async def verified(shards: Sequence[Shard]) -> Verification:
    """The result of a verification."""
    result = Verification()
    pages = [page async for page in verify_by_page(shards, result)]
    assert pages[-1] == (result.accounts, result.accounts)
    return result


EUROS_AT_REST = CurrencyTotal(3 * HAS, -3 * HAS, 0, 3)


@pytest.mark.parametrize(
    ("steps", "in_flight_minor"),
    [(0, 0), (1, 0), (2, 10), (3, 0)],
    ids=["none", "prepared", "decided", "all"],
)
async def test_money_in_flight_is_counted(bank: JournalBank, steps: int, in_flight_minor: int) -> None:
    """Of a journal whose debit and credit wait on two shards: the sum is zero after every step."""
    await bank.start(bank.attempt(bank.split()), steps)
    result = await verified(bank.cluster.shards)
    euros = result.currencies["EUR"]
    assert euros.total_minor == 0
    # 10 left the deciding shard; 20 wait to be credited, and 10 that are held to be debited.
    assert euros.in_flight_minor == in_flight_minor
    assert euros.customers_minor == 3 * HAS - in_flight_minor
    assert (result.prepared, result.unsettled) == {0: (0, 0), 1: (2, 0), 2: (2, 1), 3: (0, 1)}[steps]
    assert not result.busy
    await bank.resolve()
    assert (await verified(bank.cluster.shards)).currencies == {"EUR": EUROS_AT_REST}


async def test_only_what_was_committed_is_in_flight(bank: JournalBank) -> None:
    """Of one bundle a transaction is committed, one refused here and one there; and a try is undecided."""
    await bank.start(bank.attempt(bank.split(), bank.split(HAS + 1, second=1), bank.split(1, second=HAS)), 2)
    await bank.start(bank.attempt(bank.split(3)), 1)
    result = await verified(bank.cluster.shards)
    assert result.currencies["EUR"].total_minor == 0
    assert result.currencies["EUR"].in_flight_minor == 10
    # The one that was refused by the second shard is prepared on the third.
    assert (result.prepared, result.unsettled) == (2 + 2 + 1 + 2, 1)


async def test_refunds_and_captures_in_flight(bank: JournalBank) -> None:
    """A refund waits to be credited, a capture on a participant to be taken off."""
    hold = await bank.held(40)
    await bank.start(bank.attempt(bank.refund(30)), 2)
    await bank.start(bank.attempt(bank.capture_elsewhere(hold, 25)), 2)
    result = await verified(bank.cluster.shards)
    assert result.currencies["EUR"].total_minor == 0
    assert result.currencies["EUR"].in_flight_minor == 30 + (26 - 25)


async def test_currencies_are_added_up_apart(bank: JournalBank) -> None:
    """Each has its own accounts, and its own sum."""
    name = name_on(bank.shards, 0, "dollars")
    await bank.shard_of(name).open([AccountTerms(name, slot(name), "USD")])
    result = await verified(bank.cluster.shards)
    assert result.currencies == {"EUR": EUROS_AT_REST, "USD": CurrencyTotal(accounts=1)}
    # Three customers, their shards' accounts of the system, and this one.
    assert result.accounts == 3 + 3 + 1


async def test_a_missing_part_shows(bank: JournalBank) -> None:
    """Without one shard the rest does not sum to zero when money has come from there."""
    assert await bank.pay(bank.first, bank.second, 30) is Outcome.COMMITTED
    result = await verified(bank.cluster.shards[1:])
    assert result.currencies["EUR"].total_minor == 30


async def test_who_moves_meanwhile_is_noticed(bank: JournalBank) -> None:
    """The sums prove nothing then, whatever they are."""
    result = Verification()
    async for _ in verify_by_page(bank.cluster.shards, result):
        assert await bank.pay(bank.second, bank.first, 1) is Outcome.COMMITTED
    assert result.busy


async def test_too_much_in_doubt_proves_nothing(bank: JournalBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not kept without bound, and no verdict is made of a part."""
    monkeypatch.setattr(verification_module, "MAX_COMMITS", 1)
    for _ in range(2):
        await bank.start(bank.attempt(bank.split(1)), 2)
    assert (await verified(bank.cluster.shards)).busy


# ------------------------------------------------------------------ what operators ask


@dataclass(slots=True)
class Exponents:
    """A registry that knows euros."""

    exponents = {"EUR": 2}  # noqa: RUF012 -- never changed

    async def require_exponents(self, currencies: Sequence[str]) -> None:
        """All are known."""


def service_of(bank: JournalBank) -> Any:
    """The service over the bank's shards."""
    return ClusterService(cast("Any", Exponents()), cast("Any", SimpleNamespace(current=bank.cluster)))


async def in_doubt(bank: JournalBank, **fields: int) -> cluster_pb2.ListInDoubtResponse:
    """What the service lists."""
    request = cluster_pb2.ListInDoubtRequest(**fields)
    response: cluster_pb2.ListInDoubtResponse = await service_of(bank).ListInDoubt(request, Context())
    return response


PREPARED = cluster_pb2.IN_DOUBT_STATE_PREPARED
UNSETTLED = cluster_pb2.IN_DOUBT_STATE_UNSETTLED


async def test_a_transfer_in_doubt_is_shown_on_both_shards(bank: JournalBank) -> None:
    """Prepared with the payee, unsettled with the payer, each with both accounts and the amount."""
    row = transfer(bank.first, bank.second, 1230)
    await bank.open_account(payer := name_on(bank.shards, 0, "rich"), 10_000)
    row = transfer(payer, bank.second, 1230)
    await bank.start(bank.attempt(row, transfer(payer, bank.second, 99_999)), 2)
    listed = (await in_doubt(bank)).transfers
    assert sorted((one.state, one.shard_id) for one in listed) == [
        (PREPARED, "shard-1"),
        (PREPARED, "shard-1"),
        (UNSETTLED, "shard-0"),
    ]
    (unsettled,) = (one for one in listed if one.state == UNSETTLED)
    (prepared,) = (one for one in listed if one.state == PREPARED and one.amount == "12.30")
    for one in (prepared, unsettled):
        assert one.transaction_id.replace("-", "") == row.transaction_id.hex()
        assert (one.from_account, one.to_account) == (payer, bank.second)
        assert (one.amount, one.currency) == ("12.30", "EUR")
    await bank.resolve()
    assert not (await in_doubt(bank)).transfers


async def test_a_journal_in_doubt_is_shown_leg_by_leg(bank: JournalBank) -> None:
    """A participant shows its own leg: who it takes from, or who it gives to; the other side are many."""
    await bank.start(bank.attempt(bank.split()), 2)
    listed = [
        (one.state, one.shard_id, one.from_account, one.to_account, one.amount)
        for one in (await in_doubt(bank)).transfers
    ]
    assert sorted(listed) == [
        (PREPARED, "shard-1", bank.second, "", "0.10"),
        (PREPARED, "shard-2", "", bank.third, "0.20"),
        (UNSETTLED, "shard-0", bank.first, "", "0.10"),
    ]


async def test_a_refund_in_doubt_goes_to_the_customer(bank: JournalBank) -> None:
    """From the merchant, whose shard decides."""
    await bank.start(bank.attempt(bank.refund(30)), 1)
    (one,) = (await in_doubt(bank)).transfers
    assert (one.from_account, one.to_account, one.amount) == (bank.first, bank.second, "0.30")


async def test_a_list_is_cut_at_its_limit(bank: JournalBank) -> None:
    """It says so; what is too young is left out."""
    await bank.start(bank.attempt(*(transfer(bank.first, bank.second, 1) for _ in range(5))), 1)
    some = await in_doubt(bank, limit=4)
    assert (len(some.transfers), some.truncated) == (4, True)
    everything = await in_doubt(bank, limit=5)
    assert (len(everything.transfers), everything.truncated) == (5, False)
    assert not (await in_doubt(bank, minimum_age_ms=3_600_000)).transfers


@pytest.mark.parametrize(("name", "value"), [("limit", 0), ("limit", 10_001), ("minimum_age_ms", -1)])
async def test_limits_out_of_range_are_refused(bank: JournalBank, name: str, value: int) -> None:
    """By the field's name."""
    context = Context()
    with pytest.raises(AbortedError):
        await service_of(bank).ListInDoubt(cluster_pb2.ListInDoubtRequest(**{name: value}), context)
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.text.startswith(f"{name}: ")


async def verdict(bank: JournalBank) -> cluster_pb2.VerifyResult:
    """What the service says of the whole cluster."""
    answers = [one async for one in service_of(bank).Verify(cluster_pb2.VerifyRequest(), Context())]
    result: cluster_pb2.VerifyResult = answers[-1].result
    return result


async def test_verdicts(bank: JournalBank) -> None:
    """Balanced while a commit is in flight; broken once a leg was found missing."""
    await bank.start(bank.attempt(bank.split()), 2)
    result = await verdict(bank)
    assert result.verdict == cluster_pb2.VERDICT_BALANCED
    (euros,) = result.currencies
    assert (euros.customers, euros.system, euros.in_flight, euros.total) == ("2.90", "-3.00", "0.10", "0.00")
    attempt = bank.attempt(transfer(bank.first, bank.second, 1, Kind.TRANSFER))
    await bank.decide(attempt)
    await bank.finish(attempt)
    result = await verdict(bank)
    assert (result.verdict, result.alarms) == (cluster_pb2.VERDICT_BROKEN, 1)


async def test_a_shard_that_is_away_ends_the_call(bank: JournalBank) -> None:
    """No sum of a part is shown."""
    context = Context()
    bank.shards.servers[2].kill()
    try:
        with pytest.raises(AbortedError):
            [one async for one in service_of(bank).Verify(cluster_pb2.VerifyRequest(), context)]
        assert context.code is grpc.StatusCode.UNAVAILABLE
    finally:
        bank.shards.servers[2].start()
