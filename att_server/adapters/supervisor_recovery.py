"""SupervisorRecovery: what became of supervisors that a server finds, loses, or hears no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta

from att_server.adapters.control_client import (
    CommandRefused,
    ControlClient,
    SupervisorLost,
    SupervisorSilent,
    connect,
)
from att_server.adapters.supervisor_jobs import SupervisorJobs
from att_server.adapters.supervisor_link import SupervisorLink, newest
from att_server.core.ports import Clock

LOOK_AGAIN = timedelta(milliseconds=100)
"""Between two looks at a project that somebody else holds at the moment."""
RECOVER_AGAIN = timedelta(seconds=5)
"""Between two tries to reach a supervisor that cannot be reached."""

log = logging.getLogger(__name__)


class SupervisorRecovery:
    """Connects to supervisors that live, and has settled what dead ones left."""

    def __init__(
        self,
        *,
        jobs: SupervisorJobs,
        clock: Clock,
        answers_within: timedelta,
        asks_again: timedelta,
    ) -> None:
        """answers_within: a supervisor that takes longer is UNKNOWN until it answers.

        asks_again: between two looks whether those that tell nothing still answer.
        """
        self._jobs = jobs
        self._clock = clock
        self._answers_within = answers_within
        self._asks_again = asks_again
        self._tasks: set[asyncio.Task[None]] = set()

    async def adopt(self, link: SupervisorLink) -> None:
        """Looks once, for as long as a supervisor may take to answer, then goes on looking."""
        if not await self._resolve(link):
            self.begin(link)

    def begin(self, link: SupervisorLink) -> None:
        """Goes on looking until it is known what became of the supervisor."""
        self._start(self._recover(link))

    def keep_asking(self, links: Callable[[], Sequence[SupervisorLink]]) -> None:
        """Asks these, as they are each time, for ever whether they still answer."""
        self._start(self._keep_asking(links))

    async def aclose(self) -> None:
        """Ends all looking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_asking(self, links: Callable[[], Sequence[SupervisorLink]]) -> None:
        """Notices for ever which supervisors have stopped to answer, and which do so again.

        One that is stopped or hangs keeps its connection, so nothing else would tell.
        """
        while True:
            await self._clock.sleep(self._asks_again)
            async with asyncio.TaskGroup() as group:
                for link in links():
                    group.create_task(link.ask())

    async def _recover(self, link: SupervisorLink) -> None:
        """Tries for ever to know again what became of a project's supervisor."""
        while not await self._resolve(link):
            await self._clock.sleep(RECOVER_AGAIN)

    async def _resolve(self, link: SupervisorLink) -> bool:
        """Connects to the live supervisor or settles what it left; False: it is UNKNOWN."""
        deadline = self._clock.monotonic() + self._answers_within.total_seconds()
        while True:
            try:
                if await self._connect_or_settle(link):
                    return True
            except (OSError, SupervisorSilent, CommandRefused) as error:
                log.warning("the supervisor of %s: %r", link.project_id, error)
                link.mark_silent()
                return False
            if self._clock.monotonic() >= deadline:
                link.mark_silent()
                return False
            await self._clock.sleep(LOOK_AGAIN)

    async def _connect_or_settle(self, link: SupervisorLink) -> bool:
        """Whether the state is now known; False: somebody else holds the project.

        Raises OSError, SupervisorSilent, CommandRefused.
        """
        if link.client is not None:
            return await self._greet(link.client)
        found = await asyncio.to_thread(newest, link.directory, link.log_id)
        if link.client is not None:  # a start came in between; what was read is old
            return False
        if found is None:
            link.mark_heard()
            return True
        directory, state = found
        if state is not None and state.ended:
            link.learn(state)
            link.mark_heard()
            return True
        try:
            connection = connect(directory)
        except (FileNotFoundError, ConnectionRefusedError):
            await self._jobs.settle(link.directory, link.log_id)
            return False  # look again: the state on disk is final, or another's
        client = link.new_client()
        await client.open(connection)
        return await self._greet(client)

    async def _greet(self, client: ControlClient) -> bool:
        try:
            await client.call("hello", within=self._answers_within)
        except SupervisorLost:
            return False
        return True

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
