"""Measures a cluster under load: `tallystick bench`, or `python -m bench`; each further file has its own command.

The rest of the repository does not import this package, but for the command line, when it is asked to measure.
"""
