"""The result file: complete after every run, however the run ended, and trusted only for the same row."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.payments_file import Row
from deploy.results_file import OPEN_OUTCOMES, Results, RowResult, read_results, recover, result_path
from tallystick import Outcome


def _row(number: int) -> Row:
    return Row(number, f"id-{number}", "a", "b", "1", "EUR", "with, comma")


def _result(number: int, outcome: Outcome = Outcome.COMMITTED) -> RowResult:
    return RowResult(number, _row(number).texts, outcome, "said so", "cluster-1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the results go."""
    return tmp_path / "p.result.csv"


def _write(path: Path, *results: RowResult) -> None:
    with Results(path) as sink:
        for result in results:
            sink.write(result)


def test_it_lies_beside_the_payments() -> None:
    """payments.csv has payments.result.csv."""
    assert result_path(Path("/x/payments.csv")) == Path("/x/payments.result.csv")


def test_what_is_written_is_read(path: Path) -> None:
    """Every outcome of the contract survives the file, and nothing else stays beside it."""
    results = [_result(number, outcome) for number, outcome in enumerate(Outcome, start=1)]
    _write(path, *results)
    assert list(read_results(path)) == results
    assert list(path.parent.iterdir()) == [path]


def test_a_result_settles_only_the_same_row_in_the_same_cluster() -> None:
    """A corrected row, or a new cluster, is sent; so is a row whose outcome is not final."""
    result = _result(1)
    assert result.settles(_row(1), "cluster-1")
    assert not result.settles(replace(_row(1), amount="2"), "cluster-1")
    assert not result.settles(_row(1), "cluster-2")
    for outcome in OPEN_OUTCOMES:
        assert not replace(result, outcome=outcome).settles(_row(1), "cluster-1")


def test_earlier_results_are_found_by_number(path: Path) -> None:
    """Read along with the rows, gaps included, without holding them all."""
    _write(path, _result(2), _result(3), _result(7))
    with Results(path) as results:
        found = [results.earlier(_row(number)) for number in range(1, 9)]
    assert found == [None, _result(2), _result(3), None, None, None, _result(7), None]


def test_a_run_that_fails_keeps_what_both_runs_found(path: Path) -> None:
    """The rows it reached are as it found them, those behind as they were known before."""
    _write(path, _result(1), _result(2, Outcome.OUTCOME_UNKNOWN), _result(3))
    with contextlib.suppress(KeyboardInterrupt), Results(path) as results:
        results.write(_result(1))
        results.write(_result(2))
        raise KeyboardInterrupt
    assert list(read_results(path)) == [_result(1), _result(2), _result(3)]
    assert list(path.parent.iterdir()) == [path]


def test_a_run_that_was_killed_is_put_together_by_the_next(path: Path) -> None:
    """Its last line may be torn: that row is not known, and will be sent again."""
    _write(path, _result(1, Outcome.OUTCOME_UNKNOWN), _result(4))
    killed = Results(path)
    killed.write(_result(1))
    killed.write(_result(2))
    killed.write(_result(3))
    killed.flush()
    part = path.with_name(path.name + ".part")
    part.write_bytes(part.read_bytes()[:-20])
    recover(path)
    assert list(read_results(path)) == [_result(1), _result(2), _result(4)]
    recover(path)
    assert len(list(read_results(path))) == 3


def test_a_torn_line_is_not_read_as_a_result(path: Path) -> None:
    """However much of it is there: an outcome is known only from a whole line."""
    _write(path, _result(1, Outcome.INSUFFICIENT_FUNDS))
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    for end in range(header, len(whole) - 2):
        path.write_bytes(whole[:end])
        assert all(result == _result(1) for result in read_results(path))
