"""An import gives every row its outcome, and no money moves twice, however often and whenever it is run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.errors import DeployError, TableError
from deploy.importing.importer import (
    BATCH_ROWS,
    BATCHES_IN_FLIGHT,
    Importer,
    ImportSettings,
    ImportSummary,
    opened,
)
from deploy.importing.results_file import read_results, result_path
from tallystick import InvalidArgument, Outcome, OutcomeUnknown, Transfer, TransferResult, new_transaction_id
from tests.deploy.fake_wallet import FakeWallet

_HEADER = "transaction_id,from_account,to_account,amount,currency,reference"
_FUNDED = ImportSettings(fund="100")


def _write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([_HEADER, *lines]) + "\n")
    return path


def _file(folder: Path, *lines: str) -> Path:
    return _write(folder / "payments.csv", *lines)


def _line(payer: str = "alice", payee: str = "bob", amount: str = "1", identity: str = "") -> str:
    return f"{identity or new_transaction_id()},{payer},{payee},{amount},EUR,"


def _v4_line(amount: str = "1", payer: str = "alice") -> str:
    return _line(payer, amount=amount, identity=str(uuid4()))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def _run(
    wallet: FakeWallet, path: Path, settings: ImportSettings = _FUNDED, cluster_id: str = "c"
) -> ImportSummary:
    with opened(path) as (rows, target):
        return await Importer(wallet, wallet, cluster_id, settings).run(rows, target)


def _outcomes(path: Path) -> list[Outcome]:
    """Of the file's rows, in their order."""
    return [result.outcome for result in read_results(result_path(path)) if result.number is not None]


async def test_every_row_has_its_outcome_in_the_files_order(tmp_path: Path) -> None:
    """Bad rows, short rows and rows that lack funds stand between good ones and stop none of them."""
    lines = (_line(), _line(amount="1e3x"), "id,alice", _line(amount="5000"), _line("carol"))
    path = _file(tmp_path, *lines)
    wallet = FakeWallet()
    summary = await _run(wallet, path)
    assert _outcomes(path) == [
        Outcome.COMMITTED,
        Outcome.INVALID_ARGUMENT,
        Outcome.INVALID_ARGUMENT,
        Outcome.INSUFFICIENT_FUNDS,
        Outcome.COMMITTED,
    ]
    assert summary.outcomes == Counter(_outcomes(path))
    assert "line 4" in list(read_results(result_path(path)))[2].message
    assert (wallet.balances["alice"], wallet.balances["bob"]) == (Decimal(99), Decimal(2))


async def test_a_second_run_sends_nothing(tmp_path: Path) -> None:
    """Neither rows nor deposits: every outcome is known. Only the result file stays beside the file."""
    path = _file(tmp_path, *[_line(f"payer-{n % 70}") for n in range(2 * BATCH_ROWS + 7)])
    wallet = FakeWallet()
    await _run(wallet, path)
    before, content = dict(wallet.balances), result_path(path).read_bytes()
    wallet.sent.clear()
    wallet.deposits.clear()
    summary = await _run(wallet, path)
    assert (summary.sent, summary.rows) == (0, 2 * BATCH_ROWS + 7)
    assert (wallet.sent, wallet.deposits, wallet.questions) == ([], [], [])
    assert wallet.balances == before
    assert result_path(path).read_bytes() == content
    assert set(_names(tmp_path)) == {path.name, result_path(path).name}


async def test_without_the_result_file_a_second_run_moves_nothing(tmp_path: Path) -> None:
    """The ids alone make it safe: rows and deposits are sent again, and are recognised."""
    path = _file(tmp_path, *[_line(f"payer-{n % 70}", amount=str(n)) for n in range(500)])
    wallet = FakeWallet()
    await _run(wallet, path)
    before, outcomes = dict(wallet.balances), _outcomes(path)
    result_path(path).unlink()
    assert (await _run(wallet, path)).sent == 500
    assert wallet.balances == before
    assert _outcomes(path) == outcomes


async def test_a_row_put_on_top_does_not_make_the_others_new(tmp_path: Path) -> None:
    """Also after the window, when the shards would carry out their UUIDv4 again."""
    lines = [_v4_line(), _v4_line("2")]
    wallet = FakeWallet()
    await _run(wallet, _file(tmp_path, *lines))
    wallet.forget()
    wallet.sent.clear()
    path = _file(tmp_path, _v4_line("4"), *reversed(lines))
    assert (await _run(wallet, path)).sent == 1
    assert wallet.balances["bob"] == Decimal(7)
    assert _outcomes(path) == [Outcome.COMMITTED] * 3


