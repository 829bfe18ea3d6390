"""`python -m bench.locust_rig`, `make locust`: a local cluster, and Locust's web page against it.

Options that are not named here go to Locust: `--headless`, `--processes 2`, `--target-rate 50000`.
Invariant: however this ends, Locust and the cluster are stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.cluster import data_folder
from bench.locust_rig.settings import add_options
from deploy.errors import DeployError
from deploy.local import ClusterSpec, LocalCluster, ports

LOCUSTFILE = Path(__file__).parent.parent / "locustfile.py"
_INTERRUPTED = 130
# The longest that an answer may take by default, and some more.
_LOCUST_ENDS_SECONDS = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until Locust ends, which a headless run does by itself; Locust's exit code."""
    parser = _parser()
    options, for_locust = parser.parse_known_args(arguments)
    if options.help:
        parser.print_help()
        print("\nAll other options go to Locust, and to the rig in it:\n")
        _locust_parser().print_help()
        return 0
    # Also SIGINT: a shell starts what runs in the background with it ignored, and Locust would inherit that.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _interrupt)
    spec = ClusterSpec(options.shards, options.cluster_routers, options.coordinators)
    try:
        with data_folder(options.data, _say) as data:
            _say(f"starting a cluster of {options.shards} shards in {data}")
            with LocalCluster(data, spec), ports.chosen(("web", "master")) as free:
                return _run_locust(data, options.web_port or free["web"], free["master"], for_locust)
    except DeployError as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.locust_rig",
        description="Start a local cluster and Locust's web page against it.",
        add_help=False,
        # "--step" must not be taken for an abbreviation of anything here.
        allow_abbrev=False,
    )
    parser.add_argument("-h", "--help", action="store_true", help="Show all options and exit")
    parser.add_argument("--shards", type=int, default=2, help="Redis shards (2)")
    parser.add_argument("--cluster-routers", type=int, default=1, metavar="N", help="routers (1)")
    parser.add_argument("--coordinators", type=int, default=1, metavar="N", help="coordinators (1)")
    parser.add_argument(
        "--web-port", type=int, default=0, metavar="PORT", help="of the web page (a free one)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where the cluster is kept (a temporary folder, removed)"
    )
    return parser


def _locust_parser() -> argparse.ArgumentParser:
    """Locust's own parser, with the rig's options."""
    # Not at the top: it replaces the standard library's threads and sockets.
    from locust import events  # noqa: PLC0415
    from locust.argument_parser import get_parser  # noqa: PLC0415

    events.init_command_line_parser.add_listener(lambda parser, **_: add_options(parser))
    parser: argparse.ArgumentParser = get_parser()
    return parser


def _run_locust(data: Path, port: int, master_port: int, for_locust: list[str]) -> int:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--data", str(data)]
    if "--headless" not in for_locust:
        command += ["--web-host", "127.0.0.1", "--web-port", str(port)]
        _say(f"Locust's web page: http://127.0.0.1:{port} (Ctrl-C stops it, and the cluster)")
    if any(option.startswith("--processes") for option in for_locust):
        # Its workers are here; Locust's own port may be another's, and is open to all networks.
        command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", str(master_port)]
        command += ["--master-port", str(master_port)]
    # A group of its own: a terminal's Ctrl-C ends the workers together with their master, which then misses
    # their last counts; here only the master is told. And what is left of the group can be ended as a whole.
    locust = subprocess.Popen([*command, *for_locust], stdin=subprocess.DEVNULL, process_group=0)
    try:
        return locust.wait()
    except KeyboardInterrupt:
        _say("stopping Locust and the cluster")
        return _ended(locust)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(locust.pid, signal.SIGKILL)
        locust.wait()


def _ended(locust: subprocess.Popen[bytes]) -> int:
    """Tells it to end; its exit code."""
    # What is stopped from here on must not be cut short.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
    locust.send_signal(signal.SIGINT)
    try:
        return locust.wait(_LOCUST_ENDS_SECONDS)
    except subprocess.TimeoutExpired:
        return _INTERRUPTED


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
