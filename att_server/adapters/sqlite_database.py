"""SqliteDatabase: the one SQLite file of a state directory, its threads and its schema."""

from __future__ import annotations

import errno
import os
import sqlite3
from asyncio import get_running_loop, shield
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from att_server.adapters.state_schema import META, SCHEMA_VERSION, VERSION, make_schema
from att_server.adapters.stored_events import number_of
from att_server.core.errors import AttError, Reason, RefusalReason, StartRefused

BUSY_TIMEOUT_SECONDS = 10.0
_READERS = 2

T = TypeVar("T")

# Primary result codes of SQLite.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNWRITABLE = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
)


class SqliteDatabase:
    """What all that keeps state in the file of a server shares; opened with `open`.

    Writers take turns (`BEGIN IMMEDIATE`) and a write is on the disk when it
    returns, unless it asks not to be synced; readers never wait for them. A
    write that was begun is finished, also when its caller is cancelled. A write
    raises STORAGE_FULL without space, and AUDIT_UNAVAILABLE where the file cannot
    be written for another reason; nothing is kept then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = _writer(path, synchronous="FULL")
        self._unsynced = _writer(path, synchronous="NORMAL")
        self._reader = _engine(path, connections=_READERS)
        # A whole transaction is one hop to a thread; the asyncio extension would make
        # one for each step of each statement, and load the ORM.
        self._write_thread = ThreadPoolExecutor(1, "att-store-write")
        self._read_threads = ThreadPoolExecutor(_READERS, "att-store-read")
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, *, migrates: Callable[[], None] = lambda: None
    ) -> SqliteDatabase:
        """Opens the file, made (mode 0600) or migrated where needed.

        migrates: called before it is migrated, in another thread.
        A file of a newer release is used as it is where that release allows it.
        Raises StartRefused: SCHEMA_TOO_NEW, STATE_DIR_NOT_WRITABLE, STATE_DAMAGED;
        nothing was changed then.
        """
        database = cls(path)
        try:
            await get_running_loop().run_in_executor(
                database._write_thread, database._prepare, migrates
            )
        except BaseException as error:
            await database.aclose()
            if isinstance(error, SQLAlchemyError | OSError):
                raise _refusal(path, error) from error
            raise
        return database

    async def write(self, work: Callable[[sa.Connection], T], *, synced: bool = True) -> T:
        """Does `work` in a transaction of its own, which is undone if it raises.

        synced: False leaves the sync of the disk to the next write, which cannot
        reach it without this one. Until then only a crash of the machine takes it.
        """
        self._check_open()
        writer = self._writer if synced else self._unsynced
        try:
            # Shielded: a write that only waits for its turn is not dropped either.
            return await shield(
                get_running_loop().run_in_executor(self._write_thread, _within, writer.begin, work)
            )
        except DBAPIError as error:
            refused = _write_error(self._path, error)
            if refused is None:
                raise
            raise refused from error

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Does `work`, which only reads, on a connection of its own."""
        self._check_open()
        return await get_running_loop().run_in_executor(
            self._read_threads, _within, self._reader.connect, work
        )

    async def aclose(self) -> None:
        """Closes the file, after the writes that were begun; every later call fails."""
        if self._closed:
            return
        self._closed = True
        loop = get_running_loop()
        for threads, engine in (
            (self._read_threads, self._reader),
            (self._write_thread, self._unsynced),
            (self._write_thread, self._writer),
        ):
            await loop.run_in_executor(threads, engine.dispose)
        self._read_threads.shutdown(wait=False)
        self._write_thread.shutdown(wait=False)

    def _prepare(self, migrates: Callable[[], None]) -> None:
        _make_file(self._path)
        with self._writer.begin() as connection:
            version = _checked_version(connection, self._path)
        with self._reader.connect() as connection:
            # Kept in the file. Not possible within a transaction.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        if version is not None and version >= SCHEMA_VERSION:
            return
        migrates()
        with self._writer.begin() as connection:
            # Asked again: another process may have been quicker.
            if _checked_version(connection, self._path) is None:
                make_schema(connection)
            else:
                from att_server.adapters import migrations

                migrations.upgrade(connection)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the database is closed")


def _within(
    enter: Callable[[], AbstractContextManager[sa.Connection]],
    work: Callable[[sa.Connection], T],
) -> T:
    with enter() as connection:
        return work(connection)


def _writer(path: Path, *, synchronous: str) -> sa.Engine:
    engine = _engine(path, connections=1, synchronous=synchronous)
    sa.event.listen(engine, "begin", _begin_immediate)
    return engine


def _engine(path: Path, *, connections: int, synchronous: str = "FULL") -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        pool_size=connections,
        max_overflow=0,
        # The driver's own transactions would begin late and leave out DDL.
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_SECONDS},
    )

    def configure(connection: Any, record: object) -> None:
        connection.execute(f"PRAGMA synchronous={synchronous}")

    sa.event.listen(engine, "connect", configure)
    return engine


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and then writes would fail at once when
    # another process wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _make_file(path: Path) -> None:
    # SQLite would make it readable by others, and it holds the apps' environments.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # SQLite would open it for reading only, and the first write would fail.
        if not os.access(path, os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from None


def _checked_version(connection: sa.Connection, path: Path) -> int | None:
    """The schema version of the file, None while it is empty. Raises StartRefused."""
    tables = sa.inspect(connection).get_table_names()
    if not tables:
        return None
    if META.name not in tables:
        raise StartRefused(
            RefusalReason.STATE_DAMAGED,
            f"{path} is a database of another program. Choose another state directory.",
        )
    min_reader = connection.execute(number_of("min_reader")).scalar_one()
    if min_reader > SCHEMA_VERSION:
        raise StartRefused(
            RefusalReason.SCHEMA_TOO_NEW,
            f"{path} needs a release that knows schema {min_reader}; this one knows up to "
            f"{SCHEMA_VERSION}. Start the newer release again, or restore a backup made with "
            "this one. Nothing was changed.",
        )
    return int(connection.execute(sa.select(VERSION.c.version_num)).scalar_one())


def _refusal(path: Path, error: SQLAlchemyError | OSError) -> StartRefused:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if _code(error) in _DAMAGED or not isinstance(error, DBAPIError | OSError):
        return StartRefused(
            RefusalReason.STATE_DAMAGED,
            f"{path} is damaged ({cause}). Restore a backup of it, or choose another state "
            "directory.",
        )
    return StartRefused(
        RefusalReason.STATE_DIR_NOT_WRITABLE,
        f"{path} cannot be written ({cause}). Make its directory and file writable for this "
        "user, with space left, or choose another state directory.",
    )


def _write_error(path: Path, error: DBAPIError) -> AttError | None:
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return AttError(
            Reason.STORAGE_FULL,
            f"There is no space left to write {path}. Free some and call again.",
            path=path,
        )
    if code in _UNWRITABLE:
        return AttError(
            Reason.AUDIT_UNAVAILABLE,
            "The server cannot write its database, so the call was not made. Call again.",
        )
    return None


def _code(error: Exception) -> int | None:
    """The primary result code of SQLite that lies behind `error`."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