async def test_a_uuidv7_that_was_committed_stays_so(tmp_path: Path) -> None:
    """It never becomes TRANSACTION_ID_EXPIRED with the advice to use a new id."""
    line = _line()
    wallet = FakeWallet()
    await _run(wallet, _file(tmp_path, line))
    wallet.forget()
    path = _file(tmp_path, _line(amount="2"), line)
    await _run(wallet, path)
    assert _outcomes(path) == [Outcome.COMMITTED] * 2


async def test_an_expired_id_without_a_result_file_is_asked_of_the_ledger(tmp_path: Path) -> None:
    """What moved is COMMITTED, what did not may be paid anew, and without the ledger it is not known."""
    moved, refused, fresh = _line(), _line(amount="5000"), _line()
    wallet = FakeWallet()
    path = _file(tmp_path, moved, refused)
    await _run(wallet, path)
    wallet.forget()
    result_path(path).unlink()
    wallet.is_archived = False
    path = _file(tmp_path, moved, refused, fresh)
    assert (await _run(wallet, path, ImportSettings())).open == 2
    wallet.is_archived = True
    assert (await _run(wallet, path, ImportSettings())).open == 0
    assert _outcomes(path) == [Outcome.COMMITTED, Outcome.TRANSACTION_ID_EXPIRED, Outcome.COMMITTED]
    assert wallet.balances["bob"] == Decimal(2)


async def test_a_result_file_saved_by_a_spreadsheet_stops_the_import(tmp_path: Path) -> None:
    """Rather than be taken as absent."""
    path = _file(tmp_path, _v4_line())
    wallet = FakeWallet()
    await _run(wallet, path)
    result_path(path).write_text(result_path(path).read_text().replace(",", ";"))
    wallet.sent.clear()
    with pytest.raises(TableError, match="semicolons"):
        await _run(wallet, path)
    assert wallet.sent == []


async def test_an_edited_row_does_not_pay_beside_its_earlier_version(tmp_path: Path) -> None:
    """After the window the shards would carry out its id again; the earlier version stays known."""
    line = _v4_line("5")
    wallet = FakeWallet()
    await _run(wallet, _file(tmp_path, line))
    wallet.forget()
    path = _file(tmp_path, line.replace(",5,", ",6,"))
    summary = await _run(wallet, path)
    assert summary.sent == 0
    assert _outcomes(path) == [Outcome.TRANSACTION_ID_REUSED]
    kept = [result for result in read_results(result_path(path)) if result.number is None]
    assert [r.outcome for r in kept if r.instruction.from_account == "alice"] == [Outcome.COMMITTED]
    assert wallet.balances["bob"] == Decimal(5)


async def test_a_row_that_gets_a_cell_too_many_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    """It fails alone, and is not paid again once it is mended."""
    line = _v4_line("5")
    wallet = FakeWallet()
    await _run(wallet, _file(tmp_path, line))
    wallet.forget()
    path = _file(tmp_path, line + ",")
    await _run(wallet, path)
    assert _outcomes(path) == [Outcome.INVALID_ARGUMENT]
    path = _file(tmp_path, line)
    assert (await _run(wallet, path)).sent == 0
    assert _outcomes(path) == [Outcome.COMMITTED]
    assert wallet.balances["bob"] == Decimal(5)


async def test_a_file_that_is_written_to_meanwhile_is_imported_as_it_was(tmp_path: Path) -> None:
    """No row is made of an old and a new half."""
    path = _file(tmp_path, *[_line(amount="0.01") for _ in range(BATCH_ROWS + 5)])

    class _Writer(FakeWallet):
        async def transfers(
            self, batch: Iterable[Transfer], *, timeout_s: float | None = None
        ) -> list[TransferResult]:
            content = path.read_text()
            path.write_text(content.replace(",0.01,", ",7777.01,"))
            return await super().transfers(batch)

    wallet = _Writer()
    await _run(wallet, path)
    assert wallet.balances["bob"] == Decimal("0.01") * (BATCH_ROWS + 5)


async def test_a_router_that_refuses_a_repetition_makes_nothing_certain(tmp_path: Path) -> None:
    """Whether a UUIDv7 moved before, only a shard or the ledger can tell."""
    line = _line("alice", amount="5")
    path = _file(tmp_path, line, _line())
    identity = line.split(",")[0]
    wallet = FakeWallet(unanswered={identity}, moved_unanswered=True, is_archived=False)
    await _run(wallet, path)
    wallet.unanswered.clear()
    wallet.forget()

    class _Behind(FakeWallet):
        async def transfers(
            self, batch: Iterable[Transfer], *, timeout_s: float | None = None
        ) -> list[TransferResult]:
            error = InvalidArgument("is a UUIDv7 of more than 60 s in the future", identity, "transaction_id")
            return [TransferResult(str(one.transaction_id), error.outcome, error=error) for one in batch]

    behind = _Behind(is_archived=False)
    assert (await _run(behind, path, ImportSettings())).open == 1
    wallet.is_archived = True
    await _run(wallet, path)
    assert _outcomes(path) == [Outcome.COMMITTED] * 2


