"""The engine and the plain model of it are asked the same, call by call: they answer and hold the same.

``TALLYSTICK_ENGINE_EXAMPLES`` asks for more examples, for a search that may take its time.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from random import Random

import pytest
from _pytest.outcomes import Failed
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from tests.engine.comparison import Comparison
from tests.engine.conftest import StartServer
from tests.engine.drawn import Drawer
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard
from tests.engine_model import Faults

EXAMPLES = int(os.environ.get("TALLYSTICK_ENGINE_EXAMPLES", "40"))
STEPS = 40
# Runs that may pass before one notices a fault.
RUNS = 150
# What one shard never answers: that something was logged, and what goes with a slot.
UNSEEN = frozenset(("repetition_unlogged", "horizon_left_behind"))


def run(comparison: Comparison, random: Random, steps: int) -> None:
    """So many steps, then all that both hold. AssertionError where they differ."""
    drawer = Drawer(random, comparison.model)
    for _ in range(steps):
        step = drawer.step()
        note(str(step))
        comparison.do(step)
    comparison.compare()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
@given(random=st.randoms(use_true_random=False), steps=st.integers(1, STEPS))
def test_engine_answers_as_the_model_does(module_server: EngineServer, random: Random, steps: int) -> None:
    """Whatever is asked in whatever order: answers, accounts, outcomes, what is in doubt, ledger."""
    run(Comparison(module_server), random, steps)
