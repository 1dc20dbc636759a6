"""What the core talks about: projects, runs, log records, events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from att_server.core.settings import (
    ResourceLimits,
    RestartPolicy,
    RuntimeSettings,
    changed_fields,
)

# Projects -------------------------------------------------------------------


class ProjectMode(StrEnum):
    """What a project lets happen."""

    NORMAL = "normal"
    SAFE = "safe"
    FROZEN = "frozen"


class DesiredState(StrEnum):
    """What a project's app is meant to be, also after a restart of the host."""

    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One app: its directory, its settings, and the life of its log.

    runtime: what was given over `att.toml`.
    desired: what the app is meant to be, with the settings of the last start
    (`desired_runtime`, given over the project's) to bring it back.
    """

    project_id: str
    path: Path
    runtime: RuntimeSettings
    mode: ProjectMode
    log_id: str
    desired: DesiredState
    desired_runtime: RuntimeSettings
    create_time: datetime
    update_time: datetime


# Runs -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything a supervisor needs to run an app, resolved and checked.

    env: the environment of the app, less `secrets` and ATT_RUN_ID, which each run gets.
    own_env: the part of it that settings gave; the rest came from the server.
    secrets: what `env_file` gave; never written to disk, and masked in the log.
    """

    project_id: str
    log_id: str
    command: tuple[str, ...]
    directory: Path
    env: Mapping[str, str]
    own_env: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict)
    stop_grace: timedelta
    probed: bool
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    release_id: str = ""

    def digest(self) -> str:
        """Equal for equal specifications; stable over processes and releases.

        What the app inherits from the server's environment is no part of it.
        """
        form = [
            list(self.command),
            str(self.directory),
            sorted(self.own_env.items()),
            self.stop_grace.total_seconds(),
            self.probed,
            self.release_id,
        ]
        # What an earlier release did not know is left out where it is unset, so
        # that its running apps are taken for what they are.
        if self.secrets:
            form.append(["secrets", sorted(self.secrets.items())])
        for name, given in (("restart", self.restart), ("limits", self.limits)):
            if changed := changed_fields(given):
                form.append([name, changed])
        return hashlib.sha256(json.dumps(form).encode()).hexdigest()


class RuntimeState(StrEnum):
    """Where an app is in its life (runtime_state in `runtime.proto`)."""

    STARTING = "starting"
    RUNNING = "running"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXITED = "exited"
    BACKOFF = "backoff"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def alive(self) -> bool:
        """Whether the app runs or may run."""
        return self in _ALIVE


