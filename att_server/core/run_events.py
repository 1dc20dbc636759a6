"""RunEvents: what runs go through, in the audit log, each happening exactly once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from att_server.core.bell import Bell
from att_server.core.errors import AttError
from att_server.core.model import Event, EventFilter, RunExit, RunStatus, RuntimeState
from att_server.core.ports import Clock, StateStore

GATHERED_WITHIN = timedelta(milliseconds=20)
"""What comes this close together is stored with one write."""
STORE_RETRY = timedelta(seconds=1)
_PAGE = 1000

_PREFIX = "runtime."
_READINESS = ("runtime.ready", "runtime.unready")

Told = Mapping[str, tuple[str, ...]]
"""The types of the events that the log holds, oldest first, by run id."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sighting:
    """A status that was seen at `time`; adopted: by a server that had just begun."""

    project_id: str
    status: RunStatus
    time: datetime
    adopted: bool


@dataclass(slots=True)
class _Due:
    """What is to be stored together."""

    sightings: list[_Sighting] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)


class RunEvents:
    """Turns the statuses of apps into events, in the background.

    A status tells of the present run and of those before it, so nothing is lost
    where statuses merge or no server looks; what the log tells already is asked
    of the log itself where this server did not write it, so nothing is told twice.
    """

    def __init__(self, *, store: StateStore, clock: Clock, stored: Bell) -> None:
        """stored: rung when events were stored."""
        self._store = store
        self._clock = clock
        self._stored = stored
        self._due = _Due()
        self._noted = Bell()
        self._storing = asyncio.Lock()
        self._told: dict[str, Told] = {}

    def note(self, project_id: str, status: RunStatus, *, adopted: bool = False) -> None:
        """Has reported what the status tells, and that the run was adopted."""
        self._due.sightings.append(
            _Sighting(project_id=project_id, status=status, time=self._clock.now(), adopted=adopted)
        )
        self._noted.ring()

    def note_outcome(self, request_id: str, run_id: str) -> None:
        """Has stored what a claimed request began."""
        self._due.outcomes[request_id] = run_id
        self._noted.ring()

    def forget(self, project_id: str) -> None:
        """Drops what is known of a deleted project."""
        self._told.pop(project_id, None)

    async def was_ready(self, project_id: str, status: RunStatus) -> bool:
        """Whether the log tells that the present run has been ready."""
        told = await self._ask(project_id, (status.run_id,))
        return "runtime.ready" in told.get(status.run_id, ())

    async def run(self) -> None:
        """Stores what is noted as it comes, for ever; retries while it cannot."""
        while True:
            seen = self._noted.count
            try:
                await self.flush()
            except AttError as error:
                log.error("events cannot be stored: %s", error.message)
                await self._clock.sleep(STORE_RETRY)
            else:
                await self._noted.wait(seen)
                # Real time, whatever the clock says: it only keeps the write out of
                # the way of the call that caused it.
                await asyncio.sleep(GATHERED_WITHIN.total_seconds())

    async def settle(self) -> None:
        """Returns when the log tells what has been shown, as far as it can be stored.

        Called before a new supervisor takes the place of the one that told it,
        and before the log is read. What cannot be stored stays due.
        """
        async with self._storing:
            if self._due.sightings:
                try:
                    await self._append_due()
                except AttError as error:
                    log.error("events cannot be stored: %s", error.message)

    async def flush(self) -> None:
        """Stores what is due now. Raises AttError; nothing is lost then.

        Where it is cancelled, the next server tells what was not stored.
        """
        async with self._storing:
            if self._due.sightings or self._due.outcomes:
                await self._append_due()

    async def store_with(self, write: Callable[[Sequence[Event]], Awaitable[bool]]) -> None:
        """Has `write` store what is due, in front of events of its own: one write, in order.

        write: is given the events and says whether it stored them. Raises what it raises.
        """
        async with self._storing:
            await self._store_due(write)

    async def _append_due(self) -> None:
        outcomes, self._due.outcomes = self._due.outcomes, {}

        async def append(events: Sequence[Event]) -> bool:
            if events or outcomes:
                await self._store.append_events(*events, outcomes=outcomes)
                self._stored.ring()
            return True

        try:
            await self._store_due(append)
        except AttError:
            self._due.outcomes = outcomes | self._due.outcomes
            raise

    async def _store_due(self, write: Callable[[Sequence[Event]], Awaitable[bool]]) -> None:
        due, self._due.sightings = self._due.sightings, []
        before = dict(self._told)
        stored = False
        try:
            events: list[Event] = []
            for sighting in due:
                told = await self._known(sighting.project_id, sighting.status)
                missing = list(_missing(sighting, told))
                events += missing
                self._told[sighting.project_id] = _after(told, missing, sighting.status)
            stored = await write(events)
        except AttError:
            self._put_back(due, before)
            raise
        if not stored:
            self._put_back(due, before)
            return
        for sighting in due:
            if sighting.status.state is RuntimeState.UNKNOWN:
                # What is heard next may have happened before this server began.
                self._told.pop(sighting.project_id, None)

    def _put_back(self, due: list[_Sighting], told: dict[str, Told]) -> None:
        self._told = told
        self._due.sightings = due + self._due.sightings
        self._noted.ring()

    async def _known(self, project_id: str, status: RunStatus) -> Told:
        """What the log tells of the runs in `status`.

        Asked of the store for the first status of a project. Runs that come
        later began under this server, whose doing the log is since.
        """
        told = self._told.get(project_id)
        if told is None:
            runs = tuple(run_id for run_id in (*_past_ids(status), status.run_id) if run_id)
            told = await self._ask(project_id, runs)
        return told

    async def _ask(self, project_id: str, runs: tuple[str, ...]) -> Told:
        told: dict[str, tuple[str, ...]] = {}
        selected = EventFilter(project_id=project_id, event_types=(_PREFIX,), run_ids=runs)
        cursor, full = 0, bool(runs)
        while full:
            events, cursor = await self._store.list_events(selected, cursor=cursor, limit=_PAGE)
            for event in events:
                told[event.run_id] = (*told.get(event.run_id, ()), event.event_type)
            full = len(events) == _PAGE
        return told


