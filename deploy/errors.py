"""Errors of the launcher and the command line.

DeployError                 what an engineer did or has; the text says what to do about it
├── StartError              a part of the cluster did not start, or not in time
├── DataError               the data folder is a copy, or of a cluster of another shape, or is unreadable
├── TableError              a CSV file cannot be read without guessing
├── NoClusterError          no cluster runs where one was asked for
└── NotKnownError           a question about the whole cluster has no answer: a part did not give its own
"""

from __future__ import annotations

from collections.abc import Mapping


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


class NotKnownError(DeployError):
    """A part did not answer, so that nothing is proved. ``fields`` is how an answer in JSON says so."""

    def __init__(self, sentence: str, fields: Mapping[str, str | None]) -> None:
        super().__init__(sentence)
        self.fields = fields
