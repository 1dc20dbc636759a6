"""A watch gives each event once, over every interruption."""

from __future__ import annotations

import asyncio

import pytest

import att_client
from att.v1 import event_pb2, event_service_pb2
from att_client import Client
from tests.client.stub_server import StubServer, stream, unavailable


def _message(cursor: int, *sequences: int) -> event_service_pb2.WatchEventsResponse:
    events = [event_pb2.Event(sequence=sequence) for sequence in sequences]
    return event_service_pb2.WatchEventsResponse(events=events, cursor=cursor)


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_an_interrupted_watch_resumes_behind_the_last_event(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "WatchEvents",
        stream(_message(10), then=unavailable()),
        # The filter passed over 10 and 12.
        stream(_message(14, 11, 13), _message(20), then=unavailable()),
        stream(_message(21, 20)),
    )
    watch = att.events.watch(project_id="web")
    assert [event.sequence async for event in watch] == [11, 13, 20]
    first, second, third = stub.requests["WatchEvents"]
    assert not first.HasField("cursor")
    assert (second.cursor, third.cursor) == (10, 20)
    assert third.filter.project_id == "web"
    assert watch.cursor == 21


async def test_leaving_the_loop_and_looping_again_goes_on(att: Client, stub: StubServer) -> None:
    stub.script(
        "WatchEvents",
        stream(_message(3, 0, 1, 2), _forever),
        stream(_message(3, 1, 2)),
    )
    watch = att.events.watch(cursor=0)
    async for event in watch:
        assert event.sequence == 0
        break
    assert watch.cursor == 1
    assert [event.sequence async for event in watch] == [1, 2]
    assert stub.requests["WatchEvents"][1].cursor == 1


async def test_an_event_that_comes_twice_is_an_error(att: Client, stub: StubServer) -> None:
    stub.script("WatchEvents", stream(_message(3, 1, 2), _message(3, 2), _forever))
    with pytest.raises(att_client.ProtocolError):
        async for _ in att.events.watch(cursor=0):
            pass


async def test_a_closed_watch_says_so(att: Client, stub: StubServer) -> None:
    stub.script("WatchEvents", stream(_message(0), _forever))
    watch = att.events.watch()
    events = aiter(watch)
    waiting = asyncio.ensure_future(anext(events))
    while "WatchEvents" not in stub.requests:
        await asyncio.sleep(0)
    await watch.aclose()
    with pytest.raises(att_client.ClosedError):
        await waiting
    with pytest.raises(att_client.ClosedError):
        aiter(watch)
