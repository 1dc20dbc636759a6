"""FakeDeployments: apps on releases that do what a test says, by its clock."""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from att_server.core.bell import Bell
from att_server.core.cycles.runtime import MAX_LOST_RUNS
from att_server.core.errors import AttError, Reason, project_not_found
from att_server.core.model import (
    DesiredState,
    Event,
    PastRun,
    ProbeResult,
    Project,
    ProjectMode,
    RunExit,
    RunStatus,
    Runtime,
    RuntimeState,
)
from att_server.core.settings import Probe, RuntimeSettings
from att_server.testing.clock import FakeClock

Answer = str | AttError
"""What a check finds: a reason of a probe, healthy if it ends with `_ok`; or what it raises."""


@dataclass(slots=True, kw_only=True)
class _End:
    """What happens to the next runs of a release so long after their start."""

    after: timedelta
    happens: Callable[[str], None]
    times: int = sys.maxsize


class FakeDeployments:
    """Implements `Deployments` without a process; projects and runs begin as a test says.

    Releases do as they are told before or while they run: `answers`, `exits`,
    `refuses`. What is to happen at a time happens when the clock gets there.

    switched: every switch, as (project id, release id, cycle id). held: projects
    that are held. proven: as `switched`, without the cycle. events: what came with
    `set_mode`. checked: the probe of every check.
    lines: the app's log, by project. bears: how many runs may be lost.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        self._clock = FakeClock() if clock is None else clock
        self._projects: dict[str, Project] = {}
        self._statuses: dict[str, RunStatus] = {}
        self._answers: dict[str, list[Answer]] = {}
        self._ends: dict[str, _End] = {}
        self._refusals: dict[str, AttError] = {}
        self._due: list[tuple[datetime, int, str, str, Callable[[str], None]]] = []
        self._changes: dict[str, Bell] = {}
        self._runs = 0
        self.switched: list[tuple[str, str, str]] = []
        self.held: set[str] = set()
        self.bears = MAX_LOST_RUNS
        self.events: list[Event] = []
        self.checked: list[Probe | None] = []
        self.proven: list[tuple[str, str]] = []
        self.lines: dict[str, list[bytes]] = {}

    def max_lost_runs(self, project_id: str) -> int:
        """See `Deployments`."""
        return self.bears

    # What a test says -------------------------------------------------------

    def add(self, project_id: str, *, release_id: str = "", path: Path | None = None) -> Project:
        """Makes a project whose app runs from the release."""
        now = self._clock.now()
        project = Project(
            project_id=project_id,
            path=path or Path("/srv") / project_id,
            runtime=RuntimeSettings(),
            mode=ProjectMode.NORMAL,
            log_id=f"log-{project_id}",
            desired=DesiredState.RUNNING,
            desired_runtime=RuntimeSettings(),
            create_time=now,
            update_time=now,
            release_id=release_id,
        )
        self._projects[project_id] = project
        self._begin(project_id, release_id)
        return project

    def answers(self, release_id: str, *answers: Answer) -> None:
        """What checks of the release find, one after the other; the last one from then on."""
        self._answers[release_id] = list(answers)

    def exits(self, release_id: str, *, after: timedelta, restarts: bool = False) -> None:
        """Every run of the release ends so long after its start. restarts: and begins anew."""
        happens = self.restart if restarts else self.exit
        self._ends[release_id] = _End(after=after, happens=happens)

    def loses(self, release_id: str, *, after: timedelta, times: int = sys.maxsize) -> None:
        """So many runs of the release are lost with their supervisor so long after their start."""
        self._ends[release_id] = _End(after=after, happens=self.lose, times=times)

    def refuses(self, release_id: str, error: AttError | None = None) -> None:
        """The release cannot be started."""
        self._refusals[release_id] = error or AttError(
            Reason.COMMAND_NOT_FOUND, "There is no 'app'.", command="app"
        )

    def exit(self, project_id: str, *, code: int = 1, reason: str = "") -> None:
        """The app ends."""
        status = self._statuses[project_id]
        self._set(project_id, state=RuntimeState.EXITED, exit=self._ended(status, code, reason))

    def restart(self, project_id: str) -> None:
        """The app ends and its supervisor starts it again, all at once."""
        status = self._statuses[project_id]
        past = PastRun(
            run_id=status.run_id,
            pid=status.pid,
            start_time=status.start_time or self._clock.now(),
            exit=self._ended(status, 1, ""),
        )
        self._set(
            project_id,
            run_id=self._new_run(),
            start_time=self._clock.now(),
            restarts=status.restarts + 1,
            past=(*status.past, past),
        )

    def lose(self, project_id: str, *, reason: str = "supervisor_lost") -> None:
        """The app goes down with its supervisor, or with the host (`host_restarted`)."""
        status = self._statuses[project_id]
        lost = RunExit(
            supervisor_lost=True, time=self._clock.now(), duration=self._age(status), reason=reason
        )
        self._set(
            project_id,
            state=RuntimeState.EXITED,
            exit=lost,
            reason=reason,
            this_boot=reason != "host_restarted",
        )

    def silence(self, project_id: str) -> None:
        """The app's supervisor does not answer."""
        self._set(project_id, state=RuntimeState.UNKNOWN)

    def hear(self, project_id: str) -> None:
        """The app's supervisor answers again."""
        self._set(project_id, state=RuntimeState.RUNNING)

    def status(self, project_id: str) -> RunStatus:
        """The app's status."""
        self._catch_up()
        return self._statuses[project_id]

    # Deployments ------------------------------------------------------------

    def project(self, project_id: str) -> Project:
        """See `Deployments`."""
        project = self._projects.get(project_id)
        if project is None:
            raise project_not_found(project_id)
        return project

    async def hold(self, project_id: str) -> None:
        """See `Deployments`."""
        self.held.add(project_id)

    def let_go(self, project_id: str) -> None:
        """See `Deployments`."""
        self.held.discard(project_id)

    def runtime(self, project_id: str) -> Runtime:
        """See `Deployments`."""
        self._catch_up()
        status = self._statuses.get(project_id)
        return Runtime(
            project_id=project_id,
            state=RuntimeState.STOPPED if status is None else status.state,
            desired=self.project(project_id).desired,
            revision=self._bell(project_id).count,
            status=status,
        )

    async def changed(self, project_id: str, timeout: timedelta) -> bool:
        """See `Deployments`."""
        bell = self._bell(project_id)
        seen = bell.count
        deadline = self._clock.now() + timeout
        while True:
            self._catch_up()
            if bell.count > seen:
                return True
            now = self._clock.now()
            if now >= deadline:
                return False
            wake = min([deadline, *(at for at, *_ in self._due[:1])])
            ringing = asyncio.ensure_future(bell.wait(seen))
            sleeping = asyncio.ensure_future(self._clock.sleep(wake - now))
            try:
                await asyncio.wait([ringing, sleeping], return_when=asyncio.FIRST_COMPLETED)
            finally:
                ringing.cancel()
                sleeping.cancel()

    async def check_release(self, project_id: str, release_id: str) -> None:
        """See `Deployments`."""
        if release_id in self._refusals:
            raise self._refusals[release_id]

    async def switch(self, project_id: str, release_id: str, *, cycle_id: str) -> RunStatus:
        """See `Deployments`. What a release that refuses replaces, runs on."""
        project = self.project(project_id)
        self.switched.append((project_id, release_id, cycle_id))
        await asyncio.sleep(0)
        if release_id in self._refusals:
            raise self._refusals[release_id]
        self._projects[project_id] = replace(project, release_id=release_id)
        return self._begin(project_id, release_id)

    async def prove(self, project_id: str, release_id: str) -> None:
        """Notes it."""
        self.proven.append((project_id, release_id))

    async def check(self, project_id: str, probe: Probe | None) -> ProbeResult:
        """See `Deployments`."""
        self.checked.append(probe)
        await asyncio.sleep(0)
        status = self.status(project_id)
        answers = self._answers.get(status.release_id, ["process_ok"])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, AttError):
            raise answer
        if status.exit is not None:
            answer = "process_exited"
        return ProbeResult(
            healthy=answer.endswith("_ok"),
            probe=answer.partition("_")[0],
            reason=answer,
            checked_at=self._clock.now(),
        )

    async def recent_lines(self, project_id: str, count: int) -> list[bytes]:
        """See `Deployments`."""
        return self.lines.get(project_id, [])[-count:]

    async def set_mode(
        self, project_id: str, mode: ProjectMode, reason: str, *events: Event
    ) -> None:
        """See `Deployments`."""
        project = self.project(project_id)
        if (project.mode, project.mode_reason) != (mode, reason):
            self._projects[project_id] = replace(project, mode=mode, mode_reason=reason)
            self.events += events

    # ------------------------------------------------------------------------

    def _begin(self, project_id: str, release_id: str) -> RunStatus:
        before = self._statuses.get(project_id)
        earlier: tuple[PastRun, ...] = ()
        if before is not None:
            ended = before.exit or self._ended(before, 0, "")
            last = PastRun(
                run_id=before.run_id,
                pid=before.pid,
                start_time=before.start_time or self._clock.now(),
                exit=ended,
            )
            earlier = (*before.earlier, *before.past, last)[-8:]
        self._runs += 1
        status = RunStatus(
            supervisor_id=f"supervisor-{self._runs}",
            spec_digest=release_id,
            state=RuntimeState.RUNNING,
            run_id=self._new_run(),
            pid=1_000 + self._runs,
            start_time=self._clock.now(),
            release_id=release_id,
            earlier=earlier,
        )
        self._statuses[project_id] = status
        end = self._ends.get(release_id)
        if end is not None and end.times:
            end.times -= 1
            at = self._clock.now() + end.after
            heapq.heappush(self._due, (at, self._runs, project_id, status.run_id, end.happens))
        self._bell(project_id).ring()
        return status

    def _catch_up(self) -> None:
        """Lets happen what is due by now."""
        while self._due and self._due[0][0] <= self._clock.now():
            _, _, project_id, run_id, end = heapq.heappop(self._due)
            if self._statuses[project_id].run_id == run_id:
                end(project_id)

    def _new_run(self) -> str:
        return self._clock.new_id()

    def _ended(self, status: RunStatus, code: int, reason: str) -> RunExit:
        return RunExit(
            exit_code=code, time=self._clock.now(), duration=self._age(status), reason=reason
        )

    def _age(self, status: RunStatus) -> timedelta:
        return self._clock.now() - (status.start_time or datetime.now(UTC))

    def _set(self, project_id: str, **changes: object) -> None:
        status = self._statuses[project_id]
        self._statuses[project_id] = replace(status, **changes)  # type: ignore[arg-type] # fields
        self._bell(project_id).ring()

    def _bell(self, project_id: str) -> Bell:
        return self._changes.setdefault(project_id, Bell())
