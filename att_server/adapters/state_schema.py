"""The tables of the state store, and how the core's values lie in them.

One schema for every database that SQLAlchemy speaks to. A change here comes
with a migration (`migrations/`), which a test compares with these tables.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from att_server.adapters.stored_settings import settings_of, settings_values
from att_server.core.identity import Role, Token
from att_server.core.model import (
    DesiredState,
    Event,
    Project,
    ProjectMode,
)
from att_server.core.request_claim import RequestClaim

SCHEMA_VERSION = 3
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
    # Releases that do not know these insert projects too.
    sa.Column("mode_reason", sa.Text, nullable=False, server_default=""),
    sa.Column("release_id", sa.Text, nullable=False, server_default=""),
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

_JSON = sa.JSON(none_as_null=True)

CYCLE = sa.Table(
    "cycle",
    METADATA,
    sa.Column("cycle_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("create_time", UtcTime, nullable=False),
    sa.Column("end_time", UtcTime),
    sa.Column("rollback_time", UtcTime),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("lease_owner", sa.Text, nullable=False),
    sa.Column("lease_epoch", sa.BigInteger, nullable=False),
    sa.Column("lease_boot", sa.Text, nullable=False),
    sa.Column("lease_until", sa.Float, nullable=False),
    sa.Column("cancellation", _JSON),
    sa.Column("decision", _JSON),
    sa.Column("document", sa.Text, nullable=False),
    sa.Index("cycle_by_project", "project_id", "cycle_id"),
)
"""Cycles (`stored_cycles`). rollback_time: when it rolled back by itself.
lease_until: seconds since the boot `lease_boot` of the host."""

# Not a parameter: with one a database does not know that the index would do.
ACTIVE = CYCLE.c.state != sa.literal_column("'ended'")
sa.Index(
    "cycle_active",
    CYCLE.c.project_id,
    unique=True,
    sqlite_where=ACTIVE,
)
_rolled_back = CYCLE.c.rollback_time.is_not(None)
sa.Index(
    "cycle_rolled_back",
    CYCLE.c.project_id,
    CYCLE.c.rollback_time,
    sqlite_where=_rolled_back,
)

CYCLE_CHANGE = sa.Table(
    "cycle_change",
    METADATA,
    sa.Column("cycle_id", sa.Text, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
"""The change of a cycle that has not been applied yet."""

CYCLE_STEP = sa.Table(
    "cycle_step",
    METADATA,
    sa.Column("cycle_id", sa.Text, primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("log_tail", sa.LargeBinary, nullable=False),
)
"""The end of the output of steps that have printed something."""

RELEASE = sa.Table(
    "release",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("release_id", sa.Text, primary_key=True),
    sa.Column("create_time", UtcTime, nullable=False),
    sa.Column("document", _JSON, nullable=False),
)

TEST_REPORT = sa.Table(
    "test_report",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("cycle_id", sa.Text, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

PULL_REQUEST = sa.Table(
    "pull_request",
    METADATA,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("cycle_id", sa.Text, nullable=False),
    sa.Column("branch", sa.Text, nullable=False),
    sa.Column("base", sa.Text, nullable=False),
    sa.Column("head", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("merge_commit", sa.Text, nullable=False),
    sa.Index("pull_request_by_cycle", "project_id", "cycle_id", unique=True),
)

TOKEN = sa.Table(
    "token",
    METADATA,
    sa.Column("token_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("create_time", UtcTime, nullable=False),
    sa.Column("expire_time", UtcTime),
    sa.Column("revoke_time", UtcTime),
    # Releases that do not know these insert tokens too.
    sa.Column("owner", sa.Text, nullable=False, server_default=""),
    sa.Column("projects", _JSON),
    sa.Column("successor_id", sa.Text, nullable=False, server_default=""),
    sa.Column("last_use_time", UtcTime),
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
        "mode_reason": project.mode_reason,
        "release_id": project.release_id,
    }


def project_of(row: sa.RowMapping) -> Project:
    """The project of a row."""
    mode = ProjectMode(row["mode"])
    return Project(
        project_id=row["project_id"],
        path=Path(row["path"]),
        runtime=settings_of(row["runtime"]),
        mode=mode,
        log_id=row["log_id"],
        desired=DesiredState(row["desired"]),
        desired_runtime=settings_of(row["desired_runtime"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        # A release that does not know reasons sets the mode without one.
        mode_reason=row["mode_reason"] if mode is not ProjectMode.NORMAL else "",
        release_id=row["release_id"],
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


_LIMITED = "+"
"""Ends the role of a token that has less than its role says: a release that knows neither
owners nor projects knows no such role, and lets nobody in with it."""


def token_values(token: Token) -> dict[str, Any]:
    """The columns of `token`, but for its last use."""
    limited = token.projects is not None or token.owner not in ("", token.name)
    values = asdict(token)
    del values["last_use_time"]
    return {
        **values,
        "role": token.role.value + (_LIMITED if limited else ""),
        "projects": None if token.projects is None else sorted(token.projects),
    }


def token_of(row: sa.RowMapping) -> Token | None:
    """The token of a row; None for a role that this release does not know: it may do nothing."""
    role = row["role"].removesuffix(_LIMITED)
    if role not in set(Role):
        return None
    projects = row["projects"]
    return Token(
        **{
            **row,
            "role": Role(role),
            "projects": None if projects is None else frozenset(projects),
        }
    )
