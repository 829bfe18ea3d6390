"""Runs replays and audits of a ledger from a process of its own, with a progress bar.

What they do is in `shard_node.ledger`; here are the connections that they need, and their way to a screen.
Commands import this module only when they run: with the database's and the shards' libraries it takes
longer to load than all other commands together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from deploy.quiet_logs import quiet_logs
from deploy.terminal import err
from shard_node.client import Directory
from shard_node.cluster import Exponents, Registry
from shard_node.errors import ShardNodeError
from shard_node.ledger.proof import Audit, AuditProgress, AuditReport, Replay, judge_exponents
from shard_node.ledger.questions import History
from shard_node.ledger.store import open_ledger
from shard_node.ledger.store.migrations import require_newest


def run_replay(ledger: str, until_ms: int | None = None) -> tuple[Replay, Exponents]:
    """Replays the ledger at an URL, up to a time; the finished replay, and the currencies' exponents.

    Raises the errors of `shard_node.errors` when the ledger does not answer, or is none.
    """
    engine = open_ledger(ledger)
    try:
        require_newest(engine)
        history = History(engine)
        replay = Replay(history, until_ms=until_ms)
        with err.progress("replaying") as advance:
            for done, total in replay.run():
                advance(done, total, f"{done:,} of {total:,}")
        replay.fold.finish()
        return replay, judge_exponents(history, replay.findings, replay.fold.totals())
    finally:
        engine.dispose()


def run_audit(ledger: str, zookeeper: str) -> AuditReport:
    """Audits the ledger at an URL against the shards that ZooKeeper names, with a progress bar.

    Raises the errors of `shard_node.errors` when a part does not answer and nothing was found before: then
    nothing is known.
    """
    with quiet_logs(), err.progress("audit") as advance:

        def on_progress(step: AuditProgress) -> None:
            advance(step.done, step.total, f"{step.phase}, {step.done:,}")

        return asyncio.run(_audit(ledger, zookeeper, on_progress))


async def _audit(ledger: str, zookeeper: str, on_progress: Callable[[AuditProgress], None]) -> AuditReport:
    async with AsyncExitStack() as ending:
        engine = open_ledger(ledger)
        ending.callback(engine.dispose)
        require_newest(engine)
        registry = Registry(zookeeper)
        await registry.start()
        ending.push_async_callback(registry.stop)
        directory = Directory(registry)
        ending.push_async_callback(directory.close)
        audit = Audit(History(engine, registry.exponents), directory.current.shards)
        report = await complete(audit, on_progress)
        # Of currencies of which nothing is archived yet.
        report.exponents.learn({**registry.exponents, **report.exponents})
        return report


async def complete(audit: Audit, on_progress: Callable[[AuditProgress], None]) -> AuditReport:
    """Runs an audit. What it has found stays found when an error ends it; without findings it is raised."""
    try:
        async for step in audit.run():
            on_progress(step)
    except ShardNodeError as error:
        if audit.report.consistent:
            raise
        audit.report.ended_by = str(error)
    return audit.report
