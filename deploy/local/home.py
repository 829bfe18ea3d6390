"""Which folder a data folder is: how a copy is told from the original.

A path alone would not tell a restored backup from what it replaces, nor would it know a folder that is seen
through a bind mount. So the folder's inode counts, which no copy shares; with it either the device, or, since
devices are numbered anew at a boot, the path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Home:
    """One folder: its resolved path, its device and its inode, as they were when it was last started in."""

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The folder as it is now. Raises OSError when there is none."""
        found = folder.stat()
        return cls(str(folder.resolve()), found.st_dev, found.st_ino)

    def is_at(self, folder: Path) -> bool:
        """Whether ``folder`` is that one: in its place, moved within its file system, or bind-mounted."""
        here = Home.of(folder)
        return self.inode == here.inode and (self.device == here.device or self.path == here.path)
