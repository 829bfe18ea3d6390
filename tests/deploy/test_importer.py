"""An import gives every row its outcome, in order, and changes nothing the second time."""

from __future__ import annotations

import fcntl
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.importer import BATCH_ROWS, BATCHES_IN_FLIGHT, Importer, ImportSettings, ImportSummary
from deploy.results_file import read_results, result_path
from tallystick import Outcome, new_transaction_id
from tests.deploy.fake_wallet import FakeWallet

_HEADER = "transaction_id,from_account,to_account,amount,currency,reference"
_FUNDED = ImportSettings(fund="100")


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "payments.csv"
    path.write_text("\n".join([_HEADER, *lines]) + "\n")
    return path


def _line(payer: str = "alice", payee: str = "bob", amount: str = "1", identity: str = "") -> str:
    return f"{identity or new_transaction_id()},{payer},{payee},{amount},EUR,"


async def _run(
    wallet: FakeWallet, path: Path, settings: ImportSettings = _FUNDED, cluster_id: str = "c"
) -> ImportSummary:
    return await Importer(wallet, cluster_id, settings).run(path)


def _outcomes(path: Path) -> list[Outcome]:
    return [result.outcome for result in read_results(result_path(path))]


async def test_every_row_has_its_outcome_in_the_files_order(tmp_path: Path) -> None:
    """Bad rows, short rows and rows that lack funds stand between good ones and stop none of them."""
    path = _file(tmp_path, _line(), _line(amount="1e3x"), "id,alice", _line(amount="5000"), _line("carol"))
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
    assert wallet.balances == {"alice": Decimal(99), "bob": Decimal(2), "carol": Decimal(99)}


async def test_a_second_run_sends_nothing(tmp_path: Path) -> None:
    """Neither rows nor deposits: every outcome is known."""
    path = _file(tmp_path, *[_line(f"payer-{n % 70}") for n in range(2 * BATCH_ROWS + 7)])
    wallet = FakeWallet()
    await _run(wallet, path)
    before, content = dict(wallet.balances), result_path(path).read_bytes()
    wallet.sent.clear()
    wallet.deposits.clear()
    summary = await _run(wallet, path)
    assert (summary.sent, summary.rows) == (0, 2 * BATCH_ROWS + 7)
    assert (wallet.sent, wallet.deposits) == ([], [])
    assert wallet.balances == before
    assert result_path(path).read_bytes() == content


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


async def test_resend_asks_for_every_outcome_again(tmp_path: Path) -> None:
    """Also with the result file there."""
    path = _file(tmp_path, _line(), _line())
    wallet = FakeWallet()
    await _run(wallet, path)
    assert (await _run(wallet, path, ImportSettings(fund="100", resend=True))).sent == 2
    assert wallet.balances["bob"] == Decimal(2)


async def test_another_cluster_is_another_import(tmp_path: Path) -> None:
    """Outcomes of one cluster say nothing of another, such as a fresh data folder."""
    path = _file(tmp_path, _line())
    await _run(FakeWallet(), path, cluster_id="first")
    other = FakeWallet()
    assert (await _run(other, path, cluster_id="second")).sent == 1
    assert other.balances["bob"] == Decimal(1)


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


async def test_a_cluster_that_stops_answering_stops_the_import(tmp_path: Path) -> None:
    """What was known by then is kept, and the next run goes on from there."""
    ids = [new_transaction_id() for _ in range((BATCHES_IN_FLIGHT + 3) * BATCH_ROWS)]
    path = _file(tmp_path, *[_line(amount="0.01", identity=identity) for identity in ids])
    wallet = FakeWallet(unanswered=set(ids[2 * BATCH_ROWS :]))
    with pytest.raises(DeployError, match="goes on from here"):
        await _run(wallet, path)
    assert _outcomes(path) == [Outcome.COMMITTED] * (2 * BATCH_ROWS)
    wallet.unanswered.clear()
    assert (await _run(wallet, path)).sent == len(ids) - 2 * BATCH_ROWS
    assert wallet.balances["bob"] == Decimal("0.01") * len(ids)


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
    assert sum(wallet.balances.values()) == Decimal(200)


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


async def test_two_imports_of_one_file_do_not_run_at_once(tmp_path: Path) -> None:
    """They would write over each other's results."""
    path = _file(tmp_path, _line())
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DeployError, match="under way"):
            await _run(FakeWallet(), path)


async def test_progress_is_told_after_every_batch(tmp_path: Path) -> None:
    """Rows so far, and bytes of the file."""
    path = _file(tmp_path, *[_line() for _ in range(2 * BATCH_ROWS + 1)])
    seen: list[tuple[int, int]] = []
    importer = Importer(FakeWallet(), "c", _FUNDED, lambda summary, read: seen.append((summary.rows, read)))
    await importer.run(path)
    assert [rows for rows, _ in seen] == [BATCH_ROWS, 2 * BATCH_ROWS, 2 * BATCH_ROWS + 1]
    assert seen[-1][1] == path.stat().st_size
