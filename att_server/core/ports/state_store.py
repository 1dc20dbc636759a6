"""Where projects, events and request ids are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from att_server.core.model import (
    Event,
    EventFilter,
    Project,
)
from att_server.core.request_claim import RequestClaim


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
        self,
        *events: Event,
        outcomes: Mapping[str, str] = MappingProxyType({}),
        synced: bool = True,
    ) -> None:
        """Appends events in order, and keeps what claimed requests began, by request id.

        synced: False returns before they are on the disk, where they are no later
        than what is written next: only a crash of the machine in between loses them.
        """
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

    async def request(self, request_id: str) -> RequestClaim | None:
        """The claim that is kept under this id, None if there is none."""
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
