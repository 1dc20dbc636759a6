"""SqliteStateStore: projects, events and request ids in one SQLite file."""

from __future__ import annotations

import errno
import os
import sqlite3
from asyncio import get_running_loop, shield
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from att_server.adapters.state_schema import (
    EVENT,
    META,
    PROJECT,
    REQUEST,
    SCHEMA_VERSION,
    VERSION,
    claim_of,
    claim_values,
    event_of,
    event_values,
    make_schema,
    project_of,
    project_values,
)
from att_server.core.errors import AttError, Reason, RefusalReason, StartRefused
from att_server.core.model import Event, EventFilter, Project, RequestClaim

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


class SqliteStateStore:
    """Implements `StateStore`; opened with `open`.

    Writers take turns (`BEGIN IMMEDIATE`) and a write is on the disk when it
    returns; readers never wait for them. A write that was begun is finished,
    also when its caller is cancelled. A write raises STORAGE_FULL without space,
    and AUDIT_UNAVAILABLE where the file cannot be written for another reason;
    nothing is kept then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = _engine(path, connections=1)
        sa.event.listen(self._writer, "begin", _begin_immediate)
        self._reader = _engine(path, connections=_READERS)
        # A whole transaction is one hop to a thread; the asyncio extension would make
        # one for each step of each statement, and load the ORM.
        self._write_thread = ThreadPoolExecutor(1, "att-store-write")
        self._read_threads = ThreadPoolExecutor(_READERS, "att-store-read")
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> SqliteStateStore:
        """Opens the file, made (mode 0600) or migrated where needed.

        A file of a newer release is used as it is where that release allows it.
        Raises StartRefused: SCHEMA_TOO_NEW, STATE_DIR_NOT_WRITABLE, STATE_DAMAGED;
        nothing was changed then.
        """
        store = cls(path)
        try:
            await get_running_loop().run_in_executor(store._write_thread, store._prepare)
        except BaseException as error:
            await store.aclose()
            if isinstance(error, SQLAlchemyError | OSError):
                raise _refusal(path, error) from error
            raise
        return store

    async def projects(self) -> Sequence[Project]:
        """All projects, by id."""
        query = sa.select(PROJECT).order_by(PROJECT.c.project_id)
        return await self._read(
            lambda connection: [project_of(row) for row in connection.execute(query).mappings()]
        )

    async def put_project(
        self, project: Project, *events: Event, claim: RequestClaim | None = None
    ) -> RequestClaim | None:
        """Inserts or replaces the project with its id, unless the claim is kept already."""

        def put(connection: sa.Connection) -> RequestClaim | None:
            if claim is not None and (kept := _take(connection, claim)) is not None:
                return kept
            values = project_values(project)
            known = PROJECT.c.project_id == project.project_id
            if not connection.execute(sa.update(PROJECT).where(known), values).rowcount:
                connection.execute(sa.insert(PROJECT), values)
            _append(connection, events)
            return None

        return await self._write(put)

    async def delete_project(self, project_id: str, *events: Event) -> None:
        """Removes the project; without effect, also on the events, if there is none."""

        def delete(connection: sa.Connection) -> None:
            if connection.execute(
                sa.delete(PROJECT).where(PROJECT.c.project_id == project_id)
            ).rowcount:
                _append(connection, events)

        await self._write(delete)

    async def append_events(
        self, *events: Event, outcomes: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Appends events in order, and keeps what claimed requests began."""

        def append(connection: sa.Connection) -> None:
            _append(connection, events)
            for request_id, outcome in outcomes.items():
                connection.execute(_outcome(request_id, outcome))

        await self._write(append)

    async def list_events(
        self, selected: EventFilter, *, cursor: int, limit: int, tail: bool = False
    ) -> tuple[Sequence[Event], int]:
        """Up to `limit` selected events, and the next cursor."""
        query = sa.select(EVENT).where(*_conditions(selected)).limit(limit)
        if tail:
            query = query.order_by(EVENT.c.sequence.desc())
        else:
            query = query.where(EVENT.c.sequence >= cursor).order_by(EVENT.c.sequence)

        def read(connection: sa.Connection) -> tuple[int, list[Event]]:
            # Read first: what is appended meanwhile lies behind it.
            end: int = connection.execute(_number("next_event")).scalar_one()
            rows = connection.execute(query.where(EVENT.c.sequence < end))
            return end, [event_of(row) for row in rows.mappings()]

        end, events = await self._read(read)
        if tail:
            return events[::-1], end
        return events, events[-1].sequence + 1 if len(events) == limit else max(cursor, end)

    async def claim_request(self, claim: RequestClaim) -> RequestClaim | None:
        """Keeps the claim and returns None, or returns the one kept under its id."""
        return await self._write(lambda connection: _take(connection, claim))

    async def set_request_outcome(self, request_id: str, outcome: str) -> None:
        """Keeps what a claimed request began."""
        await self._write(lambda connection: connection.execute(_outcome(request_id, outcome)))

    async def next_epoch(self) -> int:
        """A number that is higher than every one returned before, from 1."""
        return await self._write(lambda connection: _count(connection, "epoch", 1))

    async def number(self, name: str) -> int | None:
        """The number that is kept under `name`, None if there is none."""
        query = _number(name)
        return await self._read(lambda connection: connection.execute(query).scalar_one_or_none())

    async def raise_number(self, name: str, value: int) -> None:
        """Keeps `value` under `name`, unless a number that is not lower is kept there."""

        def put(connection: sa.Connection) -> None:
            kept = connection.execute(_number(name)).scalar_one_or_none()
            if kept is None:
                connection.execute(sa.insert(META), {"name": name, "value": value})
            elif kept < value:
                connection.execute(sa.update(META).where(META.c.name == name), {"value": value})

        await self._write(put)

    async def aclose(self) -> None:
        """Closes the store, after the writes that were begun; every later call fails."""
        if self._closed:
            return
        self._closed = True
        loop = get_running_loop()
        for threads, engine in (
            (self._read_threads, self._reader),
            (self._write_thread, self._writer),
        ):
            await loop.run_in_executor(threads, engine.dispose)
            threads.shutdown(wait=False)

    def _prepare(self) -> None:
        _make_file(self._path)
        with self._writer.begin() as connection:
            version = _checked_version(connection, self._path)
        with self._reader.connect() as connection:
            # Kept in the file. Not possible within a transaction.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        if version is not None and version >= SCHEMA_VERSION:
            return
        with self._writer.begin() as connection:
            # Asked again: another process may have been quicker.
            if _checked_version(connection, self._path) is None:
                make_schema(connection)
            else:
                from att_server.adapters import migrations

                migrations.upgrade(connection)

    async def _write(self, work: Callable[[sa.Connection], T]) -> T:
        """Does `work` in a transaction of its own."""
        self._check_open()
        try:
            # Shielded: a write that only waits for its turn is not dropped either.
            return await shield(
                get_running_loop().run_in_executor(
                    self._write_thread, _within, self._writer.begin, work
                )
            )
        except DBAPIError as error:
            refused = _write_error(self._path, error)
            if refused is None:
                raise
            raise refused from error

    async def _read(self, work: Callable[[sa.Connection], T]) -> T:
        self._check_open()
        return await get_running_loop().run_in_executor(
            self._read_threads, _within, self._reader.connect, work
        )

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the state store is closed")


