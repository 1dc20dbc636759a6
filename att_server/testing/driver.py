"""FakeRuntimeDriver: apps that run in nobody's mind but the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from att_server.core.errors import AttError, Reason
from att_server.core.model import (
    PastRun,
    RunExit,
    RunSpec,
    RunStatus,
    RuntimeState,
    Usage,
)
from att_server.core.ports import Clock, RuntimeListener
from att_server.core.settings import RestartCondition
from att_server.testing.clock import FakeClock

_FAILED_AT_LAST = frozenset({"liveness_failed", "startup_deadline"})
"""Ends after which an app that is not started again is FAILED."""
_MAX_EARLIER = 8


class FakeRuntimeDriver:
    """Implements `RuntimeDriver` without a process.

    Apps run until they are stopped or the test ends them (`exit`, `lose`); one
    whose policy restarts it then waits in BACKOFF until the test says that the
    wait is over (`restart`). A driver that was closed can be adopted from again,
    as by the next server.

    specs: what each project's app was started with last.
    missing: commands that cannot be found; starting one fails.
    signals: what was sent, as (project id, number).
    usages: what apps use; others use nothing. looks: how often that was asked.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock: Clock = FakeClock(datetime.now(UTC)) if clock is None else clock
        self._listener: RuntimeListener | None = None
        self.specs: dict[str, RunSpec] = {}
        self._statuses: dict[str, RunStatus] = {}
        self._silent: set[str] = set()
        self._stops_flow = asyncio.Event()
        self._stops_flow.set()
        self._words_held = False
        self._pid = 1_000_000
        self.missing: set[str] = {"no-such-command"}
        self.signals: list[tuple[str, int]] = []
        self.usages: dict[str, Usage] = {}
        self.looks = 0

    # RuntimeDriver ----------------------------------------------------------

    async def adopt(
        self, projects: Mapping[str, str], listener: RuntimeListener
    ) -> Mapping[str, RunStatus]:
        """Finds what was started before."""
        self._listener = listener
        return {name: self._status(name) for name in projects if name in self._statuses}

    @asynccontextmanager
    async def prepared(self, project_id: str, log_id: str) -> AsyncIterator[None]:
        """There is nothing to prepare."""
        yield

    async def start(self, spec: RunSpec, *, after_loss: bool = False) -> RunStatus:
        """The app runs at once, and is ready if it is not probed; after a loss it waits."""
        self._refuse_if_silent(spec.project_id)
        before = self._statuses.get(spec.project_id)
        self.specs[spec.project_id] = spec
        status = RunStatus(
            supervisor_id=self._clock.new_id(),
            spec_digest=spec.digest(),
            state=RuntimeState.STARTING,
            command=spec.command,
            release_id=spec.release_id,
        )
        if after_loss and before is not None:
            taken_over = replace(
                before, supervisor_id=status.supervisor_id, spec_digest=status.spec_digest
            )
            return self._back_off(spec.project_id, taken_over, "supervisor_lost")
        return self._run(spec, replace(status, earlier=_runs_until(before)))

    async def start_now(self, project_id: str) -> RunStatus | None:
        """Starts what waits in BACKOFF."""
        status = self._statuses.get(project_id)
        if status is None:
            return None
        self._refuse_if_silent(project_id)
        if status.state is not RuntimeState.BACKOFF:
            return status
        return self._run_again(project_id, restarts=0)

    async def stop(self, project_id: str, grace: timedelta | None) -> RunStatus | None:
        """Ends the app with SIGTERM, once stops are not held; in BACKOFF at once."""
        status = self._statuses.get(project_id)
        if status is None:
            return None
        self._refuse_if_silent(project_id)
        if status.state is RuntimeState.BACKOFF:
            return self._become(
                project_id,
                replace(status, state=RuntimeState.STOPPED, next_restart_time=None, reason=""),
            )
        if status.state.alive:
            self._become(project_id, replace(status, state=RuntimeState.STOPPING))
            await self._stops_flow.wait()
            if self._statuses[project_id].state is RuntimeState.STOPPING:
                self._end(project_id, RuntimeState.STOPPED, signal=15)
        return self._statuses[project_id]

    async def set_ready(self, project_id: str, run_id: str, *, ready: bool = True) -> None:
        """The run is ready, or no longer, if it is the current one."""
        before = RuntimeState.RUNNING if ready else RuntimeState.READY
        status = self._statuses.get(project_id)
        if status and status.run_id == run_id and status.state is before:
            self._become(
                project_id,
                replace(
                    status,
                    state=RuntimeState.READY if ready else RuntimeState.RUNNING,
                    ready_time=self._clock.now() if ready else None,
                ),
            )

    async def fail(self, project_id: str, run_id: str, reason: str) -> None:
        """The run ends by SIGTERM, and its policy decides."""
        status = self._statuses.get(project_id)
        if status is None or status.run_id != run_id or status.exit is not None:
            return
        self._refuse_if_silent(project_id)
        self._end_by_itself(project_id, signal=15, reason=reason)

    async def usage(self, project_ids: Collection[str]) -> Mapping[str, Usage]:
        """What the test set, or nothing at all."""
        self.looks += 1
        nothing = Usage(
            cpu_percent=0.0,
            cpu_time=timedelta(0),
            resident_bytes=0,
            process_count=1,
            open_file_count=0,
            time=self._clock.now(),
        )
        return {
            project_id: self.usages.get(project_id, nothing)
            for project_id in project_ids
            if (status := self._statuses.get(project_id)) and status.pid and status.exit is None
        }

    async def signal(self, project_id: str, number: int) -> None:
        """Keeps the signal in `signals`."""
        status = self._statuses.get(project_id)
        if status is None or not status.state.alive or status.state is RuntimeState.BACKOFF:
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
        self.specs.pop(project_id, None)
        self._silent.discard(project_id)

    async def aclose(self) -> None:
        """Apps run on; nobody is told of them."""
        self._listener = None

    # What a test makes happen and looks at ----------------------------------

    def status(self, project_id: str) -> RunStatus:
        """How the app is, whatever its supervisor says."""
        return self._statuses[project_id]

    def exit(self, project_id: str, exit_code: int = 0) -> None:
        """The app ends by itself."""
        self._end_by_itself(project_id, exit_code=exit_code)

    def restart(self, project_id: str) -> None:
        """The wait in BACKOFF is over."""
        self._run_again(project_id, restarts=self._statuses[project_id].restarts + 1)

    def lose(self, project_id: str, *, reason: str = "supervisor_lost") -> None:
        """The app's supervisor dies, and the app with it; or the host restarts."""
        if reason == "host_restarted":
            self.reboot(project_id)
        self._end(project_id, RuntimeState.EXITED, reason=reason, supervisor_lost=True)

    def reboot(self, project_id: str) -> None:
        """The host restarts, which the ended app does not notice."""
        self._statuses[project_id] = replace(self._statuses[project_id], this_boot=False)

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

    def hold_words(self) -> None:
        """The server hears nothing of what happens, until `release_words`."""
        self._words_held = True

    def release_words(self) -> None:
        """The server hears how every app is now."""
        self._words_held = False
        for project_id in self._statuses:
            self._show(project_id)

    def hold_stops(self) -> None:
        """Apps do not end when they are stopped, until `release_stops`."""
        self._stops_flow.clear()

    def release_stops(self) -> None:
        """Apps that were stopped end."""
        self._stops_flow.set()

    # Runs -------------------------------------------------------------------

    def _run(self, spec: RunSpec, status: RunStatus) -> RunStatus:
        now = self._clock.now()
        status = replace(
            status,
            run_id=self._clock.new_id(),
            start_time=now,
            ready_time=None,
            exit=None,
            next_restart_time=None,
            reason="",
        )
        if spec.command[0] in self.missing:
            message = f"{spec.command[0]}: not found"
            failed = replace(
                status,
                state=RuntimeState.FAILED,
                reason="start_error",
                start_failure="command_not_found",
                exit=RunExit(start_error=message, time=now, duration=timedelta(0)),
            )
            return self._become(spec.project_id, failed)
        self._pid += 1
        running = replace(status, pid=self._pid, state=RuntimeState.RUNNING)
        if not spec.probed:
            running = replace(running, state=RuntimeState.READY, ready_time=now)
        return self._become(spec.project_id, running)

    def _run_again(self, project_id: str, *, restarts: int) -> RunStatus:
        status = self._statuses[project_id]
        if status.exit is None or status.start_time is None:
            raise AssertionError(f"{project_id} has not ended")
        ended = PastRun(
            run_id=status.run_id, pid=status.pid, start_time=status.start_time, exit=status.exit
        )
        return self._run(
            self.specs[project_id],
            replace(status, past=(*status.past, ended), restarts=restarts),
        )

    def _end_by_itself(
        self,
        project_id: str,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        reason: str = "",
    ) -> None:
        """The run ends, and its policy decides what follows."""
        status = self._ended(project_id, exit_code=exit_code, signal=signal, reason=reason)
        condition = self.specs[project_id].restart.condition
        well = exit_code == 0 and not reason
        if condition is RestartCondition.ALWAYS or (
            condition is RestartCondition.ON_FAILURE and not well
        ):
            self._back_off(
                project_id, status, reason or ("exited" if signal is None else "signalled")
            )
        else:
            state = RuntimeState.FAILED if reason in _FAILED_AT_LAST else RuntimeState.EXITED
            self._become(project_id, replace(status, state=state, reason=reason))

    def _back_off(self, project_id: str, status: RunStatus, reason: str) -> RunStatus:
        policy = self.specs[project_id].restart
        if status.restarts >= policy.max_restarts:
            failed = replace(status, state=RuntimeState.FAILED, reason="crash_loop")
            return self._become(project_id, failed)
        return self._become(
            project_id,
            replace(
                status,
                state=RuntimeState.BACKOFF,
                reason=reason,
                next_restart_time=self._clock.now() + policy.initial_backoff,
            ),
        )

    def _end(
        self,
        project_id: str,
        state: RuntimeState,
        *,
        reason: str = "",
        signal: int | None = None,
        supervisor_lost: bool = False,
    ) -> None:
        status = self._ended(project_id, signal=signal, supervisor_lost=supervisor_lost)
        self._become(project_id, replace(status, state=state, reason=reason))

    def _ended(
        self,
        project_id: str,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        supervisor_lost: bool = False,
        reason: str = "",
    ) -> RunStatus:
        status = self._statuses[project_id]
        now = self._clock.now()
        ended = RunExit(
            exit_code=exit_code,
            signal=signal,
            supervisor_lost=supervisor_lost,
            time=now,
            duration=now - (status.start_time or now),
            reason=reason,
        )
        return replace(status, exit=ended)

    def _become(self, project_id: str, status: RunStatus) -> RunStatus:
        self._statuses[project_id] = status
        self._show(project_id)
        return status

    def _show(self, project_id: str) -> None:
        if self._words_held or self._listener is None:
            return
        if project_id in self._statuses:
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


def _runs_until(status: RunStatus | None) -> tuple[PastRun, ...]:
    """The last runs of supervisors before, as of the last status of the last one."""
    if status is None:
        return ()
    runs = (*status.earlier, *status.past)
    if status.exit is not None and status.start_time is not None:
        runs += (
            PastRun(
                run_id=status.run_id,
                pid=status.pid,
                start_time=status.start_time,
                exit=status.exit,
            ),
        )
    return runs[-_MAX_EARLIER:]
