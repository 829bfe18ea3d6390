"""The command line `tallystick`, and the launcher that runs a whole cluster on one machine.

Tests and benchmarks start clusters by :class:`deploy.local.LocalCluster`.
"""
