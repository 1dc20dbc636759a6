"""EventService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from datetime import timedelta

from google.protobuf.descriptor import ServiceDescriptor

from att.v1 import event_service_pb2 as pb
from att_server.core.events import EventManager
from att_server.core.model import Event
from att_server.rpc import convert, convert_time, validate
from att_server.rpc.call import Answer, Call, Streaming, Unary
from att_server.rpc.pages import MAX_MESSAGE_BYTES, fitting_page

DEFAULT_PROGRESS_INTERVAL = timedelta(seconds=15)

_EVENT_OVERHEAD = 8
"""More than an event's tag and length take in a message."""


class EventService:
    """Gives the audit log."""

    def __init__(self, events: EventManager) -> None:
        self._events = events

    @property
    def descriptor(self) -> ServiceDescriptor:
        return pb.DESCRIPTOR.services_by_name["EventService"]

    def methods(self) -> Mapping[str, Unary | Streaming]:
        return {"ListEvents": self._list, "WatchEvents": self._watch}

    async def _list(self, request: pb.ListEventsRequest, call: Call) -> Answer:
        validate.list_events(request)

        async def page(size: int) -> pb.ListEventsResponse:
            events, cursor, has_more = await self._events.list(
                convert.to_event_filter(request.filter, call.caller.projects),
                cursor=request.cursor,
                limit=size,
                tail=request.tail,
            )
            return pb.ListEventsResponse(
                events=map(convert.event, events), cursor=cursor, has_more=has_more
            )

        return await fitting_page(request.page_size, page)

    async def _watch(self, request: pb.WatchEventsRequest, call: Call) -> AsyncIterator[Answer]:
        validate.watch_events(request)
        watched = self._events.watch(
            convert.to_event_filter(request.filter, call.caller.projects),
            cursor=request.cursor if request.HasField("cursor") else None,
            progress_interval=convert_time.to_timedelta(request.progress_interval)
            if request.HasField("progress_interval")
            else DEFAULT_PROGRESS_INTERVAL,
        )
        async with aclosing(watched) as pages:
            async for events, cursor in pages:
                for message in _messages(events, cursor):
                    yield message


def _messages(events: Iterable[Event], cursor: int) -> Iterator[pb.WatchEventsResponse]:
    """As few messages as hold the events, at least one; the last goes on from `cursor`."""
    message, size = pb.WatchEventsResponse(), 0
    for event in events:
        converted = convert.event(event)
        weight = converted.ByteSize() + _EVENT_OVERHEAD
        if size and size + weight > MAX_MESSAGE_BYTES:
            message.cursor = event.sequence
            yield message
            message, size = pb.WatchEventsResponse(), 0
        message.events.append(converted)
        size += weight
    message.cursor = cursor
    yield message
