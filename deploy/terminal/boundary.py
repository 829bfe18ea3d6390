"""The boundary of every command: whatever is raised in it becomes a sentence, never a traceback on a screen.

What an engineer can meet is said, and what to do about it. What nobody expected is a defect of ours: its
traceback goes to a file, and the command ends with an exit code of its own. With --json every failure is also
a JSON document on standard output.

Invariant: whoever may have to send something again learns its transaction id, and is never told "failed"
where that is not known.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, NoReturn

import grpc
import typer

from deploy.errors import DeployError, NotKnownError
from deploy.local import explain, without_passwords
from deploy.terminal.rendering import bad, err, write_json
from shard_node.errors import ShardNodeError
from tallystick import OutcomeUnknown, Refused, RetryableError, TallystickError, Unavailable

EXIT_FAILED, EXIT_NOT_KNOWN = 1, 2
# EX_SOFTWARE of sysexits.h.
EXIT_DEFECT = 70
# What a shell calls a command that Ctrl-C ended, and one whose reader went away: 128 and the signal's number.
EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 130, 141

_LOOK = "'tallystick status' tells whether a part of the cluster is missing"

# Typer has its own copy of click, and names few of its errors; their root has an exit code and a message.
_ClickError: type[Any] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)

_about: ContextVar[Mapping[str, str]] = ContextVar("_about")


def about(**fields: str) -> None:
    """Notes what the command is about from here on: a failure names it, in JSON under these names.

    With a ``transaction_id`` any failure but a refusal means: not known whether it happened.
    """
    _about.set({**_about.get(), **fields})


def json_asked_for(words: Sequence[str]) -> bool:
    """Whether a command line has the option --json: also one that is wrong gets its answer so."""
    options = words[: words.index("--")] if "--" in words else words
    return "--json" in options


@contextmanager
def plain_errors(*, as_json: bool = False) -> Iterator[None]:
    """Ends the command (SystemExit) with one sentence when the block raises anything but its ordinary end."""
    _about.set({})
    try:
        yield
        sys.stdout.flush()
    except (SystemExit, typer.Exit):
        raise
    except BaseException as error:  # noqa: BLE001 - the boundary: there is nobody behind it
        _end(_failure(error), as_json=as_json, refused=isinstance(error, Refused))


@contextmanager
def not_known(what: str, answer: str | None = None) -> Iterator[None]:
    """For questions about the whole cluster: a part that does not answer proves nothing.

    ``what`` is the field of the answer in JSON that says ``answer`` then. Raises NotKnownError.
    """
    try:
        yield
    except (DeployError, ShardNodeError, TallystickError, grpc.RpcError, OSError) as error:
        raise NotKnownError(f"not known: {sentence_of(error)}", {what: answer}) from error


def sentence_of(error: BaseException) -> str:
    """What an engineer is told about an error that can be expected; empty for any other."""
    match error:
        case OutcomeUnknown():
            again = f" with --transaction-id {error.transaction_id}" if error.transaction_id else ""
            return f"{error.message or error.summary}: run the same command again{again}; {_LOOK}"
        case Unavailable():
            return f"{error}; {_LOOK}"
        case RetryableError():
            return f"{error}; try again in a moment"
        case grpc.RpcError():
            return explain(error)
        case DeployError() | ShardNodeError() | TallystickError() | OSError():
            return str(error)
    return ""


def error_document(error: TallystickError) -> dict[str, str]:
    """An error of the cluster in JSON."""
    return {
        "error": sentence_of(error),
        "outcome": error.outcome.name,
        "message": error.message or error.summary,
        "field": error.field,
    }


@dataclass(frozen=True, slots=True)
class _Failure:
    """How a command ends: ``sentence`` is for standard error, and with ``fields`` the JSON document."""

    exit_code: int
    sentence: str
    fields: Mapping[str, str | None] = field(default_factory=dict)


def _failure(error: BaseException) -> _Failure:
    match error:
        case KeyboardInterrupt():
            return _Failure(EXIT_INTERRUPTED, "interrupted")
        case BrokenPipeError():
            return _Failure(EXIT_PIPE_CLOSED, "")
        case typer.Abort():
            return _Failure(EXIT_FAILED, "the input ended early")
        case NotKnownError():
            return _Failure(EXIT_NOT_KNOWN, str(error), error.fields)
        case TallystickError():
            return _Failure(EXIT_FAILED, sentence_of(error), error_document(error))
        case _ if isinstance(error, _ClickError):
            return _usage(error)
        case _ if sentence := sentence_of(error):
            return _Failure(EXIT_FAILED, sentence)
    return _defect(error)


def _usage(error: Any) -> _Failure:
    """What is wrong with a command line, and where to read on."""
    said, context = str(error.format_message()).rstrip("."), getattr(error, "ctx", None)
    # Nothing is said of a command without arguments: its help has been printed.
    more = f" (see '{context.command_path} --help')" if said and context is not None else ""
    return _Failure(error.exit_code, said + more)


def _defect(error: BaseException) -> _Failure:
    """What nobody expected: its traceback is kept in a file that only its owner may read."""
    said = f"this is a defect of tallystick ({type(error).__name__})"
    try:
        report, path = tempfile.mkstemp(prefix="tallystick-", suffix=".txt")
        with os.fdopen(report, "w", encoding="utf-8", errors="backslashreplace") as sink:
            version = f"tallystick {metadata.version('tallystick')}, Python {platform.python_version()}"
            sink.write(f"{version}, {platform.platform()}, {datetime.now(UTC).isoformat()}\n\n")
            sink.write(without_passwords("".join(traceback.format_exception(error))))
    except (OSError, MemoryError) as problem:
        return _Failure(EXIT_DEFECT, f"{said}; no report could be written: {problem}")
    return _Failure(EXIT_DEFECT, f"{said}; please report it with what is in {path}", {"report": path})


def _end(failure: _Failure, *, as_json: bool, refused: bool) -> NoReturn:
    """Says what there is to say, and ends the process."""
    noted, sentence = _about.get(), without_passwords(failure.sentence)
    # Who has closed an output has no use for it.
    with suppress(OSError):
        if sentence and failure.exit_code != EXIT_INTERRUPTED:
            # More lines are the end of a log.
            first, *more = sentence.split("\n")
            err.print(bad("error:"), f" {first}")
            for line in more:
                err.print(line)
        if "transaction_id" in noted and not refused:
            err.print(f"transaction {noted['transaction_id']}: not known yet whether it happened")
    with suppress(OSError):
        if as_json and sentence:
            write_json({**noted, "error": sentence, **failure.fields})
    _let_go_of_output()
    raise SystemExit(failure.exit_code) from None


def _let_go_of_output() -> None:
    """Python writes what is left when it ends, and complains: what could not be written goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
