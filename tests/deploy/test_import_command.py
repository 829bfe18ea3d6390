"""`tallystick import` as a process: killed, interrupted, given a pipe, given names that are alike."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.importing.results_file import read_results, result_path
from deploy.local.launcher import LocalCluster
from tallystick import NewAccount, Outcome, SyncClient

pytestmark = pytest.mark.cluster

_ROWS = 12_000
_SECONDS = 60.0


def _command(cluster: LocalCluster, *arguments: str | Path) -> list[str]:
    command = [sys.executable, "-m", "deploy.cli", "import", "--data", str(cluster.data)]
    return [*command, *map(str, arguments)]


def _run(cluster: LocalCluster, *arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(cluster, *arguments),
        input=text,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def _rows(payer: str, payee: str, count: int) -> str:
    header = "transaction_id,from_account,to_account,amount,currency,reference\n"
    return header + "".join(f"{uuid4()},{payer},{payee},0.01,EUR,r{n}\n" for n in range(count))


@pytest.fixture
def pair(cluster: LocalCluster) -> tuple[str, str]:
    """A payer with money, and a payee."""
    name = uuid4().hex[:10]
    with SyncClient(cluster.router_addresses) as client:
        client.open_accounts([NewAccount(f"{name}-payer", "EUR"), NewAccount(f"{name}-payee", "EUR")])
        client.deposit(f"{name}-payer", "1000", "EUR")
    return f"{name}-payer", f"{name}-payee"


def _paid(cluster: LocalCluster, account: str) -> Decimal:
    with SyncClient(cluster.router_addresses) as client:
        return client.get_account(account).available


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_import_that_is_ended_goes_on_where_it_was(
    cluster: LocalCluster, pair: tuple[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """Every UUIDv4 row moves once in the end; after SIGINT or SIGTERM the record has all that moved."""
    payer, payee = pair
    file = tmp_path / "payments.csv"
    file.write_text(_rows(payer, payee, _ROWS))
    process = subprocess.Popen(_command(cluster, file), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + _SECONDS
    while not _paid(cluster, payee):
        assert time.monotonic() < deadline
    process.send_signal(number)
    _, errors = process.communicate(timeout=_SECONDS)
    moved = _paid(cluster, payee)
    assert 0 < moved < Decimal("0.01") * _ROWS, "it was over before it was ended"
    if number is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert not result_path(file).exists()
    else:
        assert process.returncode == 130
        assert b"the same command goes on" in errors
        outcomes = Counter(result.outcome for result in read_results(result_path(file)))
        assert outcomes == {Outcome.COMMITTED: moved * 100}
    again = _run(cluster, file)
    assert again.returncode == 0, again.stderr
    assert _paid(cluster, payee) == Decimal("0.01") * _ROWS
    assert [path.name for path in tmp_path.iterdir() if path != file] == [result_path(file).name]


def test_a_pipe_needs_a_place_for_its_results(
    cluster: LocalCluster, pair: tuple[str, str], tmp_path: Path
) -> None:
    """Found out before anything is sent; with --results it is like any file."""
    rows, results = _rows(*pair, 3), tmp_path / "out.csv"
    refused = _run(cluster, "/dev/stdin", text=rows)
    assert refused.returncode == 1
    assert "--results" in refused.stderr
    assert not _paid(cluster, pair[1])
    for _ in range(2):
        assert _run(cluster, "/dev/stdin", "--results", results, text=rows).returncode == 0
    assert _paid(cluster, pair[1]) == Decimal("0.03")
    assert len(list(read_results(results))) == 3


def test_a_place_that_cannot_be_written_is_found_out_first(
    cluster: LocalCluster, pair: tuple[str, str], tmp_path: Path
) -> None:
    """With the file's name, and nothing sent."""
    file = tmp_path / "p.csv"
    file.write_text(_rows(*pair, 3))
    refused = _run(cluster, file, "--results", tmp_path / "nowhere" / "out.csv")
    assert refused.returncode == 1
    assert "nowhere" in refused.stderr
    assert not _paid(cluster, pair[1])


def test_files_with_like_names_have_results_of_their_own(
    cluster: LocalCluster, pair: tuple[str, str], tmp_path: Path
) -> None:
    """two.csv and two.txt."""
    for name, count in (("two.csv", 2), ("two.txt", 3)):
        (tmp_path / name).write_text(_rows(*pair, count))
        assert _run(cluster, tmp_path / name).returncode == 0
        assert len(list(read_results(result_path(tmp_path / name)))) == count
    assert _paid(cluster, pair[1]) == Decimal("0.05")


@pytest.mark.parametrize(
    ("header", "row", "problem"),
    [
        ("currency,amount,reference", "EUR,1,250.00,rent", "INVALID_ARGUMENT"),
        ("currency,amount", "EUR,12,50", "INVALID_ARGUMENT"),
        ("amount,currency,amount", "1,EUR,2", "named twice"),
    ],
)
def test_an_amount_with_a_comma_is_not_cut(
    cluster: LocalCluster, pair: tuple[str, str], tmp_path: Path, header: str, row: str, problem: str
) -> None:
    """250.00 is not taken for 1.00, nor 12,50 for 12.00."""
    file = tmp_path / "p.csv"
    file.write_text(f"transaction_id,from_account,to_account,{header}\n{uuid4()},{pair[0]},{pair[1]},{row}\n")
    done = _run(cluster, file)
    assert problem in done.stdout + done.stderr
    assert not _paid(cluster, pair[1])
