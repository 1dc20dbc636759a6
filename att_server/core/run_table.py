"""RunTable: what is known of every project's app, and who is told of changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from att_server.core.bell import Bell
from att_server.core.model import (
    DesiredState,
    ProbeResult,
    Project,
    RunStatus,
    Runtime,
    RuntimeState,
)
from att_server.core.run_events import RunEvents

MAX_DELETED = 10_000
"""How many deleted projects a watcher that comes back can still be told of."""

_ALL = ""


@dataclass(slots=True)
class Entry:
    """What is known of one project's app.

    ready_run_id: the last run that is known to have been ready at some time.
    is_server: the app is this server itself.
    """

    status: RunStatus | None = None
    health: ProbeResult | None = None
    revision: int = 0
    ready_run_id: str = ""
    is_server: bool = False
    changed: Bell = field(default_factory=Bell)

    @property
    def alive(self) -> bool:
        """Whether the app runs or may run."""
        return self.status is not None and self.status.state.alive


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Ids of projects whose apps are shown differently, and of deleted ones, oldest first."""

    changed: tuple[str, ...]
    deleted: tuple[str, ...]


class RunTable:
    """Holds the last word on every run. The driver's listener.

    Every change gets a revision of its own. What runs go through becomes events.
    """

    def __init__(
        self,
        *,
        events: RunEvents,
        first_revision: int,
        log_grew: Callable[[str], None],
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        """first_revision: above every revision that an earlier server gave.

        log_grew: told of growth and ends. lost: told of apps that went down with
        their supervisor, on the event loop.
        """
        self.events = events
        self.revision = first_revision
        self._log_grew = log_grew
        self._lost = lost
        # Both in the order of their revisions: the last changed is the last.
        self._entries: dict[str, Entry] = {}
        self._deleted: dict[str, int] = {}
        self._known_since = first_revision
        self._bells: dict[str, set[Bell]] = {}

    def entry(self, project_id: str) -> Entry:
        """What is known of the project's app; empty at first."""
        entry = self._entries.get(project_id)
        if entry is None:
            entry = self._entries[project_id] = Entry()
            self._deleted.pop(project_id, None)
            self._changed(project_id, entry)
        return entry

    def project_changed(self, project_id: str) -> None:
        """The project was created, or its app is desired otherwise."""
        self._changed(project_id, self.entry(project_id))

    def drop(self, project_id: str) -> None:
        """Forgets a deleted project and ends the streams that follow it."""
        self._entries.pop(project_id, None)
        self.events.forget(project_id)
        self.revision += 1
        self._deleted.pop(project_id, None)
        self._deleted[project_id] = self.revision
        if len(self._deleted) > MAX_DELETED:
            oldest = next(iter(self._deleted))
            self._known_since = self._deleted.pop(oldest)
        self._ring(project_id)
        self._log_grew(project_id)

    def runtime(self, project: Project) -> Runtime:
        """The app's state as clients see it."""
        entry = self.entry(project.project_id)
        return Runtime(
            project_id=project.project_id,
            state=RuntimeState.STOPPED if entry.status is None else entry.status.state,
            desired=DesiredState.RUNNING if entry.is_server else project.desired,
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

    def alive(self) -> Mapping[str, str]:
        """The present run's id by project id, of all apps that run or may run."""
        return {
            project_id: entry.status.run_id
            for project_id, entry in self._entries.items()
            if entry.status is not None and entry.status.state.alive
        }

    # Told by the driver and by who checks ------------------------------------

    def adopted(self, statuses: Mapping[str, RunStatus]) -> None:
        """Shows what was found at start, and has reported what happened meanwhile."""
        for project_id, status in statuses.items():
            entry = self.entry(project_id)
            if entry.status is None:  # else the driver has told something newer
                self._show(project_id, entry, status)
                self.events.note(project_id, status, adopted=True)

    def run_changed(self, project_id: str, status: RunStatus) -> None:
        """Shows the status, has reported what it tells, and wakes who waits."""
        entry = self.entry(project_id)
        before = entry.status
        if status == before:
            return
        if before is None or before.run_id != status.run_id:
            entry.health = None
        self._show(project_id, entry, status)
        self.events.note(project_id, status)
        self._log_grew(project_id)
        if status.state is RuntimeState.EXITED and status.reason == "supervisor_lost":
            self._lost(project_id)

    def log_grew(self, project_id: str) -> None:
        """There are more records in the project's log."""
        self._log_grew(project_id)

    def health_checked(self, project_id: str, run_id: str, result: ProbeResult) -> None:
        """Shows the outcome of a check, unless another run has begun meanwhile.

        A later check with the same outcome is no change that watchers are told.
        """
        entry = self.entry(project_id)
        if entry.status is None or entry.status.run_id != run_id:
            return
        before, entry.health = entry.health, result
        if before is None or _verdict(before) != _verdict(result):
            self._changed(project_id, entry)

    def show_server(self, project_id: str, status: RunStatus) -> None:
        """Shows this server itself as the project's app. Its launcher reports its events."""
        entry = self.entry(project_id)
        entry.is_server = True
        self._show(project_id, entry, status)

    # Told to watchers ---------------------------------------------------------

    def knows_since(self, revision: int) -> bool:
        """Whether `changed_since` has all that changed after `revision`."""
        return self._known_since <= revision <= self.revision

    def changed_since(self, revision: int) -> Changes:
        """What has changed after `revision`, in time that grows with that only."""
        changed = []
        for project_id, entry in reversed(self._entries.items()):
            if entry.revision <= revision:
                break
            changed.append(project_id)
        deleted = []
        for project_id, at in reversed(self._deleted.items()):
            if at <= revision:
                break
            deleted.append(project_id)
        return Changes(changed=tuple(reversed(changed)), deleted=tuple(reversed(deleted)))

    @contextmanager
    def listening(self, project_ids: Collection[str]) -> Iterator[Bell]:
        """A bell that rings at every change of these projects; empty: of all."""
        bell = Bell()
        watched = project_ids or (_ALL,)
        for project_id in watched:
            self._bells.setdefault(project_id, set()).add(bell)
        try:
            yield bell
        finally:
            for project_id in watched:
                bells = self._bells[project_id]
                bells.discard(bell)
                if not bells:
                    del self._bells[project_id]

    @property
    def listeners(self) -> int:
        """How many watchers there are for each of the watched projects, added up."""
        return sum(map(len, self._bells.values()))

    # ------------------------------------------------------------------------

    def _show(self, project_id: str, entry: Entry, status: RunStatus) -> None:
        entry.status = status
        if status.ready_time is not None:
            entry.ready_run_id = status.run_id
        self._changed(project_id, entry)

    def _changed(self, project_id: str, entry: Entry) -> None:
        self.revision += 1
        entry.revision = self.revision
        del self._entries[project_id]
        self._entries[project_id] = entry
        entry.changed.ring()
        self._ring(project_id)

    def _ring(self, project_id: str) -> None:
        for name in (_ALL, project_id):
            for bell in self._bells.get(name, ()):
                bell.ring()


def _verdict(result: ProbeResult) -> tuple[object, ...]:
    """What of a check is worth telling; its time and duration differ from check to check."""
    return (result.healthy, result.probe, result.reason, result.exit_code, result.http_status)
