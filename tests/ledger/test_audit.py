"""Audits of real shards: what is whole passes, also in motion; each planted fault is found, by its row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text

from coordinator.attempts import Attempt
from coordinator.driver import now_ms
from shard_node.client.ledger_state import LedgerState
from shard_node.client.shard import Shard
from shard_node.contract.kinds import Effect, Kind
from shard_node.contract.layout import AccountState
from shard_node.contract.lookups import Doubt
from shard_node.contract.outcomes import Outcome
from shard_node.contract.transactions import Bundle
from shard_node.ledger.proof.audit import AuditReport
from shard_node.ledger.proof.findings import Finding, Rule, id_text
from shard_node.ledger.proof.quick_check import QuickCheck
from shard_node.ledger.questions.history import History
from shard_node.ledger.questions.positions import HistoryQuery
from shard_node.ledger.store.archive import Archive
from shard_node.ledger.store.rows import Entry
from shard_node.ledger.store.schema import batches, entries
from shard_node.ledger.store.schema import shards as shards_table
from tests.coordinator.bank import name_on
from tests.coordinator.payloads import attempt_id_now, timed_id, transaction
from tests.exponents import EXPONENTS
from tests.ledger import meddling, tampering
from tests.ledger.town import Town, town_on
from tests.real_shards import RealShards


@pytest.fixture
async def town(shards: RealShards, engine: Engine) -> AsyncIterator[Town]:
    """Accounts with money on three shards, some payments made, nothing archived."""
    async with town_on(shards, engine) as made:
        (a0, b0, _), (a1, _, _), (a2, _, _) = made.names
        await made.pay(a0, b0, 10)
        await made.pay(a0, a1, 20)
        await made.pay(a1, a2, 30)
        yield made


@pytest.fixture
async def archived(town: Town) -> Town:
    """The same, all of it archived."""
    await town.archive()
    return town


def rules(report: AuditReport) -> set[Rule]:
    """The rules that were found broken."""
    return {finding.rule for finding in report.findings.kept}


def of(findings: list[Finding], rule: Rule) -> Finding:
    """The first finding of a rule."""
    return next(finding for finding in findings if finding.rule is rule)


def name_of(attempt: Attempt) -> bytes:
    """The id of the one transaction in an attempt."""
    return Bundle.unpack(attempt.bundle).transactions[0].transaction_id


async def of_account(town: Town, name: str) -> list[Entry]:
    """An account's archived entries, the oldest first."""
    page = await asyncio.to_thread(History(town.engine).page, HistoryQuery(name, newest_first=False), 100)
    assert page is not None
    return page.entries


# ---------------------------------------------------------------------- what is whole


async def all_kinds(town: Town) -> None:
    """Holds and their ends, a journal over three shards, frozen and closed accounts."""
    (a0, b0, c0), (a1, b1, _), (a2, _, _) = town.names
    hold = await town.journal(Kind.HOLD, [(a0, Effect.HOLD, 100)])
    await town.journal(Kind.CAPTURE, [(a0, Effect.CAPTURE, 70), (a1, Effect.CREDIT, 70)], hold)
    voided = await town.journal(Kind.HOLD, [(b0, Effect.HOLD, 50)])
    await town.journal(Kind.VOID, [(b0, Effect.VOID, 0)], voided)
    await town.journal(Kind.HOLD, [(b1, Effect.HOLD, 40)])
    await town.journal(
        Kind.JOURNAL, [(a1, Effect.DEBIT, 300), (a2, Effect.CREDIT, 100), (b0, Effect.CREDIT, 200)]
    )
    await town.shard_of(a2).set_state([(a2, Kind.FREEZE)])
    await town.pay(c0, b0, 1000)
    await town.shard_of(c0).set_state([(c0, Kind.CLOSE)])


