"""Operations: what is being done with an app, one thing at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from att_server.core.background import Background
from att_server.core.errors import AttError, Reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Operation:
    """Something being done with a project's app; `done` holds how it ended."""

    name: str
    done: asyncio.Future[None]

    def fail(self, error: Exception) -> None:
        """Gives `error` to everyone who joined, if anyone has."""
        self.done.set_exception(error)
        self.done.exception()  # Marks it as seen: nobody may be left to ask for it.


class Operations:
    """At most one operation per project. It outlives the call that began it."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._running: dict[str, Operation] = {}

    def current(self, project_id: str) -> str:
        """The name of what is being done; empty if nothing is."""
        operation = self._running.get(project_id)
        return "" if operation is None else operation.name

    def refuse_if_busy(self, project_id: str) -> None:
        """Raises PROJECT_BUSY while something is being done."""
        operation = self._running.get(project_id)
        if operation is not None:
            raise AttError(
                Reason.PROJECT_BUSY,
                f"A {operation.name} of {project_id!r} is not finished. Call again afterwards.",
                project_id=project_id,
                operation=operation.name,
            )

    def begin(self, project_id: str, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Begins `work` in the background. Raises PROJECT_BUSY."""
        operation = self.occupy(project_id, name)

        async def run() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                operation.fail(_shutting_down())
                raise
            except AttError as error:
                log.info("the %s of %s failed: %s", name, project_id, error)
                operation.fail(error)
            except Exception as error:
                log.exception("defect in the %s of %s", name, project_id)
                operation.fail(error)
            finally:
                self.vacate(project_id)

        self._background.start(f"{name} of {project_id}", run)

    def occupy(self, project_id: str, name: str) -> Operation:
        """Keeps other operations out until `vacate`. Raises PROJECT_BUSY."""
        self.refuse_if_busy(project_id)
        operation = Operation(name, asyncio.get_running_loop().create_future())
        self._running[project_id] = operation
        return operation

    def vacate(self, project_id: str) -> None:
        """Ends what `occupy` began."""
        operation = self._running.pop(project_id)
        if not operation.done.done():
            operation.done.set_result(None)

    async def join(self, project_id: str) -> None:
        """Returns when the operation is over; raises what it raised."""
        operation = self._running.get(project_id)
        if operation is not None:
            await asyncio.shield(operation.done)

    async def settle(self, project_id: str, *names: str) -> None:
        """Returns when nothing is being done, or none of the operations `names`."""
        while (operation := self._running.get(project_id)) is not None:
            if names and operation.name not in names:
                return
            await asyncio.wait([operation.done])


def _shutting_down() -> AttError:
    return AttError(
        Reason.SHUTTING_DOWN,
        "The server is shutting down; the supervisor finishes what was begun. Call again.",
    )
