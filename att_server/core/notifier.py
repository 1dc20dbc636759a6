"""Notifier: tells the people behind a project that its app has failed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason
from att_server.core.launch import env_for
from att_server.core.model import CommandResult, Event, EventFilter, Project
from att_server.core.ports import Clock, CommandRunner, SettingsReader, StateStore

NOTIFIED_TYPES = ("runtime.failed", "runtime.recovery_failed")
CURSOR = "notified"
"""Under this name the store keeps the event from which on a notification may be due."""
WAITS = tuple(timedelta(seconds=seconds) for seconds in (1, 4, 16, 64, 256, 300, 300))
"""Between two tries for one event; after one more it is given up."""
PAGE = 50
MAX_UNFINISHED = 500
MAX_LINE_BYTES = 64 << 10
"""What a command runner takes as input."""
MAX_MESSAGE = 1000
"""Characters of the message where the whole event is too long to be handed over."""
STORE_RETRY = timedelta(seconds=1)

log = logging.getLogger(__name__)


class Notifier:
    """Runs the `[notify]` command of a project for each of its failures: at least once, in order.

    The command gets the event as one line of JSON on its standard input, and
    ATT_EVENT_TYPE, ATT_EVENT_SEQUENCE and ATT_PROJECT_ID in its environment. It has
    succeeded with exit code 0. A failure of which nobody wants to know counts as
    told, so that a project that gets a command later hears of later failures only.
    Projects do not wait for each other.
    """

    def __init__(
        self,
        *,
        store: StateStore,
        find_project: Callable[[str], Project],
        settings: SettingsReader,
        commands: CommandRunner,
        clock: Clock,
        stored: Bell,
        inherited_env: Mapping[str, str],
        user: Callable[[Project], Awaitable[str]],
    ) -> None:
        """find_project: raises PROJECT_NOT_FOUND. stored: rung when events were stored.

        user: tells who commands of a project run as, empty for the server's own; raises
        RUN_AS_NOT_POSSIBLE.
        """
        self._store = store
        self._find_project = find_project
        self._settings = settings
        self._commands = commands
        self._clock = clock
        self._stored = stored
        self._inherited_env = inherited_env
        self._user = user
        self._due: dict[str, deque[Event]] = {}
        self._unfinished: set[int] = set()
        self._finished = Bell()
        self._cursor = 0

    async def run(self) -> None:
        """Notifies, for ever. Cancelled, it ends the commands that run; they are due again."""
        self._cursor = await self._first_cursor()
        async with asyncio.TaskGroup() as tasks:
            while True:
                seen, finished = self._stored.count, self._finished.count
                if len(self._unfinished) >= MAX_UNFINISHED:
                    await self._finished.wait(finished)
                    continue
                events, self._cursor = await self._store.list_events(
                    EventFilter(event_types=NOTIFIED_TYPES), cursor=self._cursor, limit=PAGE
                )
                for event in events:
                    self._unfinished.add(event.sequence)
                    queue = self._due.setdefault(event.project_id, deque())
                    queue.append(event)
                    if len(queue) == 1:
                        tasks.create_task(self._notify(event.project_id, queue))
                if not events:
                    await self._stored.wait(seen)

    async def _first_cursor(self) -> int:
        cursor = await self._store.number(CURSOR)
        if cursor is None:
            # What failed before anybody could ask to be told is history.
            _, cursor = await self._store.list_events(EventFilter(), cursor=0, limit=1, tail=True)
            await self._keep(cursor)
        return cursor

    async def _notify(self, project_id: str, queue: deque[Event]) -> None:
        """Tells one project's failures, until there are no more."""
        while queue:
            event = queue[0]
            await self._tell(event)
            queue.popleft()
            self._unfinished.remove(event.sequence)
            self._finished.ring()
            await self._keep(min(self._unfinished, default=self._cursor))
        del self._due[project_id]

    async def _keep(self, cursor: int) -> None:
        """Notes how far all is told; where it cannot, a later server tells it again."""
        try:
            await self._store.raise_number(CURSOR, cursor)
        except AttError as error:
            log.error("the place of notifications cannot be stored: %s", error.message)

    # One event --------------------------------------------------------------

    async def _tell(self, event: Event) -> None:
        outcome = await self._try(event)
        for wait in WAITS:
            if outcome is None:
                return
            log.warning("notifying of event %d failed: %s", event.sequence, outcome.message)
            await self._clock.sleep(wait)
            outcome = await self._try(event)
        if outcome is not None:
            await self._give_up(event, outcome)

    async def _try(self, event: Event) -> Event | None:
        """One run of the command; None if it is told, or nobody wants to know.

        Settings are read each time: who corrects them is heard.
        """
        try:
            project = self._find_project(event.project_id)
            wanted = await self._settings.notify(project)
            run_as = "" if wanted is None else await self._user(project)
        except AttError as error:
            if error.reason is Reason.PROJECT_NOT_FOUND:
                return None
            return _failure(event, error.reason.lower(), error.message)
        if wanted is None or project.create_time > event.time:  # it failed in an earlier life
            return None
        told = {
            "ATT_EVENT_TYPE": event.event_type,
            "ATT_EVENT_SEQUENCE": str(event.sequence),
            "ATT_PROJECT_ID": event.project_id,
        }
        result = await self._commands.run(
            wanted.command,
            directory=project.path,
            env={**env_for(run_as, self._inherited_env), **told},
            timeout=wanted.timeout,
            input=_line(event),
            run_as=run_as,
        )
        if result.exit_code == 0:
            return None
        return _failure(event, *_cause(result), command=wanted.command[0])

    async def _give_up(self, event: Event, failure: Event) -> None:
        tries = len(WAITS) + 1
        log.error("notifying of event %d was given up after %d tries", event.sequence, tries)
        while True:
            try:
                await self._store.append_events(replace(failure, time=self._clock.now()))
                break
            except AttError as error:
                log.error("events cannot be stored: %s", error.message)
                await self._clock.sleep(STORE_RETRY)
        self._stored.ring()


def _line(event: Event) -> bytes:
    form = {
        "sequence": event.sequence,
        "time": event.time.isoformat(),
        "event_type": event.event_type,
        "project_id": event.project_id,
        "run_id": event.run_id,
        "reason": event.reason,
        "message": event.message,
        "attributes": dict(event.attributes),
    }
    line = json.dumps(form).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        # The event itself has the rest; its number leads there.
        form |= {"message": event.message[:MAX_MESSAGE], "attributes": {}}
        line = json.dumps(form).encode() + b"\n"
    return line


def _cause(result: CommandResult) -> tuple[str, str]:
    """The reason, as probes name it, and the words."""
    if result.timed_out:
        return "command_timeout", "it did not end in time"
    if result.exit_code is not None:
        return "command_exit", f"it ended with exit code {result.exit_code}"
    if result.signal is not None:
        return "command_exit", f"it was ended by signal {result.signal}"
    return "command_error", f"it could not be started: {result.start_error}"


def _failure(event: Event, reason: str, words: str, *, command: str = "") -> Event:
    """The event that says that nobody could be told of `event`."""
    subject = f"The command {command!r} of [notify] failed: " if command else ""
    named = {"command": command} if command else {}
    return Event(
        event_type="notify.failed",
        time=event.time,
        project_id=event.project_id,
        run_id=event.run_id,
        reason=reason,
        message=f"{subject}{words}",
        attributes={
            "event_sequence": str(event.sequence),
            "tries": str(len(WAITS) + 1),
            **named,
        },
    )
