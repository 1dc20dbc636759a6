"""Reads and watches the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta

from att_client._proto.att.v1 import (
    Event,
    EventFilter,
    ListEventsRequest,
    ListEventsResponse,
    WatchEventsRequest,
    WatchEventsResponse,
)
from att_client.decode import decoder
from att_client.errors import ClosedError, ProtocolError
from att_client.resume import ResumingStream
from att_client.transport import Service, Transport


class Events:
    """The audit log: what was asked for, by whom, and what came of it."""

    def __init__(self, transport: Transport, timeout: timedelta) -> None:
        self._transport = transport
        self._service = Service(transport, "EventService", timeout)

    async def list(
        self,
        *,
        project_id: str = "",
        cycle_id: str = "",
        event_types: Sequence[str] = (),
        audit: bool = False,
        cursor: int = 0,
        page_size: int = 0,
        tail: bool = False,
    ) -> ListEventsResponse:
        """A page of events from `cursor` on; go on at its `cursor` while it `has_more`.

        project_id, cycle_id, event_types: select events; empty selects all.
            `project.` selects every type that begins so.
        audit: the audit records of calls, which are left out otherwise.
        page_size: 1 to 1,000, 0 is 50. tail: the last ones instead.
        """
        return await self._service.call(
            ListEventsRequest(
                filter=_filter(project_id, cycle_id, event_types, audit),
                cursor=cursor,
                page_size=page_size,
                tail=tail,
            ),
            ListEventsResponse,
        )

    def watch(
        self,
        *,
        project_id: str = "",
        cycle_id: str = "",
        event_types: Sequence[str] = (),
        audit: bool = False,
        cursor: int | None = None,
        progress_interval: timedelta | None = None,
        max_elapsed: timedelta | None = None,
    ) -> EventWatch:
        """The events from `cursor` on, None from now on, and every one that comes.

        The other arguments are those of `list` and of `Logs.follow`.
        """
        return EventWatch(
            self._transport,
            WatchEventsRequest(
                filter=_filter(project_id, cycle_id, event_types, audit),
                cursor=cursor,
                progress_interval=progress_interval,
            ),
            max_elapsed,
        )


class EventWatch:
    """Events as they come: `async for event in watch`. Resumes itself, each event once.

    Leaving the loop closes the call. A later loop goes on behind the last event
    that was given out.
    """

    def __init__(
        self, transport: Transport, request: WatchEventsRequest, max_elapsed: timedelta | None
    ) -> None:
        self._transport = transport
        self._asked = request
        self._max_elapsed = max_elapsed
        self._stream: ResumingStream[WatchEventsResponse] | None = None
        self._closed = False
        self.cursor = request.cursor
        """Where to go on; None before the first answer, unless a cursor was asked for."""

    def __aiter__(self) -> AsyncIterator[Event]:
        if self._closed:
            raise ClosedError("The watch was closed.")
        if self._stream is not None:
            self._stream.close()
        loop = _EventLoop(self, self._transport, self._asked, self._max_elapsed)
        self._stream = loop.stream
        return loop

    async def aclose(self) -> None:
        """Closes the call. A loop that still waits raises ClosedError."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()


class _Position:
    """Which event comes next on the wire."""

    def __init__(self, asked: WatchEventsRequest, cursor: int | None) -> None:
        self._asked = asked
        self.cursor = cursor

    def request(self) -> WatchEventsRequest:
        """The request for the next call."""
        return WatchEventsRequest(
            filter=self._asked.filter,
            cursor=self.cursor,
            progress_interval=self._asked.progress_interval,
        )

    def accept(self, message: WatchEventsResponse) -> None:
        """Moves behind the message; raises ProtocolError for an event that came before."""
        cursor = self.cursor
        for event in message.events:
            if cursor is not None and event.sequence < cursor:
                raise ProtocolError(f"The server sent event {event.sequence} twice.")
            cursor = event.sequence + 1
        if cursor is not None and message.cursor < cursor:
            raise ProtocolError(f"The server's cursor fell from {cursor} to {message.cursor}.")
        self.cursor = message.cursor


class _EventLoop:
    """The events of one loop. Dropping it closes the call."""

    def __init__(
        self,
        watch: EventWatch,
        transport: Transport,
        asked: WatchEventsRequest,
        max_elapsed: timedelta | None,
    ) -> None:
        self._watch = watch
        self._position = _Position(asked, watch.cursor)
        self._events: Iterator[Event] = iter(())
        self.stream = ResumingStream(
            transport,
            "/att.v1.EventService/WatchEvents",
            request=self._position.request,
            parse=decoder(WatchEventsResponse),
            progress_interval=asked.progress_interval,
            max_elapsed=max_elapsed,
        )

    def __aiter__(self) -> _EventLoop:
        return self

    async def __anext__(self) -> Event:
        while True:
            for event in self._events:
                self._watch.cursor = event.sequence + 1
                return event
            message = await self.stream.read()
            if message is None:
                raise StopAsyncIteration
            self._position.accept(message)
            self._events = _given(self._watch, message)

    def __del__(self) -> None:
        self.stream.close()


def _given(watch: EventWatch, message: WatchEventsResponse) -> Iterator[Event]:
    # No method of the loop: a loop that holds its own frame is not dropped at once.
    yield from message.events
    watch.cursor = message.cursor


def _filter(project_id: str, cycle_id: str, event_types: Sequence[str], audit: bool) -> EventFilter:
    if isinstance(event_types, str):
        raise TypeError("`event_types` is a list of types.")
    return EventFilter(
        project_id=project_id, cycle_id=cycle_id, event_types=[*event_types], audit=audit
    )
