"""Reading files that others wrote."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class NotReadable(Exception):
    """The file is there and is not read; the text goes on from its path."""


def read_regular_file(path: Path, *, max_bytes: int) -> bytes:
    """The content of a file. Raises OSError, or NotReadable with the reason.

    Waits for no pipe, and reads neither a device nor a file without end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise NotReadable("is no path") from error
    # Looked at first: open() refuses a directory's descriptor without closing it.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotReadable("is not a file")
    with open(descriptor, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise NotReadable(f"has more than {max_bytes:,} bytes")
    return content