async def test_without_a_ledger_a_payee_that_was_mended_is_not_mixed_up(tmp_path: Path) -> None:
    """The shards do not remember payees: of two versions of a row, one that committed rules out the other."""
    line, other = _line(payee="bob", amount="5"), _line()
    identity = line.split(",")[0]
    wallet = FakeWallet(unanswered={identity}, is_archived=False)
    await _run(wallet, _file(tmp_path, line, other))
    wallet.unanswered.clear()
    path = _file(tmp_path, line.replace(",bob,", ",carol,"), other)
    for _ in range(2):
        await _run(wallet, path)
    committed = [r for r in read_results(result_path(path)) if r.outcome is Outcome.COMMITTED]
    assert "bob" not in [r.instruction.to_account for r in committed if r.instruction.amount == "5"]


async def test_a_file_with_two_names_has_one_result_file(tmp_path: Path) -> None:
    """A link leads to what is known of the file."""
    path = _file(tmp_path, _v4_line())
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    wallet = FakeWallet()
    await _run(wallet, link)
    wallet.forget()
    assert (await _run(wallet, path)).sent == 0


async def test_a_row_that_was_malformed_is_sent_once_it_is_corrected(tmp_path: Path) -> None:
    """Its id was used for nothing."""
    line = _v4_line("1x")
    wallet = FakeWallet()
    await _run(wallet, _file(tmp_path, line))
    path = _file(tmp_path, line.replace("1x", "1"))
    await _run(wallet, path)
    assert _outcomes(path) == [Outcome.COMMITTED]


async def test_another_cluster_needs_another_result_file(tmp_path: Path) -> None:
    """Outcomes of one cluster say nothing of another, and must not be written over."""
    path = _file(tmp_path, _line())
    await _run(FakeWallet(), path, cluster_id="first")
    other = FakeWallet()
    with pytest.raises(TableError, match="--results"):
        await _run(other, path, cluster_id="second")
    elsewhere = tmp_path / "second.csv"
    with opened(path, elsewhere) as (rows, target):
        await Importer(other, other, "second", _FUNDED).run(rows, target)
    assert other.balances["bob"] == Decimal(1)
    assert next(iter(read_results(elsewhere))).outcome is Outcome.COMMITTED


async def test_an_unknown_outcome_stays_open_and_is_asked_for_again(tmp_path: Path) -> None:
    """It is never written down as failed, and the next run sends that row alone, with the same id."""
    path = _file(tmp_path, _line(), _line(identity="01a1fc2d-105d-77ec-9e2f-eb89414c343c"), _line())
    wallet = FakeWallet(unanswered={"01a1fc2d-105d-77ec-9e2f-eb89414c343c"})
    summary = await _run(wallet, path)
    assert summary.open == 1
    assert _outcomes(path)[1] is Outcome.OUTCOME_UNKNOWN
    wallet.unanswered.clear()
    wallet.sent.clear()
    assert (await _run(wallet, path)).open == 0
    assert wallet.sent == ["01a1fc2d-105d-77ec-9e2f-eb89414c343c"]
    assert _outcomes(path) == [Outcome.COMMITTED] * 3


@pytest.mark.parametrize("moved", [True, False])
async def test_a_uuidv4_without_an_answer_is_asked_of_the_ledger_before_it_is_sent(
    tmp_path: Path, *, moved: bool
) -> None:
    """It moves once in all, whether or not it had moved, and whatever the shards have forgotten."""
    lines = [_v4_line(), _v4_line("2")]
    path = _file(tmp_path, *lines)
    doubtful = lines[1].split(",")[0]
    wallet = FakeWallet(unanswered={doubtful}, moved_unanswered=moved)
    await _run(wallet, path)
    wallet.forget()
    wallet.unanswered.clear()
    wallet.sent.clear()
    wallet.is_archived = False
    assert (await _run(wallet, path)).open == 1
    assert wallet.sent == []
    wallet.is_archived = True
    await _run(wallet, path)
    assert wallet.sent == ([] if moved else [doubtful])
    assert wallet.balances["bob"] == Decimal(3)
    assert _outcomes(path) == [Outcome.COMMITTED] * 2


