"""The function library that a shard's Redis runs, put together from its parts."""

from __future__ import annotations

from importlib import resources
from typing import Final

# The library's name, as its first line has it.
NAME: Final = "tallystick"
# In this order: each part uses what those before it define.
_PARTS = ("base", "accounts", "outcomes", "transfers", "journals", "archive", "register")


def source() -> str:
    """The text that Redis loads."""
    folder = resources.files(__name__)
    return "\n".join(folder.joinpath(f"{part}.lua").read_text() for part in _PARTS)
