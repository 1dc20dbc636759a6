"""FakeRuntimeDriver: apps that run in nobody's mind but the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from att_server.core.errors import AttError, Reason
from att_server.core.model import RunExit, RunSpec, RunStatus, RuntimeState
from att_server.core.ports import Clock, RuntimeListener
from att_server.testing.clock import FakeClock


class FakeRuntimeDriver:
    """Implements `RuntimeDriver` without a process.

    Apps run until they are stopped or the test ends them (`exit`, `lose`). A
    driver that was closed can be adopted from again, as by the next server.

    missing: commands that cannot be found; starting one fails.
    signals: what was sent, as (project id, number).
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock: Clock = FakeClock(datetime.now(UTC)) if clock is None else clock
        self._listener: RuntimeListener | None = None
        self._statuses: dict[str, RunStatus] = {}
        self._silent: set[str] = set()
        self._stops_flow = asyncio.Event()
        self._stops_flow.set()
        self._pid = 1_000_000
        self.missing: set[str] = {"no-such-command"}
        self.signals: list[tuple[str, int]] = []

    # RuntimeDriver ----------------------------------------------------------

    async def adopt(
        self, projects: Mapping[str, str], listener: RuntimeListener
    ) -> Mapping[str, RunStatus]:
        """Finds what was started before."""
        self._listener = listener
        return {name: self._status(name) for name in projects if name in self._statuses}

    async def start(self, spec: RunSpec) -> RunStatus:
        """The app runs at once, and is ready if it is not probed."""
        self._refuse_if_silent(spec.project_id)
        now = self._clock.now()
        status = RunStatus(
            supervisor_id=self._clock.new_id(),
            spec_digest=spec.digest(),
            state=RuntimeState.STARTING,
            run_id=self._clock.new_id(),
            command=spec.command,
            start_time=now,
            release_id=spec.release_id,
        )
        if spec.command[0] in self.missing:
            message = f"{spec.command[0]}: not found"
            failed = replace(
                status,
                state=RuntimeState.FAILED,
                reason=message,
                start_failure="command_not_found",
                exit=RunExit(start_error=message, time=now, duration=timedelta(0)),
            )
            return self._become(spec.project_id, failed)
        self._pid += 1
        running = replace(status, pid=self._pid, state=RuntimeState.RUNNING)
        if not spec.probed:
            running = replace(running, state=RuntimeState.READY, ready_time=now)
        return self._become(spec.project_id, running)

    async def stop(self, project_id: str, grace: timedelta | None) -> RunStatus | None:
        """Ends the app with SIGTERM, once stops are not held."""
        status = self._statuses.get(project_id)
        if status is None:
            return None
        self._refuse_if_silent(project_id)
        if status.state.alive:
            self._become(project_id, replace(status, state=RuntimeState.STOPPING))
            await self._stops_flow.wait()
            if self._statuses[project_id].state is RuntimeState.STOPPING:
                self._end(project_id, RuntimeState.STOPPED, signal=15)
        return self._statuses[project_id]

    async def set_ready(self, project_id: str, run_id: str) -> None:
        """The run is ready if it is the current one."""
        status = self._statuses.get(project_id)
        if status and status.run_id == run_id and status.state is RuntimeState.RUNNING:
            self._become(
                project_id,
                replace(status, state=RuntimeState.READY, ready_time=self._clock.now()),
            )

    async def signal(self, project_id: str, number: int) -> None:
        """Keeps the signal in `signals`."""
        status = self._statuses.get(project_id)
        if status is None or not status.state.alive:
            raise AttError(
                Reason.RUNTIME_NOT_RUNNING,
                f"The app of {project_id!r} does not run.",
                project_id=project_id,
            )
        self._refuse_if_silent(project_id)
        self.signals.append((project_id, number))

    async def forget(self, project_id: str) -> None:
        """Drops the project."""
        self._statuses.pop(project_id, None)
        self._silent.discard(project_id)

    async def aclose(self) -> None:
        """Apps run on; nobody is told of them."""
        self._listener = None

    # What a test makes happen -----------------------------------------------

    def exit(self, project_id: str, exit_code: int = 0) -> None:
        """The app ends by itself."""
        self._end(project_id, RuntimeState.EXITED, exit_code=exit_code)

    def lose(self, project_id: str, *, reason: str = "supervisor_lost") -> None:
        """The app's supervisor dies, and the app with it; or the host restarts."""
        self._end(project_id, RuntimeState.EXITED, reason=reason, supervisor_lost=True)

    def grow(self, project_id: str) -> None:
        """The app has written to its log."""
        if self._listener is not None:
            self._listener.log_grew(project_id)

    def silence(self, project_id: str) -> None:
        """The supervisor lives but does not answer, until `unsilence`."""
        self._silent.add(project_id)
        self._show(project_id)

    def unsilence(self, project_id: str) -> None:
        """The supervisor answers again."""
        self._silent.discard(project_id)
        self._show(project_id)

    def hold_stops(self) -> None:
        """Apps do not end when they are stopped, until `release_stops`."""
        self._stops_flow.clear()

    def release_stops(self) -> None:
        """Apps that were stopped end."""
        self._stops_flow.set()

    # ------------------------------------------------------------------------

    def _end(
        self,
        project_id: str,
        state: RuntimeState,
        *,
        reason: str = "",
        exit_code: int | None = None,
        signal: int | None = None,
        supervisor_lost: bool = False,
    ) -> None:
        status = self._statuses[project_id]
        now = self._clock.now()
        ended = RunExit(
            exit_code=exit_code,
            signal=signal,
            supervisor_lost=supervisor_lost,
            time=now,
            duration=now - (status.start_time or now),
        )
        self._become(project_id, replace(status, state=state, reason=reason, exit=ended))

    def _become(self, project_id: str, status: RunStatus) -> RunStatus:
        self._statuses[project_id] = status
        self._show(project_id)
        return status

    def _show(self, project_id: str) -> None:
        if self._listener is not None and project_id in self._statuses:
            self._listener.run_changed(project_id, self._status(project_id))

    def _status(self, project_id: str) -> RunStatus:
        status = self._statuses[project_id]
        if project_id in self._silent and status.state.alive:
            return replace(status, state=RuntimeState.UNKNOWN, reason="supervisor_unreachable")
        return status

    def _refuse_if_silent(self, project_id: str) -> None:
        if project_id in self._silent:
            raise AttError(
                Reason.SUPERVISOR_UNREACHABLE,
                f"The supervisor of {project_id!r} does not answer. Call again.",
                project_id=project_id,
            )