async def test_a_doubtful_row_whose_id_is_none_keeps_no_other_in_doubt(tmp_path: Path) -> None:
    """Nothing can have moved under it: the ledger, which would refuse the question, is not asked."""
    lines = [_line(identity="7"), _v4_line("2"), _v4_line("3")]
    path = _file(tmp_path, *lines)
    wallet = FakeWallet(unanswered={line.split(",")[0] for line in lines[:2]}, moved_unanswered=False)
    assert (await _run(wallet, path)).open == 2
    wallet.forget()
    wallet.unanswered.clear()
    assert (await _run(wallet, path)).open == 0
    assert wallet.questions == [lines[1].split(",")[0]]


async def test_without_a_ledger_the_shards_memory_serves(tmp_path: Path) -> None:
    """As long as it lasts."""
    line = _v4_line()
    path = _file(tmp_path, line, _v4_line("2"))
    wallet = FakeWallet(unanswered={line.split(",")[0]}, moved_unanswered=True, is_archived=False)
    assert (await _run(wallet, path)).open == 1
    assert (await _run(wallet, path)).open == 0
    assert wallet.balances["bob"] == Decimal(3)


async def test_an_edited_row_waits_for_what_became_of_its_earlier_version(tmp_path: Path) -> None:
    """Two versions without an answer are told apart by the ledger alone."""
    line = _v4_line("5")
    identity = line.split(",")[0]
    other = _v4_line("1")
    wallet = FakeWallet(unanswered={identity}, moved_unanswered=True, is_archived=False)
    await _run(wallet, _file(tmp_path, line, other))
    wallet.forget()
    wallet.unanswered.clear()
    path = _file(tmp_path, line.replace(",5,", ",6,"), other)
    assert (await _run(wallet, path)).open == 1
    wallet.is_archived = True
    await _run(wallet, path)
    assert _outcomes(path) == [Outcome.TRANSACTION_ID_REUSED, Outcome.COMMITTED]
    assert wallet.balances["bob"] == Decimal(6)


async def test_a_row_that_was_removed_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    """And its doubt is looked into, though it is sent no more."""
    line = _v4_line("5")
    wallet = FakeWallet(unanswered={line.split(",")[0]}, moved_unanswered=True)
    await _run(wallet, _file(tmp_path, line, _v4_line()))
    path = _file(tmp_path, _v4_line("2"))
    wallet.sent.clear()
    await _run(wallet, path)
    kept = {result.instruction.amount: result.outcome for result in read_results(result_path(path))}
    assert kept["5"] is Outcome.COMMITTED
    assert len(wallet.sent) == 1


async def test_a_cluster_that_stops_answering_stops_the_import(tmp_path: Path) -> None:
    """What was known by then is kept, and the next run goes on from there."""
    ids = [new_transaction_id() for _ in range((BATCHES_IN_FLIGHT + 3) * BATCH_ROWS)]
    path = _file(tmp_path, *[_line(amount="0.01", identity=identity) for identity in ids])
    wallet = FakeWallet(unanswered=set(ids[2 * BATCH_ROWS :]))
    with pytest.raises(DeployError, match="goes on from here"):
        await _run(wallet, path)
    assert _outcomes(path)[: 2 * BATCH_ROWS] == [Outcome.COMMITTED] * (2 * BATCH_ROWS)
    assert set(_outcomes(path)[2 * BATCH_ROWS :]) == {Outcome.OUTCOME_UNKNOWN}
    wallet.unanswered.clear()
    assert (await _run(wallet, path)).sent == len(ids) - 2 * BATCH_ROWS
    assert wallet.balances["bob"] == Decimal("0.01") * len(ids)


