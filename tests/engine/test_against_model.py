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
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard
from tests.engine.steps import Drawer
from tests.model import Faults

EXAMPLES = int(os.environ.get("TALLYSTICK_ENGINE_EXAMPLES", "40"))
SANITIZED = os.environ.get("TALLYSTICK_ENGINE_SANITIZED") == "1"
STEPS = 60
# Runs that may pass before one of them notices a fault.
RUNS = 1000
# What no answer of one shard shows: that something was logged, and what goes with a slot that moves.
UNSEEN = frozenset(
    (
        "repetition_unlogged",
        "horizon_left_behind",
        "moved_as_old",
        "attempts_undrained",
        "commits_undrained",
    )
)
FAULTS = [field.name for field in dataclasses.fields(Faults) if field.name not in UNSEEN]


def go_on(
    comparison: Comparison, drawer: Drawer, steps: int, report: Callable[[str], object] = lambda _: None
) -> None:
    """So many steps, then all that both hold. AssertionError where they differ."""
    for _ in range(steps):
        step = drawer.step()
        report(str(step))
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
    """Whatever is asked in whatever order: answers, accounts, outcomes, what is in doubt, the ledger."""
    comparison = Comparison(module_server)
    go_on(comparison, Drawer(random, comparison.model), steps, note)


@pytest.mark.skipif(SANITIZED, reason="the faults are the model's")
@pytest.mark.parametrize("fault", FAULTS)
def test_comparison_notices_each_fault(module_server: EngineServer, fault: str) -> None:
    """A model that breaks one rule differs from the engine before long."""
    for seed in range(RUNS):
        comparison = Comparison(module_server, Faults(**{fault: True}))
        try:
            go_on(comparison, Drawer(Random(seed), comparison.model), STEPS)
        except (AssertionError, Failed):
            return
    pytest.fail(f"{RUNS} runs, and none of them noticed {fault}")


def _rewritten(server: EngineServer) -> None:
    server.rewrite()
    server.restart(killed=True)


@pytest.mark.parametrize(
    "bring_back",
    [
        pytest.param(lambda server: server.restart(killed=True), id="killed"),
        pytest.param(lambda server: server.redis.execute_command("DEBUG", "RELOAD"), id="snapshot"),
        pytest.param(lambda server: server.redis.execute_command("DEBUG", "LOADAOF"), id="log"),
        pytest.param(_rewritten, id="rewritten"),
    ],
)
def test_shard_that_was_brought_back_goes_on_as_the_model_does(
    start_server: StartServer, bring_back: Callable[[EngineServer], None]
) -> None:
    """What was kept, in doubt, pinned, remembered and due is there again, and is used."""
    server = start_server(manual_clock=True)
    for seed in range(2):
        comparison = Comparison(server)
        drawer = Drawer(Random(seed), comparison.model)
        for _ in range(3):
            go_on(comparison, drawer, STEPS)
            before = comparison.shard.digest()
            bring_back(server)
            assert comparison.shard.digest() == before
            # A manual clock begins anew with its process.
            comparison.wait(0)
            comparison.compare()


def test_replica_that_is_promoted_goes_on_as_the_model_does(start_server: StartServer) -> None:
    """A replica of a replica follows every step; promoted, it answers as its primary would have."""
    primary, replica, second = (start_server(manual_clock=True) for _ in range(3))
    comparison = Comparison(primary)
    drawer = Drawer(Random(0), comparison.model)
    go_on(comparison, drawer, STEPS)
    replica.follow(primary)
    second.follow(replica)
    go_on(comparison, drawer, 4 * STEPS)
    # What the primary writes reaches the second replica through the first.
    second.caught_up(primary)
    assert EngineShard(second).digest() == EngineShard(replica).digest() == comparison.shard.digest()
    primary.stop()
    second.redis.replicaof("NO", "ONE")
    comparison.server, comparison.shard = second, EngineShard(second)
    comparison.wait(0)
    comparison.compare()
    go_on(comparison, drawer, 2 * STEPS)


def test_stale_fence_changes_nothing(module_server: EngineServer) -> None:
    """Every command under another fence is refused, and the shard holds what it held."""
    comparison = Comparison(module_server)
    drawer = Drawer(Random(1), comparison.model)
    go_on(comparison, drawer, STEPS)
    shard, before = comparison.shard, comparison.shard.digest()
    commands = drawer.commands
    assert {type(one).__name__ for one in commands} >= {"Post", "Prepare", "Decide", "Finish"}
    for fence in ("test/shard-0/2", "test/shard-0/0", "test/shard-0/1 ", "test/shard-0/", ""):
        for command in commands:
            with pytest.raises(ResponseError, match="STALE_EPOCH the shard is at test/shard-0/1"):
                shard.raw(command.COMMAND, fence, *command.arguments())
    assert shard.digest() == before
