"""Reading files that others wrote."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotReadable(Exception):
    """The file is there and is not read; the text goes on from its path."""


def read_regular_file(path: Path, *, max_bytes: int) -> bytes:
    """The content of a file. Raises OSError, or NotReadable with the reason.

    Waits for no pipe, and reads neither a device nor a file without end.
    """
    with open_regular_file(path) as file:
        return read_bounded(file, max_bytes=max_bytes)


def read_own_file(path: Path, *, max_bytes: int) -> bytes:
    """The content of a file that is ours alone: nobody else may read or write it.

    Raises as `read_regular_file`, and NotReadable where others may.
    """
    with open_regular_file(path) as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid():
            raise NotReadable(f"belongs to the user {status.st_uid}, not to {os.geteuid()}")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise NotReadable(f"has mode {mode:04o}, and is for its owner alone: `chmod 600` it")
        return read_bounded(file, max_bytes=max_bytes)


def open_regular_file(path: Path) -> BinaryIO:
    """The file, for `read_bounded`. Raises as `read_regular_file`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise NotReadable("is no path") from error
    # Looked at first: open() refuses a directory's descriptor without closing it.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotReadable("is not a file")
    return open(descriptor, "rb")


def read_bounded(file: BinaryIO, *, max_bytes: int) -> bytes:
    """What is in the file. Raises NotReadable where that is more than `max_bytes`."""
    content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise NotReadable(f"has more than {max_bytes:,} bytes")
    return content
