"""Errors of the launcher and the command line.

DeployError                 what an engineer did or has; the text says what to do about it
├── StartError              a part of the cluster did not start, or not in time
├── DataError               the data folder belongs to a cluster of another shape, or is unreadable
├── TableError              a CSV file cannot be read without guessing
└── NoClusterError          no cluster runs where one was asked for
"""


class DeployError(Exception):
    """Root of the errors of this package; its text is meant for people."""


class StartError(DeployError):
    """A process exited while it started, or was not ready in time."""


class DataError(DeployError):
    """The data folder does not fit what was asked for."""


class TableError(DeployError):
    """A CSV file that cannot be delimited, or whose header is not clear; nothing of it was used."""


class NoClusterError(DeployError):
    """There is no running cluster where one was asked for."""