def _after(told: Told, events: Sequence[Event], status: RunStatus) -> Told:
    """What the log tells with `events`, of runs that can be heard of again."""
    after = {
        run_id: told[run_id] for run_id in (*_past_ids(status), status.run_id) if run_id in told
    }
    for event in events:
        after[event.run_id] = (*after.get(event.run_id, ()), event.event_type)
    return after


def _past_ids(status: RunStatus) -> tuple[str, ...]:
    return tuple(run.run_id for run in (*status.earlier, *status.past))


# What a status tells ---------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run of a status. next_start: of the run after it, or when it is due."""

    run_id: str
    pid: int
    exit: RunExit | None
    reason: str
    restarted: bool
    attempt: int
    next_start: datetime | None


def _missing(sighting: _Sighting, told: Told) -> Iterator[Event]:
    """The events that the log lacks, in the order in which they happened."""
    status = sighting.status
    for run in _runs(status):
        known = told.get(run.run_id, ())
        facts = {"pid": str(run.pid), "supervisor_id": status.supervisor_id}
        # A supervisor that was killed may not have noted the pid of what it had started.
        began = bool(run.pid) or (run.exit is not None and run.exit.start_error is None)
        if began and "runtime.started" not in known:
            yield _event(sighting, "runtime.started", run.run_id, "", facts)
        if run.run_id == status.run_id and (change := _readiness(status, known)):
            yield _event(sighting, change, run.run_id, "", facts)
        if run.exit is not None and "runtime.ended" not in known:
            yield _event(sighting, "runtime.ended", run.run_id, run.reason, _end_facts(run.exit))
        if run.restarted and "runtime.restarting" not in known:
            yield _event(
                sighting, "runtime.restarting", run.run_id, run.reason, _restart_facts(run)
            )
        if run.run_id == status.run_id:
            if status.state is RuntimeState.FAILED and "runtime.failed" not in known:
                cause = status.start_failure or status.reason
                ended = {} if run.exit is None else _end_facts(run.exit)
                yield _event(sighting, "runtime.failed", run.run_id, cause, {**facts, **ended})
            if sighting.adopted and status.state.alive:
                yield _event(sighting, "runtime.adopted", run.run_id, "", facts)


