"""What is known is kept by id and content, survives a kill, and never becomes less."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.importing.knowledge import Knowledge, Record, Standing
from deploy.importing.payments_file import Instruction, instruction
from deploy.importing.results_file import Result, replacing
from tallystick import Outcome, new_transaction_id

_AT = "2026-11-21T07:07:18Z"


def _instruction(amount: str = "1") -> Instruction:
    return instruction((new_transaction_id(), "alice", "bob", amount, "EUR", ""))


def _doubled(one: Instruction) -> Instruction:
    """Another version of the row."""
    return instruction([*one.texts[:3], "2", *one.texts[4:]])


def _certain(one: Instruction, outcome: Outcome = Outcome.COMMITTED) -> Record:
    return Record(Result(one, outcome, sent_at=_AT), Standing.CERTAIN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The result file that it belongs to."""
    return tmp_path / "p.csv.result.csv"


def test_what_is_certain_stays(path: Path) -> None:
    """Neither a later doubt, nor another intent, nor an older result file takes it back."""
    one = _instruction()
    with replacing(path, "c") as write:
        write(Result(one, Outcome.OUTCOME_UNKNOWN, sent_at=_AT))
    with Knowledge(path, "c") as knowledge:
        assert knowledge.find([one.key])[one.key][0].standing is Standing.DOUBT
        knowledge.learn([_certain(one)])
        knowledge.intend([one], _AT)
        knowledge.learn([Record(Result(one, Outcome.TRANSACTION_ID_EXPIRED), Standing.CERTAIN)])
        assert knowledge.find([one.key]) == {one.key: [_certain(one)]}
    with Knowledge(path, "c") as knowledge:
        assert knowledge.find([one.key]) == {one.key: [_certain(one)]}


@pytest.mark.servers
def test_what_a_killed_import_sent_is_in_doubt_for_the_next(path: Path) -> None:
    """The intent is on disk before it returns, whatever becomes of the process."""
    sent, answered = _instruction(), _instruction()
    child = os.fork()
    if child == 0:
        with Knowledge(path, "c") as knowledge:
            knowledge.intend([sent, answered], _AT)
            knowledge.learn([_certain(answered)])
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with Knowledge(path, "c") as knowledge:
        assert [record.instruction for some in knowledge.doubts() for record in some] == [sent]
        assert knowledge.find([answered.key])[answered.key] == [_certain(answered)]


def test_versions_of_a_row_are_kept_apart(path: Path) -> None:
    """All under the id they share; what is not in the payments file is told apart."""
    old = _instruction()
    new = _doubled(old)
    with Knowledge(path, "c") as knowledge:
        knowledge.intend([old, new], _AT)
    with Knowledge(path, "c") as knowledge:
        assert len(knowledge.find([old.key])[old.key]) == 2
        knowledge.note_rows([new])
        assert [result.instruction for result in knowledge.others()] == [old]


def test_all_in_doubt_under_an_id_come_together(path: Path) -> None:
    """More ids than one look takes, each with two versions."""
    firsts = [_instruction() for _ in range(1100)]
    with Knowledge(path, "c") as knowledge:
        knowledge.intend(firsts, _AT)
        knowledge.intend([_doubled(one) for one in firsts], _AT)
    with Knowledge(path, "c") as knowledge:
        looks = list(knowledge.doubts())
    assert sum(map(len, looks)) == 2200
    for look in looks:
        keys = [record.instruction.key for record in look]
        assert all(keys.count(key) == 2 for key in keys[:5] + keys[-5:])


def test_one_import_at_a_time(path: Path) -> None:
    """The second learns so at once, and nothing stays behind in the end."""
    with Knowledge(path, "c") as knowledge:
        with pytest.raises(DeployError, match="under way"), Knowledge(path, "c"):
            pytest.fail("two at once")
        knowledge.discard()
    assert list(path.parent.iterdir()) == []


def test_what_a_killed_import_left_belongs_to_its_cluster(path: Path) -> None:
    """Another cluster's import does not take it for its own."""
    one = _instruction()
    with Knowledge(path, "c") as knowledge:
        knowledge.intend([one], _AT)
    with pytest.raises(DeployError, match="into the cluster 'c' was killed"), Knowledge(path, "d"):
        pytest.fail("it is of another cluster")
    with Knowledge(path, "c") as knowledge:
        assert knowledge.find([one.key])


def test_a_folder_that_cannot_be_written_is_found_out_at_once(tmp_path: Path) -> None:
    """In a sentence that names the file."""
    with pytest.raises(DeployError, match="nowhere"), Knowledge(tmp_path / "nowhere" / "p.result.csv", "c"):
        pytest.fail("there is no such folder")


def test_a_damaged_database_stops_the_import(path: Path) -> None:
    """What it knew is not to be guessed."""
    path.with_name(f"{path.name}.unfinished").write_bytes(b"no database" * 1000)
    with pytest.raises(DeployError, match="damaged"), Knowledge(path, "c"):
        pytest.fail("it is no database")
