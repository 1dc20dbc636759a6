"""What the core needs from outside, one protocol a concern.

Adapters implement these; `testing.py` ships a fake of each. A contract suite
per port (`tests/contract`) runs on both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from att_server.core.model import (
    CommandResult,
    Event,
    EventFilter,
    LogBounds,
    LogPage,
    ProbeResult,
    ProbeTarget,
    Project,
    RequestClaim,
    RunSpec,
    RunStatus,
    Usage,
)
from att_server.core.settings import NotifySettings, Probe, RuntimeSettings


class Clock(Protocol):
    """Tells the time and makes ids that sort by it."""

    def now(self) -> datetime:
        """The wall-clock time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary origin."""
        ...

    async def sleep(self, duration: timedelta) -> None:
        """Returns after `duration`; cancelling ends it early."""
        ...

    def new_id(self) -> str:
        """A new id of 26 characters `[0-9A-Z]` that sorts by time of making."""
        ...


class StateStore(Protocol):
    """Keeps projects, events and request ids. Every write is durable on return.

    A write takes the events that report it, and keeps both or neither.
    """

    async def projects(self) -> Sequence[Project]:
        """All projects, by id."""
        ...

    async def put_project(
        self, project: Project, *events: Event, claim: RequestClaim | None = None
    ) -> RequestClaim | None:
        """Inserts or replaces the project with its id.

        claim: is kept with it. Where one is kept under its id already, that one
        is returned and nothing changes; otherwise None.
        """
        ...

    async def delete_project(self, project_id: str, *events: Event) -> None:
        """Removes the project; without effect if there is none."""
        ...

    async def append_events(
        self, *events: Event, outcomes: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Appends events in order, and keeps what claimed requests began, by request id."""
        ...

    async def list_events(
        self, selected: EventFilter, *, cursor: int, limit: int, tail: bool = False
    ) -> tuple[Sequence[Event], int]:
        """Up to `limit` (at least 1) selected events from `cursor` on, and the next cursor.

        tail: the last `limit` selected ones instead. The next cursor is behind
        the last event looked at, so it moves past what is not selected too.
        """
        ...

    async def claim_request(self, claim: RequestClaim) -> RequestClaim | None:
        """Keeps the claim and returns None, or returns the one kept under its id."""
        ...

    async def set_request_outcome(self, request_id: str, outcome: str) -> None:
        """Keeps what a claimed request began."""
        ...

    async def next_epoch(self) -> int:
        """A number that is higher than every one returned before, from 1."""
        ...

    async def number(self, name: str) -> int | None:
        """The number that is kept under `name`, None if there is none."""
        ...

    async def raise_number(self, name: str, value: int) -> None:
        """Keeps `value` under `name`, unless a number that is not lower is kept there."""
        ...

    async def aclose(self) -> None:
        """Closes the store; every later call fails."""
        ...


class LogStore(Protocol):
    """Reads logs. The supervisor writes them; see `supervisor/`.

    No call waits for growth; `LogManager` does, on the driver's word.
    """

    async def bounds(self, project_id: str, log_id: str) -> LogBounds:
        """What the log holds now; 0 to 0 before the first record."""
        ...

    async def read(self, project_id: str, log_id: str, *, cursor: int, max_bytes: int) -> LogPage:
        """The page from `cursor` (0 to end) on: records up to `max_bytes` bytes of lines.

        A page before the end holds at least one record. The first chunk is
        sliced where `cursor` lies inside it, others are whole. A cursor below
        the start begins with one gap up to the start. The same page object may
        be handed to several readers.
        """
        ...

    async def seek_tail(self, project_id: str, log_id: str, lines: int) -> int:
        """The cursor before the last `lines` lines; the start if there are fewer."""
        ...

    async def seek_time(self, project_id: str, log_id: str, time: datetime) -> int:
        """The cursor before the first record that arrived at or after `time`, else the end."""
        ...

    async def delete(self, project_id: str) -> None:
        """Removes everything kept for the project; without effect if there is nothing."""
        ...

    async def aclose(self) -> None:
        """Closes all files."""
        ...


class RuntimeListener(Protocol):
    """Is told by the driver, on the event loop, what its apps do. Must not block."""

    def run_changed(self, project_id: str, status: RunStatus) -> None:
        """The app's status is now `status`."""
        ...

    def log_grew(self, project_id: str) -> None:
        """The project's log has more records than before."""
        ...


