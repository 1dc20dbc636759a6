"""A lock that is held by this process and by the commands it runs under it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from att_server.core.repository import RepositoryError, RepositoryFailure

_LOOKS_EVERY = 0.02  # seconds; other processes hold it too, so nothing tells of its release


@asynccontextmanager
async def locked(path: Path, *, within: timedelta) -> AsyncIterator[int]:
    """Holds the lock file or directory `path`; yields the descriptor to give to commands.

    It is free again when this process let go of it and every command that got
    the descriptor has ended: whoever has it next meets no writer that a killed
    server left. Raises RepositoryError LOCKED.
    """
    if path.is_dir():
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            async with asyncio.timeout(within.total_seconds()):
                while not _taken(descriptor):
                    await asyncio.sleep(_LOOKS_EVERY)
        except TimeoutError as error:
            raise RepositoryError(
                RepositoryFailure.LOCKED,
                f"{path} was held by others for {within.total_seconds():g} s.",
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
