"""What a supervisor that was killed left behind, brought to a recorded end."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from att_server.supervisor import cgroup
from att_server.supervisor.hunt import end_run
from att_server.supervisor.log_writer import LogWriter, Marker
from att_server.supervisor.segment import FrameKind, SegmentError, run_to_bytes, run_to_text
from att_server.supervisor.spec import Spec
from att_server.supervisor.state import (
    EXITED,
    HOST_RESTARTED,
    HOST_SHUTDOWN,
    LOGS,
    MAX_EARLIER,
    MAX_PAST,
    STATE_FILE,
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
    """Processes of a lost run may be left after SIGKILL; it cannot be settled now."""


def settle(project: str, *, log_id: str, boot_id: str) -> tuple[Run, ...]:
    """Ends the runs of lost supervisors: no process, one end marker, a final state.

    Returns the last runs of all supervisors whose files are there, oldest
    first, at most MAX_EARLIER.

    project: the project's directory, whose writer lock the caller holds: so
    every supervisor whose state is not final is gone. Does nothing twice, and
    can be interrupted anywhere and called again. A run of another `log_id` is
    of an earlier life of the project, whose log is gone. The state of a
    supervisor whose file is torn is made anew from its specification and the
    log. Raises OSError, StillRunning.
    """
    logs = os.path.join(project, LOGS)
    runs: dict[str, Run] = {}
    for directory in supervisor_directories(project):
        try:
            state = State.load(directory)
        except ValueError:
            state = _rebuilt(directory, logs, log_id, boot_id)
            if state is None:
                os.unlink(os.path.join(directory, STATE_FILE))
        if state is None:
            continue
        if not state.ended:
            state = _settled(directory, logs, state, log_id, boot_id)
        if state.log_id == log_id:
            last = () if state.run is None else (state.run,)
            runs |= {run.run_id: run for run in (*state.earlier, *state.past, *last)}
    return tuple(runs.values())[-MAX_EARLIER:]


def _settled(directory: str, logs: str, state: State, log_id: str, boot_id: str) -> State:
    """The final state of a lost supervisor, which is saved."""
    cgroup.clear(state.log_id)
    if state.log_id == log_id:
        log = LogWriter.open(Path(logs), log_id=log_id, boot_id=boot_id)
        try:
            state = _newest_run(log, state)
            _end_processes(state, boot_id)
            state = _marked(log, state)
        finally:
            log.close()
    else:
        _end_processes(state, boot_id)
        if state.run is not None and state.run.end is None:
            state = replace(state, run=replace(state.run, end=_lost(state.run)))
    state = _final(state, _restarts(directory, state), boot_id)
    state.save(directory)
    return state


def _newest_run(log: LogWriter, state: State) -> State:
    """The state with the run that the log has open, if it could not be saved any more."""
    binary, known = log.open_run, state.run
    if binary is None or (known is not None and run_to_bytes(known.run_id) == binary):
        return state
    run_id = run_to_text(binary)
    for run in state.past:
        if run.run_id == run_id and run.end is not None:  # only its marker is missing
            log.append_ended(binary, run.end.marker())
            return state
    if known is not None and known.end is None:
        marker = log.find_marker(
            run_to_bytes(known.run_id), FrameKind.RUN_ENDED, from_sequence=state.marker_sequence
        )
        known = replace(known, end=_lost(known) if marker is None else _told(marker))
    began = int.from_bytes(binary[:6], "big") / 1000
    return replace(
        state,
        run=Run(run_id=run_id, start_time=utc(began)),
        past=state.past if known is None else (*state.past, known)[-MAX_PAST:],
    )


def _end_processes(state: State, boot_id: str) -> None:
    run = state.run
    same_boot = state.boot_id == boot_id and run is not None and run.end is None and run.pid
    main = (run.pid, run.start_ticks) if same_boot and run is not None else None
    run_id = "" if run is None else run.run_id
    if not end_run(run_id, main, supervisor_id=state.supervisor_id, within=END_WITHIN):
        raise StillRunning(f"it is not sure that all processes of run {run_id} are gone")


def _marked(log: LogWriter, state: State) -> State:
    """The state with how its run ended by its end marker, which is written if there is none."""
    run = state.run
    if run is None or run.end is not None:
        log.flush()
        return state
    binary, since = run_to_bytes(run.run_id), state.marker_sequence
    marker = log.find_marker(binary, FrameKind.RUN_ENDED, from_sequence=since)
    if marker is not None:
        return replace(state, run=replace(run, end=_told(marker)))
    started = log.open_run == binary or log.find_marker(
        binary, FrameKind.RUN_STARTED, from_sequence=since
    )
    if not started:
        log.append_started(binary, started_marker(state.command, run.pid, state.release_id))
    end = _lost(run)
    log.append_ended(binary, end.marker())
    log.flush()
    return replace(state, run=replace(run, end=end))


def _told(marker: Marker) -> RunEnd:
    return RunEnd.from_marker(marker.payload, utc(marker.time_ns / 1e9))


def _lost(run: Run) -> RunEnd:
    now = utc(time.time())
    return RunEnd(supervisor_lost=True, time=now, duration=max(now - run.start_time, timedelta(0)))


def _restarts(directory: str, state: State) -> bool:
    """Whether the lost supervisor would have started the app again."""
    end = None if state.run is None else state.run.end
    if end is None or end.supervisor_lost or state.next_restart_time is not None:
        return True
    try:
        policy = Spec.load(directory).restart
    except (OSError, ValueError):
        return False
    return policy.restarts_after(failed=end.failed)


def _final(state: State, restarts: bool, boot_id: str) -> State:
    """The last state of a lost supervisor, whose run has an end."""
    end = None if state.run is None else state.run.end
    lost = EXITED, SUPERVISOR_LOST if state.boot_id == boot_id else HOST_RESTARTED
    asked = state.state == STOPPING and state.reason in ("", HOST_SHUTDOWN)
    if end is None or end.supervisor_lost:
        name, reason = lost
    elif asked:
        name, reason = STOPPED, state.reason
    else:
        name, reason = lost if restarts else end.conclusion
    return replace(
        state, state=name, reason=reason, next_restart_time=None, revision=state.revision + 1
    )


def _rebuilt(directory: str, logs: str, log_id: str, boot_id: str) -> State | None:
    """A state in place of one that cannot be read; None if it is not of this log."""
    supervisor_id = os.path.basename(directory)
    project_id = os.path.basename(os.path.dirname(logs))
    state = State.unknown(supervisor_id, project_id, log_id=log_id, boot_id=boot_id)
    try:
        spec = Spec.load(directory)
    except (OSError, ValueError):
        pass
    else:
        if spec.log_id != log_id:
            return None
        state = replace(
            state, spec_digest=spec.digest, command=spec.command, release_id=spec.release_id
        )
    try:
        LogWriter.open(Path(logs), log_id=log_id, boot_id=boot_id).close()
    except SegmentError:
        return None
    return state


def started_marker(command: tuple[str, ...], pid: int, release_id: str) -> dict[str, object]:
    """The payload of a start marker."""
    return {"command": list(command), "pid": pid, "release_id": release_id}
