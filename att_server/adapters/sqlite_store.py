"""SqliteStateStore: projects, events and request ids in the database of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import sqlalchemy as sa

from att_server.adapters.cycle_rows import forget_project
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.state_schema import (
    EVENT,
    META,
    PROJECT,
    event_of,
    project_of,
    project_values,
)
from att_server.adapters.stored_events import (
    append_events,
    count_up,
    known_claim,
    number_of,
    outcome_of,
    take_claim,
)
from att_server.core.audit import AUDIT
from att_server.core.model import (
    Event,
    EventFilter,
    Project,
)
from att_server.core.request_claim import RequestClaim


class SqliteStateStore:
    """Implements `StateStore`. How its writes fail, `SqliteDatabase` says."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    @classmethod
    async def open(cls, path: Path) -> SqliteStateStore:
        """The store of a file that nothing else uses it for. Raises as `SqliteDatabase.open`."""
        return cls(await SqliteDatabase.open(path))

    async def projects(self) -> Sequence[Project]:
        """All projects, by id."""
        query = sa.select(PROJECT).order_by(PROJECT.c.project_id)
        return await self._database.read(
            lambda connection: [project_of(row) for row in connection.execute(query).mappings()]
        )

    async def put_project(
        self, project: Project, *events: Event, claim: RequestClaim | None = None
    ) -> RequestClaim | None:
        """Inserts or replaces the project with its id, unless the claim is kept already."""

        def put(connection: sa.Connection) -> RequestClaim | None:
            if claim is not None and (kept := take_claim(connection, claim)) is not None:
                return kept
            values = project_values(project)
            known = PROJECT.c.project_id == project.project_id
            if not connection.execute(sa.update(PROJECT).where(known), values).rowcount:
                connection.execute(sa.insert(PROJECT), values)
                # A release that does not know of cycles leaves those of a project it deletes.
                forget_project(connection, project.project_id)
            append_events(connection, events)
            return None

        return await self._database.write(put)

    async def delete_project(self, project_id: str, *events: Event) -> None:
        """Removes the project, its cycles and its releases; without effect if there is none."""

        def delete(connection: sa.Connection) -> None:
            if connection.execute(
                sa.delete(PROJECT).where(PROJECT.c.project_id == project_id)
            ).rowcount:
                forget_project(connection, project_id)
                append_events(connection, events)

        await self._database.write(delete)

    async def append_events(
        self,
        *events: Event,
        outcomes: Mapping[str, str] = MappingProxyType({}),
        synced: bool = True,
    ) -> None:
        """Appends events in order, and keeps what claimed requests began."""

        def append(connection: sa.Connection) -> None:
            append_events(connection, events)
            for request_id, outcome in outcomes.items():
                connection.execute(outcome_of(request_id, outcome))

        await self._database.write(append, synced=synced)

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
            end: int = connection.execute(number_of("next_event")).scalar_one()
            rows = connection.execute(query.where(EVENT.c.sequence < end))
            return end, [event_of(row) for row in rows.mappings()]

        end, events = await self._database.read(read)
        if tail:
            return events[::-1], end
        return events, events[-1].sequence + 1 if len(events) == limit else max(cursor, end)

    async def claim_request(self, claim: RequestClaim) -> RequestClaim | None:
        """Keeps the claim and returns None, or returns the one kept under its id."""
        return await self._database.write(lambda connection: take_claim(connection, claim))

    async def request(self, request_id: str) -> RequestClaim | None:
        """The claim that is kept under this id, None if there is none."""
        return await self._database.read(lambda connection: known_claim(connection, request_id))

    async def set_request_outcome(self, request_id: str, outcome: str) -> None:
        """Keeps what a claimed request began."""
        await self._database.write(
            lambda connection: connection.execute(outcome_of(request_id, outcome))
        )

    async def next_epoch(self) -> int:
        """A number that is higher than every one returned before, from 1."""
        return await self._database.write(lambda connection: count_up(connection, "epoch", 1))

    async def number(self, name: str) -> int | None:
        """The number that is kept under `name`, None if there is none."""
        query = number_of(name)
        return await self._database.read(
            lambda connection: connection.execute(query).scalar_one_or_none()
        )

    async def raise_number(self, name: str, value: int) -> None:
        """Keeps `value` under `name`, unless a number that is not lower is kept there."""

        def put(connection: sa.Connection) -> None:
            kept = connection.execute(number_of(name)).scalar_one_or_none()
            if kept is None:
                connection.execute(sa.insert(META), {"name": name, "value": value})
            elif kept < value:
                connection.execute(sa.update(META).where(META.c.name == name), {"value": value})

        await self._database.write(put)

    async def aclose(self) -> None:
        """Closes the database, after the writes that were begun; every later call fails."""
        await self._database.aclose()


def _conditions(selected: EventFilter) -> list[sa.ColumnElement[bool]]:
    is_audit = sa.func.substr(EVENT.c.event_type, 1, len(AUDIT)) == AUDIT
    conditions = [is_audit if selected.audit else ~is_audit]
    if selected.projects is not None:
        conditions.append(EVENT.c.project_id.in_(sorted(selected.projects)))
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
