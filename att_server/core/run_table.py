"""RunTable: what is known of every project's app, and who is told of changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from att_server.core.bell import Bell
from att_server.core.errors import AttError
from att_server.core.model import (
    Event,
    EventFilter,
    ProbeResult,
    Project,
    RunExit,
    RunStatus,
    Runtime,
    RuntimeState,
)
from att_server.core.ports import Clock, StateStore

STORE_RETRY = timedelta(seconds=1)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """What is known of one project's app."""

    status: RunStatus | None = None
    health: ProbeResult | None = None
    revision: int = 0
    cancel_probing: Callable[[], object] | None = None
    changed: Bell = field(default_factory=Bell)

    @property
    def alive(self) -> bool:
        """Whether the app runs or may run."""
        return self.status is not None and self.status.state.alive

    def stop_probing(self) -> None:
        """Ends the probing of the run, if it is probed."""
        if self.cancel_probing is not None:
            self.cancel_probing()
            self.cancel_probing = None


class RunTable:
    """Holds the last word on every run. The driver's listener.

    Every change gets a revision; starts and ends become events, each once.
    """

    def __init__(
        self,
        *,
        store: StateStore,
        clock: Clock,
        stored: Bell,
        first_revision: int,
        log_grew: Callable[[str], None],
    ) -> None:
        """first_revision: above every revision that an earlier server gave.

        stored: rung when events were stored. log_grew: told of growth and ends.
        """
        self._store = store
        self._clock = clock
        self._stored = stored
        self._log_grew = log_grew
        self._entries: dict[str, Entry] = {}
        self._unstored: asyncio.Queue[Event] = asyncio.Queue()
        self.revision = first_revision

    def entry(self, project_id: str) -> Entry:
        """What is known of the project's app; empty at first."""
        return self._entries.setdefault(project_id, Entry())

    def drop(self, project_id: str) -> None:
        """Forgets a deleted project and ends the streams that follow it."""
        del self._entries[project_id]
        self.revision += 1
        self._log_grew(project_id)

    def runtime(self, project: Project) -> Runtime:
        """The app's state as clients see it."""
        entry = self.entry(project.project_id)
        return Runtime(
            project_id=project.project_id,
            state=RuntimeState.STOPPED if entry.status is None else entry.status.state,
            desired=project.desired,
            revision=entry.revision,
            status=entry.status,
            health=entry.health,
        )

    def current_run(self, project_id: str) -> str:
        """The id of the run that is alive; empty if none is."""
        entry = self._entries.get(project_id)
        if entry is None or entry.status is None or not entry.status.state.alive:
            return ""
        return entry.status.run_id

    # Told by the driver -----------------------------------------------------

    def run_changed(self, project_id: str, status: RunStatus) -> None:
        """Shows the status, reports starts and ends, and wakes who waits."""
        entry = self.entry(project_id)
        before = entry.status
        if status == before:
            return
        if before is None or before.run_id != status.run_id:
            entry.health = None
        self._show(entry, status)
        for event in _differences(before, status):
            self._report(event, project_id, status)
        if not status.state.alive:
            entry.stop_probing()
        self._log_grew(project_id)

    def log_grew(self, project_id: str) -> None:
        """There are more records in the project's log."""
        self._log_grew(project_id)

    def health_checked(self, project_id: str, run_id: str, result: ProbeResult) -> None:
        """Shows the outcome of a check, unless another run has begun meanwhile."""
        entry = self.entry(project_id)
        if entry.status is not None and entry.status.run_id == run_id:
            entry.health = result
            self._show(entry, entry.status)

    # Events -----------------------------------------------------------------

    async def note_adopted(self, project_id: str, status: RunStatus) -> None:
        """Shows what was found at start, and reports what happened meanwhile."""
        self._show(self.entry(project_id), status)
        if not status.run_id:
            return
        reported, _ = await self._store.list_events(
            EventFilter(project_id=project_id, event_types=("runtime.",)),
            cursor=0,
            limit=50,
            tail=True,
        )
        known = {event.event_type for event in reported if event.run_id == status.run_id}
        for event_type in _differences(None, status):
            if event_type not in known:
                self._report(event_type, project_id, status)
        if status.state.alive:
            self._report("runtime.adopted", project_id, status)

    async def store_events(self) -> None:
        """Stores reported events as they come, for ever; retries while it cannot."""
        while True:
            batch = [await self._unstored.get()]
            while not self._unstored.empty():
                batch.append(self._unstored.get_nowait())
            while True:
                try:
                    await self._store.append_events(*batch)
                    break
                except AttError as error:
                    log.error("events cannot be stored: %s", error.message)
                    await self._clock.sleep(STORE_RETRY)
            self._stored.ring()

    async def flush_events(self) -> None:
        """Stores what is still due, once; called last."""
        due = [self._unstored.get_nowait() for _ in range(self._unstored.qsize())]
        if due:
            await self._store.append_events(*due)

    def _show(self, entry: Entry, status: RunStatus) -> None:
        self.revision += 1
        entry.status = status
        entry.revision = self.revision
        entry.changed.ring()

    def _report(self, event_type: str, project_id: str, status: RunStatus) -> None:
        self._unstored.put_nowait(
            Event(
                event_type=event_type,
                time=self._clock.now(),
                project_id=project_id,
                run_id=status.run_id,
                reason=status.reason,
                attributes=_facts(event_type, status),
            )
        )


def _differences(before: RunStatus | None, status: RunStatus) -> list[str]:
    """The types of the events between two states of one app."""
    if before is not None and before.run_id != status.run_id:
        before = None
    events = []
    if status.pid and not (before and before.pid):
        events.append("runtime.started")
    if status.ready_time is not None and not (before and before.ready_time):
        events.append("runtime.ready")
    if status.exit is not None and not (before and before.exit):
        events.append("runtime.ended")
    return events


def _facts(event_type: str, status: RunStatus) -> Mapping[str, str]:
    if event_type != "runtime.ended" or status.exit is None:
        return {"pid": str(status.pid), "supervisor_id": status.supervisor_id}
    return {"cause": _cause(status.exit), "seconds": f"{status.exit.duration.total_seconds():.3f}"}


def _cause(ended: RunExit) -> str:
    if ended.exit_code is not None:
        return f"exit_code {ended.exit_code}"
    if ended.signal is not None:
        return f"signal {ended.signal}"
    return f"start_error {ended.start_error}" if ended.start_error else "supervisor_lost"
