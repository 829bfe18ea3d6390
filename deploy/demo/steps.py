"""What the steps of the demo share: headings, the one way to fail, waiting with an end."""

from __future__ import annotations

import time
from collections.abc import Callable

from deploy.errors import DeployError
from deploy.terminal import out, strong

_POLL_SECONDS = 0.05


class DemoError(DeployError):
    """Something was not as it must be."""


def heading(text: str) -> None:
    """Begins a step."""
    out.print()
    out.print(strong(text))


def must(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads like an assertion
    """Raises DemoError with ``otherwise`` unless it holds."""
    if not holds:
        raise DemoError(otherwise)


def wait_until(holds: Callable[[], bool], seconds: float, otherwise: str) -> float:
    """Asks until it holds; the seconds that took. Raises DemoError with ``otherwise`` when they are over."""
    start = time.monotonic()
    while not holds():
        must(time.monotonic() - start < seconds, f"{otherwise} within {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - start