async def test_all_archived(town: Town) -> None:
    """Everything archived: no finding, every account compared, the sums of the currency right."""
    await all_kinds(town)
    await town.archive()
    report = await town.audit()
    assert report.findings.kept == []
    assert report.consistent
    assert (report.accounts, report.live_accounts) == (12, 12)
    assert (report.entries_waiting, report.in_flight_total) == (0, 0)
    totals = report.currencies["EUR"]
    assert (totals.customers_minor, totals.system_minor, totals.deposits_minor) == (9000, -9000, 9000)
    assert (totals.accounts, totals.in_flight_minor, totals.withdrawals_minor) == (9, 0, 0)
    check = await town.quick_check()
    assert check.findings.kept == []
    assert (check.accounts_checked, check.in_flight) == (12, 0)
    assert (check.entries_archived, check.entries_waiting) == (report.entries, 0)


@pytest.mark.parametrize("indexes", [(), (0,), (1, 2)])
async def test_some_or_nothing_archived(town: Town, indexes: tuple[int, ...]) -> None:
    """What waits on the shards counts as if it were archived."""
    if indexes:
        await town.archive(*indexes)
    await all_kinds(town)
    report = await town.audit()
    assert report.findings.kept == []
    assert report.entries_waiting > 0
    assert report.currencies["EUR"].deposits_minor == 9000
    check = await town.quick_check()
    assert check.findings.kept == []
    assert (check.accounts_checked, check.entries_waiting) == (12, report.entries_waiting)


@pytest.mark.parametrize("store", [True, False])
async def test_in_flight_is_named(town: Town, *, store: bool) -> None:
    """A transfer whose coordinator died after the decision is in flight, and no finding."""
    payer, payee = town.names[0][0], town.names[1][1]
    attempt = await town.pay_half(payer, payee, 77)
    if store:
        await town.archive()
    report = await town.audit()
    assert report.findings.kept == []
    (one,) = report.in_flight
    assert (one.transaction_id, one.kind, one.sums_minor) == (
        id_text(name_of(attempt)),
        Kind.TRANSFER,
        {"EUR": 77},
    )
    assert one.accounts == (payee,)
    assert report.in_flight_total == 1
    assert report.currencies["EUR"].in_flight_minor == 77
    assert report.currencies["EUR"].balanced
    assert (await town.quick_check()).in_flight == 1


async def test_prepared_and_undecided_is_nothing(town: Town) -> None:
    """A coordinator that died before the decision leaves no trace in the ledger: nothing is in flight."""
    await town.pay_half(town.names[0][0], town.names[1][1], 77, steps=1)
    await town.archive()
    report = await town.audit()
    assert (report.findings.kept, report.in_flight_total) == ([], 0)
    assert (await town.quick_check()).findings.kept == []


async def test_a_prepared_debit_of_a_journal(archived: Town) -> None:
    """Money that an undecided journal reserves is held on the shard, and the ledger rightly knows nothing."""
    payer, other, payee = archived.names[0][0], archived.names[1][0], archived.names[2][0]
    legs = [(payer, Effect.DEBIT, 5), (other, Effect.DEBIT, 6), (payee, Effect.CREDIT, 11)]
    await archived.start(archived.attempt(transaction(Kind.JOURNAL, legs, timed_id(now_ms()))), 1)
    assert (await archived.account(other)).held_minor == 6
    assert (await archived.audit()).findings.kept == []
    assert (await archived.quick_check()).findings.kept == []


async def test_while_everything_moves(town: Town) -> None:
    """Audits and quick checks while payments run and archivers store: never a finding, every account."""
    town.batch_entries = 50
    stop = asyncio.Event()
    paid = 0

    async def pay(shift: int) -> None:
        nonlocal paid
        everybody = [name for some in zip(*town.names, strict=True) for name in some]
        while not stop.is_set():
            payer, payee = everybody[paid % 9], everybody[(paid + shift) % 9]
            await town.pay(payer, payee, 1)
            paid += 1

    async def archive(index: int) -> None:
        archiver = town.archiver(index)
        while not stop.is_set():
            await archiver.step(town.cluster.shards[index])
            await asyncio.sleep(0.01)

    movers = [asyncio.ensure_future(pay(shift)) for shift in (1, 2, 4)]
    movers += [asyncio.ensure_future(archive(index)) for index in range(3)]
    moved = []
    try:
        for _ in range(6):
            before = paid
            report = await town.audit()
            assert report.findings.kept == []
            assert report.live_accounts == 12
            check = await town.quick_check()
            assert check.findings.kept == []
            assert check.accounts_checked == 12
            moved.append(paid - before)
    finally:
        stop.set()
        await asyncio.gather(*movers)
    assert min(moved) > 0, "nothing moved during an audit"


# ---------------------------------------------------------------------- planted faults in the archive


async def test_a_changed_entry(archived: Town) -> None:
    """A balance changed in the database: the row is named, and the batch."""
    row = (await of_account(archived, archived.names[0][0]))[1]
    tampering.change_entry(archived.engine, row.entry_id, balance=row.balance + 1)
    report = await archived.audit()
    assert f"entry {row.entry_id} " in of(report.findings.kept, Rule.BALANCE).message
    assert "hash differs" in of(report.findings.kept, Rule.CHAIN).message


async def test_a_deleted_entry(archived: Town) -> None:
    """A row that is gone: its number is named, and the version that its account lacks."""
    row = (await of_account(archived, archived.names[0][0]))[1]
    tampering.delete_entry(archived.engine, row.entry_id)
    report = await archived.audit()
    assert "missing" in of(report.findings.kept, Rule.CHAIN).message
    gap = of(report.findings.kept, Rule.GAP)
    assert (gap.account_id, f"version {row.version} " in gap.message) == (row.account_id, True)
    # The other half of its transaction is told too.
    assert of(report.findings.kept, Rule.MISSING).transaction_id == id_text(row.transaction_id)


async def test_swapped_batches(archived: Town) -> None:
    """Two batches in each other's place."""
    archived.batch_entries = 2
    for amount in (1, 2):
        await archived.pay(archived.names[0][0], archived.names[0][1], amount)
        await archived.archive()
    equal = await asyncio.to_thread(two_equal_batches, archived)
    tampering.swap_batches(archived.engine, *equal)
    message = "\n".join(str(one) for one in (await archived.audit()).findings.kept)
    assert f"batch {equal[1]} " in message
    assert f"batch {equal[2]} " in message


def two_equal_batches(town: Town) -> tuple[int, int, int]:
    """A shard's number and two of its batches that hold as many entries."""
    with town.engine.connect() as connection:
        rows = connection.execute(select(batches).order_by(batches.c.shard_number, batches.c.number)).all()
    for row in rows:
        for other in rows:
            if (
                row.shard_number == other.shard_number
                and row.number < other.number
                and row.entry_count == other.entry_count
            ):
                return row.shard_number, row.number, other.number
    raise AssertionError("no two batches are of equal size")


async def test_a_removed_batch(archived: Town) -> None:
    """A batch taken from the middle, entries and all."""
    shard = archived.archived(0)
    tampering.delete_batches(archived.engine, shard.number, 2, 2)
    report = await archived.audit()
    found = of(report.findings.kept, Rule.CHAIN)
    assert (found.shard_id, "batch 2 is missing" in found.message) == (shard.shard_id, True)


async def test_a_cut_off_tail(archived: Town) -> None:
    """The last batches are gone, and what is left is whole in itself: the shard's head tells."""
    shard = archived.archived(0)
    last = Archive(archived.engine).position(shard.shard_id).number
    tampering.delete_batches(archived.engine, shard.number, last, last)
    report = await archived.audit()
    assert Rule.CHAIN not in rules(report)
    found = of(report.findings.kept, Rule.HEAD)
    assert found.shard_id == shard.shard_id
    assert f"batch {last} is stored" in found.message
    assert f"last is {last - 1}" in found.message
    check = await archived.quick_check()
    assert of(check.findings.kept, Rule.HEAD).shard_id == shard.shard_id


