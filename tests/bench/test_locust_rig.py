"""Locust with the rig, in processes of its own, against a stand-in that knows exactly what it was sent."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.locust_rig.capacity import given_costs
from bench.stand_in.service import stand_in
from deploy.local import cluster_file
from deploy.local.launcher import LocalCluster
from deploy.local.ports import free_port
from tests.bench.commands import figures_of
from tests.bench.locust_runs import (
    SHORT,
    TIMEOUT_SECONDS,
    command,
    local_master,
    run_headless,
    summary,
)

POLL_SECONDS = 0.1


def page(url: str, data: bytes | None = None) -> str:
    """What Locust's page answers; POST when there is data."""
    with urllib.request.urlopen(url, data) as response:  # noqa: S310 -- our own server
        text: str = response.read().decode()
        return text


def await_json(url: str, ready: Callable[[Any], bool]) -> Any:
    """What a page of Locust answers once it is as wanted."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            document = json.loads(page(url))
            if ready(document):
                return document
        except OSError:
            document = "no answer"
        assert time.monotonic() < deadline, document
        time.sleep(POLL_SECONDS)


@pytest.mark.servers
def test_locust_counts_the_transfers_that_were_sent() -> None:
    """Batches and single ones, to the last; levels that are kept exit with 0."""
    with stand_in() as router:
        ran = run_headless(
            *SHORT,
            "--mode=both",
            f"--routers={router.address}",
            "--slo-p99-ms=10000",
            "--follow-share=0.1",
        )
    assert router.seen["accounts"] == 500
    assert ran.requests.keys() == {"BatchTransfer", "Transfer"}
    assert ran.requests["BatchTransfer"] % 100 == 0
    assert sum(ran.requests.values()) == router.seen["transfers"]
    assert ran.requests["BatchTransfer"] // 100 + ran.requests["Transfer"] == router.seen["calls"]
    assert ran.errors == {}
    sent = f"{router.seen['transfers']:,}"
    assert f"the shards moved {sent} (Locust was told of {sent})" in ran.output
    assert "PASS: " in ran.output
    assert ran.exit_code == 0


@pytest.mark.servers
def test_failures_are_counted_by_outcome() -> None:
    """INSUFFICIENT_FUNDS apart where it is expected, lost and wrong answers as what they are; exit code 1."""
    faults = ("--poor-every=10", "--frozen-every=25", "--lost-every=7", "--swapped-every=3")
    with stand_in(*faults) as router:
        ran = run_headless(
            *SHORT,
            "--mode=both",
            f"--routers={router.address}",
            "--expect-insufficient-funds",
            "--follow-share=0.1",
            "--slo-max-failures=0.01",
        )
    outcomes = router.seen["outcomes"]
    assert sum(ran.requests.values()) == router.seen["transfers"]
    apart = {name: count for name, count in ran.requests.items() if name.endswith(" INSUFFICIENT_FUNDS")}
    assert sum(apart.values()) == outcomes["INSUFFICIENT_FUNDS"] > 0
    assert all(not ran.failures[name] for name in apart)
    by_outcome: Counter[str] = Counter()
    for text, count in ran.errors.items():
        by_outcome[text.partition(": ")[2]] += count
    assert by_outcome == {
        "ACCOUNT_FROZEN": outcomes["ACCOUNT_FROZEN"],
        "OUTCOME_UNKNOWN": outcomes["LOST"],
        "WRONG_ANSWER": outcomes["SWAPPED"],
    }
    doubtful = outcomes["LOST"] + outcomes["SWAPPED"]
    committed = outcomes["COMMITTED"]
    told = f"(Locust was told of {committed:,}, and {doubtful:,} are in doubt)"
    assert f"the shards moved {committed + doubtful:,} {told}" in ran.output
    assert "FAIL: " in ran.output
    assert ran.exit_code == 1


@pytest.mark.servers
def test_a_slow_cluster_is_late_for_all_that_was_due() -> None:
    """A user that cannot keep its rate counts from when it should have sent; levels not kept exit with 1.

    Also when the shards did not move all that was answered as committed.
    """
    with stand_in("--delay-ms=700", "--poor-every=50", "--unmoved=3") as router:
        ran = run_headless(
            *SHORT,
            *("--processes=2", *local_master()),
            "--batch=20",
            "--batch-user-rate=4",
            "--follow-share=0.1",
            "--slo-p99-ms=140",
            f"--routers={router.address}",
        )
    p99_ms = re.search(r"p99 of ([\d,]+) ms is above 140 ms", ran.output)
    assert p99_ms is not None, ran.output
    # Every call takes 700 ms: who counts from when it was sent would never see much more.
    assert int(p99_ms[1].replace(",", "")) > 1000
    # A user that is new at every try is no later at the second one.
    assert re.search(r"^ +again +\d+ +[\d,]+  strained$", ran.output, re.MULTILINE)
    committed = router.seen["outcomes"]["COMMITTED"]
    moved = re.search(r"the shards moved .* NOT KEPT", ran.output)
    assert moved is not None, ran.output
    assert moved[0] == f"the shards moved {committed - 3:,} (Locust was told of {committed:,}) NOT KEPT"
    # Also those that were on their way when Locust stopped their users, for longer than it waits by itself.
    assert sum(ran.requests.values()) == router.seen["transfers"]
    assert ran.errors == {"BatchTransfer: INSUFFICIENT_FUNDS": router.seen["outcomes"]["INSUFFICIENT_FUNDS"]}
    assert ran.exit_code == 1


@pytest.mark.servers
def test_a_master_adds_up_what_its_workers_sent(tmp_path: Path) -> None:
    """Two workers, every transfer counted once, rates and errors too; an HTML report is written."""
    port, report = free_port(), tmp_path / "report.html"
    master_options = [
        "--headless",
        "--only-summary",
        "--master",
        "--master-bind-host=127.0.0.1",
        f"--master-bind-port={port}",
        "--expect-workers=2",
        f"--html={report}",
    ]
    with stand_in("--frozen-every=50") as router:
        workers = [
            subprocess.Popen(
                command("--worker", "--master-host=127.0.0.1", f"--master-port={port}"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        try:
            done = subprocess.run(
                command(*master_options, *SHORT, f"--routers={router.address}", "--slo-max-failures=0.02"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
            for worker in workers:
                worker.wait(TIMEOUT_SECONDS)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    ran = summary(done.returncode, done.stdout)
    assert ran.requests == {"BatchTransfer": router.seen["transfers"]}
    assert ran.errors == {"BatchTransfer: ACCOUNT_FROZEN": router.seen["outcomes"]["ACCOUNT_FROZEN"]}
    # By the second, from both: five users of 100 transfers/s, less the frozen ones.
    achieved = re.search(r"^ +500 +(\d+) +\d+  held$", ran.output, re.MULTILINE)
    assert achieved is not None, ran.output
    assert 200 <= int(achieved[1]) <= 800
    assert ran.exit_code == 0
    page = report.read_text()
    assert "knee: " in page
    assert f"the shards moved {router.seen['outcomes']['COMMITTED']:,}" in page
    assert "PASS: " in page
    assert '"BatchTransferUser": {"ratio": 1.0' in page


@pytest.mark.servers
def test_the_web_page_shows_transfers() -> None:
    """Started by its form, which may change options; it counts what the stand-in saw, and reports."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with stand_in() as router:
        locust = subprocess.Popen(
            command("--web-host=127.0.0.1", f"--web-port={port}", f"--routers={router.address}", *SHORT),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await_json(f"{url}/stats/requests", lambda document: document["state"] == "ready")
            assert '"batch": {' in page(url)
            page(f"{url}/swarm", b"batch=50&batch_user_rate=2&lowest_rate=1000000")
            document = await_json(f"{url}/stats/requests", lambda document: document["state"] == "stopped")
            report = page(f"{url}/stats/report")
            locust.send_signal(signal.SIGINT)
            exit_code = locust.wait(TIMEOUT_SECONDS)
        finally:
            locust.kill()
            locust.wait()
    assert "transfers/s (at least 1,000,000) NOT KEPT" in report
    total = next(entry for entry in document["stats"] if entry["name"] == "Aggregated")
    assert total["num_requests"] == router.seen["transfers"] == 50 * router.seen["calls"] > 0
    assert total["total_rps"] > 100
    assert exit_code == 1


@pytest.mark.servers
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--routers=127.0.0.1:1"], "no router answers at 127.0.0.1:1: start one with 'make locust'"),
        (["--data=nowhere"], "no cluster runs in nowhere"),
        (["--routers=127.0.0.1:1", "--batch=9000"], "--batch must be 1 to 8,192, not 9000"),
        (
            ["--routers=127.0.0.1:1", "--step=10", "--target-rate=100"],
            "--step must be at least what one BatchTransferUser sends, 1,000 transfers/s, not 10",
        ),
        (["--routers=127.0.0.1:1", "-u=10"], "-u does nothing here: --target-rate decides"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(options: list[str], sentence: str) -> None:
    """Before anything starts, with exit code 2."""
    ran = run_headless(*options)
    assert f"error: {sentence}" in ran.output
    assert "Traceback" not in ran.output
    assert ran.exit_code == 2


@pytest.mark.cluster
def test_a_cluster_commits_what_the_rig_sends(cluster: LocalCluster) -> None:
    """The share that has no funds is refused, and no failure; the cluster tells what it cost."""
    ran = run_headless(
        *SHORT,
        "--mode=both",
        "--reject-share=0.2",
        "--follow-share=0.1",
        f"--data={cluster.data}",
    )
    assert ran.errors == {}
    assert re.search(
        r"^CPU µs a transfer: client [\d.]+, router .*, shard [1-9].* in all", ran.output, re.MULTILINE
    )
    assert re.search(r"the shards moved ([\d,]+) \(Locust was told of \1\)$", ran.output, re.MULTILINE)
    assert ran.requests["BatchTransfer"] > 0
    assert ran.requests["Transfer"] > 0
    assert ran.requests["BatchTransfer INSUFFICIENT_FUNDS"] > 0
    assert ran.exit_code == 0


@pytest.mark.cluster
def test_the_starter_leaves_nothing_behind(tmp_path: Path) -> None:
    """It serves Locust's page against its own cluster; Ctrl-C stops both."""
    port, data = free_port(), tmp_path / "data"
    starter = subprocess.Popen(
        [
            sys.executable,
            *("-m", "bench.locust_rig", "--shards=1", f"--web-port={port}", f"--data={data}"),
            *SHORT,
        ],
    )
    try:
        url = f"http://127.0.0.1:{port}/stats/requests"
        await_json(url, lambda document: document["state"] == "ready")
        record = cluster_file.read(data)
        assert record is not None
        assert all(process.is_alive() for process in record.processes)
        starter.send_signal(signal.SIGINT)
        starter.wait(TIMEOUT_SECONDS)
    finally:
        LocalCluster(data).stop()
        starter.kill()
        starter.wait()
    assert not any(process.is_alive() for process in record.processes)
    with pytest.raises(OSError, match="refused"):
        page(url)


@pytest.mark.servers
def test_capacity_plans_both_sides() -> None:
    """Workers from what was measured of them; the cluster from the costs that are given, by part."""
    given = "--cluster-us=shard=17.5,router=2,coordinator=0.7,archiver=22"
    figures = figures_of("bench.locust_rig.capacity", "--seconds=0.5", "--batch=500", "--rate=400000", given)
    batch, unary = figures["modes"]
    assert (batch["mode"], batch["batch"]) == ("batch", 500)
    assert (unary["mode"], unary["batch"]) == ("unary", 1)
    for capacity in (batch, unary):
        assert capacity["transfers_per_second"] > 0
        per_core = capacity["transfers_per_second_per_core"]
        assert per_core == pytest.approx(1e6 / capacity["cpu_us_per_transfer"])
        planned = capacity["workers_for_target"] * per_core * figures["planned_share_of_a_core"]
        assert planned >= figures["target_transfers_per_second"] == 400_000
    cluster = figures["cluster"]
    # 400,000 times 17.5 us are 7 cores, which 10 shards fill to 70 %.
    processes = {part: row["processes"] for part, row in cluster["parts"].items()}
    assert processes == {"shard": 10, "router": 2, "coordinator": 1, "archiver": 13}
    assert cluster["cores"] == 26


@pytest.mark.parametrize("costs", ["shard=3,foo=1", "shard=x", "shard=nan", "shard=-1", "shard=17"])
def test_costs_that_are_none_are_named(costs: str) -> None:
    """Every part once, with microseconds above 0."""
    with pytest.raises(BenchError, match=r"^--cluster-us: "):
        given_costs(costs)
