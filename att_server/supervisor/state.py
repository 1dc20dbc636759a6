"""What a supervisor writes about itself: `spec.json` (asked) and `state.json` (is).

Both lie in `projects/<id>/supervisors/<supervisor_id>/`. A reader ignores
fields it does not know and fills in what is missing, so that the releases
before and after this one read each other's files. Times are RFC 3339 in UTC,
durations seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

VERSION = 1
SPEC_FILE = "spec.json"
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
FAILED = "failed"

MAIN_EXITED = "main_exited"
"""Reason of `stopping`: nobody asked, but the main process left others behind."""
HOST_SHUTDOWN = "host_shutdown"
"""Reason of `stopping` and `stopped`: the supervisor itself was told to end."""
SUPERVISOR_LOST = "supervisor_lost"
HOST_RESTARTED = "host_restarted"
"""Reasons of `exited`: what became of the supervisor."""

ENDED = frozenset({STOPPED, EXITED, FAILED})
"""The states that a supervisor leaves behind; in any other it was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a supervisor is asked to run.

    env: the app's whole environment, less ATT_RUN_ID.
    grace: between SIGTERM and SIGKILL.
    probed: readiness is the server's to tell; else the app is ready as it runs.
    epoch: of the server that asks.
    """

    supervisor_id: str
    project_id: str
    log_id: str
    epoch: int
    digest: str
    command: tuple[str, ...]
    directory: str
    env: Mapping[str, str]
    grace: timedelta
    probed: bool
    release_id: str = ""

    def save(self, directory: str) -> None:
        """Writes `spec.json`, readable by its owner only: it holds the environment."""
        form = {
            "version": VERSION,
            "supervisor_id": self.supervisor_id,
            "project_id": self.project_id,
            "log_id": self.log_id,
            "epoch": self.epoch,
            "digest": self.digest,
            "command": list(self.command),
            "directory": self.directory,
            "env": dict(self.env),
            "grace": self.grace.total_seconds(),
            "probed": self.probed,
            "release_id": self.release_id,
        }
        _replace(os.path.join(directory, SPEC_FILE), form)

    @classmethod
    def load(cls, directory: str) -> Spec:
        """Reads `spec.json`. Raises OSError, ValueError, KeyError."""
        form = _read(os.path.join(directory, SPEC_FILE))
        return cls(
            supervisor_id=form["supervisor_id"],
            project_id=form["project_id"],
            log_id=form["log_id"],
            epoch=form["epoch"],
            digest=form["digest"],
            command=tuple(form["command"]),
            directory=form["directory"],
            env=form["env"],
            grace=timedelta(seconds=form["grace"]),
            probed=form["probed"],
            release_id=form.get("release_id", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended: exactly one of the first four says so."""

    exit_code: int | None = None
    signal: int | None = None
    start_error: str | None = None
    supervisor_lost: bool = False
    time: datetime
    duration: timedelta

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
        return {**cause, "duration": self.duration.total_seconds()}

    @classmethod
    def from_marker(cls, payload: Mapping[str, object], time: datetime) -> RunEnd:
        """The end that an end marker tells, which was written at `time`."""
        return cls._from_form({**payload, "time": _text(time)})

    def _form(self) -> dict[str, object]:
        return {**self.marker(), "time": _text(self.time)}

    @classmethod
    def _from_form(cls, form: Mapping[str, object]) -> RunEnd:
        values: dict[str, object] = {
            key: form[key] for key in ("exit_code", "signal", "start_error") if key in form
        }
        return cls(
            **values,  # type: ignore[arg-type]  # JSON carries the declared types
            supervisor_lost=bool(form.get("supervisor_lost", False)),
            time=datetime.fromisoformat(str(form["time"])),
            duration=timedelta(seconds=float(str(form.get("duration", 0)))),
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

    def _form(self) -> dict[str, object]:
        return {
            "run_id": self.run_id,
            "pid": self.pid,
            "start_ticks": self.start_ticks,
            "start_time": _text(self.start_time),
            "ready_time": None if self.ready_time is None else _text(self.ready_time),
            "exit": None if self.end is None else self.end._form(),
        }

    @classmethod
    def _from_form(cls, form: Mapping[str, object]) -> Run:
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
    release_id: str = ""
    command: tuple[str, ...] = ()
    run: Run | None = None
    marker_sequence: int = 0
    version: int = VERSION

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
            "release_id": self.release_id,
            "command": list(self.command),
            "run": None if self.run is None else self.run._form(),
            "marker_sequence": self.marker_sequence,
        }

    @classmethod
    def from_form(cls, form: Mapping[str, object]) -> State:
        """The state that a JSON object tells. Raises KeyError, ValueError."""
        run, command = form.get("run"), form.get("command")
        numbers = ("revision", "pid", "start_ticks", "epoch", "restarts", "marker_sequence")
        texts = ("boot_id", "spec_digest", "reason", "start_failure", "release_id")
        return cls(
            supervisor_id=str(form["supervisor_id"]),
            project_id=str(form["project_id"]),
            log_id=str(form["log_id"]),
            state=str(form["state"]),
            command=tuple(map(str, command)) if isinstance(command, list) else (),
            run=Run._from_form(run) if isinstance(run, Mapping) else None,
            version=int(str(form.get("version", VERSION))),
            **{key: int(str(form.get(key, 0))) for key in numbers},  # type: ignore[arg-type]  # int fields
            **{key: str(form.get(key, "")) for key in texts},  # type: ignore[arg-type]  # str fields
        )

    def save(self, directory: str) -> None:
        """Replaces `state.json` as a whole, durably if the end is recorded. Raises OSError."""
        _replace(os.path.join(directory, STATE_FILE), self.form(), durable=self.ended)

    @classmethod
    def load(cls, directory: str) -> State | None:
        """Reads `state.json`; None where there is none. Raises OSError, ValueError, KeyError."""
        try:
            form = _read(os.path.join(directory, STATE_FILE))
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


def _read(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        form = json.load(file)
    if not isinstance(form, dict):
        raise ValueError(f"{path} is not a JSON object")
    return form


def _replace(path: str, form: Mapping[str, object], *, durable: bool = False) -> None:
    # The old file stays whole until the new one is: a reader never sees half a state.
    draft = path + ".new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = json.dumps(form).encode()
        while data:
            data = data[os.write(descriptor, data) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(draft, path)
