"""A log that an engine wrote gives the same under an engine that would refuse all of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import pytest

from shard_node.contract import Outcome, Post, bundle_of
from shard_node.engine.loading import SOURCES
from shard_node.limits import MAX_MINOR
from tests.engine.busy import ALICE, BOB, transfer, uuid7
from tests.engine.comparison import Comparison
from tests.engine.conftest import StartServer
from tests.engine.steps import WINDOW_MS, Drawer
from tests.engine.test_against_model import STEPS, go_on

WRAPPED = ("credit_refusal", "debit_refusal", "leg_refusal", "deciding_expires")


@pytest.fixture
def other_engine(tmp_path: Path) -> Path:
    """The engine with other_rules.c in the place of some of its functions."""
    built = tmp_path / "other.so"
    sources = [*map(str, sorted(SOURCES.glob("*.c"))), str(Path(__file__).parent / "other_rules.c")]
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    flags = ["-std=c11", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{SOURCES}", *wraps]
    subprocess.run(["gcc", *flags, *sources, "-o", str(built)], check=True)
    return built


@pytest.mark.timeout(300)
def test_log_is_applied_by_an_engine_that_would_refuse_all_of_it(
    start_server: StartServer, other_engine: Path
) -> None:
    """What was decided is in the log: balances, outcomes, what is in doubt and the ledger are the same."""
    server = start_server(manual_clock=True)
    engine = server.engine
    for seed in range(3):
        comparison = Comparison(server)
        drawer = Drawer(Random(seed), comparison.model)
        go_on(comparison, drawer, 3 * STEPS)
        before = comparison.shard.digest()
        server.engine = other_engine
        server.restart(killed=True)
        assert comparison.shard.digest() == before
        comparison.wait(0)
        comparison.compare()
        # As drawn, the ledger may be full.
        comparison.bind(WINDOW_MS, MAX_MINOR)
        bundle = bundle_of([transfer(uuid7(comparison.model.now_ms, 1), ALICE, BOB, 1)])
        assert comparison.shard.call(Post(bundle)).codes == (bytes((Outcome.TRANSACTION_ID_EXPIRED,)),)
        assert comparison.shard.fenced("check", 255, bundle) == bytes((Outcome.ACCOUNT_FROZEN,)) * 2
        server.engine = engine
        server.restart(killed=True)
