"""Locust users that move money: a base class, and a client for greenlets.

    class Payer(TallystickUser):
        wait_time = constant_throughput(2)

        def on_start(self):
            self.wallet.open_account("alice", "EUR", "-1000000")
            self.wallet.open_account("bob", "EUR")

        @task
        def pay(self):
            self.wallet.transfer("alice", "bob", "0.01", "EUR")

`locust -f payers.py --host HOST:PORT` runs it, with `--processes N` in several processes. The extra
`locust` of this package brings Locust along. Import this before anything else that uses gRPC.
"""

import locust  # noqa: F401 - first: it replaces the standard library's threads, on which all here counts

from tallystick.locust.greenlets import GreenletClient
from tallystick.locust.user import TallystickUser, Wallet

__all__ = ["GreenletClient", "TallystickUser", "Wallet"]