_ALIVE = frozenset(
    {
        RuntimeState.STARTING,
        RuntimeState.RUNNING,
        RuntimeState.READY,
        RuntimeState.STOPPING,
        RuntimeState.BACKOFF,
        RuntimeState.UNKNOWN,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExit:
    """How a run ended: exactly one of the first four says so.

    reason: what ended it, if neither the app itself nor a call did
    (`RuntimeExit.reason` in `runtime.proto`).
    """

    exit_code: int | None = None
    signal: int | None = None
    start_error: str | None = None
    supervisor_lost: bool = False
    time: datetime
    duration: timedelta
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """A run of the same supervisor that has ended."""

    run_id: str
    pid: int
    start_time: datetime
    exit: RunExit


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What a supervisor says of its app. `run_id` is empty before the first run.

    start_failure: for FAILED, the reason code of the failed start
    (`command_not_found`, `command_not_executable`, `directory_invalid`, `start_error`).
    restarts: starts that no call asked for since the last one that was asked for.
    next_restart_time: in BACKOFF, when the app is started again.
    past: the last runs before this one (at most 32), oldest first, so that
    whoever was away learns of each. earlier: the last ones (at most 8) of
    supervisors before this one.
    first_cursor: at or below the sequence number of the run's start marker.
    this_boot: whether the host has not been restarted since.
    """

    supervisor_id: str
    spec_digest: str
    state: RuntimeState
    run_id: str = ""
    pid: int = 0
    command: tuple[str, ...] = ()
    start_time: datetime | None = None
    ready_time: datetime | None = None
    exit: RunExit | None = None
    restarts: int = 0
    next_restart_time: datetime | None = None
    reason: str = ""
    start_failure: str = ""
    release_id: str = ""
    past: tuple[PastRun, ...] = ()
    earlier: tuple[PastRun, ...] = ()
    first_cursor: int = 0
    this_boot: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the processes of an app use, by one look.

    cpu_percent: share of one processor since the look before, else since the
    app's start. resident_bytes: of the tree. cpu_time: of the present processes.
    """

    cpu_percent: float
    cpu_time: timedelta
    resident_bytes: int
    process_count: int
    open_file_count: int
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a helper command ended: exactly one of the first four says so.

    output: the last 4 KiB of what it printed.
    """

    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    start_error: str | None = None
    output: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """The run that is checked. env: the whole environment of the app, secrets included."""

    project_id: str
    log_id: str
    run_id: str
    pid: int
    first_cursor: int
    directory: Path
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The outcome of one check; `reason` is one of HealthCheck.health_reason."""

    healthy: bool
    probe: str
    reason: str
    checked_at: datetime
    duration: timedelta = timedelta(0)
    exit_code: int | None = None
    http_status: int | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The state of a project's app, as clients see it."""

    project_id: str
    state: RuntimeState
    desired: DesiredState
    revision: int
    status: RunStatus | None = None
    health: ProbeResult | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeChanges:
    """What a watcher of apps is told: whole states, and where to go on.

    complete: `runtimes` are all there are; what else the watcher knows is gone.
    """

    runtimes: tuple[Runtime, ...]
    deleted: tuple[str, ...]
    revision: int
    complete: bool = False


# Log ------------------------------------------------------------------------


class LogStream(StrEnum):
    """An output stream of an app."""

    STDOUT = "stdout"
    STDERR = "stderr"


class GapReason(StrEnum):
    """Why records are missing (LogGapReason in `log.proto`)."""

    RETENTION = "retention"
    TRIMMED = "trimmed"
    STORAGE_FULL = "storage_full"
    DAMAGED = "damaged"
    MACHINE_CRASH = "machine_crash"
    GENERATION_CHANGED = "generation_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Consecutive lines of one stream of one run that arrived together.

    lines: each ended by a newline, at most 64 KiB, bytes as the app wrote them.
    partial: the last line goes on in the next line of this stream.
    unterminated: the app did not end the last line.
    """

    first_sequence: int
    line_count: int
    time: datetime
    stream: LogStream
    run_id: str
    lines: bytes
    partial: bool = False
    unterminated: bool = False

    @property
    def next_sequence(self) -> int:
        """The sequence number after the last line."""
        return self.first_sequence + self.line_count

    def slice(self, start: int, stop: int) -> LogChunk:
        """The lines from sequence number `start` to before `stop`.

        start, stop: within the chunk, `start < stop`. Flags stay with the last line.
        """
        if start == self.first_sequence and stop == self.next_sequence:
            return self
        lines = self.lines.split(b"\n")[:-1]
        kept = lines[start - self.first_sequence : stop - self.first_sequence]
        last = stop == self.next_sequence
        return replace(
            self,
            first_sequence=start,
            line_count=len(kept),
            lines=b"\n".join(kept) + b"\n",
            partial=self.partial and last,
            unterminated=self.unterminated and last,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run started; pid 0: it could not be started, the end marker follows."""

    sequence: int
    time: datetime
    run_id: str
    command: tuple[str, ...]
    pid: int
    release_id: str = ""

    @property
    def first_sequence(self) -> int:
        """The marker's sequence number."""
        return self.sequence

    @property
    def next_sequence(self) -> int:
        """The sequence number after the marker."""
        return self.sequence + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run ended, and all its lines lie before."""

    sequence: int
    run_id: str
    exit: RunExit

    @property
    def first_sequence(self) -> int:
        """The marker's sequence number."""
        return self.sequence

    @property
    def next_sequence(self) -> int:
        """The sequence number after the marker."""
        return self.sequence + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGap:
    """`count` sequence numbers from `first_sequence` on are missing."""

    first_sequence: int
    count: int
    reason: GapReason
    lost_lines: int | None = None

    @property
    def next_sequence(self) -> int:
        """The sequence number after the gap."""
        return self.first_sequence + self.count


LogRecord = LogChunk | RunStarted | RunEnded | LogGap


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBounds:
    """What a log holds: sequence numbers from `start` to before `end`."""

    log_id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class LogPage:
    """Consecutive records; `cursor` is where to go on.

    Compared by identity: stores share pages between readers, and the wire form
    is kept once per page.
    """

    records: tuple[LogRecord, ...]
    cursor: int
    bounds: LogBounds


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """A place in a log: at most one of the first three, else the beginning or `at_end`."""

    cursor: int | None = None
    tail: int | None = None
    since: datetime | None = None
    at_end: bool = False
    log_id: str = ""


# Events ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of the audit log; `sequence` is -1 until it is stored."""

    event_type: str
    time: datetime
    project_id: str = ""
    cycle_id: str = ""
    run_id: str = ""
    principal: str = ""
    phase: str = ""
    reason: str = ""
    message: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    sequence: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Selects events; empty fields select all. A type that ends with `.` is a prefix."""

    project_id: str = ""
    cycle_id: str = ""
    event_types: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestClaim:
    """A call with a request id: what was asked (digest) and what it began (outcome)."""

    request_id: str
    method: str
    digest: str
    project_id: str
    time: datetime
    outcome: str = ""
