"""MemoryJournal: cycles and what belongs to them, that end with the process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from att_server.adapters.stored_cycles import (
    CycleDocument,
    StoredCycle,
    cancellation_values,
    cycle_of,
    cycle_values,
    decision_values,
    log_tails_of,
    new_cycle_values,
    release_of,
    release_values,
    replaces,
    report_bytes,
    report_of,
    with_calls,
)
from att_server.core.cycles.journal import Fenced, PullRequest, already_running
from att_server.core.cycles.model import Cancellation, Cycle, CycleState, Decision
from att_server.core.cycles.test_report import TestReport
from att_server.core.errors import AttError
from att_server.core.model import (
    Event,
)
from att_server.core.ports import Clock
from att_server.core.releases import Release
from att_server.core.request_claim import RequestClaim
from att_server.testing.clock import FakeClock
from att_server.testing.state_store import MemoryStateStore


@dataclass(slots=True)
class _Row:
    """A cycle as a database would hold it."""

    columns: dict[str, Any]
    log_tails: dict[str, bytes]
    change: bytes
    owner: str = ""
    leased_until: float = 0.0


@dataclass(slots=True)
class _Kept:
    """What belongs to the cycles of a project."""

    releases: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: dict[str, bytes] = field(default_factory=dict)
    pull_requests: dict[int, PullRequest] = field(default_factory=dict)


class MemoryJournal:
    """Implements `CycleJournal`; events and claims go to `store`.

    What it keeps has gone through JSON as in the database. write_error: while
    set, every write raises it and keeps nothing. Two engines share one journal.
    """

    def __init__(self, store: MemoryStateStore | None = None, clock: Clock | None = None) -> None:
        self.write_error: AttError | None = None
        self._store = store or MemoryStateStore()
        self._clock = clock or FakeClock()
        self._rows: dict[str, _Row] = {}
        self._projects: dict[str, _Kept] = {}

    # Cycles -----------------------------------------------------------------

    async def create(
        self, cycle: Cycle, change: bytes, *events: Event, claim: RequestClaim | None = None
    ) -> RequestClaim | None:
        """Stores a new cycle with its change, unless the claim is kept already."""
        self._check_writable()
        row = _Row(columns=new_cycle_values(cycle), log_tails={}, change=change)
        if claim is not None and (kept := self._store.claimed(claim.request_id)) is not None:
            return kept
        for each in self._rows.values():
            if each.columns["project_id"] == cycle.project_id and _active(each):
                raise already_running(cycle.project_id, each.columns["cycle_id"])
        if cycle.cycle_id in self._rows:
            raise ValueError(f"there is a cycle {cycle.cycle_id}")
        self._rows[cycle.cycle_id] = row
        if claim is not None:
            self._store.take_claim(replace(claim, outcome=cycle.cycle_id))
        self._store.append(events)
        return None

    async def cycle(self, cycle_id: str) -> Cycle | None:
        """The cycle, None if there is none."""
        row = self._rows.get(cycle_id)
        return None if row is None else _read(row).cycle

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
        found = [
            _read(replace(row, log_tails={})).cycle
            for cycle_id, row in sorted(self._rows.items(), reverse=True)
            if project_id in ("", row.columns["project_id"])
            and (within is None or row.columns["project_id"] in within)
            and (_active(row) or not active_only)
            and (not before or cycle_id < before)
        ]
        return found[:limit]

    async def change(self, cycle_id: str) -> bytes:
        """The change as it was stored with the cycle; empty once it was dropped."""
        row = self._rows.get(cycle_id)
        return row.change if row is not None else b""

    async def take(
        self, cycle_id: str, owner: str, *, lease: timedelta, force: bool
    ) -> Cycle | None:
        """Makes `owner` the one who may write, under a new epoch."""
        self._check_writable()
        row = self._rows.get(cycle_id)
        if row is None or not _active(row) or not _read(row).whole:
            return None
        if not force and row.owner not in ("", owner) and self._leased(row):
            return None
        row.owner = owner
        row.leased_until = self._clock.monotonic() + lease.total_seconds()
        row.columns["lease_epoch"] += 1
        return _read(row).cycle

    async def renew(self, owner: str, *, lease: timedelta) -> frozenset[str]:
        """Prolongs all leases of `owner` and returns the ids of its cycles."""
        self._check_writable()
        renewed = {
            cycle_id: row
            for cycle_id, row in self._rows.items()
            if row.owner == owner and _active(row)
        }
        for row in renewed.values():
            row.leased_until = self._clock.monotonic() + lease.total_seconds()
        return frozenset(renewed)

    async def untaken(self) -> Sequence[str]:
        """The ids of active cycles that no engine holds a lease of, the oldest first."""
        return sorted(
            cycle_id
            for cycle_id, row in self._rows.items()
            if _active(row) and not self._leased(row) and _read(row).whole
        )

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
        self._check_writable()
        row = self._rows.get(cycle.cycle_id)
        if row is None or row.columns["lease_epoch"] != cycle.lease_epoch:
            raise Fenced(cycle.cycle_id)
        if not _active(row) and not cycle.ended:
            raise ValueError(f"cycle {cycle.cycle_id} has ended and cannot go on")
        forms = [_through_json(release_values(release)["document"]) for release in releases]
        packed = report_bytes(report) if report is not None else b""
        row.columns.update(cycle_values(cycle, CycleDocument(row.columns["document"])))
        row.columns["revision"] += 1
        row.log_tails = log_tails_of(cycle)
        if drop_change:
            row.change = b""
        for release, form in zip(releases, forms, strict=True):
            self._kept(release.project_id).releases[release.release_id] = form
        if report is not None:
            self._kept(report.project_id).reports[report.cycle_id] = packed
        self._store.append(events)
        return with_calls(cycle, row.columns)

    async def cancel(
        self, cycle_id: str, cancellation: Cancellation, *events: Event
    ) -> Cycle | None:
        """Notes that it is to end; the first to ask counts. None if it is unknown."""
        self._check_writable()
        row = self._rows.get(cycle_id)
        if row is None:
            return None
        if row.columns["cancellation"] is None and _active(row):
            row.columns["cancellation"] = _through_json(cancellation_values(cancellation))
            row.columns["revision"] += 1
            self._store.append(events)
        return _read(row).cycle

    async def decide(
        self,
        cycle_id: str,
        decision: Decision,
        *events: Event,
        claim: RequestClaim | None = None,
    ) -> RequestClaim | None:
        """Notes the decision, once: an earlier one on the same stays."""
        self._check_writable()
        if claim is not None:
            kept = self._store.take_claim(replace(claim, outcome=cycle_id))
            if kept is not None:
                return kept
        row = self._rows.get(cycle_id)
        if row is not None and _active(row) and replaces(decision, row.columns["decision"]):
            row.columns["decision"] = _through_json(decision_values(decision))
            row.columns["revision"] += 1
            self._store.append(events)
        return None

    # What belongs to them ---------------------------------------------------

    async def releases(self, project_id: str) -> Sequence[Release]:
        """All releases of the project, the newest first."""
        found = [
            release_of({"document": form}) for form in self._kept(project_id).releases.values()
        ]
        return sorted(found, key=lambda each: (each.create_time, each.release_id), reverse=True)

    async def put_releases(self, *releases: Release, events: Sequence[Event] = ()) -> None:
        """Inserts or replaces releases by project and id, outside of a cycle."""
        self._check_writable()
        for release in releases:
            form = _through_json(release_values(release)["document"])
            self._kept(release.project_id).releases[release.release_id] = form
        self._store.append(events)

    async def test_report(self, project_id: str, cycle_id: str = "") -> TestReport | None:
        """The last report of the cycle, or of the project."""
        reports = self._kept(project_id).reports
        packed = reports.get(cycle_id or max(reports, default=""))
        return None if packed is None else report_of(packed)

    async def automatic_rollbacks(self, project_id: str, within: timedelta) -> int:
        """How many ended cycles of the project rolled back by themselves in the time up to now."""
        times = [
            row.columns["rollback_time"]
            for row in self._rows.values()
            if row.columns["project_id"] == project_id and not _active(row)
        ]
        since = self._clock.now() - within
        return sum(time is not None and time > since for time in times)

    async def pull_request(self, project_id: str, cycle_id: str) -> PullRequest | None:
        """The pull request of the cycle, None if there is none."""
        requests = self._kept(project_id).pull_requests.values()
        return next((each for each in requests if each.cycle_id == cycle_id), None)

    async def open_pull_request(self, wanted: PullRequest) -> PullRequest:
        """Stores it under the next number, or returns the one that the cycle has."""
        self._check_writable()
        known = await self.pull_request(wanted.project_id, wanted.cycle_id)
        if known is not None:
            return known
        requests = self._kept(wanted.project_id).pull_requests
        opened = replace(wanted, number=max(requests, default=0) + 1)
        requests[opened.number] = opened
        return opened

    async def put_pull_request(self, pull_request: PullRequest) -> None:
        """Replaces the one with its project and number."""
        self._check_writable()
        self._kept(pull_request.project_id).pull_requests[pull_request.number] = pull_request

    async def forget_project(self, project_id: str) -> None:
        """Removes everything of a deleted project but its events."""
        self._check_writable()
        self._projects.pop(project_id, None)
        self._rows = {
            cycle_id: row
            for cycle_id, row in self._rows.items()
            if row.columns["project_id"] != project_id
        }

    def _kept(self, project_id: str) -> _Kept:
        return self._projects.setdefault(project_id, _Kept())

    def _leased(self, row: _Row) -> bool:
        return row.leased_until > self._clock.monotonic()

    def _check_writable(self) -> None:
        if self.write_error is not None:
            raise self.write_error


def _active(row: _Row) -> bool:
    state: str = row.columns["state"]
    return state != CycleState.ENDED.value


def _read(row: _Row) -> StoredCycle:
    return cycle_of(row.columns, row.log_tails)


def _through_json(form: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(form))
    return read
