"""How async code asks a database that blocks: in a thread of somebody's choice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Ask(Protocol):
    """Runs a blocking question in a thread."""

    async def __call__(self, question: Callable[[], T], /) -> T:
        """The answer."""


async def in_thread(question: Callable[[], T], /) -> T:
    """Asks in a thread of asyncio's own pool."""
    return await asyncio.to_thread(question)