async def test_a_forged_history_with_hashes_made_anew(archived: Town) -> None:
    """A forger who changes a row without contradiction and seals all batches anew: the head tells."""
    shard = archived.archived(0)
    row = (await of_account(archived, archived.names[0][0]))[1]
    tampering.change_entry(archived.engine, row.entry_id, reference="forged")
    tampering.reseal(archived.engine, shard)
    for findings in ((await archived.audit()).findings, (await archived.quick_check()).findings):
        assert {finding.rule for finding in findings.kept} == {Rule.HEAD}
        assert of(findings.kept, Rule.HEAD).shard_id == shard.shard_id


async def test_a_tail_that_was_cut_and_grown_again(archived: Town) -> None:
    """A tail that was cut off and replaced by other batches of the same numbers."""
    shard = archived.archived(0)
    last = Archive(archived.engine).position(shard.shard_id).number
    with archived.engine.connect() as connection:
        rows = connection.execute(
            select(entries)
            .where(entries.c.entry_id >= shard.number << 40)
            .order_by(entries.c.entry_id.desc())
        )
        newest = next(row for row in rows if row.entry_id >> 40 == shard.number)
    tampering.change_entry(archived.engine, newest.entry_id, initiated_by="nobody")
    tampering.reseal(archived.engine, shard)
    found = of((await archived.audit()).findings.kept, Rule.HEAD)
    assert f"batch {last} is not the one that was stored" in found.message


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("stream_id", "garbage"),
        ("stream_id", ""),
        ("stream_id", "1-99999999999999999999"),
        ("hash", b"short"),
        ("entry_count", 0),
        ("hash", "as text"),
        ("number", "x"),
        ("first_sequence", "x"),
        ("entry_count", 2.5),
        ("last_at_ms", "x"),
    ],
)
async def test_a_newest_batch_that_is_none(archived: Town, column: str, value: Any) -> None:
    """Whatever its row holds, it is named and the audit goes on; so does the quick check."""
    if archived.engine.dialect.name != "sqlite" and type(value) is not batches.c[column].type.python_type:
        pytest.skip("PostgreSQL takes no other type")
    shard = archived.archived(0)
    number = Archive(archived.engine).position(shard.shard_id).number
    with tampering.writing(archived.engine) as connection:
        # As text: the columns' types would have none of it.
        change = f"UPDATE batches SET {column} = :value WHERE shard_number = :shard AND number = :number"  # noqa: S608
        connection.execute(text(change), {"value": value, "shard": shard.number, "number": number})
    report = await archived.audit()
    named = repr(value) if column == "number" else str(number)
    assert f"batch {named} " in of(report.findings.kept, Rule.CHAIN).message
    # The audit came to its end.
    assert report.live_accounts >= 9
    assert Rule.CHAIN in {finding.rule for finding in (await archived.quick_check()).findings.kept}


async def store_untold(town: Town) -> Shard:
    """An archiver dies between storing shard 0's next batch and telling the shard; that shard."""
    name = town.names[0][0]
    await town.deposit(name, 5)
    shard = town.shard_of(name)

    class Deaf:
        """The shard, but for what it is told."""

        ledger_state = shard.ledger_state
        ledger_after = shard.ledger_after

        async def archived(self, *_: Any) -> None:
            """Dies."""
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await town.archiver(0).step(Deaf())
    assert (await shard.ledger_state()).backlog == 2
    return shard


