"""From a supervisor's state to the status of an app as the core knows it."""

from __future__ import annotations

from datetime import timedelta

from att_server.core.model import PastRun, RunExit, RunStatus, RuntimeState
from att_server.supervisor.state import Run, RunEnd, State

UNREACHABLE = "supervisor_unreachable"

_KNOWN = {item.value for item in RuntimeState}


def status_of(state: State, *, unknown: bool, boot_id: str) -> RunStatus:
    """unknown: the supervisor does not answer. boot_id: of this boot of the host."""
    run = state.run
    named = RuntimeState(state.state) if state.state in _KNOWN else RuntimeState.UNKNOWN
    return RunStatus(
        supervisor_id=state.supervisor_id,
        spec_digest=state.spec_digest,
        state=RuntimeState.UNKNOWN if unknown else named,
        run_id="" if run is None else run.run_id,
        pid=0 if run is None else run.pid,
        command=state.command,
        start_time=None if run is None else run.start_time,
        ready_time=None if run is None else run.ready_time,
        exit=None if run is None or run.end is None else _exit(run.end),
        restarts=state.restarts,
        next_restart_time=state.next_restart_time,
        reason=UNREACHABLE if unknown else state.reason,
        start_failure=state.start_failure,
        release_id=state.release_id,
        past=tuple(_past(run, run.end) for run in state.past if run.end is not None),
        earlier=tuple(_past(run, run.end) for run in state.earlier if run.end is not None),
        first_cursor=state.marker_sequence,
        this_boot=state.boot_id == boot_id,
    )


def _past(run: Run, end: RunEnd) -> PastRun:
    return PastRun(run_id=run.run_id, pid=run.pid, start_time=run.start_time, exit=_exit(end))


def _exit(end: RunEnd) -> RunExit:
    return RunExit(
        exit_code=end.exit_code,
        signal=end.signal,
        start_error=end.start_error,
        supervisor_lost=end.supervisor_lost,
        time=end.time,
        duration=max(end.duration, timedelta(0)),
        reason=end.reason,
    )
