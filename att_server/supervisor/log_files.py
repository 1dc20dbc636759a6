"""What the writer of a log does to the disk, in one object.

Tests put another one in its place: to record the order of writes and syncs, or
to fail like a full disk. Every method raises OSError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


class Files:
    """Changes files and directories."""

    def make_directory(self, path: Path) -> None:
        """Makes the directory and its missing parents, durably."""
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            self.sync_directory(directory.parent)

    def open(self, path: Path, flags: int) -> int:
        """Opens a file; a new one is readable by the owner alone."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        """Writes at `offset` and returns how many bytes; fewer than given near a full disk."""
        return os.pwritev(fd, buffers, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Cuts the file to `size` bytes."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Returns when the content is on the disk."""
        os.fdatasync(fd)

    def close(self, fd: int) -> None:
        """Closes the file."""
        os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Renames a file over another, at once."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Removes a file."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """Returns when what was made, renamed and removed in the directory is on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
