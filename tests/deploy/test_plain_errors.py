"""The boundary of the command line: what is raised inside becomes a sentence, an exit code, a document."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import typer

from deploy.errors import DeployError, NotKnownError, StartError
from deploy.terminal.boundary import about, json_asked_for, not_known, plain_errors
from tallystick import InsufficientFunds, OutcomeUnknown, Unavailable

_ID = "0192e4a6-7c5e-4d3a-8f1b-2c3d4e5f6a7b"


def _ended(error: BaseException, *, as_json: bool = False, **noted: str) -> int:
    """The exit code of a command that raises that."""
    with pytest.raises(SystemExit) as ended, plain_errors(as_json=as_json):  # noqa: PT012 - a whole command
        about(**noted)
        raise error
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "exit_code", "sentence"),
    [
        (DeployError("no [/such] thing\x1b"), 1, r"error: no [/such] thing\x1b"),
        (StartError("it ended:\nlast words"), 1, "error: it ended:\nlast words"),
        (FileNotFoundError(2, "No such file", "a\nb"), 1, r"error: [Errno 2] No such file: 'a\nb'"),
        (NotKnownError("not known: x", {}), 2, "error: not known: x"),
        (
            Unavailable("no answer from a:1"),
            1,
            "no answer from a:1; nothing moved, ask again; 'tallystick st",
        ),
        (
            OutcomeUnknown("lost", _ID),
            1,
            f"error: lost: run the same command again with --transaction-id {_ID};",
        ),
        (InsufficientFunds("too little", _ID, "amount"), 1, f"error: amount: too little (transaction {_ID})"),
        (typer.BadParameter("no"), 2, "error: Invalid value: no"),
        (typer.Abort(), 1, "error: the input ended early"),
        (DeployError("cannot open postgresql://ann:s3:c@ret@db/x"), 1, "//ann:hidden@db/x"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_what_may_be_expected_is_a_sentence(
    error: BaseException, exit_code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error; nothing in it is acted on, no password is in it."""
    assert _ended(error) == exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert sentence in shown.err
    assert bool(shown.err) == bool(sentence)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("postgresql+psycopg://ann:s3cret@db/ledger and password='s3cret' of [/x]"),
        MemoryError(),
        RecursionError(),
        UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"),
        AssertionError(),
        ExceptionGroup("several", [ValueError()]),
        GeneratorExit(),
    ],
)
def test_what_nobody_expected_is_kept_in_a_file(
    error: BaseException,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 70, a sentence, and a traceback without secrets that only its owner may read."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert _ended(error, as_json=True) == 70
    (report,) = tmp_path.iterdir()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    text = report.read_text()
    assert f"{type(error).__name__}" in text
    assert "Traceback" in text
    assert "s3cret" not in text
    shown = capsys.readouterr()
    assert str(report) in shown.err
    assert "Traceback" not in shown.err
    assert json.loads(shown.out)["report"] == str(report)


def test_a_defect_is_said_where_no_report_can_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full or missing temporary folder is no second defect."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    assert _ended(ValueError()) == 70
    assert "no report could be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (InsufficientFunds("too little", _ID, "from_account"), True),
        (OutcomeUnknown("no answer", _ID), False),
        (ValueError("a defect"), False),
        (KeyboardInterrupt(), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_only_a_refusal_is_known_not_to_have_happened(
    error: BaseException,
    refused: bool,  # noqa: FBT001 - a case
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever else ends a transfer: its id is said, and that nobody knows."""
    _ended(error, as_json=True, transaction_id=_ID)
    shown = capsys.readouterr()
    assert (f"transaction {_ID}: not known yet whether it happened" in shown.err) is not refused
    document = json.loads(shown.out)
    assert document["transaction_id"] == _ID
    assert document["error"]
    if refused:
        assert document["outcome"] == "INSUFFICIENT_FUNDS"
        assert (document["message"], document["field"]) == ("too little", "from_account")


def test_a_question_about_all_has_no_answer_when_a_part_gives_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever went wrong on the way; a defect stays one."""
    for error in (DeployError("x"), grpc.FutureTimeoutError(), OSError("x")):
        with pytest.raises(SystemExit) as ended, plain_errors(as_json=True), not_known("consistent"):
            raise error
        expected = 70 if isinstance(error, grpc.FutureTimeoutError) else 2
        assert ended.value.code == expected
        document = json.loads(capsys.readouterr().out)
        assert ("consistent" in document) == (expected == 2)


def test_json_is_an_option_not_a_word() -> None:
    """After "--" there are no options."""
    assert json_asked_for(["status", "--json"])
    assert not json_asked_for(["account", "show", "--", "--json"])


def _typed(line: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """What becomes of a line typed into bash."""
    bash = ["bash", "-o", "pipefail", "-c", line]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}
    return subprocess.run(bash, cwd=folder, env=environment, capture_output=True, check=False, timeout=60)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("line", "exit_code", "said"),
    [
        # The reader is gone before there is anything to read.
        ("exec 3> >(true); wait $!; tallystick down >&3", 141, b""),
        ("tallystick down > /dev/full", 1, b"error: [Errno 28] No space left on device\n"),
        ("tallystick down >&-", 0, b""),
        ("tallystick account show nobody >&- 2>&-", 1, b""),
        (
            "tallystick void $'\\xe9' b",
            2,
            b"error: Invalid value for 'HOLD': '\\udce9' is not UTF-8 (see 'tallystick void --help')\n",
        ),
    ],
)
def test_the_program_ends_as_others_do(line: str, exit_code: int, said: bytes, tmp_path: Path) -> None:
    """A reader that goes away, a full disk, closed outputs, bytes that are no text: never a traceback."""
    done = _typed(line, tmp_path)
    assert (done.returncode, done.stderr) == (exit_code, said)
    assert done.stdout == b""


@pytest.mark.servers
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    """With what `tallystick --show-completion` prints."""
    done = _typed(
        'eval "$(tallystick --show-completion)"; '
        "complete -p tallystick > /dev/null; "
        "COMP_WORDS=(tallystick history alice --old); COMP_CWORD=3; _tallystick_completion tallystick; "
        "echo ${COMPREPLY[@]}",
        tmp_path,
    )
    assert done.stderr == b""
    assert done.stdout == b"--oldest-first\n"
