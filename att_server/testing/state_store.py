"""MemoryStateStore: projects, events and request ids that end with the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from att_server.core.audit import AUDIT
from att_server.core.errors import AttError
from att_server.core.model import (
    Event,
    EventFilter,
    Project,
)
from att_server.core.request_claim import RequestClaim


class MemoryStateStore:
    """Implements `StateStore`.

    write_error: while set, every write raises it and keeps nothing.
    """

    def __init__(self) -> None:
        self.write_error: AttError | None = None
        self._projects: dict[str, Project] = {}
        self._events: list[Event] = []
        self._claims: dict[str, RequestClaim] = {}
        self._epoch = 0
        self._numbers: dict[str, int] = {}
        self._closed = False

    async def projects(self) -> Sequence[Project]:
        """All projects, by id."""
        self._check_open()
        return [project for _, project in sorted(self._projects.items())]

    async def put_project(
        self, project: Project, *events: Event, claim: RequestClaim | None = None
    ) -> RequestClaim | None:
        """Inserts or replaces the project with its id, unless the claim is kept already."""
        self._check_writable()
        if claim is not None and (kept := self.take_claim(claim)) is not None:
            return kept
        self._projects[project.project_id] = project
        self.append(events)
        return None

    async def delete_project(self, project_id: str, *events: Event) -> None:
        """Removes the project; without effect if there is none."""
        self._check_writable()
        if self._projects.pop(project_id, None) is not None:
            self.append(events)

    async def append_events(
        self,
        *events: Event,
        outcomes: Mapping[str, str] = MappingProxyType({}),
        synced: bool = True,
    ) -> None:
        """Appends events in order, and keeps what claimed requests began."""
        self._check_writable()
        self.append(events)
        for request_id, outcome in outcomes.items():
            self._set_outcome(request_id, outcome)

    async def list_events(
        self, selected: EventFilter, *, cursor: int, limit: int, tail: bool = False
    ) -> tuple[Sequence[Event], int]:
        """Up to `limit` selected events, and the next cursor."""
        self._check_open()
        end = len(self._events)
        if tail:
            return [event for event in self._events if _selects(selected, event)][-limit:], end
        page: list[Event] = []
        for event in self._events[cursor:]:
            if _selects(selected, event):
                page.append(event)
                if len(page) == limit:
                    return page, event.sequence + 1
        return page, max(cursor, end)

    async def claim_request(self, claim: RequestClaim) -> RequestClaim | None:
        """Keeps the claim and returns None, or returns the one kept under its id."""
        self._check_writable()
        return self.take_claim(claim)

    async def request(self, request_id: str) -> RequestClaim | None:
        """The claim that is kept under this id, None if there is none."""
        self._check_open()
        return self.claimed(request_id)

    async def set_request_outcome(self, request_id: str, outcome: str) -> None:
        """Keeps what a claimed request began."""
        self._check_writable()
        self._set_outcome(request_id, outcome)

    async def next_epoch(self) -> int:
        """A number that is higher than every one returned before, from 1."""
        self._check_writable()
        self._epoch += 1
        return self._epoch

    async def number(self, name: str) -> int | None:
        """The number that is kept under `name`, None if there is none."""
        self._check_open()
        return self._numbers.get(name)

    async def raise_number(self, name: str, value: int) -> None:
        """Keeps `value` under `name`, unless a number that is not lower is kept there."""
        self._check_writable()
        self._numbers[name] = max(value, self._numbers.get(name, value))

    async def aclose(self) -> None:
        """Closes the store; every later call fails."""
        self._closed = True

    def claimed(self, request_id: str) -> RequestClaim | None:
        """The claim that is kept under this id."""
        return self._claims.get(request_id)

    def take_claim(self, claim: RequestClaim) -> RequestClaim | None:
        """Keeps the claim along with a write to another fake, unless one is kept already."""
        kept = self._claims.get(claim.request_id)
        if kept is None:
            self._claims[claim.request_id] = claim
        return kept

    def _set_outcome(self, request_id: str, outcome: str) -> None:
        if request_id in self._claims:
            self._claims[request_id] = replace(self._claims[request_id], outcome=outcome)

    def append(self, events: Sequence[Event]) -> None:
        """Appends events along with a write to another fake."""
        for event in events:
            self._events.append(replace(event, sequence=len(self._events)))

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the state store is closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self.write_error is not None:
            raise self.write_error


def _selects(selected: EventFilter, event: Event) -> bool:
    return (
        event.event_type.startswith(AUDIT) is selected.audit
        and (selected.projects is None or event.project_id in selected.projects)
        and selected.project_id in ("", event.project_id)
        and selected.cycle_id in ("", event.cycle_id)
        and (not selected.run_ids or event.run_id in selected.run_ids)
        and (
            not selected.event_types
            or any(
                event.event_type.startswith(name)
                if name.endswith(".")
                else event.event_type == name
                for name in selected.event_types
            )
        )
    )
