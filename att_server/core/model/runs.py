"""A run of an app: what it is started with, how it is, and how it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from att_server.core.model.projects import DesiredState
from att_server.core.settings import ResourceLimits, RestartPolicy, changed_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything a supervisor needs to run an app, resolved and checked.

    env: the environment of the app, less `secrets` and ATT_RUN_ID, which each run gets.
    own_env: the part of it that settings gave; the rest came from the server.
    secrets: what `env_file` gave; never written to disk, and masked in the log.
    run_as: the user that it runs as; empty: the server's own.
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
    run_as: str = ""

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
        if self.run_as:
            form.append(["run_as", self.run_as])
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

    output: the end of what it printed, 4 KiB unless more was asked for.
    """

    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    start_error: str | None = None
    output: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """The run that is checked.

    env: the whole environment of the app, secrets included. run_as: the user that it
    runs as; empty: the server's own.
    """

    project_id: str
    log_id: str
    run_id: str
    pid: int
    first_cursor: int
    directory: Path
    env: Mapping[str, str]
    run_as: str = ""


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
