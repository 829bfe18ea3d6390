"""Whatever is typed, a command says in a sentence what is wrong: never a traceback, never a defect."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.local import connection
from deploy.local.launcher import LocalCluster
from deploy.terminal.boundary import json_asked_for

# Some of these start servers, or wait for news for ever.
_LEFT_OUT = {"up", "bench", "watch"}
# Bytes of a command line that are no UTF-8 arrive as these.
_UNDECODABLE = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
_LETTERS = st.one_of(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), _UNDECODABLE)
_WORDS = st.one_of(
    st.sampled_from(
        [
            *("", " ", "-", "--", "--json", "-1", "0", "1", "1.005", "1e309", "nan", "inf", "9" * 400),
            *("[/x]", "[red]", ":pizza:", "alice", "cli:bank:1", "@world", "a=1", "a=-1:EUR", "EUR", "\\"),
            *("0001-01-01", "9999-12-31T23:59:59-12:00", "now", "2h", "9" * 30 + "w", "2026-03-29T02:30"),
            *(
                "caf\udce9",
                "\x1b[2J",
                "\u202e",
                "é" * 300,
                "0192e4a6-7c5e-4d3a-8f1b-2c3d4e5f6a7b",
                "purchase",
            ),
        ]
    ),
    st.text(_LETTERS, max_size=20),
    st.datetimes().map(str),
    st.integers().map(str),
    st.floats().map(str),
)


def _commands(command: Any, words: Sequence[str] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands that there are, with the words that name them."""
    for name, below in getattr(command, "commands", {}).items():
        if name not in _LEFT_OUT:
            yield from _commands(below, (*words, name))
    if not hasattr(command, "commands"):
        yield tuple(words), command


_COMMAND = typer.main.get_command(app)
_ALL = dict(_commands(_COMMAND))


@st.composite
def _lines(draw: st.DrawFn) -> list[str]:
    """A command line: a command that exists, its arguments, some of its options, each with any word."""
    words = draw(st.sampled_from(sorted(_ALL)))
    options, arguments = [], []
    for param in _ALL[words].params:
        if param.param_type_name == "argument":
            arguments += draw(st.lists(_WORDS, min_size=1, max_size=3 if param.nargs == -1 else 1))
        elif param.name not in {"data", "router", "help"} and draw(st.integers(0, 3)) == 0:
            options += [param.opts[0], *([] if param.is_flag else [draw(_WORDS)])]
    return [*words, *options, *draw(st.sampled_from([[], ["--"]])), *arguments]


def _answered(line: list[str]) -> None:
    result = CliRunner().invoke(app, line)
    assert result.exit_code in {0, 1, 2}, (line, result.output, result.exception)
    assert "Traceback" not in result.output
    assert "\x1b" not in result.output
    if result.exit_code and json_asked_for(line):
        assert json.loads(result.stdout), line


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """No cluster in the folder, no router where the variable says, and little patience."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nowhere"))
        patch.setattr(connection, "CONNECT_SECONDS", 0.01)
        # Made once: that takes longer than most of these commands.
        patch.setattr("typer.testing._get_command", lambda _: _COMMAND)
        patch.setenv(connection.ROUTER_VARIABLE, "127.0.0.1:1")
        yield patch


@pytest.mark.usefixtures("nowhere")
@settings(max_examples=60, deadline=None)
@given(line=_lines())
def test_nonsense_without_a_cluster(line: list[str]) -> None:
    """Exit code 1 or 2, a sentence, and with --json a document."""
    _answered(line)


@pytest.mark.cluster
@settings(max_examples=25, deadline=None)
@given(line=_lines())
def test_nonsense_to_a_cluster(line: list[str], cluster: LocalCluster, nowhere: pytest.MonkeyPatch) -> None:
    """The same where somebody answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "CONNECT_SECONDS", 3.0)
        patch.setenv(connection.ROUTER_VARIABLE, cluster.router_addresses[0])
        _answered(line)
