"""What a supervisor writes about itself: `state.json`.

It lies beside `spec.json`, what was asked, in
`projects/<id>/supervisors/<supervisor_id>/`. A reader of either ignores fields
it does not know and fills in what is missing, so that the releases before and
after this one read each other's files. Times are RFC 3339 in UTC, durations
seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from att_server.supervisor import json_file

VERSION = 1
STATE_FILE = "state.json"
CONTROL_SOCKET = "control.sock"
LOCK_FILE = "writer.lock"
SUPERVISORS = "supervisors"
LOGS = "logs"

STARTING = "starting"
RUNNING = "running"
READY = "ready"
STOPPING = "stopping"
STOPPED = "stopped"
EXITED = "exited"
BACKOFF = "backoff"
FAILED = "failed"

# Reasons of states and of ends.
MAIN_EXITED = "main_exited"
"""Of `stopping`: nobody asked, but the main process left others behind."""
HOST_SHUTDOWN = "host_shutdown"
"""Of `stopping` and `stopped`: the supervisor itself was told to end."""
SUPERVISOR_LOST = "supervisor_lost"
HOST_RESTARTED = "host_restarted"
"""Of `exited`: what became of the supervisor."""
SIGNALLED = "signalled"
START_ERROR = "start_error"
"""Of `backoff`, as `exited` is: how the last run ended by itself."""
LIVENESS_FAILED = "liveness_failed"
STARTUP_DEADLINE = "startup_deadline"
MEMORY_LIMIT = "memory_limit"
PROCESS_LIMIT = "process_limit"
CPU_TIME_LIMIT = "cpu_time_limit"
OOM_KILLED = "oom_killed"
"""What ended a run, if neither the app itself nor a call did."""
CRASH_LOOP = "crash_loop"
"""Of `failed`: one more restart would have been one too many."""

PROBE_FAILURES = frozenset({LIVENESS_FAILED, STARTUP_DEADLINE})
"""Reasons that a server gives to end a run as a failure."""
MAX_PAST = 32
"""How many runs before the current one are kept."""
MAX_EARLIER = 8
"""How many runs of supervisors before are kept."""

ENDED = frozenset({STOPPED, EXITED, FAILED})
"""The states that a supervisor leaves behind; in any other it was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended: exactly one of the first four says so.

    reason: what ended it, if neither the app itself nor a call did.
    """

    exit_code: int | None = None
    signal: int | None = None
    start_error: str | None = None
    supervisor_lost: bool = False
    time: datetime
    duration: timedelta
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether the end was a failure, if nobody asked for it."""
        return self.exit_code != 0 or self.reason != ""

    @property
    def cause(self) -> str:
        """Why the run ended, in a word."""
        if self.reason:
            return self.reason
        if self.start_error is not None:
            return START_ERROR
        if self.supervisor_lost:
            return SUPERVISOR_LOST
        return EXITED if self.signal is None else SIGNALLED

    @property
    def conclusion(self) -> tuple[str, str]:
        """The state and its reason, where nothing is started again and nobody asked."""
        if self.start_error is not None or self.reason in PROBE_FAILURES:
            return FAILED, self.cause
        if self.supervisor_lost:
            return EXITED, SUPERVISOR_LOST
        if self.reason == HOST_SHUTDOWN:
            return STOPPED, HOST_SHUTDOWN
        return EXITED, self.reason

    def marker(self) -> dict[str, object]:
        """The payload of the log's end marker; the frame has the time."""
        if self.exit_code is not None:
            cause: dict[str, object] = {"exit_code": self.exit_code}
        elif self.signal is not None:
            cause = {"signal": self.signal}
        elif self.start_error is not None:
            cause = {"start_error": self.start_error}
        else:
            cause = {"supervisor_lost": True}
        if self.reason:
            cause["reason"] = self.reason
        return {**cause, "duration": self.duration.total_seconds()}

    @classmethod
    def from_marker(cls, payload: Mapping[str, object], time: datetime) -> RunEnd:
        """The end that an end marker tells, which was written at `time`."""
        return cls._from_form({**payload, "time": _text(time)})

    def _form(self) -> dict[str, object]:
        return {**self.marker(), "time": _text(self.time)}

    @classmethod
    def _from_form(cls, form: Mapping[str, object]) -> RunEnd:
        code, number, error = form.get("exit_code"), form.get("signal"), form.get("start_error")
        return cls(
            exit_code=None if code is None else int(str(code)),
            signal=None if number is None else int(str(number)),
            start_error=None if error is None else str(error),
            supervisor_lost=bool(form.get("supervisor_lost", False)),
            time=datetime.fromisoformat(str(form["time"])),
            duration=timedelta(seconds=float(str(form.get("duration", 0)))),
            reason=str(form.get("reason", "")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One start of the app; `pid` is 0 until (and unless) it has a process.

    start_ticks: the process's start in clock ticks since boot; with the pid and
    the boot id it names one process for ever.
    """

    run_id: str
    pid: int = 0
    start_ticks: int = 0
    start_time: datetime
    ready_time: datetime | None = None
    end: RunEnd | None = None

    def form(self) -> dict[str, object]:
        """The JSON object."""
        return {
            **self.past_form(),
            "start_ticks": self.start_ticks,
            "ready_time": None if self.ready_time is None else _text(self.ready_time),
        }

    def past_form(self) -> dict[str, object]:
        """The JSON object of a run that is over: less what matters while it runs."""
        return {
            "run_id": self.run_id,
            "pid": self.pid,
            "start_time": _text(self.start_time),
            "exit": None if self.end is None else self.end._form(),
        }

    @classmethod
    def from_form(cls, form: Mapping[str, object]) -> Run:
        """The run that a JSON object tells. Raises KeyError, TypeError, ValueError."""
        ready, end = form.get("ready_time"), form.get("exit")
        return cls(
            run_id=str(form["run_id"]),
            pid=int(str(form.get("pid", 0))),
            start_ticks=int(str(form.get("start_ticks", 0))),
            start_time=datetime.fromisoformat(str(form["start_time"])),
            ready_time=None if ready is None else datetime.fromisoformat(str(ready)),
            end=RunEnd._from_form(end) if isinstance(end, Mapping) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The whole of `state.json`, which is also what the control socket tells.

    revision: grows by one with every change.
    marker_sequence: at or below the sequence number of the run's start marker.
    restarts: starts that no call asked for since the last one that was asked for.
    attempt: how many of them since the last stable run; it decides the wait.
    restart_times: when those within the policy's window were, in seconds since 1970.
    next_restart_time: in BACKOFF, when the app is started again.
    past: the runs before `run`, oldest first, at most MAX_PAST.
    earlier: the last runs of supervisors before this one, oldest first, at most
    MAX_EARLIER: a server that was killed may not have told of them.
    """

    revision: int = 0
    supervisor_id: str
    project_id: str
    log_id: str
    pid: int
    start_ticks: int
    boot_id: str
    epoch: int
    spec_digest: str
    state: str
    reason: str = ""
    start_failure: str = ""
    restarts: int = 0
    attempt: int = 0
    restart_times: tuple[float, ...] = ()
    next_restart_time: datetime | None = None
    release_id: str = ""
    command: tuple[str, ...] = ()
    run: Run | None = None
    past: tuple[Run, ...] = ()
    earlier: tuple[Run, ...] = ()
    marker_sequence: int = 0
    version: int = VERSION

    @classmethod
    def unknown(cls, supervisor_id: str, project_id: str, *, log_id: str, boot_id: str) -> State:
        """The state of a supervisor of which nothing more is known."""
        return cls(
            supervisor_id=supervisor_id,
            project_id=project_id,
            log_id=log_id,
            pid=0,
            start_ticks=0,
            boot_id=boot_id,
            epoch=0,
            spec_digest="",
            state=STARTING,
        )

    @property
    def ended(self) -> bool:
        """Whether the app's end is recorded."""
        return self.state in ENDED

    def form(self) -> dict[str, object]:
        """The JSON object."""
        return {
            "version": self.version,
            "revision": self.revision,
            "supervisor_id": self.supervisor_id,
            "project_id": self.project_id,
            "log_id": self.log_id,
            "pid": self.pid,
            "start_ticks": self.start_ticks,
            "boot_id": self.boot_id,
            "epoch": self.epoch,
            "spec_digest": self.spec_digest,
            "state": self.state,
            "reason": self.reason,
            "start_failure": self.start_failure,
            "restarts": self.restarts,
            "attempt": self.attempt,
            "restart_times": list(self.restart_times),
            "next_restart_time": None
            if self.next_restart_time is None
            else _text(self.next_restart_time),
            "release_id": self.release_id,
            "command": list(self.command),
            "run": None if self.run is None else self.run.form(),
            "past": [run.past_form() for run in self.past],
            "earlier": [run.past_form() for run in self.earlier],
            "marker_sequence": self.marker_sequence,
        }

    @classmethod
    def from_form(cls, form: Mapping[str, object]) -> State:
        """The state that a JSON object tells. Raises ValueError."""
        try:
            return cls._from_form(form)
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not the state of a supervisor: {error!r}") from error

    @classmethod
    def _from_form(cls, form: Mapping[str, object]) -> State:
        run, past, command = form.get("run"), form.get("past"), form.get("command")
        times, next_time = form.get("restart_times"), form.get("next_restart_time")
        earlier = form.get("earlier")
        numbers = ("revision", "pid", "start_ticks", "epoch", "restarts", "attempt")
        texts = ("boot_id", "spec_digest", "reason", "start_failure", "release_id")
        return cls(
            supervisor_id=str(form["supervisor_id"]),
            project_id=str(form["project_id"]),
            log_id=str(form["log_id"]),
            state=str(form["state"]),
            command=tuple(map(str, command)) if isinstance(command, list) else (),
            run=Run.from_form(run) if isinstance(run, Mapping) else None,
            past=tuple(map(Run.from_form, past)) if isinstance(past, list) else (),
            earlier=tuple(map(Run.from_form, earlier)) if isinstance(earlier, list) else (),
            restart_times=tuple(map(float, times)) if isinstance(times, list) else (),
            next_restart_time=None if next_time is None else datetime.fromisoformat(str(next_time)),
            marker_sequence=int(str(form.get("marker_sequence", 0))),
            version=int(str(form.get("version", VERSION))),
            **{key: int(str(form.get(key, 0))) for key in numbers},  # type: ignore[arg-type]  # int fields
            **{key: str(form.get(key, "")) for key in texts},  # type: ignore[arg-type]  # str fields
        )

    def save(self, directory: str) -> None:
        """Replaces `state.json` as a whole, durably if the end is recorded. Raises OSError."""
        path = os.path.join(directory, STATE_FILE)
        json_file.replace(path, self.form(), durable=self.ended)

    @classmethod
    def load(cls, directory: str) -> State | None:
        """Reads `state.json`; None where there is none. Raises OSError, ValueError (torn)."""
        try:
            form = json_file.read(os.path.join(directory, STATE_FILE))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls.from_form(form)


def supervisor_directories(project: str) -> list[str]:
    """The supervisor directories of a project directory, oldest first (ids sort by time)."""
    parent = os.path.join(project, SUPERVISORS)
    try:
        names = sorted(os.listdir(parent))
    except FileNotFoundError:
        return []
    return [os.path.join(parent, name) for name in names]


def utc(seconds: float) -> datetime:
    """Seconds since 1970 as an aware time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
