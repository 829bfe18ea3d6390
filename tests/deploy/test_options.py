"""Options that commands take together: typer sees each of them, the command one value."""

from __future__ import annotations

import inspect

import pytest
from typer import Typer
from typer.testing import CliRunner

from deploy.cli.operation import Operation
from deploy.cli.options import Asking, with_options
from tallystick.ids import TransactionIds


def test_a_group_s_fields_are_options_after_the_command_s_own() -> None:
    """What is given goes to the group's value or to the command; nothing goes to both."""
    seen = []

    @with_options
    def command(asking: Asking, name: str, *, limit: int = 3) -> None:
        seen.append((asking, name, limit))

    assert list(inspect.signature(command).parameters) == ["name", "limit", "as_json", "router", "data"]
    app = Typer()
    app.command()(command)
    for words in (["a"], ["b", "--limit", "4", "--json", "--router", "r:1"]):
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert seen == [(Asking(), "a", 3), (Asking(as_json=True, router="r:1"), "b", 4)]


@pytest.mark.parametrize("given", [["--transaction-id", ""], ["--transaction-id", "AB"], []])
def test_an_operation_has_an_id_as_given_or_a_new_one(given: list[str]) -> None:
    """An empty id is given, too: the cluster refuses it, rather than that money moves under another."""
    seen = []

    @with_options
    def command(operation: Operation) -> None:
        seen.append(operation.transaction_id)

    app = Typer()
    app.command()(command)
    assert CliRunner().invoke(app, given, catch_exceptions=False).exit_code == 0
    (identity,) = seen
    assert identity == given[1] if given else len(identity) == len(TransactionIds().new())