@pytest.mark.parametrize("values", [{"number": 0}, {"number": -3}, {"shard_number": 77}])
async def test_a_batch_that_no_archiver_stores(archived: Town, values: dict[str, int]) -> None:
    """A row before a shard's first batch, or of no shard."""
    shard = archived.archived(0)
    with tampering.writing(archived.engine) as connection:
        row = connection.execute(select(batches).where(batches.c.shard_number == shard.number)).first()
        assert row is not None
        connection.execute(insert(batches), {**row._mapping, **values})
    (found,) = (await archived.audit()).findings.kept
    assert found.rule is Rule.CHAIN
    assert "none that an archiver stores" in found.message


async def test_a_shard_that_is_none(archived: Town) -> None:
    """A name among the archive's shards that no shard has."""
    with tampering.writing(archived.engine) as connection:
        connection.execute(insert(shards_table), {"shard_number": 78, "shard_id": "shard-78"})
    (found,) = (await archived.audit()).findings.kept
    assert (found.rule, found.shard_id) == (Rule.CHAIN, "shard-78")


async def test_a_batch_that_the_shard_was_not_told_of(archived: Town) -> None:
    """An archiver that died between storing a batch and telling the shard leaves nothing to find."""
    await store_untold(archived)
    assert (await archived.audit()).findings.kept == []
    assert (await archived.quick_check()).findings.kept == []


async def test_a_forged_batch_that_the_shard_was_not_told_of(archived: Town) -> None:
    """Changed and sealed anew before the shard is told: the shard's stream has it otherwise."""
    await store_untold(archived)
    row = (await of_account(archived, archived.names[0][0]))[-1]
    tampering.change_entry(archived.engine, row.entry_id, initiated_by="nobody")
    tampering.reseal(archived.engine, archived.archived(0))
    for findings in ((await archived.audit()).findings, (await archived.quick_check()).findings):
        (found,) = findings.kept
        assert found.rule is Rule.HEAD
        assert "is not what the shard made" in found.message


async def test_told_while_it_is_looked_at(archived: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that an archiver tells the shard of in between is compared with its hash, and is no finding."""
    shard = await store_untold(archived)
    look = Shard.ledger_after
    left = [True]

    async def ledger_after(one: Shard, *arguments: Any) -> Any:
        if one is shard and left:
            left.clear()
            await archived.archive(0)
        return await look(one, *arguments)

    monkeypatch.setattr(Shard, "ledger_after", ledger_after)
    assert (await archived.audit()).findings.kept == []
    assert not left
    assert (await shard.ledger_state()).backlog == 0


async def test_a_shard_that_forgot_what_it_was_told(archived: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its head the shard vouches for no batch, and its stream has none of them."""
    look, forgetful = Shard.ledger_state, archived.cluster.shards[0]

    async def ledger_state(one: Shard) -> LedgerState:
        state = await look(one)
        return replace(state, number=0, head=b"", stream_id="0-0") if one is forgetful else state

    monkeypatch.setattr(Shard, "ledger_state", ledger_state)
    for findings in ((await archived.audit()).findings, (await archived.quick_check()).findings):
        assert of(findings.kept, Rule.HEAD).shard_id == archived.cluster.shards[0].shard_id


async def test_a_transaction_carried_out_twice(archived: Town) -> None:
    """Both halves of a UUIDv7 transfer a second time, each balance and sum in itself right."""
    payer, payee = archived.names[0][:2]
    row = archived.transfer(payer, payee, 1)
    for _ in range(2):
        assert await archived.post([row]) == [Outcome.COMMITTED]
        meddling.forget_outcomes(archived.shards, row.deciding_slot)
    await archived.archive()
    report = await archived.audit()
    assert rules(report) == {Rule.SUM}
    found = of(report.findings.kept, Rule.SUM)
    assert found.transaction_id == id_text(row.transaction_id)
    assert "more than once" in found.message


# ---------------------------------------------------------------------- planted faults on the shards


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a.update(available=a["available"] + 1), id="available"),
        pytest.param(lambda a: a.update(available=a["available"] - 1, held=1), id="held"),
        pytest.param(lambda a: a.update(currency=b"USD"), id="currency"),
        pytest.param(lambda a: a.update(version=a["version"] - 1), id="behind"),
        pytest.param(lambda a: a.update(version=a["version"] + 1), id="ahead"),
        pytest.param(lambda a: a.update(minimum=-5), id="limit"),
        pytest.param(lambda a: a.update(state=AccountState.FROZEN), id="state"),
    ],
)
@pytest.mark.parametrize("store", [True, False], ids=["archived", "waiting"])
@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
async def test_a_live_account_changed_by_hand(
    town: Town, change: Callable[[meddling.Record], object], *, store: bool
) -> None:
    """Whatever is changed on the shard, the account is named, whether its entries are archived or wait."""
    name = town.names[1][0]
    if store:
        await town.archive()
    meddling.change_account(town.shards, name, change)
    report = await town.audit()
    (found,) = report.findings.kept
    assert (found.rule, found.account_id) == (Rule.LIVE, name)
    assert found.shard_id == town.shard_of(name).shard_id
    check = await town.quick_check()
    assert {finding.account_id for finding in check.findings.kept} == {name}