def _within(
    enter: Callable[[], AbstractContextManager[sa.Connection]],
    work: Callable[[sa.Connection], T],
) -> T:
    with enter() as connection:
        return work(connection)


def _engine(path: Path, *, connections: int) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        pool_size=connections,
        max_overflow=0,
        # The driver's own transactions would begin late and leave out DDL.
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_SECONDS},
    )
    sa.event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: Any, record: object) -> None:
    connection.execute("PRAGMA synchronous=FULL")


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and then writes would fail at once when
    # another process wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _number(name: str) -> sa.Select[int]:
    return sa.select(META.c.value).where(META.c.name == name)


def _count(connection: sa.Connection, name: str, step: int) -> int:
    """Raises the number `name` by `step` and returns it."""
    raised = connection.execute(
        sa.update(META)
        .where(META.c.name == name)
        .values(value=META.c.value + step)
        .returning(META.c.value)
    )
    value: int = raised.scalar_one()
    return value


def _take(connection: sa.Connection, claim: RequestClaim) -> RequestClaim | None:
    query = sa.select(REQUEST).where(REQUEST.c.request_id == claim.request_id)
    kept = connection.execute(query).mappings().one_or_none()
    if kept is not None:
        return claim_of(kept)
    connection.execute(sa.insert(REQUEST), claim_values(claim))
    return None


def _outcome(request_id: str, outcome: str) -> sa.Update:
    return sa.update(REQUEST).where(REQUEST.c.request_id == request_id).values(outcome=outcome)


def _append(connection: sa.Connection, events: Sequence[Event]) -> None:
    if events:
        first = _count(connection, "next_event", len(events)) - len(events)
        connection.execute(
            sa.insert(EVENT),
            [event_values(event, first + index) for index, event in enumerate(events)],
        )


def _conditions(selected: EventFilter) -> list[sa.ColumnElement[bool]]:
    conditions = []
    if selected.project_id:
        conditions.append(EVENT.c.project_id == selected.project_id)
    if selected.cycle_id:
        conditions.append(EVENT.c.cycle_id == selected.cycle_id)
    if selected.run_ids:
        conditions.append(EVENT.c.run_id.in_(selected.run_ids))
    if selected.event_types:
        names = [name for name in selected.event_types if not name.endswith(".")]
        prefixes = [name for name in selected.event_types if name.endswith(".")]
        conditions.append(
            sa.or_(
                EVENT.c.event_type.in_(names),
                # Not LIKE, which ignores case in SQLite.
                *(sa.func.substr(EVENT.c.event_type, 1, len(name)) == name for name in prefixes),
            )
        )
    return conditions


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
    min_reader = connection.execute(_number("min_reader")).scalar_one()
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
