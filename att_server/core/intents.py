"""Intents: what a call wants of an app is stored before it is done, and done once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from att_server.core.launch import settings_digest
from att_server.core.model import (
    DesiredState,
    Event,
)
from att_server.core.ports import Clock, StateStore
from att_server.core.request_claim import RequestClaim
from att_server.core.requests import claim
from att_server.core.run_table import Entry, RunTable
from att_server.core.settings import RuntimeSettings


class DesiredStates(Protocol):
    """Where it is kept what apps are meant to be."""

    async def set_desired(
        self,
        project_id: str,
        desired: DesiredState,
        runtime: RuntimeSettings | None,
        *events: Event,
        request: RequestClaim | None = None,
    ) -> RequestClaim | None:
        """Stores what the app is meant to be, unless the request was claimed before."""
        ...

    async def set_release(self, project_id: str, release_id: str, *events: Event) -> None:
        """Stores that the app is to run, and from which release."""
        ...


class Intents:
    """Stores intents with the requests and principals they come from."""

    def __init__(
        self, *, projects: DesiredStates, runs: RunTable, store: StateStore, clock: Clock
    ) -> None:
        self._projects = projects
        self._runs = runs
        self._store = store
        self._clock = clock

    def request(
        self, method: str, project_id: str, overrides: RuntimeSettings, request_id: str
    ) -> RequestClaim:
        """The request of a call that begins now. An empty id makes it one of its own."""
        return RequestClaim(
            request_id=request_id,
            method=method,
            digest=settings_digest(project_id, overrides),
            project_id=project_id,
            time=self._clock.now(),
        )

    async def claimed(self, request: RequestClaim) -> bool:
        """Claims a request that changes nothing else; True: it has had its effect already.

        Raises REQUEST_ID_REUSED.
        """
        return self._begun(await claim(self._store, request))

    async def to_run(
        self,
        project_id: str,
        overrides: RuntimeSettings,
        event_type: str,
        principal: str,
        request: RequestClaim | None,
        **facts: object,
    ) -> bool:
        """Stores that the app is to run and why; False: the request has had its effect.

        One durable write, the only one before a start. Raises REQUEST_ID_REUSED.
        """
        event = self.event(event_type, project_id, principal, **facts)
        known = await self._store_intent(
            project_id, DesiredState.RUNNING, overrides, event, request
        )
        if self._begun(known):
            return False
        if known is not None:  # claimed by a server that died before it had the effect
            await self._store_intent(project_id, DesiredState.RUNNING, overrides, event, None)
        return True

    async def to_stop(
        self, project_id: str, event_type: str, principal: str, **facts: object
    ) -> None:
        """Stores that the app is not to run, and why."""
        event = self.event(event_type, project_id, principal, **facts)
        await self._store_intent(project_id, DesiredState.STOPPED, None, event, None)

    async def to_signal(
        self, project_id: str, number: int, request_id: str, principal: str
    ) -> bool:
        """Stores that the app is sent a signal; False: the request has had its effect.

        Raises REQUEST_ID_REUSED.
        """
        request = RequestClaim(
            request_id=request_id,
            method="SignalRuntime",
            digest=f"{project_id} {number}",
            project_id=project_id,
            time=self._clock.now(),
        )
        if await claim(self._store, request) is not None:
            return False
        await self._store.append_events(
            self.event("runtime.signalled", project_id, principal, signal=number)
        )
        return True

    async def to_deploy(self, project_id: str, release_id: str, event: Event) -> None:
        """Stores that the app is to run from the release (empty: its own directory), and why."""

        async def write(before: Sequence[Event]) -> bool:
            await self._projects.set_release(project_id, release_id, *before, event)
            return True

        await self._runs.events.store_with(write)

    def note_outcome(self, request: RequestClaim) -> None:
        """Has stored, in time, what the request began: the present run."""
        status = self._entry(request).status
        if request.request_id and status is not None:
            self._runs.events.note_outcome(request.request_id, status.run_id)

    def event(self, event_type: str, project_id: str, principal: str, **facts: object) -> Event:
        """The event of something that is wanted now."""
        return Event(
            event_type=event_type,
            time=self._clock.now(),
            project_id=project_id,
            principal=principal,
            attributes={key: str(value) for key, value in facts.items()},
        )

    async def _store_intent(
        self,
        project_id: str,
        desired: DesiredState,
        overrides: RuntimeSettings | None,
        event: Event,
        request: RequestClaim | None,
    ) -> RequestClaim | None:
        """Stores it behind what runs have gone through before; returns an earlier claim."""
        known = None

        async def write(before: Sequence[Event]) -> bool:
            nonlocal known
            known = await self._projects.set_desired(
                project_id, desired, overrides, *before, event, request=request
            )
            return known is None

        await self._runs.events.store_with(write)
        return known

    def _entry(self, request: RequestClaim) -> Entry:
        return self._runs.entry(request.project_id)

    def _begun(self, known: RequestClaim | None) -> bool:
        """Whether the call with this claim has already had its effect.

        Its outcome is stored after the effect: until then a run that started
        after the claim was made is what it began.
        """
        if known is None:
            return False
        status = self._entry(known).status
        started = None if status is None else status.start_time
        return bool(known.outcome) or (started is not None and started >= known.time)
