"""SqliteJournal: cycles and what belongs to them, in the database of a server."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from att_server.adapters.boot_time import BootTime, boot_time
from att_server.adapters.cycle_rows import (
    WrittenCycle,
    cycle_row,
    delete_rows,
    forget_project,
    log_tails,
    pull_request_row,
    pull_request_values,
    put_row,
    update_cycle,
)
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.state_schema import (
    ACTIVE,
    CYCLE,
    CYCLE_CHANGE,
    PULL_REQUEST,
    RELEASE,
    TEST_REPORT,
)
from att_server.adapters.stored_cycles import (
    cancellation_values,
    cycle_of,
    decision_values,
    new_cycle_values,
    release_of,
    release_values,
    replaces,
    report_bytes,
    report_of,
)
from att_server.adapters.stored_events import append_events, take_claim
from att_server.core.cycles.journal import PullRequest, already_running
from att_server.core.cycles.model import Cancellation, Cycle, CycleState, Decision
from att_server.core.cycles.test_report import TestReport
from att_server.core.model import Event
from att_server.core.releases import Release
from att_server.core.request_claim import RequestClaim

# So that the few are found by the index of active cycles, not all gone through in order.
_BY_ID_OF_FEW = CYCLE.c.cycle_id + ""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SqliteJournal:
    """Implements `CycleJournal`. How its writes fail, `SqliteDatabase` says.

    A cycle that holds something which this release does not know, written by a
    later one, is shown as far as it is known, and no engine of this release gets it.
    """

    def __init__(
        self,
        database: SqliteDatabase,
        *,
        boot_time: Callable[[], BootTime] = boot_time,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._database = database
        self._boot_time = boot_time
        self._now = now
        self._written: dict[tuple[str, int], WrittenCycle] = {}

    # Cycles -----------------------------------------------------------------

    async def create(
        self, cycle: Cycle, change: bytes, *events: Event, claim: RequestClaim | None = None
    ) -> RequestClaim | None:
        """Stores a new cycle with its change, unless the claim is kept already."""

        def create(connection: sa.Connection) -> RequestClaim | None:
            if claim is not None:
                kept = take_claim(connection, replace(claim, outcome=cycle.cycle_id))
                if kept is not None:
                    return kept
            active = sa.select(CYCLE.c.cycle_id).where(
                CYCLE.c.project_id == cycle.project_id, ACTIVE
            )
            running = connection.execute(active).scalar_one_or_none()
            if running is not None:
                raise already_running(cycle.project_id, running)
            connection.execute(sa.insert(CYCLE), new_cycle_values(cycle))
            if change:
                values = {"cycle_id": cycle.cycle_id, "content": change}
                connection.execute(sa.insert(CYCLE_CHANGE), values)
            append_events(connection, events)
            return None

        return await self._database.write(create)

    async def cycle(self, cycle_id: str) -> Cycle | None:
        """The cycle, None if there is none."""
        return await self._database.read(lambda connection: _cycle(connection, cycle_id))

    async def cycles(
        self,
        *,
        project_id: str = "",
        within: frozenset[str] | None = None,
        active_only: bool = False,
        limit: int,
        before: str = "",
    ) -> Sequence[Cycle]:
        """Up to `limit` cycles, the newest first, without the ends of their steps' output."""
        query = sa.select(CYCLE).limit(limit)
        if active_only:
            query = query.where(ACTIVE).order_by(_BY_ID_OF_FEW.desc())
        else:
            query = query.order_by(CYCLE.c.cycle_id.desc())
        if project_id:
            query = query.where(CYCLE.c.project_id == project_id)
        if within is not None:
            query = query.where(CYCLE.c.project_id.in_(sorted(within)))
        if before:
            query = query.where(CYCLE.c.cycle_id < before)
        return await self._database.read(
            lambda connection: [
                cycle_of(row, {}).cycle for row in connection.execute(query).mappings()
            ]
        )

    async def change(self, cycle_id: str) -> bytes:
        """The change as it was stored with the cycle; empty once it was dropped."""
        query = sa.select(CYCLE_CHANGE.c.content).where(CYCLE_CHANGE.c.cycle_id == cycle_id)
        content = await self._database.read(
            lambda connection: connection.execute(query).scalar_one_or_none()
        )
        return content or b""

    async def take(
        self, cycle_id: str, owner: str, *, lease: timedelta, force: bool
    ) -> Cycle | None:
        """Makes `owner` the one who may write, under a new epoch."""

        def take(connection: sa.Connection) -> Cycle | None:
            row = cycle_row(connection, cycle_id)
            now = self._boot_time()
            if row is None or row["state"] == CycleState.ENDED.value:
                return None
            if not force and _leased(row, now) and row["lease_owner"] != owner:
                return None
            stored = cycle_of(row, log_tails(connection, cycle_id))
            if not stored.whole:
                return None
            taken = {"lease_owner": owner, "lease_epoch": row["lease_epoch"] + 1}
            update_cycle(connection, cycle_id, {**taken, **_lease(now, lease)})
            return replace(stored.cycle, lease_epoch=taken["lease_epoch"])

        return await self._database.write(take)

    async def renew(self, owner: str, *, lease: timedelta) -> frozenset[str]:
        """Prolongs all leases of `owner` and returns the ids of its cycles."""
        query = sa.update(CYCLE).where(ACTIVE, CYCLE.c.lease_owner == owner)

        def renew(connection: sa.Connection) -> frozenset[str]:
            values = _lease(self._boot_time(), lease)
            renewed = connection.execute(query.values(values).returning(CYCLE.c.cycle_id))
            return frozenset(renewed.scalars())

        return await self._database.write(renew)

    async def untaken(self) -> Sequence[str]:
        """The ids of active cycles that no engine holds a lease of, the oldest first."""
        now = self._boot_time()
        leased = sa.and_(
            CYCLE.c.lease_owner != "",
            CYCLE.c.lease_boot == now.boot_id,
            CYCLE.c.lease_until > now.seconds,
        )
        query = sa.select(CYCLE).where(ACTIVE, ~leased).order_by(_BY_ID_OF_FEW)

        def read(connection: sa.Connection) -> list[str]:
            rows = connection.execute(query).mappings()
            return [row["cycle_id"] for row in rows if cycle_of(row, {}).whole]

        return await self._database.read(read)

    async def commit(
        self,
        cycle: Cycle,
        *,
        events: Sequence[Event] = (),
        releases: Sequence[Release] = (),
        report: TestReport | None = None,
        drop_change: bool = False,
    ) -> Cycle:
        """Stores the cycle under its `lease_epoch`, with a new revision, and what came with it."""
        # It may be large, and others want to write meanwhile.
        packed = await to_thread(report_bytes, report) if report is not None else b""

        def commit(connection: sa.Connection) -> tuple[Cycle, WrittenCycle]:
            writing = known or WrittenCycle.load(connection, cycle)
            stored = writing.commit(connection, cycle)
            if drop_change:
                delete_rows(connection, CYCLE_CHANGE, cycle_id=cycle.cycle_id)
            for release in releases:
                put_row(connection, RELEASE, release_values(release))
            if report is not None:
                ids = {"project_id": report.project_id, "cycle_id": report.cycle_id}
                put_row(connection, TEST_REPORT, {**ids, "content": packed})
            append_events(connection, events)
            return stored, writing

        # Not known any more if this fails, or the caller is gone before its end.
        known = self._written.pop((cycle.cycle_id, cycle.lease_epoch), None)
        stored, writing = await self._database.write(commit)
        if not stored.ended:
            self._written[stored.cycle_id, stored.lease_epoch] = writing
        return stored

    async def cancel(
        self, cycle_id: str, cancellation: Cancellation, *events: Event
    ) -> Cycle | None:
        """Notes that it is to end; the first to ask counts. None if it is unknown."""

        def cancel(connection: sa.Connection) -> Cycle | None:
            row = cycle_row(connection, cycle_id)
            if row is None:
                return None
            if row["cancellation"] is None and row["state"] != CycleState.ENDED.value:
                values = {
                    "cancellation": cancellation_values(cancellation),
                    "revision": row["revision"] + 1,
                }
                update_cycle(connection, cycle_id, values)
                append_events(connection, events)
            return _cycle(connection, cycle_id)

        return await self._database.write(cancel)

    async def decide(
        self,
        cycle_id: str,
        decision: Decision,
        *events: Event,
        claim: RequestClaim | None = None,
    ) -> RequestClaim | None:
        """Notes the decision, once: an earlier one on the same stays."""

        def decide(connection: sa.Connection) -> RequestClaim | None:
            if claim is not None:
                kept = take_claim(connection, replace(claim, outcome=cycle_id))
                if kept is not None:
                    return kept
            row = cycle_row(connection, cycle_id)
            if row is None or row["state"] == CycleState.ENDED.value:
                return None
            if replaces(decision, row["decision"]):
                values = {"decision": decision_values(decision), "revision": row["revision"] + 1}
                update_cycle(connection, cycle_id, values)
                append_events(connection, events)
            return None

        return await self._database.write(decide)

    # What belongs to them ---------------------------------------------------

    async def releases(self, project_id: str) -> Sequence[Release]:
        """All releases of the project, the newest first."""
        query = (
            sa.select(RELEASE)
            .where(RELEASE.c.project_id == project_id)
            .order_by(RELEASE.c.create_time.desc(), RELEASE.c.release_id.desc())
        )
        return await self._database.read(
            lambda connection: [release_of(row) for row in connection.execute(query).mappings()]
        )

    async def put_releases(self, *releases: Release, events: Sequence[Event] = ()) -> None:
        """Inserts or replaces releases by project and id, outside of a cycle."""

        def put(connection: sa.Connection) -> None:
            for release in releases:
                put_row(connection, RELEASE, release_values(release))
            append_events(connection, events)

        await self._database.write(put)

    async def test_report(self, project_id: str, cycle_id: str = "") -> TestReport | None:
        """The last report of the cycle, or of the project."""
        query = (
            sa.select(TEST_REPORT.c.content)
            .where(TEST_REPORT.c.project_id == project_id)
            .order_by(TEST_REPORT.c.cycle_id.desc())
            .limit(1)
        )
        if cycle_id:
            query = query.where(TEST_REPORT.c.cycle_id == cycle_id)

        def read(connection: sa.Connection) -> TestReport | None:
            content = connection.execute(query).scalar_one_or_none()
            return None if content is None else report_of(content)

        return await self._database.read(read)

    async def automatic_rollbacks(self, project_id: str, within: timedelta) -> int:
        """How many ended cycles of the project rolled back by themselves in the time up to now."""
        query = sa.select(sa.func.count()).where(
            CYCLE.c.project_id == project_id,
            CYCLE.c.rollback_time.is_not(None),
            CYCLE.c.rollback_time > self._now() - within,
            CYCLE.c.state == CycleState.ENDED.value,
        )
        return await self._database.read(lambda connection: connection.execute(query).scalar_one())

    async def pull_request(self, project_id: str, cycle_id: str) -> PullRequest | None:
        """The pull request of the cycle, None if there is none."""
        return await self._database.read(
            lambda connection: pull_request_row(connection, project_id, cycle_id)
        )

    async def open_pull_request(self, wanted: PullRequest) -> PullRequest:
        """Stores it under the next number, or returns the one that the cycle has."""
        highest = sa.select(sa.func.max(PULL_REQUEST.c.number)).where(
            PULL_REQUEST.c.project_id == wanted.project_id
        )

        def open_(connection: sa.Connection) -> PullRequest:
            known = pull_request_row(connection, wanted.project_id, wanted.cycle_id)
            if known is not None:
                return known
            number = (connection.execute(highest).scalar_one() or 0) + 1
            opened = replace(wanted, number=number)
            connection.execute(sa.insert(PULL_REQUEST), pull_request_values(opened))
            return opened

        return await self._database.write(open_)

    async def put_pull_request(self, pull_request: PullRequest) -> None:
        """Replaces the one with its project and number."""
        values = pull_request_values(pull_request)
        await self._database.write(lambda connection: put_row(connection, PULL_REQUEST, values))

    async def forget_project(self, project_id: str) -> None:
        """Removes everything of a deleted project but its events."""
        await self._database.write(lambda connection: forget_project(connection, project_id))


def _cycle(connection: sa.Connection, cycle_id: str) -> Cycle | None:
    row = cycle_row(connection, cycle_id)
    return None if row is None else cycle_of(row, log_tails(connection, cycle_id)).cycle


def _lease(now: BootTime, lease: timedelta) -> dict[str, Any]:
    return {"lease_boot": now.boot_id, "lease_until": now.seconds + lease.total_seconds()}


def _leased(row: sa.RowMapping, now: BootTime) -> bool:
    return bool(
        row["lease_owner"] and row["lease_boot"] == now.boot_id and row["lease_until"] > now.seconds
    )
