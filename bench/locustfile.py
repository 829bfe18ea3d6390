"""The file that Locust is given: `locust -f bench/locustfile.py`, or `make locust`.

Locust finds users and load shape by their classes in this module; all else is in `bench.locust_rig`.
"""

from locust import events

from bench.locust_rig.shape import ClimbShape
from bench.locust_rig.users import BatchTransferUser, UnaryTransferUser
from bench.locust_rig.wiring import install

__all__ = ["BatchTransferUser", "ClimbShape", "UnaryTransferUser"]

install(events)
