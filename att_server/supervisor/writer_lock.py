"""The lock of a project's log and state: whoever holds it may write."""

from __future__ import annotations

import fcntl
import os

from att_server.supervisor.state import LOCK_FILE


def take_lock(project: str) -> int | None:
    """Takes the project's writer lock; its descriptor holds it. None if it is taken."""
    path = os.path.join(project, LOCK_FILE)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
