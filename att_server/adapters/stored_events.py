"""Events, claims of requests and numbers: what a write of any kind takes along."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from att_server.adapters.state_schema import (
    EVENT,
    META,
    REQUEST,
    claim_of,
    claim_values,
    event_values,
)
from att_server.core.model import (
    Event,
)
from att_server.core.request_claim import RequestClaim

# Made once: to put a statement together takes longer than to do it.
_APPEND = sa.insert(EVENT)
_COUNT_UP = (
    sa.update(META)
    .where(META.c.name == sa.bindparam("number"))
    .values(value=META.c.value + sa.bindparam("step", type_=sa.BigInteger))
    .returning(META.c.value)
)


def number_of(name: str) -> sa.Select[int]:
    """Asks for the number that is kept under `name`."""
    return sa.select(META.c.value).where(META.c.name == name)


def count_up(connection: sa.Connection, name: str, step: int) -> int:
    """Raises the number `name` by `step` and returns it."""
    value: int = connection.execute(_COUNT_UP, {"number": name, "step": step}).scalar_one()
    return value


def take_claim(connection: sa.Connection, claim: RequestClaim) -> RequestClaim | None:
    """Keeps the claim and returns None, or returns the one kept under its id."""
    kept = known_claim(connection, claim.request_id)
    if kept is None:
        connection.execute(sa.insert(REQUEST), claim_values(claim))
    return kept


def known_claim(connection: sa.Connection, request_id: str) -> RequestClaim | None:
    """The claim that is kept under this id, None if there is none."""
    query = sa.select(REQUEST).where(REQUEST.c.request_id == request_id)
    kept = connection.execute(query).mappings().one_or_none()
    return None if kept is None else claim_of(kept)


def outcome_of(request_id: str, outcome: str) -> sa.Update:
    """Keeps what a claimed request began."""
    return sa.update(REQUEST).where(REQUEST.c.request_id == request_id).values(outcome=outcome)


def append_events(connection: sa.Connection, events: Sequence[Event]) -> None:
    """Appends events in order, under the next numbers."""
    if events:
        first = count_up(connection, "next_event", len(events)) - len(events)
        connection.execute(
            _APPEND,
            [event_values(event, first + index) for index, event in enumerate(events)],
        )