def _runs(status: RunStatus) -> Iterator[_Run]:
    """The runs before the present one, oldest first, then that."""
    for run in status.earlier:
        # Whether it was started again, and by whom, its own supervisor told.
        yield _Run(
            run_id=run.run_id,
            pid=run.pid,
            exit=run.exit,
            reason=run.exit.reason,
            restarted=False,
            attempt=0,
            next_start=None,
        )
    starts = [*(run.start_time for run in status.past), status.start_time]
    backing_off = status.state is RuntimeState.BACKOFF
    for index, run in enumerate(status.past):
        last = index + 1 == len(status.past) and not status.run_id
        later = len(status.past) - index - (0 if status.run_id else 1)
        yield _Run(
            run_id=run.run_id,
            pid=run.pid,
            exit=run.exit,
            reason=run.exit.reason or _cause(run.exit),
            restarted=not last or backing_off,
            attempt=status.restarts - later + 1,
            next_start=status.next_restart_time if last else starts[index + 1],
        )
    if status.run_id:
        ended = status.exit
        reason = status.reason
        if backing_off and not reason and ended is not None:
            reason = ended.reason or _cause(ended)
        yield _Run(
            run_id=status.run_id,
            pid=status.pid,
            exit=ended,
            reason=reason,
            restarted=backing_off,
            attempt=status.restarts + 1,
            next_start=status.next_restart_time,
        )


def _readiness(status: RunStatus, known: Sequence[str]) -> str:
    """The type of the event for a readiness that the log does not tell; empty: it does."""
    last = next((kind for kind in reversed(known) if kind in _READINESS), "runtime.unready")
    if status.ready_time is not None:
        return "" if last == "runtime.ready" else "runtime.ready"
    unready = status.state is RuntimeState.RUNNING and last == "runtime.ready"
    return "runtime.unready" if unready else ""


def _end_facts(ended: RunExit) -> Mapping[str, str]:
    facts = {
        "cause": _cause_in_full(ended),
        "seconds": f"{ended.duration.total_seconds():.3f}",
        "exit_time": ended.time.isoformat(),
    }
    return {**facts, "reason": ended.reason} if ended.reason else facts


def _restart_facts(run: _Run) -> Mapping[str, str]:
    facts = {"cause": run.reason}
    if run.attempt > 0:  # else a call has started it since, and counted anew
        facts["attempt"] = str(run.attempt)
    if run.next_start is not None and run.exit is not None:
        wait = max(0.0, (run.next_start - run.exit.time).total_seconds())
        facts["wait"] = f"{wait:.3f}"
    return facts


def _cause(ended: RunExit) -> str:
    """How the run ended, in a word."""
    if ended.exit_code is not None:
        return "exited"
    if ended.signal is not None:
        return "signalled"
    return "start_error" if ended.start_error is not None else "supervisor_lost"


def _cause_in_full(ended: RunExit) -> str:
    if ended.exit_code is not None:
        return f"exit_code {ended.exit_code}"
    if ended.signal is not None:
        return f"signal {ended.signal}"
    return f"start_error {ended.start_error}" if ended.start_error else "supervisor_lost"


def _event(
    sighting: _Sighting, event_type: str, run_id: str, reason: str, facts: Mapping[str, str]
) -> Event:
    return Event(
        event_type=event_type,
        time=sighting.time,
        project_id=sighting.project_id,
        run_id=run_id,
        reason=reason,
        attributes=facts,
    )
