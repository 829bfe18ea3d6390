"""The result file is read whole or not at all, and replaced in one step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from deploy.errors import TableError
from deploy.importing.payments_file import instruction
from deploy.importing.results_file import Result, read_results, replacing, result_path
from tallystick import Outcome

_CLUSTER = "cluster-1"


def _result(number: int, outcome: Outcome = Outcome.COMMITTED) -> Result:
    one = instruction((f"id-{number}", "0007", "b", "1.50", "EUR", 'with, "comma"\n'))
    return Result(one, outcome, "said so", "2026-11-21T07:07:18Z", number)


def _write(path: Path, results: Iterable[Result], cluster_id: str) -> None:
    with replacing(path, cluster_id) as write:
        for result in results:
            write(result)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the results go."""
    return tmp_path / "p.csv.result.csv"


def test_its_name_keeps_the_whole_name_of_the_payments() -> None:
    """two.csv and two.txt have results of their own."""
    assert result_path(Path("/x/two.csv")) == Path("/x/two.csv.result.csv")
    assert result_path(Path("/x/two.txt")) == Path("/x/two.txt.result.csv")


def test_what_is_written_is_read(path: Path) -> None:
    """Every outcome of the contract survives the file, and nothing else stays beside it."""
    results = [_result(number, outcome) for number, outcome in enumerate(Outcome, start=1)]
    results.append(Result(_result(7).instruction, Outcome.COMMITTED, sent_at="2026-11-21T07:07:18Z"))
    _write(path, results, _CLUSTER)
    assert list(read_results(path, _CLUSTER)) == results
    assert list(path.parent.iterdir()) == [path]


def test_a_run_that_fails_leaves_the_old_file(path: Path) -> None:
    """Never half a new one."""
    _write(path, [_result(1)], _CLUSTER)
    with contextlib.suppress(KeyboardInterrupt), replacing(path, _CLUSTER) as write:
        write(_result(2))
        raise KeyboardInterrupt
    assert list(read_results(path)) == [_result(1)]
    assert list(path.parent.iterdir()) == [path]


def test_no_file_means_no_results(path: Path) -> None:
    """The first import."""
    assert list(read_results(path)) == []


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda text: text.replace(",", ";"), "separated by semicolons"),
        (lambda text: text.replace("COMMITTED", "Committed"), "changed since an import wrote it"),
        (lambda text: text.replace("outcome", "result"), "missing: outcome"),
        # A spreadsheet takes an account for a number.
        (lambda text: text.replace(",0007,", ",7,"), "line 2: something in the row was changed"),
        (lambda text: text[:-30], "cells|quoting|of the cluster|changed since"),
        (lambda text: "", "empty"),
    ],
)
def test_a_file_that_cannot_be_read_stops_the_import(
    path: Path, damage: Callable[[str], str], problem: str
) -> None:
    """Taken as absent, everything would be sent again."""
    _write(path, [_result(number) for number in range(1, 4)], _CLUSTER)
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(TableError, match=problem) as caught:
        list(read_results(path, _CLUSTER))
    assert "Nothing was sent" in str(caught.value)


def test_an_amount_that_a_spreadsheet_wrote_shorter_is_the_same(path: Path) -> None:
    """As it is for the cluster."""
    _write(path, [_result(1)], _CLUSTER)
    path.write_text(path.read_text(encoding="utf-8").replace(",1.50,", ",1.5,"), encoding="utf-8")
    assert next(iter(read_results(path))).instruction[:2] == _result(1).instruction[:2]


def test_what_was_written_can_be_read_whatever_is_in_it(path: Path) -> None:
    """Long rows, and cells with line ends and commas: they are the import's own."""
    long = instruction(["id", "a", "b", "1", "EUR", "x" * 9000 + "\n" + "," * 20])
    _write(path, [Result(long, Outcome.COMMITTED, "m", "2026-11-21T07:07:18Z", 1)], _CLUSTER)
    assert next(iter(read_results(path))).instruction == long


def test_the_files_mode_is_kept(path: Path) -> None:
    """Whoever made it private wants it so."""
    _write(path, [_result(1)], _CLUSTER)
    path.chmod(0o600)
    _write(path, [_result(2)], _CLUSTER)
    assert path.stat().st_mode & 0o777 == 0o600


def test_results_of_another_cluster_are_refused(path: Path) -> None:
    """They say nothing of this one, and must not be written over."""
    _write(path, [_result(1)], "another")
    with pytest.raises(TableError, match="of the cluster 'another'"):
        list(read_results(path, _CLUSTER))
