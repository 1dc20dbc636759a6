"""The rows of cycles and of what belongs to them, read and written within a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from att_server.adapters.state_schema import (
    ACTIVE,
    CYCLE,
    CYCLE_CHANGE,
    CYCLE_STEP,
    PULL_REQUEST,
    RELEASE,
    TEST_REPORT,
)
from att_server.adapters.stored_cycles import (
    CycleDocument,
    cycle_values,
    log_tails_of,
    with_calls,
)
from att_server.core.cycles.journal import Fenced, PullRequest
from att_server.core.cycles.model import Cycle

_CYCLE = sa.select(CYCLE).where(CYCLE.c.cycle_id == sa.bindparam("id"))
_UPDATE = sa.update(CYCLE).where(CYCLE.c.cycle_id == sa.bindparam("id"))
# A cycle that ended may be completed, but it does not go on.
_COMMIT = (
    _UPDATE.where(
        CYCLE.c.lease_epoch == sa.bindparam("epoch"),
        sa.or_(ACTIVE, sa.bindparam("state") == sa.literal_column("'ended'")),
    )
    .values(
        revision=CYCLE.c.revision + 1,
        **{
            name: sa.bindparam(name)
            for name in ("state", "outcome", "end_time", "rollback_time", "document")
        },
    )
    .returning(CYCLE.c.revision, CYCLE.c.cancellation, CYCLE.c.decision)
)
_LOG_TAILS = sa.select(CYCLE_STEP.c.step, CYCLE_STEP.c.log_tail).where(
    CYCLE_STEP.c.cycle_id == sa.bindparam("id")
)


def cycle_row(connection: sa.Connection, cycle_id: str) -> sa.RowMapping | None:
    """The row of a cycle."""
    return connection.execute(_CYCLE, {"id": cycle_id}).mappings().one_or_none()


def update_cycle(connection: sa.Connection, cycle_id: str, values: Mapping[str, Any]) -> None:
    """Changes columns of a cycle."""
    connection.execute(_UPDATE, {"id": cycle_id, **values})


def log_tails(connection: sa.Connection, cycle_id: str) -> dict[str, bytes]:
    """The ends of output by step."""
    return {row.step: row.log_tail for row in connection.execute(_LOG_TAILS, {"id": cycle_id})}


class WrittenCycle:
    """A cycle as its present owner writes it, under one epoch.

    Knows what is stored, since nobody else writes that: a commit reads nothing,
    and writes only the ends of output that changed.
    """

    def __init__(self, document: str, tails: Mapping[str, bytes]) -> None:
        self._document = CycleDocument(document)
        self._log_tails = tails

    @classmethod
    def load(cls, connection: sa.Connection, cycle: Cycle) -> WrittenCycle:
        """As it is stored now. Raises Fenced."""
        row = cycle_row(connection, cycle.cycle_id)
        if row is None or row["lease_epoch"] != cycle.lease_epoch:
            raise Fenced(cycle.cycle_id)
        return cls(row["document"], log_tails(connection, cycle.cycle_id))

    def commit(self, connection: sa.Connection, cycle: Cycle) -> Cycle:
        """Writes the cycle; as `CycleJournal.commit`."""
        values = cycle_values(cycle, self._document)
        written = connection.execute(
            _COMMIT, {"id": cycle.cycle_id, "epoch": cycle.lease_epoch, **values}
        )
        row = written.mappings().one_or_none()
        if row is None:
            raise _refusal(cycle, cycle_row(connection, cycle.cycle_id))
        self._put_log_tails(connection, cycle)
        return with_calls(cycle, row)

    def _put_log_tails(self, connection: sa.Connection, cycle: Cycle) -> None:
        wanted = log_tails_of(cycle)
        for step, tail in wanted.items():
            if self._log_tails.get(step) != tail:
                values = {"cycle_id": cycle.cycle_id, "step": step, "log_tail": tail}
                put_row(connection, CYCLE_STEP, values)
        for step in self._log_tails.keys() - wanted.keys():
            delete_rows(connection, CYCLE_STEP, cycle_id=cycle.cycle_id, step=step)
        self._log_tails = wanted


def _refusal(cycle: Cycle, row: sa.RowMapping | None) -> Exception:
    if row is None or row["lease_epoch"] != cycle.lease_epoch:
        return Fenced(cycle.cycle_id)
    return ValueError(f"cycle {cycle.cycle_id} has ended and cannot go on")


def put_row(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Inserts or replaces the row with the primary key in `values`."""
    known = [column == values[column.name] for column in table.primary_key]
    if not connection.execute(sa.update(table).where(*known), values).rowcount:
        connection.execute(sa.insert(table), values)


def delete_rows(connection: sa.Connection, table: sa.Table, **values: str) -> None:
    """Removes the rows whose columns have these values."""
    connection.execute(
        sa.delete(table).where(*(table.c[name] == value for name, value in values.items()))
    )


def pull_request_row(
    connection: sa.Connection, project_id: str, cycle_id: str
) -> PullRequest | None:
    """The pull request of a cycle."""
    query = sa.select(PULL_REQUEST).where(
        PULL_REQUEST.c.project_id == project_id, PULL_REQUEST.c.cycle_id == cycle_id
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else PullRequest(**row)


def pull_request_values(pull_request: PullRequest) -> dict[str, Any]:
    """The columns of a pull request."""
    return asdict(pull_request)


def forget_project(connection: sa.Connection, project_id: str) -> None:
    """Removes everything of a project but itself, its events and requests."""
    cycles = sa.select(CYCLE.c.cycle_id).where(CYCLE.c.project_id == project_id)
    for table in (CYCLE_CHANGE, CYCLE_STEP):
        connection.execute(sa.delete(table).where(table.c.cycle_id.in_(cycles)))
    for table in (CYCLE, RELEASE, TEST_REPORT, PULL_REQUEST):
        delete_rows(connection, table, project_id=project_id)