class RuntimeDriver(Protocol):
    """Runs apps under supervisors that outlive the server.

    Level-triggered: `adopt` finds what is there, whatever happened meanwhile.
    """

    async def adopt(
        self, projects: Mapping[str, str], listener: RuntimeListener
    ) -> Mapping[str, RunStatus]:
        """Connects to every live supervisor and settles what lost ones left.

        projects: log id by project id, of all projects. Returns the last known
        status by project id, absent for a project that never ran. Called once,
        before every other method; afterwards `listener` is told of changes.
        A run whose supervisor is gone is ended (its whole tree) and marked
        `supervisor_lost` in the log; after a reboot the reason is `host_restarted`.
        """
        ...

    def prepared(self, project_id: str, log_id: str) -> AbstractAsyncContextManager[None]:
        """Has ready, within the context, what one `start` of the project needs.

        Saves that start some time and has no effect by itself. Raises nothing.
        """
        ...

    async def start(self, spec: RunSpec, *, after_loss: bool = False) -> RunStatus:
        """Starts the app; returns when it runs, or FAILED with `start_failure`.

        The project has no live app. From then on the supervisor starts it
        again as `spec.restart` says, by itself.

        after_loss: the last run was lost with its supervisor, which counts as a
        failure: returns in BACKOFF, or FAILED with `crash_loop`. Raises
        SUPERVISOR_UNREACHABLE if no supervisor could be had.
        """
        ...

    async def start_now(self, project_id: str) -> RunStatus | None:
        """Starts the app that waits in BACKOFF at once, as if a call had asked for it.

        Returns when it runs, or FAILED; in another state returns that. None if
        it never ran. Raises SUPERVISOR_UNREACHABLE.
        """
        ...

    async def stop(self, project_id: str, grace: timedelta | None) -> RunStatus | None:
        """Ends the app's tree and returns when it is gone; None if it never ran.

        grace: None is the spec's. Concurrent calls join. Cancelling does not
        take the stop back. Raises SUPERVISOR_UNREACHABLE.
        """
        ...

    async def set_ready(self, project_id: str, run_id: str, *, ready: bool = True) -> None:
        """Notes that the run is ready, or no longer; without effect if it is another run now."""
        ...

    async def fail(self, project_id: str, run_id: str, reason: str) -> None:
        """Has the run ended as a failure, which its restart policy then answers.

        reason: `liveness_failed` or `startup_deadline`. Returns when the end
        has begun; without effect if it is another run now, or it ends already.
        Raises SUPERVISOR_UNREACHABLE.
        """
        ...

    async def usage(self, project_ids: Collection[str]) -> Mapping[str, Usage]:
        """What the apps use now; absent for those that do not run. One look for all."""
        ...

    async def signal(self, project_id: str, number: int) -> None:
        """Sends a signal to the main process. Raises RUNTIME_NOT_RUNNING."""
        ...

    async def forget(self, project_id: str) -> None:
        """Drops what is known of a project whose app does not run."""
        ...

    async def aclose(self) -> None:
        """Lets go of all supervisors; their apps run on."""
        ...


class Prober(Protocol):
    """Checks apps from outside."""

    async def probe(self, probe: Probe, target: ProbeTarget) -> ProbeResult:
        """Checks once, within the probe's timeout. Never raises for a failed check.

        An answer on a local port from a socket that no process of the target's
        tree owns is `port_owned_by_other_process`.
        """
        ...

    async def aclose(self) -> None:
        """Closes all connections."""
        ...


class CommandRunner(Protocol):
    """Runs short helper commands: probes and notifications."""

    async def run(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        env: Mapping[str, str],
        timeout: timedelta,
        input: bytes = b"",  # noqa: A002 - as subprocess.run calls it
    ) -> CommandResult:
        """Runs the command and ends whatever it leaves behind, also if the server dies.

        input: is its standard input, at most 64 KiB. Never raises for a failed
        command. Cancelling ends the command.
        """
        ...


class CommandFinder(Protocol):
    """Looks whether a command could be run, before anything is changed."""

    async def check(
        self, command: Sequence[str], *, directory: Path, env: Mapping[str, str]
    ) -> None:
        """Returns if the command's file can be executed in `directory` with `env`.

        Raises COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE or PROJECT_PATH_INVALID.
        """
        ...


class SettingsReader(Protocol):
    """Reads what people write about a project."""

    async def read(self, project: Project) -> RuntimeSettings:
        """The `[runtime]` table of the project's `att.toml`; empty without one.

        Raises SETTINGS_INVALID, with line and key, or PROJECT_PATH_INVALID.
        """
        ...

    async def notify(self, project: Project) -> NotifySettings | None:
        """The `[notify]` table of the project's `att.toml`, None without one.

        Raises SETTINGS_INVALID, with line and key, or PROJECT_PATH_INVALID.
        """
        ...

    async def env_file(self, project: Project, path: str) -> Mapping[str, str]:
        """The variables of a file in dotenv form; `path` is against the project's directory.

        Raises SETTINGS_INVALID, with the line and never a value.
        """
        ...


class TemplateStore(Protocol):
    """Holds the templates that fill the directory of a new project."""

    def names(self) -> Sequence[str]:
        """The templates' names, sorted."""
        ...

    async def fill(self, name: str, directory: Path) -> None:
        """Makes the directory, or fills the empty one: with the whole template or nothing.

        name: one of `names`. directory: absolute. Without effect if it holds
        exactly the template already. Raises PROJECT_PATH_INVALID if it holds
        anything else or cannot be written, STORAGE_FULL.
        """
        ...
