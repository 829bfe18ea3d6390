"""How async code asks a database that blocks: in a thread of somebody's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Ask(Protocol):
    """Runs a blocking question in a thread."""

    async def __call__(self, question: Callable[[], T], /) -> T:
        """The answer."""
