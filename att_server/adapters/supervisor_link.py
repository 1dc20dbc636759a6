"""What the server knows of one project's newest supervisor, and how it got to know."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from att_server.adapters.control_client import (
    CommandRefused,
    ControlClient,
    Message,
    SupervisorLost,
    SupervisorSilent,
)
from att_server.adapters.runtime_status import status_of
from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason
from att_server.core.model import RunStatus
from att_server.supervisor.spec import Spec
from att_server.supervisor.state import State, supervisor_directories


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
        boot_id: str,
        answers_within: timedelta,
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
        self._boot_id = boot_id
        self._answers_within = answers_within
        self._on_status = on_status
        self._on_growth = on_growth
        self._on_lost = on_lost
        self._silent = False
        self._shown: RunStatus | None = None

    @property
    def status(self) -> RunStatus | None:
        """What is known of the app, UNKNOWN while its supervisor does not answer."""
        if self.state is None:
            return None
        return status_of(self.state, unknown=self._silent, boot_id=self._boot_id)

    @property
    def settled(self) -> bool:
        """Whether no supervisor is alive, and the end of the last run is recorded."""
        return self.client is None and (self.state is None or self.state.ended)

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

    async def call(self, command: str, **arguments: object) -> Message:
        """Has the supervisor carry out a command, and returns its answer.

        Raises SupervisorLost, RUNTIME_NOT_RUNNING, SUPERVISOR_UNREACHABLE.
        """
        client = self.client
        if client is None:
            raise SupervisorLost
        try:
            return await client.call(command, within=self._answers_within, **arguments)
        except SupervisorSilent as error:
            self.mark_silent()
            raise unreachable(self.project_id, "does not answer", then=self._next_step()) from error
        except CommandRefused as error:
            raise self._refused(error) from error

    async def ask(self) -> None:
        """Finds out whether the supervisor answers, and marks it. Never raises."""
        with contextlib.suppress(SupervisorLost, AttError):
            await self.call("hello")

    async def call_at_length(self, command: str, **arguments: object) -> None:
        """As `call` for a command whose answer may take long: asks now and then
        whether the supervisor is still there."""
        client = self.client
        if client is None:
            raise SupervisorLost
        answer = asyncio.ensure_future(client.call(command, within=None, **arguments))
        try:
            while True:
                done, _ = await asyncio.wait([answer], timeout=self._answers_within.total_seconds())
                if done:
                    await answer
                    return
                await self.call("hello")
        except CommandRefused as error:
            raise self._refused(error) from error
        finally:
            answer.cancel()

    def _next_step(self) -> str:
        if self.state is None:
            return "Call again."
        return (
            f"Call again. If it stays so, end its process {self.state.pid} with SIGKILL: "
            "the app ends with it."
        )

    def _refused(self, error: CommandRefused) -> AttError:
        if error.error == "not_running":
            return not_running(self.project_id)
        if error.error == "unknown_command":
            return unreachable(
                self.project_id,
                "is of an earlier release and cannot do that",
                then="Restart the app to have it under this one.",
            )
        return unreachable(self.project_id, f"refused: {error}")

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


def newest(project: Path, log_id: str) -> tuple[Path, State | None] | None:
    """The newest supervisor directory of this log, and the state in it.

    The state is None if it cannot be read, as after a crash of the machine.
    Raises OSError.
    """
    for name in reversed(supervisor_directories(str(project))):
        try:
            state = State.load(name)
        except ValueError:
            if _of_log(name, log_id):
                return Path(name), None
            continue
        if state is not None and state.log_id == log_id:
            return Path(name), state
    return None


def unreachable(project_id: str, what: str, *, then: str = "Call again.") -> AttError:
    """SUPERVISOR_UNREACHABLE: the supervisor `what`; `then` is the next step."""
    return AttError(
        Reason.SUPERVISOR_UNREACHABLE,
        f"The supervisor of {project_id!r} {what}. {then}",
        project_id=project_id,
    )


def not_running(project_id: str) -> AttError:
    """RUNTIME_NOT_RUNNING."""
    return AttError(
        Reason.RUNTIME_NOT_RUNNING,
        f"The app of {project_id!r} does not run. Start it first.",
        project_id=project_id,
    )


def _of_log(directory: str, log_id: str) -> bool:
    try:
        return Spec.load(directory).log_id == log_id
    except (OSError, ValueError):
        return True  # nothing says otherwise
