"""The rig's options are listed where one looks for them, and what would do nothing is refused."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.locust_rig.settings import add_options, refuse_what_does_nothing

RIG = Path(__file__).parents[2] / "bench" / "locustfile.py"


def actions() -> list[argparse.Action]:
    """The rig's options."""
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    return parser._actions


@pytest.mark.servers
@pytest.mark.parametrize("command", [("locust", "-f", str(RIG)), ("bench.locust_rig",)])
def test_help_lists_every_option(command: tuple[str, ...]) -> None:
    """Locust prints its help before it reads the file that adds them."""
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"], capture_output=True, text=True, check=True
    )
    listed = set(re.findall(r"(--[a-z0-9-]+)", done.stdout))
    assert {option for action in actions() for option in action.option_strings} <= listed
    assert "--processes" in listed


def test_a_field_of_the_page_comes_back_under_its_name() -> None:
    """The page makes a label of it, and of the label the name that it sends; a digit got lost on that way."""
    for action in actions():
        first, *others = action.dest.split("_")
        label = "".join([first, *(word.capitalize() for word in others)])
        assert re.sub(r"([a-z0-9])([A-Z0-9])", r"\1_\2", label).lower() == action.dest


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"num_users": 10}, "-u does nothing here: --target-rate decides"),
        ({"spawn_rate": 1.5}, "-r does nothing here: the users of a step start at once"),
        ({"run_time": 60}, "-t does nothing here: the climb ends at its knee"),
        ({"reset_stats": True}, "--reset-stats does nothing here: each step is measured by itself"),
        ({"exit_code_on_error": 3}, "--exit-code-on-error does nothing here: the service levels decide"),
        ({"host": "a:1", "routers": "b:2"}, "--host and --routers are the same here"),
    ],
)
def test_an_option_that_does_nothing_is_refused(given: dict[str, object], sentence: str) -> None:
    """Rather than accepted and ignored: the climb decides on the users."""
    unasked = {"num_users": None, "spawn_rate": None, "run_time": None, "reset_stats": False}
    options = argparse.Namespace(**{**unasked, "exit_code_on_error": 1, "host": None, "routers": "", **given})
    with pytest.raises(BenchError, match=re.escape(sentence)):
        refuse_what_does_nothing(options)