@pytest.mark.parametrize("store", [True, False], ids=["archived", "waiting"])
async def test_a_frozen_account_thawed_by_hand(archived: Town, *, store: bool) -> None:
    """Only the state differs; both audits find it."""
    name = archived.names[0][0]
    await archived.shard_of(name).set_state([(name, Kind.FREEZE)])
    if store:
        await archived.archive()
    assert (await archived.quick_check()).findings.kept == []
    meddling.change_account(archived.shards, name, lambda account: account.update(state=AccountState.OPEN))
    for findings in ((await archived.audit()).findings, (await archived.quick_check()).findings):
        (found,) = findings.kept
        assert (found.rule, found.account_id) == (Rule.LIVE, name)
        assert "FROZEN" in found.message


async def test_a_live_account_that_vanished(archived: Town) -> None:
    """An account that the ledger has and no shard."""
    name = archived.names[2][2]
    meddling.drop_account(archived.shards, name)
    (found,) = (await archived.audit()).findings.kept
    assert (found.rule, found.account_id) == (Rule.MISSING, name)


async def test_an_account_that_vanished_before_it_was_archived(archived: Town) -> None:
    """Its entries wait on the shard, and it is there no more; others that are new are whole."""
    gone, there = (name_on(archived.shards, 0, f"{what}-") for what in ("gone", "there"))
    for name in (gone, there):
        await archived.open_account(name, 500)
    meddling.drop_account(archived.shards, gone)
    (found,) = (await archived.audit()).findings.kept
    assert (found.rule, found.account_id) == (Rule.MISSING, gone)


async def test_a_live_account_of_which_the_ledger_knows_nothing(archived: Town) -> None:
    """An account that appeared on a shard by no entry."""
    meddling.add_account(archived.shards, "ghost", 5)
    (found,) = (await archived.audit()).findings.kept
    assert (found.rule, found.account_id) == (Rule.MISSING, "ghost")
    (quick,) = (await archived.quick_check()).findings.kept
    assert (quick.rule, quick.account_id) == (Rule.LIVE, "ghost")


async def test_a_leg_that_was_lost(town: Town) -> None:
    """A decided transfer whose prepared credit disappeared is broken, not in flight."""
    attempt = await town.pay_half(town.names[0][0], town.names[1][1], 77)
    await town.archive()
    assert await town.finish(attempt, Outcome.ABORTED) == [Outcome.DROPPED]
    report = await town.audit()
    found = of(report.findings.kept, Rule.MISSING)
    assert found.transaction_id == id_text(name_of(attempt))
    assert "of leg 1 there is no entry" in found.message


