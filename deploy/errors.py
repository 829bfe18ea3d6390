"""Errors of the launcher and the command line.

DeployError                 what an engineer did or has; the text says what to do about it
├── StartError              a part of the cluster did not start, or not in time
├── DataError               the data folder is a copy, or of a cluster of another shape, or is unreadable
└── NoClusterError          no cluster runs where one was asked for
"""


class DeployError(Exception):
    """Root of the errors of this package; its text is meant for people."""


class StartError(DeployError):
    """A process exited while it started, or was not ready in time."""


class DataError(DeployError):
    """The data folder does not fit what was asked for."""


class NoClusterError(DeployError):
    """There is no running cluster where one was asked for."""
