"""Data on a screen: shown as it is, never obeyed, never cut off; documents that programs can read."""

from __future__ import annotations

import ast
import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.terminal.rendering import Screen, Table, bad, csv_sink, good, shown, write_json

_ROOT = Path(__file__).parents[2]
_UUID = "b5281e6c-6be8-47e8-a925-91a5b065f1e6"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """A terminal of 40 columns as standard output."""
    stream = _Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    return stream


@pytest.mark.parametrize(
    "text",
    [
        "cli:bank:1",
        ":pizza:",
        "[red]x[/red]",
        "[/x]",
        "[link=x]",
        "C:\\",
        "\\[a]",
        "Ünïcödé 会議 🍕",
        "{} %s",
    ],
)
def test_text_is_shown_letter_by_letter(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor emoji names nor backslashes mean anything; the same in a table."""
    Screen().print(text, " ", good(text))
    table = Table(text)
    table.add_row(bad(text))
    Screen().table(table)
    line, header, _, cell, end = capsys.readouterr().out.split("\n")
    assert (line, header, cell, end) == (f"{text} {text}", text, text, "")


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\nb\r\tc\x00", r"a\nb\r\tc\x00"),
        ("\x7f\x9b31m", r"\x7f\x9b31m"),
        ("\u202eecila\u2066\u200f", r"\u202eecila\u2066\u200f"),
        ("al\u200bice\ufeff\xad", r"al\u200bice\ufeff\xad"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("caf\udce9", r"caf\udce9"),
        ("\U000e0041", r"\U000e0041"),
        ("a\u034f\u115f\u1160\u3164\uffa0", r"a\u034f\u115f\u1160\u3164\uffa0"),
        ("a\u17b4\u180b\u180f\ufe0f\ufff0", r"a\u17b4\u180b\u180f\ufe0f\ufff0"),
        ("a\u2800\U0001bca0", r"a\u2800\U0001bca0"),
        ("ends in \\", "ends in \\"),
    ],
)
def test_what_no_screen_should_act_on_is_escaped(
    text: str, escaped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escape sequences, line ends, directions, what has no width, halves of surrogate pairs."""
    terminal = _terminal(monkeypatch)
    assert shown(text) == escaped
    table = Table("x")
    table.add_row(text)
    table.add_row((text, text))
    Screen().table(table)
    Screen().print(text)
    assert terminal.getvalue().split("\n")[2:] == [escaped] * 4 + [""]


def _wide() -> Table:
    table = Table("account", "available", "state", right={"available"}, folds={"account"})
    table.add_row(_UUID, "1234567.89", good("open"))
    table.add_section()
    table.add_row("x" * 100, "-9007199254740.99", "frozen")
    return table


@pytest.mark.parametrize("width", [1, 20, 40, 60, 1000, None])
def test_no_width_cuts_anything_off(width: int | None) -> None:
    """Ids take several lines, down to a width that can be read; amounts are always in one piece."""
    lines = ["".join(piece.text for piece in line) for line in _wide().lines(width, "-")]
    text = "\n".join(lines)
    for whole in ("1234567.89", "-9007199254740.99", "open", "frozen"):
        assert whole in text
    assert "…" not in text
    ids = [line.split(" ")[0] for line in lines[2:]]
    assert "".join(ids) == _UUID + "x" * 100
    if width in {60, 1000, None}:
        assert width is None or max(map(len, lines)) <= width
    assert ids[0] == (_UUID if width in {1000, None} else _UUID[: len(ids[0])])
    assert len(ids[0]) >= 12


def test_away_from_a_terminal_there_is_no_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever COLUMNS says, a row is a line, and nothing is coloured."""
    monkeypatch.setenv("COLUMNS", "20")
    Screen().table(_wide())
    Screen().print("y" * 500)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == [_UUID, "1234567.89", "open"]
    assert lines[-1] == "y" * 500


def test_a_terminal_gets_colours_and_folded_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The styles are ours alone."""
    terminal = _terminal(monkeypatch)
    Screen().table(_wide())
    assert "\x1b[1;32mopen\x1b[0m" in terminal.getvalue()
    assert _UUID not in terminal.getvalue()
    assert _UUID[:12] in terminal.getvalue()


def test_json_is_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in it, and in ASCII; an array may come as an iterator."""
    document: dict[str, Any] = {
        "\u202e": "\x1b[31m\udce9 é\n",
        "list": [{"a": [1, []]}, None],
        "none": [],
        "dict": {"x": 1.5},
    }
    write_json(document | {"later": iter([1, 2]), "empty": iter([])})
    write_json(document, one_line=True)
    write_json({})
    text = capsys.readouterr().out
    assert text.isascii()
    assert "\x1b" not in text
    first, second = text[: text.index('{"\\u202e"', 1)], text[text.index('{"\\u202e"', 1) :]
    assert json.loads(first) == document | {"later": [1, 2], "empty": []}
    assert [json.loads(line) for line in second.splitlines()] == [document, {}]


def test_csv_is_utf_8_and_raw_but_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has the very data, in any locale; a terminal is not asked to act on it."""
    terminal = _terminal(monkeypatch)
    row = ["é\x1b[31m", "=cmd()", 'a"b\r\n']
    csv.writer(csv_sink()).writerow(row)
    assert terminal.getvalue() == 'é\\x1b[31m,=cmd(),"a""b\\r\\n"\n'
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    csv.writer(csv_sink()).writerow(row)
    sys.stdout.flush()
    assert list(csv.reader(io.StringIO(raw.getvalue().decode("utf-8"), newline=""))) == [row]


def test_there_is_one_way_to_print() -> None:
    """Only `rendering` uses rich; in `deploy` nobody else writes to standard output or error."""
    assert [*_printing("deploy")] == []
    assert [found for found in _printing("bench") if found.endswith("rich")] == []


def _printing(folder: str) -> Iterator[str]:
    """Where a module of the folder has another way to print, and which."""
    for path in sorted((_ROOT / folder).rglob("*.py")):
        if path != _ROOT / "deploy" / "terminal" / "rendering.py":
            for node in ast.walk(ast.parse(path.read_text())):
                if way := _way_to_print(node):
                    yield f"{path.relative_to(_ROOT)}, line {getattr(node, 'lineno', 0)}: {way}"


def _way_to_print(node: ast.AST) -> str:
    match node:
        case ast.Import(names=names) if any(name.name.partition(".")[0] == "rich" for name in names):
            return "rich"
        case ast.ImportFrom(module=str(module)) if module.partition(".")[0] == "rich":
            return "rich"
        case ast.Call(func=ast.Name(id="print")):
            return "print()"
        case ast.Attribute(attr="echo" | "secho" as way, value=ast.Name(id="typer" | "click")):
            return way
        case ast.Attribute(attr="write", value=ast.Attribute(attr="stdout" | "stderr")):
            return "write()"
    return ""