async def test_a_leg_of_a_journal_that_was_lost(town: Town) -> None:
    """Of two legs that wait, each on another participant, one that is there does not stand for the other."""
    payer, first, second = (town.names[index][0] for index in range(3))
    legs = [(payer, Effect.DEBIT, 9), (first, Effect.CREDIT, 4), (second, Effect.CREDIT, 5)]
    attempt = town.attempt(transaction(Kind.JOURNAL, legs, timed_id(now_ms())))
    await town.start(attempt, 2)
    (one,) = (await town.audit()).in_flight
    assert (one.transaction_id, one.sums_minor) == (id_text(name_of(attempt)), {"EUR": 9})
    assert await town.finish(attempt, Outcome.ABORTED, number=2) == [Outcome.DROPPED]
    found = of((await town.audit()).findings.kept, Rule.MISSING)
    assert found.transaction_id == id_text(name_of(attempt))


async def test_a_leg_that_was_lost_while_another_attempt_waits(town: Town) -> None:
    """What a later attempt has prepared will be dropped: it does not stand for the leg that was committed."""
    row = town.transfer(town.names[0][0], town.names[1][1], 77)
    committed, later = town.attempt(row), town.attempt(row, attempt_id=attempt_id_now())
    await town.start(committed, 2)
    await town.start(later, 1)
    assert (await town.audit()).findings.kept == []
    assert await town.finish(committed, Outcome.ABORTED) == [Outcome.DROPPED]
    found = of((await town.audit()).findings.kept, Rule.MISSING)
    assert found.transaction_id == id_text(row.transaction_id)


async def test_a_leg_that_finishes_during_the_audit(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer that is half done when the ledger is read and done when the shards are asked is whole."""
    machine, calls = await town.start(town.attempt(town.transfer(town.names[0][0], town.names[1][1], 77)), 2)
    look = Shard.all_in_doubt
    left = [calls]

    async def all_in_doubt(shard: Shard) -> AsyncIterator[Doubt]:
        if left:
            machine.conclude({index: await town.ask(index, call) for index, call in left.pop().items()})
        async for doubt in look(shard):
            yield doubt

    monkeypatch.setattr(Shard, "all_in_doubt", all_in_doubt)
    report = await town.audit()
    assert (report.findings.kept, report.in_flight_total, left) == ([], 0, [])


async def test_the_quick_check_and_recent_batches(archived: Town) -> None:
    """The quick check computes the newest hashes anew: a changed text among them is found."""
    row = (await of_account(archived, archived.names[0][0]))[-1]
    tampering.change_entry(archived.engine, row.entry_id, reference="forged")
    check = await archived.quick_check()
    assert isinstance(check, QuickCheck)
    assert {finding.rule for finding in check.findings.kept} == {Rule.CHAIN}


async def test_the_quick_check_and_a_changed_balance(archived: Town) -> None:
    """An account's newest entry that says something else than the shard."""
    name = archived.names[0][0]
    row = (await of_account(archived, name))[-1]
    tampering.change_entry(archived.engine, row.entry_id, balance=row.balance + 1)
    check = await archived.quick_check()
    found = of(check.findings.kept, Rule.LIVE)
    assert found.account_id == name
    assert f"entry {row.entry_id} " in found.message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "UPDATE currencies SET exponent = 3 WHERE currency = 'EUR'",
            "the ledger has 3 decimals for EUR, the cluster 2",
        ),
        ("DELETE FROM currencies", "the ledger has entries in EUR, but not how many decimals"),
    ],
)
async def test_decimals_that_are_not_the_clusters(archived: Town, change: str, told: str) -> None:
    """A ledger whose currencies were changed is not what the cluster has; nothing is shown by it."""
    with archived.engine.begin() as connection:
        connection.execute(text(change))
    archived.exponents = EXPONENTS
    report = await archived.audit()
    assert (rules(report), report.exponents) == ({Rule.CURRENCY}, {})
    assert told in report.findings.kept[0].message
    check = await archived.quick_check()
    assert check.findings.total == ("UPDATE" in change)
