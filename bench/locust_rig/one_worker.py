"""One Locust process that sends as fast as it can, and says what that cost: used by `capacity`.

`python -m bench.locust_rig.one_worker --routers ... --mode batch` prints a line of JSON: transfers, failures,
seconds, and seconds of CPU of this process, of the time after all users had started.
"""

from __future__ import annotations

import argparse
import json
import time

import gevent
from locust.argument_parser import get_empty_argument_parser
from locust.env import Environment

from bench.locust_rig.settings import Mode, add_options, read_settings
from bench.locust_rig.users import BatchTransferUser, Rig, TransferUser, UnaryTransferUser

# Connections, first blocks of requests, numpy's own start.
_WARM_UP_SECONDS = 0.5
# No user ever waits: each is behind its schedule from its first call on.
_FLAT_OUT = "1000000"


def measure(user_class: type[TransferUser], host: str, users: int, seconds: float) -> dict[str, float]:
    """Runs the users for so long, and reads clock and counts around it."""
    environment = Environment(user_classes=[user_class], host=host)
    runner = environment.create_local_runner()
    try:
        runner.start(users, spawn_rate=users)
        gevent.sleep(_WARM_UP_SECONDS)
        total = environment.stats.total
        sent, failed = total.num_requests, total.num_failures
        clock, cpu = time.perf_counter(), time.process_time()
        gevent.sleep(seconds)
        return {
            "transfers": total.num_requests - sent,
            "failures": total.num_failures - failed,
            "seconds": time.perf_counter() - clock,
            "cpu_seconds": time.process_time() - cpu,
        }
    finally:
        runner.quit()


def main() -> None:
    """Reads the rig's options and --seconds, --users; prints the line."""
    parser = get_empty_argument_parser()
    add_options(parser)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--users", type=int, required=True)
    parser.set_defaults(batch_user_rate=_FLAT_OUT, unary_user_rate=_FLAT_OUT)
    options: argparse.Namespace = parser.parse_args()
    TransferUser.rig = Rig(read_settings(options))
    user_class = UnaryTransferUser if options.mode == Mode.UNARY else BatchTransferUser
    print(json.dumps(measure(user_class, options.routers, options.users, options.seconds)))


if __name__ == "__main__":
    main()
