"""The command line `tallystick`, and the launcher that runs a whole cluster on one machine.

Its public face for tests and benchmarks is :class:`deploy.launcher.LocalCluster`.
"""