class _Slow(FakeWallet):
    """Answers a batch only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.let = asyncio.Event()

    async def transfers(
        self, batch: Iterable[Transfer], *, timeout_s: float | None = None
    ) -> list[TransferResult]:
        """After all others have been asked for."""
        self.asked.set()
        await self.let.wait()
        return await super().transfers(batch)


async def test_what_is_under_way_at_a_stop_is_waited_for_and_recorded(tmp_path: Path) -> None:
    """Nothing more is sent, and whatever moved is in the result file."""
    path = _file(tmp_path, *[_v4_line("0.01") for _ in range((BATCHES_IN_FLIGHT + 2) * BATCH_ROWS)])
    wallet = _Slow()
    stopping: list[bool] = []
    importer = Importer(wallet, wallet, "c", _FUNDED, on_stopping=lambda: stopping.append(True))
    with opened(path) as (rows, target):
        task = asyncio.ensure_future(importer.run(rows, target))
        await wallet.asked.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert stopping
        wallet.let.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert 0 < len(wallet.sent) <= BATCHES_IN_FLIGHT * BATCH_ROWS
    assert _outcomes(path) == [Outcome.COMMITTED] * len(wallet.sent)
    wallet.forget()
    await _run(wallet, path)
    assert wallet.balances["bob"] == Decimal("0.01") * (BATCHES_IN_FLIGHT + 2) * BATCH_ROWS


async def test_accounts_are_left_alone_unless_asked_for(tmp_path: Path) -> None:
    """Opening and funding is for trying things out, not for a payments run."""
    path = _file(tmp_path, _line())
    wallet = FakeWallet()
    await _run(wallet, path, ImportSettings())
    assert _outcomes(path) == [Outcome.ACCOUNT_NOT_FOUND]
    assert wallet.balances == {}


async def test_payers_are_funded_once_and_payees_not_at_all(tmp_path: Path) -> None:
    """However many rows they are in."""
    path = _file(tmp_path, *[_line("alice", "bob") for _ in range(BATCH_ROWS + 5)], _line("carol", "bob"))
    wallet = FakeWallet()
    await _run(wallet, path)
    assert len(wallet.deposits) == 2


@pytest.mark.parametrize("on_top", [True, False])
async def test_a_payer_is_funded_once_for_each_result_file(tmp_path: Path, *, on_top: bool) -> None:
    """Also by another first row, another amount, and after the window."""
    refused = _v4_line("5000")
    wallet = FakeWallet()
    await _run(wallet, _file(tmp_path, refused))
    wallet.forget()
    path = _file(tmp_path, *([_v4_line("2")] if on_top else []), refused)
    await _run(wallet, path, ImportSettings(fund="77"))
    assert wallet.balances["alice"] == Decimal(98 if on_top else 100)


@pytest.mark.parametrize("moved", [True, False])
async def test_a_funding_without_an_answer_is_asked_of_the_ledger(tmp_path: Path, *, moved: bool) -> None:
    """Before it is made again, with its old id and amount."""
    path = _file(tmp_path, _v4_line("5"))

    class _Lost(FakeWallet):
        async def deposit(self, *args: object, **options: object) -> TransferResult:
            if moved:
                await FakeWallet.deposit(self, *args, **options)  # type: ignore[arg-type]
            raise OutcomeUnknown("lost")

    lost = _Lost()
    with pytest.raises(DeployError, match="could not be opened and funded"):
        await _run(lost, path)
    found = FakeWallet(lost.balances, lost.currencies, is_archived=False, entries=lost.entries)
    with pytest.raises(DeployError, match="may have funded alice"):
        await _run(found, path)
    found.is_archived = True
    await _run(found, path, ImportSettings(fund="77"))
    assert found.balances["alice"] == Decimal(95)
    assert found.balances["bob"] == Decimal(5)


async def test_a_row_with_a_wrong_currency_does_not_spoil_its_accounts(tmp_path: Path) -> None:
    """An account is opened by the first row with a currency that the cluster takes."""
    path = _file(tmp_path, "id,alice,bob,1,EURO,", _line())
    wallet = FakeWallet()
    await _run(wallet, path)
    assert _outcomes(path)[1] is Outcome.COMMITTED


async def test_an_amount_that_funds_nobody_stops_the_import_before_any_row(tmp_path: Path) -> None:
    """Or every row would be refused for lack of funds, for good."""
    path = _file(tmp_path, _line())
    wallet = FakeWallet()
    with pytest.raises(DeployError, match="alice cannot be funded: has too many decimals"):
        await _run(wallet, path, ImportSettings(fund="1.234"))
    assert wallet.sent == []


async def test_the_payments_are_not_taken_for_their_results(tmp_path: Path) -> None:
    """They would be written over."""
    path = _file(tmp_path, _line())
    before = path.read_bytes()
    with pytest.raises(DeployError, match="the payments themselves"), opened(path, path):
        pytest.fail("they are the same")
    assert path.read_bytes() == before


async def test_progress_is_told_after_every_batch(tmp_path: Path) -> None:
    """Rows so far, of how many."""
    path = _file(tmp_path, *[_line() for _ in range(2 * BATCH_ROWS + 1)])
    seen: list[tuple[int, int]] = []
    wallet = FakeWallet()
    importer = Importer(wallet, wallet, "c", _FUNDED, lambda summary, rows: seen.append((summary.rows, rows)))
    with opened(path) as (rows, target):
        await importer.run(rows, target)
    assert seen[-1] == (2 * BATCH_ROWS + 1, 2 * BATCH_ROWS + 1)
    assert len(seen) == 3
