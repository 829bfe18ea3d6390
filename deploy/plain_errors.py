"""Every error that an engineer can meet, as a sentence on standard error: a traceback is a defect of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import grpc
import typer
from rich.markup import escape

from deploy.connection import explain
from deploy.errors import DeployError
from deploy.options import err
from shard_node.errors import ShardNodeError
from tallystick import OutcomeUnknown, RetryableError, TallystickError, Unavailable

EXIT_FAILED = 1
# What a shell calls a command that Ctrl-C ended.
EXIT_INTERRUPTED = 130


@contextmanager
def plain_errors() -> Iterator[None]:
    """Ends the command (typer.Exit) with one sentence when the block raises one of the known errors."""
    try:
        yield
    except OutcomeUnknown as error:
        again = f" with --transaction-id {error.transaction_id}" if error.transaction_id else ""
        _fail(f"{error.message or error.summary}: run the same command again{again}")
    except Unavailable as error:
        _fail(str(error))
    except RetryableError as error:
        _fail(f"{error}; try again in a moment")
    except grpc.RpcError as error:
        _fail(explain(error))
    except (DeployError, ShardNodeError, TallystickError, OSError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _fail(message: str) -> NoReturn:
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(EXIT_FAILED)
