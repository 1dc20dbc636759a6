"""What the server knows of one project's newest supervisor, and how it got to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from att_server.adapters.control_client import ControlClient
from att_server.core.bell import Bell
from att_server.core.model import RunExit, RunStatus, RuntimeState
from att_server.supervisor.state import RunEnd, State, supervisor_directories

UNREACHABLE = "supervisor_unreachable"


class SupervisorLink:
    """The newest state of one project's supervisor, and the connection to it.

    changed: rings with every change of state, connection or reachability.
    refusal: why the process at the other end of the connection does nothing.
    """

    def __init__(
        self,
        project_id: str,
        log_id: str,
        directory: Path,
        *,
        epoch: int,
        on_status: Callable[[str, RunStatus], None],
        on_growth: Callable[[str], None],
        on_lost: Callable[[SupervisorLink], None],
    ) -> None:
        """directory: the project's. on_lost: the connection ended by itself."""
        self.project_id = project_id
        self.log_id = log_id
        self.directory = directory
        self.changed = Bell()
        self.state: State | None = None
        self.client: ControlClient | None = None
        self.refusal: str | None = None
        self._epoch = epoch
        self._on_status = on_status
        self._on_growth = on_growth
        self._on_lost = on_lost
        self._silent = False
        self._shown: RunStatus | None = None

    @property
    def status(self) -> RunStatus | None:
        """What is known of the app, UNKNOWN while its supervisor does not answer."""
        return None if self.state is None else _status(self.state, unknown=self._silent)

    @property
    def settled(self) -> bool:
        """Whether no supervisor is alive, and the end of the last run is recorded."""
        return self.state is None or (self.state.ended and self.client is None)

    def state_of(self, supervisor_id: str) -> State | None:
        """The newest state if it is this supervisor's."""
        known = self.state is not None and self.state.supervisor_id == supervisor_id
        return self.state if known else None

    def new_client(self) -> ControlClient:
        """A client for a new connection, in place of the one before."""
        self.let_go()
        self.refusal = None
        self.client = ControlClient(
            epoch=self._epoch,
            on_message=self._take,
            on_grew=lambda: self._on_growth(self.project_id),
            on_lost=self._lose,
        )
        return self.client

    def let_go(self) -> None:
        """Closes the connection."""
        client, self.client = self.client, None
        if client is not None:
            client.close()

    def learn(self, state: State | None) -> None:
        """Takes a state that was read, which stands until the supervisor says otherwise."""
        if state is not None:
            self.state = state
        self._show()

    def mark_silent(self) -> None:
        """The supervisor may be alive but does not answer."""
        self._silent = True
        self._show()

    def mark_heard(self) -> None:
        """What is known of the app holds."""
        self._silent = False
        self._show()

    def _take(self, message: Mapping[str, Any]) -> None:
        if "refused" in message:
            self.refusal = str(message.get("message", message["refused"]))
        elif message.get("push") == "grew":
            self._on_growth(self.project_id)
        else:
            # A state that comes is newer than every one that came before.
            form = message.get("state")
            if isinstance(form, Mapping):
                self.state = State.from_form(form)
            self.mark_heard()

    def _lose(self, client: ControlClient) -> None:
        if client is self.client:
            self.client = None
            self._on_lost(self)
            self.changed.ring()

    def _show(self) -> None:
        status = self.status
        if status is not None and status != self._shown:
            self._shown = status
            self._on_status(self.project_id, status)
        self.changed.ring()


def newest(project: Path, log_id: str) -> tuple[Path, State] | None:
    """The newest supervisor directory with a state of this log, and that state.

    Raises OSError.
    """
    for name in reversed(supervisor_directories(str(project))):
        try:
            state = State.load(name)
        except (ValueError, KeyError):  # torn by a crash of the machine
            continue
        if state is not None and state.log_id == log_id:
            return Path(name), state
    return None


def _status(state: State, *, unknown: bool) -> RunStatus:
    run = state.run
    known = {item.value for item in RuntimeState}
    named = RuntimeState(state.state) if state.state in known else RuntimeState.UNKNOWN
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
        reason=UNREACHABLE if unknown else state.reason,
        start_failure=state.start_failure,
        release_id=state.release_id,
    )


def _exit(end: RunEnd) -> RunExit:
    return RunExit(
        exit_code=end.exit_code,
        signal=end.signal,
        start_error=end.start_error,
        supervisor_lost=end.supervisor_lost,
        time=end.time,
        duration=max(end.duration, timedelta(0)),
    )
