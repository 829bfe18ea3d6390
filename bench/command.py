"""The frame of a measuring command: progress on standard error, figures on standard output, a clean end.

The options of a command are fields of its settings, which say their limits and help (see `bench.settings`).
Whatever ends a command early (an error, Ctrl-C, the end of a CI job), what it started is stopped first.
"""

from __future__ import annotations

import inspect
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints

import typer

from bench.errors import BenchError
from deploy.terminal import Screen, err, faint, out, plain_errors, write_json

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Progress = Callable[[str], None]
Settings = TypeVar("Settings")
Figures = TypeVar("Figures")
P = ParamSpec("P")

JsonOption = Annotated[
    bool,
    typer.Option("--json", help="One line of JSON on standard output; the tables go to standard error."),
]


def command(
    work: Callable[[Settings, Progress], Figures],
    show: Callable[[Screen, Settings, Figures], None],
    document: Callable[[Settings, Figures], Mapping[str, object]],
    defaults: Settings,
    fields: Iterable[str] = (),
    **changed: Any,
) -> Callable[..., None]:
    """A command for typer, whose options are fields of a frozen dataclass; its help is that of ``work``.

    It measures, then prints tables, and with ``--json`` the document on one line. It raises SystemExit, after
    a sentence that says why, when there are none to print: see `plain_errors`.

    Args:
        work: measures; raises BenchError when the figures are not worth printing.
        show: prints the tables.
        document: the figures for programs.
        defaults: the settings when no option is given.
        fields: which fields are options; all when empty.
        changed: by field, an option of another name, help or limits than the field's own.
    """
    hints = {**get_type_hints(type(defaults), include_extras=True), **changed}

    def main(*, as_json: bool, **given: Any) -> None:
        try:
            settings = replace(defaults, **given)  # type: ignore[type-var]
        except BenchError as error:
            raise typer.BadParameter(str(error)) from None
        for ending in _ENDINGS:
            signal.signal(ending, _interrupt_once)
        with plain_errors(as_json=as_json):
            figures = work(settings, lambda step: err.print(faint(step)))
            show(err if as_json else out, settings, figures)
            if as_json:
                write_json(document(settings, figures), one_line=True)

    options = [_option(name, getattr(defaults, name), hints[name]) for name in fields or hints]
    signature = inspect.Signature([*options, _option("as_json", default=False, annotation=JsonOption)])
    main.__signature__ = signature  # type: ignore[attr-defined]
    main.__doc__ = inspect.getdoc(work)
    return main


def apart(function: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> None:
    """Runs a function of a module in a new process, so that CPU time and memory are its own.

    Raises BenchError when it fails.
    """
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=function, args=arguments, kwargs=named)
    process.start()
    try:
        process.join()
    finally:
        process.kill()
    if process.exitcode:
        raise BenchError(f"what was measured ended with status {process.exitcode}")


def _option(name: str, default: object, annotation: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _interrupt_once(*_: object) -> None:
    """What was started is stopped on the way out; a second signal must not cut that short."""
    for ending in _ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt
