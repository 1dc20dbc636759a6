"""AuditLog: who called what, on disk before it is done, and how it ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta

from att_server.core.bell import Bell
from att_server.core.errors import AttError
from att_server.core.model import Event, EventFilter
from att_server.core.ports import Clock, StateStore

AUDIT = "audit."
"""What the types of audit records begin with."""

INTENT = AUDIT + "intent"
OUTCOME = AUDIT + "outcome"
DENIED = AUDIT + "denied"

LOST = "SERVER_ENDED"
"""The reason of the outcome of a call that the server did not live to see."""

_GATHERED_WITHIN = timedelta(milliseconds=20)
_STORE_RETRY = timedelta(seconds=1)
_LOOKED_BACK = 5_000
"""How many records a new server looks through for calls without an outcome."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One call that needs more than a viewer.

    method: as on the wire. arguments: of the request, as JSON without secrets.
    peer: where it came from. project_id, cycle_id: what the request names, if it does.
    """

    call_id: str
    method: str
    principal: str
    arguments: str
    peer: str
    project_id: str = ""
    cycle_id: str = ""


class AuditLog:
    """Writes the audit records into the event log."""

    def __init__(self, *, store: StateStore, clock: Clock, stored: Bell) -> None:
        """stored: rung when records were stored."""
        self._store = store
        self._clock = clock
        self._stored = stored
        self._due: list[Event] = []
        self._noted = Bell()
        self._storing = asyncio.Lock()

    async def open(self) -> None:
        """Ends what the server before has begun and not lived to end. Called once, first."""
        records, _ = await self._store.list_events(
            EventFilter(audit=True), cursor=0, limit=_LOOKED_BACK, tail=True
        )
        ended = {record.attributes.get("call_id") for record in records if _is(OUTCOME, record)}
        for record in records:
            if _is(INTENT, record) and record.attributes.get("call_id") not in ended:
                self._due.append(
                    Event(
                        event_type=OUTCOME,
                        time=self._clock.now(),
                        project_id=record.project_id,
                        cycle_id=record.cycle_id,
                        principal=record.principal,
                        reason=LOST,
                        message="The server ended during the call; what became of it is in the "
                        "events of the project.",
                        attributes={
                            name: record.attributes.get(name, "") for name in ("call_id", "method")
                        },
                    )
                )
        await self.flush()

    def new_call_id(self) -> str:
        """Names a call in its records."""
        return self._clock.new_id()

    async def begin(self, act: Act, *, stores_first: bool = False) -> None:
        """Stores that the call is going to be made; on the disk, when it returns.

        stores_first: the call stores something of its own before it does anything else.
        That write brings this one to the disk, and the two cost one sync.
        Raises AUDIT_UNAVAILABLE or STORAGE_FULL: the call must not be made then.
        """
        attributes = {
            "call_id": act.call_id,
            "method": act.method,
            "arguments": act.arguments,
            "peer": act.peer,
        }
        intent = self._record(INTENT, act, "", attributes)
        await self._store.append_events(intent, synced=not stores_first)
        self._stored.ring()

    def ended(self, act: Act, reason: str) -> None:
        """Has stored how the call ended. reason: that of its error; empty: it was done."""
        attributes = {"call_id": act.call_id, "method": act.method}
        self._due.append(self._record(OUTCOME, act, reason, attributes))
        self._noted.ring()

    def denied(self, act: Act, reason: str) -> None:
        """Has stored that the call was not let in."""
        attributes = {"method": act.method, "peer": act.peer}
        self._due.append(self._record(DENIED, act, reason, attributes))
        self._noted.ring()

    async def run(self) -> None:
        """Stores what is noted as it comes, for ever; retries while it cannot."""
        while True:
            seen = self._noted.count
            try:
                await self.flush()
            except AttError as error:
                log.error("audit records cannot be stored: %s", error.message)
                await self._clock.sleep(_STORE_RETRY)
            else:
                await self._noted.wait(seen)
                # Real time, whatever the clock says: the call that is over is not delayed.
                await asyncio.sleep(_GATHERED_WITHIN.total_seconds())

    async def settle(self) -> None:
        """Returns when the log tells how the calls before ended, as far as it can be stored."""
        try:
            await self.flush()
        except AttError as error:
            log.error("audit records cannot be stored: %s", error.message)

    async def flush(self) -> None:
        """Stores what is due now. Raises AttError; nothing is lost then."""
        async with self._storing:
            due = self._due[:]
            if due:
                await self._store.append_events(*due, synced=False)
                del self._due[: len(due)]
                self._stored.ring()

    def _record(self, event_type: str, act: Act, reason: str, attributes: dict[str, str]) -> Event:
        return Event(
            event_type=event_type,
            time=self._clock.now(),
            project_id=act.project_id,
            cycle_id=act.cycle_id,
            principal=act.principal,
            reason=reason,
            attributes=attributes,
        )


def _is(event_type: str, record: Event) -> bool:
    return record.event_type == event_type
