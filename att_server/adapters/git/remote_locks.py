"""Locks that a killed push of ours left in a remote that is a directory of this host.

There the remote's half of a push is a child of ours. Killed while it moves a
branch it leaves git's lock file, which nobody removes and which would stop all
later pushes to the branch.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from att_server.adapters.git.locks import locked

_WAITS = timedelta(minutes=5)
_LIVES = timedelta(seconds=0.5)
"""Others hold such a lock for milliseconds, and may just have taken it."""


class Intent:
    """A push that has begun; what it leaves is known by it."""

    def __init__(self, marker: Path | None, descriptor: int | None) -> None:
        self._marker = marker
        self.descriptor = descriptor
        """To be held by the push, and so by both its halves."""

    def answered(self) -> None:
        """The remote's half has said how it ended, so it left nothing."""
        if self._marker is not None:
            self._marker.unlink(missing_ok=True)


@asynccontextmanager
async def intended_push(work: Path, url: str, ref: str) -> AsyncIterator[Intent]:
    """Notes in `work` that `ref` of the remote is about to be pushed; one such push at a time.

    Removes the locks that an earlier one, which was never answered, left there.
    Of a remote on another host nothing is known, and nothing is done.
    """
    remote = _directory(url)
    if remote is None:
        yield Intent(None, None)
        return
    named = hashlib.sha256(f"{url}\0{ref}".encode()).hexdigest()[:32]
    marker = work / f".{named}.push.lock"
    async with locked(remote, within=_WAITS) as held:
        # Nobody of ours pushes there now, and neither does what they began.
        if marker.exists():
            since = marker.stat().st_mtime_ns
            for name in (ref, "HEAD", "packed-refs"):
                await _remove_left(remote / f"{name}.lock", since)
        marker.touch()
        yield Intent(marker, held)


def _directory(url: str) -> Path | None:
    path = url
    if "://" in url:
        parts = urlsplit(url)
        if parts.scheme != "file":
            return None
        path = unquote(parts.path)
    if not path.startswith("/"):
        return None
    top = Path(path)
    remote = top / ".git" if (top / ".git").is_dir() else top
    return remote if remote.is_dir() else None


async def _remove_left(lock: Path, since: int) -> None:
    """Removes the lock file if it was made after `since` (in ns) and is there to stay."""
    try:
        before = lock.stat()
        if before.st_mtime_ns < since:
            return
        await asyncio.sleep(_LIVES.total_seconds())
        now = lock.stat()
        if (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
            lock.unlink()
    except FileNotFoundError:
        return
