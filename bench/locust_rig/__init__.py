"""The Locust rig: what `bench/locustfile.py` is made of, and `make locust` (`python -m bench.locust_rig`).

Invariant: a transfer is one request in Locust's statistics, however many travel in one RPC, and each that was
sent is counted exactly once, as done or as failed.
"""
