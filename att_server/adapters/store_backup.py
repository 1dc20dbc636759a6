"""The database of a state directory, copied while it is used, and made one of its own again."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.core.model import DesiredState, Project

BUSY_SECONDS = 30.0
# By primary result code of SQLite.
_ERRORS_OF_THE_DISK = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO}


class StoreUnreadable(Exception):
    """The database cannot be copied: it is damaged, of another program, or locked."""


def copy_store(source: Path, target: Path) -> dict[str, str]:
    """Copies the database as of one moment to `target`, and returns log ids by project id.

    By SQLite's online backup: a file that is in use must never be copied, since its
    latest pages lie in another one. Nobody waits for it. `target` is new (0600) and
    one file. Raises StoreUnreadable, OSError.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with (
            closing(_connect(source)) as original,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            return dict(copy.execute("SELECT project_id, log_id FROM project"))
    except sqlite3.Error as error:
        number = _ERRORS_OF_THE_DISK.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if number is not None:
            raise OSError(number, os.strerror(number), str(target)) from error
        raise StoreUnreadable(str(error)) from error


async def renew_store(
    store: SqliteStateStore, *, new_log_id: Callable[[], str], now: datetime, stopped: bool
) -> list[Project]:
    """Makes a restored database one that no client takes for the original.

    Returns its projects. Every project gets a new log id. The numbers that clients
    may hold, of events and revisions, go on above all that the original, or an
    earlier restore of it, can have given. stopped: no app is meant to run. Raises
    AttError.
    """
    projects = [
        replace(
            project,
            log_id=new_log_id(),
            desired=DesiredState.STOPPED if stopped else project.desired,
        )
        for project in await store.projects()
    ]
    for project in projects:
        await store.put_project(project)
    # More than one event each millisecond, or a start of the server each minute,
    # was never written: so the time is above every number given before it.
    seconds = int(now.timestamp())
    await store.raise_number("next_event", seconds * 1000)
    await store.raise_number("epoch", seconds // 60)
    return projects


def _connect(path: Path) -> sqlite3.Connection:
    # Not read-only: who reads along with writers takes part in their locks. Never made.
    address = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
