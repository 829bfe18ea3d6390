"""A journal's legs, typed or from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli.legs import MAX_LEGS, LegsError, parse_legs, read_legs
from deploy.errors import DeployError
from tallystick import JournalLeg


def test_legs_that_are_typed() -> None:
    """With a currency of their own or the common one; ids may hold all that ids may hold."""
    words = ["alice=-10.00", "{bob}:usd@x.y_z=+7:USD", "fees=3.00"]
    assert parse_legs(words, "EUR") == [
        JournalLeg("alice", "-10.00", "EUR"),
        JournalLeg("{bob}:usd@x.y_z", "7", "USD"),
        JournalLeg("fees", "3.00", "EUR"),
    ]


@pytest.mark.parametrize(
    "word", ["alice", "alice=", "=5", "alice=5 EUR", "alice=1e3", "alice==5", "alice=5:", ""]
)
def test_a_word_that_is_no_leg_is_named(word: str) -> None:
    """With what one looks like."""
    with pytest.raises(LegsError, match="write ACCOUNT=AMOUNT"):
        parse_legs(["bob=1", word], "EUR")


def test_a_leg_needs_a_currency() -> None:
    """Its own or the common one."""
    with pytest.raises(LegsError, match="--currency"):
        parse_legs(["alice=-1:EUR", "bob=1"], "")


def _file(folder: Path, text: str) -> Path:
    file = folder / "legs.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_legs_from_a_file(tmp_path: Path) -> None:
    """Columns in any order, others beside them; a spreadsheet's byte order mark does no harm."""
    file = _file(tmp_path, "\ufeffamount,account_id,name,currency\n-10.00,alice,A,EUR\n10.00,bob,B,\n")
    assert read_legs(file, "EUR") == [JournalLeg("alice", "-10.00", "EUR"), JournalLeg("bob", "10.00", "EUR")]
    file = _file(tmp_path, "account_id,amount\nalice,-1\nbob,1\n")
    assert read_legs(file, "USD") == [JournalLeg("alice", "-1", "USD"), JournalLeg("bob", "1", "USD")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "account_id, amount, currency"),
        ("account_id,amount\nalice,1\n", "missing: currency"),
        ("account_id,amount,currency,amount\nalice,1,EUR,2\n", "named twice"),
        ("account_id;amount;currency\nalice;1;EUR\n", "semicolons"),
        ("account_id,amount,currency,note\nalice,1,EUR," + "x" * 140_000, "line 2"),
        ("account_id,amount,currency\nalice,+-2,EUR\n", "line 2: the amount '\\+-2' has two signs"),
        ("account_id,amount,currency\nalice,1\n", "line 2"),
        ("account_id,amount,currency\na,1,EUR\nb,1,EUR,x\n", "line 3"),
        ("account_id,amount,currency\nalice,1,\n", "line 2: in which currency"),
        ("account_id,amount,currency\n" + "a,1,EUR\n" * (MAX_LEGS + 1), "more than"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(text: str, problem: str, tmp_path: Path) -> None:
    """Before anything is sent."""
    with pytest.raises(DeployError, match=problem):
        read_legs(_file(tmp_path, text), "")


@pytest.mark.parametrize(
    ("encoding", "problem"), [("latin-1", "line 2: the row is not UTF-8"), ("utf-16", "UTF-16")]
)
def test_a_file_in_another_encoding_is_refused_in_words(encoding: str, problem: str, tmp_path: Path) -> None:
    """Not with a traceback."""
    file = tmp_path / "legs.csv"
    file.write_bytes("account_id,amount,currency\ncaf\xe9,1,EUR\n".encode(encoding))
    with pytest.raises(DeployError, match=problem):
        read_legs(file, "")
