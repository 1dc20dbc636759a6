"""LogKeeper: how much of the logs is kept, and what there is to say of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason
from att_server.core.log_facts import FreeSpace, LogInfo, LogSegment
from att_server.core.model import Event, GapReason, LogBounds, Project
from att_server.core.ports import Clock, LogStore, SettingsReader, StateStore
from att_server.core.settings import LogSettings

LOOK_EVERY = timedelta(seconds=5)
MAX_FREE_BYTES = 4 << 30
"""No more than this is ever kept free, however large the file system is."""

RECENT = timedelta(minutes=1)
"""What the rates of a log are about."""

_SETTINGS_HOLD = timedelta(seconds=30)
_TEND_SECONDS = 2.0

log = logging.getLogger(__name__)


class LogKeeper:
    """Removes what is too old or too much of logs, or was asked to be removed."""

    def __init__(
        self,
        *,
        logs: LogStore,
        store: StateStore,
        settings: SettingsReader,
        clock: Clock,
        stored: Bell,
        find_project: Callable[[str], Project],
        all_projects: Callable[[], Iterable[Project]],
    ) -> None:
        """find_project raises PROJECT_NOT_FOUND. stored: is rung for new events."""
        self._logs = logs
        self._store = store
        self._settings = settings
        self._clock = clock
        self._stored = stored
        self._find_project = find_project
        self._all_projects = all_projects
        self._known: dict[str, tuple[datetime, LogSettings]] = {}

    async def info(self, project_id: str) -> LogInfo:
        """Range, size and pace, that of the last minute. Raises PROJECT_NOT_FOUND."""
        project = self._find_project(project_id)
        return await self._logs.info(project_id, project.log_id, since=self._clock.now() - RECENT)

    async def trim(self, project_id: str, before: int, *, principal: str) -> LogBounds:
        """Removes what lies before a sequence number, as far as whole parts go.

        Raises PROJECT_NOT_FOUND, LOG_CURSOR_AHEAD, STORAGE_FULL.
        """
        project = self._find_project(project_id)
        bounds = await self._logs.bounds(project_id, project.log_id)
        if before > bounds.end:
            raise AttError(
                Reason.LOG_CURSOR_AHEAD,
                f"The cursor {before} lies above the end {bounds.end} of the log of "
                f"{project_id!r}. Name one that a response gave.",
                project_id=project_id,
                cursor=before,
                end_cursor=bounds.end,
                log_id=project.log_id,
            )
        left = await self._logs.remove(
            project_id, project.log_id, before=before, reason=GapReason.TRIMMED
        )
        if left.start > bounds.start:
            await self._tell(
                "log.trimmed",
                project,
                principal=principal,
                first=bounds.start,
                count=left.start - bounds.start,
            )
        return left

    async def run(self) -> None:
        """Looks after all logs until it is cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Removes once what no log's settings keep, then makes what reads are quicker by."""
        projects = list(self._all_projects())
        for project in projects:
            try:
                settings = await self._settings_of(project)
                await self._keep(project, settings)
            except (AttError, OSError):
                log.warning("retention of the log of %s failed", project.project_id, exc_info=True)
        try:
            await self._make_room(projects)
        except (AttError, OSError):
            log.warning("room on the disk could not be made", exc_info=True)
        await self._tend(projects)

    async def _tend(self, projects: Sequence[Project]) -> None:
        """Makes reads quicker, for a while: an old log may need it for minutes."""
        until = self._clock.monotonic() + _TEND_SECONDS
        for project in projects:
            try:
                while await self._logs.tend(project.project_id, project.log_id):
                    if self._clock.monotonic() > until:
                        return
            except OSError:
                log.warning("the log of %s has no index", project.project_id, exc_info=True)

    async def _settings_of(self, project: Project) -> LogSettings:
        now = self._clock.now()
        known = self._known.get(project.project_id)
        if known is not None and now - known[0] < _SETTINGS_HOLD:
            return known[1]
        try:
            settings = await self._settings.log(project)
        except AttError:
            # A file that is wrong removes nothing that the one before it kept.
            settings = LogSettings() if known is None else known[1]
        self._known[project.project_id] = (now, settings)
        return settings

    async def _keep(self, project: Project, settings: LogSettings) -> None:
        if settings.max_size is None and settings.max_age is None:
            return
        segments = await self._logs.segments(project.project_id, project.log_id)
        before = _kept_from(segments, settings, self._clock.now())
        if before is not None:
            await self._remove(project, before)

    async def _make_room(self, projects: Sequence[Project]) -> None:
        """Removes the oldest parts of logs, one by one, until there is room on the disk."""
        removed: dict[str, int] = {}
        space = await self._logs.free_space()
        while wanting := [p for p in projects if self._wants_room(p, space)]:
            oldest = await self._oldest(wanting)
            if oldest is None:
                break
            project, segment = oldest
            left = await self._remove(project, segment.next_sequence)
            if left.start < segment.next_sequence:
                break
            taken = segment.next_sequence - segment.first_sequence
            removed[project.project_id] = removed.get(project.project_id, 0) + taken
            space = await self._logs.free_space()
        for project in projects:
            if project.project_id in removed:
                await self._tell(
                    "log.storage_low",
                    project,
                    reason="storage_low",
                    message="The file system is nearly full: the oldest records were removed.",
                    count=removed[project.project_id],
                    free_bytes=space.free_bytes,
                )

    def _wants_room(self, project: Project, space: FreeSpace) -> bool:
        known = self._known.get(project.project_id)
        share = LogSettings().min_free if known is None else known[1].min_free
        return space.free_bytes < min(space.total_bytes * share, MAX_FREE_BYTES)

    async def _oldest(self, projects: Sequence[Project]) -> tuple[Project, LogSegment] | None:
        found: tuple[Project, LogSegment] | None = None
        for project in projects:
            segments = await self._logs.segments(project.project_id, project.log_id)
            first = segments[0] if segments else None
            if first is None or not first.removable:
                continue
            if found is None or _age_key(first) < _age_key(found[1]):
                found = project, first
        return found

    async def _remove(self, project: Project, before: int) -> LogBounds:
        return await self._logs.remove(
            project.project_id, project.log_id, before=before, reason=GapReason.RETENTION
        )

    async def _tell(
        self,
        event_type: str,
        project: Project,
        *,
        principal: str = "",
        reason: str = "",
        message: str = "",
        **attributes: int,
    ) -> None:
        await self._store.append_events(
            Event(
                event_type=event_type,
                time=self._clock.now(),
                project_id=project.project_id,
                principal=principal,
                reason=reason,
                message=message,
                attributes={name: str(value) for name, value in attributes.items()},
            )
        )
        self._stored.ring()


def _kept_from(segments: Sequence[LogSegment], settings: LogSettings, now: datetime) -> int | None:
    """Before which sequence number parts have to go; None: all are kept."""
    before = None
    size = sum(segment.size_bytes for segment in segments)
    for segment, following in pairwise(segments):
        too_much = settings.max_size is not None and size > settings.max_size
        too_old = (
            settings.max_age is not None
            and following.first_time is not None
            # Its last record is not younger than the first one behind it.
            and following.first_time < now - settings.max_age
        )
        if not segment.removable or not (too_much or too_old):
            break
        before = segment.next_sequence
        size -= segment.size_bytes
    return before


def _age_key(segment: LogSegment) -> float:
    return 0.0 if segment.first_time is None else segment.first_time.timestamp()
