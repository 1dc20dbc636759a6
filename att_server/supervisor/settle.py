"""What a supervisor that was killed left behind, brought to a recorded end."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from att_server.supervisor import processes
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import FrameKind, run_to_bytes
from att_server.supervisor.state import (
    EXITED,
    FAILED,
    HOST_RESTARTED,
    LOGS,
    MAIN_EXITED,
    STOPPED,
    STOPPING,
    SUPERVISOR_LOST,
    Run,
    RunEnd,
    State,
    supervisor_directories,
    utc,
)

END_WITHIN = 10.0
"""Seconds that the processes of a lost run get to go after SIGKILL."""


class StillRunning(Exception):
    """Processes of a lost run survive SIGKILL; it cannot be settled now."""


def settle(project: str, *, log_id: str, boot_id: str) -> None:
    """Ends the runs of lost supervisors: no process, one end marker, a final state.

    project: the project's directory, whose writer lock the caller holds: so
    every supervisor whose state is not final is gone. Does nothing twice, and
    can be interrupted anywhere and called again. A run of another `log_id` is
    of an earlier life of the project, whose log is gone. Raises OSError,
    StillRunning.
    """
    for directory in supervisor_directories(project):
        try:
            state = State.load(directory)
        except (ValueError, KeyError):  # torn by a crash of the machine
            continue
        if state is None or state.ended:
            continue
        run = state.run
        if run is None:
            state = replace(state, state=EXITED, reason=_reason(state, boot_id))
        else:
            _end_processes(state, run, boot_id)
            end = run.end
            if state.log_id == log_id:
                end = _marked_end(os.path.join(project, LOGS), state, run, boot_id)
            state = _final(state, run, end, boot_id)
        replace(state, revision=state.revision + 1).save(directory)


def _end_processes(state: State, run: Run, boot_id: str) -> None:
    same_boot = state.boot_id == boot_id
    main = (run.pid, run.start_ticks) if same_boot and run.pid else None
    if not processes.end_run(run.run_id, main, within=END_WITHIN):
        raise StillRunning(f"processes of run {run.run_id} survive SIGKILL")


def _marked_end(logs: str, state: State, run: Run, boot_id: str) -> RunEnd:
    """How the run ended by its end marker, which is written if there is none."""
    binary = run_to_bytes(run.run_id)
    log = LogWriter.open(Path(logs), log_id=state.log_id, boot_id=boot_id)
    try:
        marker = log.find_marker(binary, FrameKind.RUN_ENDED, from_sequence=state.marker_sequence)
        if marker is not None:
            return RunEnd.from_marker(marker.payload, utc(marker.time_ns / 1e9))
        if (
            log.find_marker(binary, FrameKind.RUN_STARTED, from_sequence=state.marker_sequence)
            is None
        ):
            log.append_started(binary, started_marker(state.command, run.pid, state.release_id))
        end = _lost(run)
        log.append_ended(binary, end.marker())
        log.flush()
        return end
    finally:
        log.close()


def _lost(run: Run) -> RunEnd:
    now = utc(time.time())
    return RunEnd(supervisor_lost=True, time=now, duration=max(now - run.start_time, timedelta(0)))


def _final(state: State, run: Run, end: RunEnd | None, boot_id: str) -> State:
    end = end or _lost(run)
    if end.supervisor_lost:
        name, reason = EXITED, _reason(state, boot_id)
    elif end.start_error is not None:
        name, reason = FAILED, state.reason
    elif state.state == STOPPING and state.reason != MAIN_EXITED:
        name, reason = STOPPED, state.reason
    else:
        name, reason = EXITED, ""
    return replace(state, state=name, reason=reason, run=replace(run, end=end))


def _reason(state: State, boot_id: str) -> str:
    return SUPERVISOR_LOST if state.boot_id == boot_id else HOST_RESTARTED


def started_marker(command: tuple[str, ...], pid: int, release_id: str) -> dict[str, object]:
    """The payload of a start marker."""
    return {"command": list(command), "pid": pid, "release_id": release_id}
