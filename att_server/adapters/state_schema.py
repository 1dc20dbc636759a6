"""The tables of the state store, and how the core's values lie in them.

One schema for every database that SQLAlchemy speaks to. A change here comes
with a migration (`migrations/`), which a test compares with these tables.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from att_server.adapters.stored_settings import settings_of, settings_values
from att_server.core.model import DesiredState, Event, Project, ProjectMode, RequestClaim

SCHEMA_VERSION = 1
"""The newest migration that this code knows. It opens every database whose
`min_reader` is not above this number, and migrates those that are older."""

MIN_READER = 1
"""The lowest SCHEMA_VERSION of the releases that understand this schema."""


class UtcTime(sa.types.TypeDecorator[datetime]):
    """Aware times; kept in UTC where the database knows no time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To the database."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """From the database."""
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


# Only INTEGER, not BIGINT, makes a SQLite primary key the row's own address.
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")

METADATA = sa.MetaData()

META = sa.Table(
    "meta",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
"""Single numbers: `min_reader` (written by migrations), `epoch` (of the last
start), `next_event` (never goes back, so that no sequence is used twice),
`notified` (events below it need no notification any more)."""

VERSION = sa.Table(
    "alembic_version",
    METADATA,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Alembic's own: the last migration, as four digits."""

PROJECT = sa.Table(
    "project",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("runtime", sa.JSON, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("log_id", sa.Text, nullable=False),
    sa.Column("desired", sa.Text, nullable=False),
    sa.Column("desired_runtime", sa.JSON, nullable=False),
    sa.Column("create_time", UtcTime, nullable=False),
    sa.Column("update_time", UtcTime, nullable=False),
)

EVENT = sa.Table(
    "event",
    METADATA,
    sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("cycle_id", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("attributes", sa.JSON, nullable=False),
    sa.Index("event_by_project", "project_id", "sequence"),
    sa.Index("event_by_type", "event_type", "sequence"),
)

REQUEST = sa.Table(
    "request",
    METADATA,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
)


def make_schema(connection: sa.Connection) -> None:
    """Makes the tables in an empty database, as all migrations together would.

    Without Alembic, which costs the first start of a server memory and time.
    """
    METADATA.create_all(connection)
    numbers = {"min_reader": MIN_READER, "epoch": 0, "next_event": 0}
    connection.execute(
        sa.insert(META), [{"name": name, "value": value} for name, value in numbers.items()]
    )
    connection.execute(sa.insert(VERSION), {"version_num": f"{SCHEMA_VERSION:04}"})


def project_values(project: Project) -> dict[str, Any]:
    """The columns of `project`."""
    return {
        "project_id": project.project_id,
        "path": str(project.path),
        "runtime": settings_values(project.runtime),
        "mode": project.mode.value,
        "log_id": project.log_id,
        "desired": project.desired.value,
        "desired_runtime": settings_values(project.desired_runtime),
        "create_time": project.create_time,
        "update_time": project.update_time,
    }


def project_of(row: sa.RowMapping) -> Project:
    """The project of a row."""
    return Project(
        project_id=row["project_id"],
        path=Path(row["path"]),
        runtime=settings_of(row["runtime"]),
        mode=ProjectMode(row["mode"]),
        log_id=row["log_id"],
        desired=DesiredState(row["desired"]),
        desired_runtime=settings_of(row["desired_runtime"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
    )


def event_values(event: Event, sequence: int) -> dict[str, Any]:
    """The columns of `event` as the entry `sequence`."""
    return {
        "sequence": sequence,
        "time": event.time,
        "event_type": event.event_type,
        "project_id": event.project_id,
        "cycle_id": event.cycle_id,
        "run_id": event.run_id,
        "principal": event.principal,
        "phase": event.phase,
        "reason": event.reason,
        "message": event.message,
        "attributes": dict(event.attributes),
    }


def event_of(row: sa.RowMapping) -> Event:
    """The event of a row."""
    return Event(**{column.name: row[column.name] for column in EVENT.columns})


def claim_values(claim: RequestClaim) -> dict[str, Any]:
    """The columns of `claim`."""
    return {
        "request_id": claim.request_id,
        "method": claim.method,
        "digest": claim.digest,
        "project_id": claim.project_id,
        "time": claim.time,
        "outcome": claim.outcome,
    }


def claim_of(row: sa.RowMapping) -> RequestClaim:
    """The claim of a row."""
    return RequestClaim(**{column.name: row[column.name] for column in REQUEST.columns})
