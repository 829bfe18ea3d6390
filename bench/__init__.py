"""Measures a cluster under load: `tallystick bench`; each of the other measurements has a command of its own.

The rest of the repository does not import this package, except the command line when it is to measure.
"""
