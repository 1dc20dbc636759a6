"""Logs of several projects come as one, by time, each complete and in its order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import att_client
from att.v1 import log_pb2, log_service_pb2, runtime_pb2, runtime_service_pb2
from att_client import Client, LogGap, LogLine, RunMarker
from tests.client.stub_server import (
    Context,
    StubServer,
    batch,
    chunk,
    fail,
    gap,
    started,
    stream,
    unavailable,
)
from tests.server_process import PATIENCE


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def script(stub: StubServer, **logs: Any) -> None:
    """Has each project's follows answered by its own handlers, one a call."""
    left = {name: list(handlers) for name, handlers in logs.items()}

    async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
        if request.project_id not in left:
            await fail(context, grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")
        handlers = left[request.project_id]
        handler = handlers.pop(0) if len(handlers) > 1 else handlers[0]
        async for message in handler(request, context):
            yield message

    stub.script("FollowLogs", handle)


async def _lines(merge: att_client.LogMerge) -> list[tuple[str, str]]:
    return [(name, str(item)) async for name, item in merge if isinstance(item, LogLine)]


async def test_lines_come_by_time_across_pages_and_within_them(
    att: Client, stub: StubServer
) -> None:
    script(
        stub,
        a=[
            stream(
                batch(3, started(0), chunk(1, b"1", time=1), chunk(2, b"4", time=4), end=4),
                batch(4, chunk(3, b"7", time=7), end=4),
            )
        ],
        b=[
            stream(
                batch(2, chunk(0, b"2", b"2'", time=2), end=5),
                batch(5, chunk(2, b"3", time=3), chunk(3, b"5", time=5), chunk(4, b"9", time=9)),
            )
        ],
    )
    lines = await _lines(att.logs.merge(["a", "b"]))
    assert [line for _, line in lines] == ["1", "2", "2'", "3", "4", "5", "7", "9"]
    assert lines[0] == ("a", "1")
    assert lines[-1] == ("b", "9")


async def test_each_log_is_whole_and_in_order_whatever_the_times(
    att: Client, stub: StubServer
) -> None:
    dice = random.Random(7)
    written: dict[str, list[tuple[float, str]]] = {}
    logs = {}
    for name in ("a", "b", "c", "d"):
        time, pages, records = 0.0, [], []
        written[name] = []
        for number in range(200):
            time += dice.choice((0, 0, 1, 1, 5))
            written[name].append((time, f"{name}{number}"))
            records.append(chunk(number, f"{name}{number}".encode(), time=time))
            if dice.random() < 0.1 or number == 199:
                pages.append(batch(number + 1, *records, end=200))
                records = []
        logs[name] = [stream(*pages)]
    script(stub, **logs)
    items = [item async for _, item in att.logs.merge(list(logs)) if isinstance(item, LogLine)]
    times = [item.time.timestamp() for item in items if item.time is not None]
    assert times == sorted(times)
    for name, expected in written.items():
        assert [str(i) for i in items if i.startswith(name)] == [text for _, text in expected]


async def test_a_log_that_was_read_to_its_end_is_not_waited_for(
    att: Client, stub: StubServer
) -> None:
    script(
        stub,
        idle=[stream(batch(0), _forever)],
        old=[stream(batch(1, chunk(0, b"old", time=1)), _forever)],
        busy=[stream(batch(1, chunk(0, b"new", time=9)), _forever)],
    )
    found = []
    async with asyncio.timeout(PATIENCE):
        async for name, item in att.logs.merge(["idle", "busy", "old"]):
            found.append((name, str(item)))
            if len(found) == 2:
                break
    assert sorted(found) == [("busy", "new"), ("old", "old")]


async def test_gaps_and_markers_keep_their_place_and_cursors_say_where_to_go_on(
    att: Client, stub: StubServer
) -> None:
    script(
        stub,
        a=[stream(batch(8, gap(0, 5), started(5), chunk(6, b"x", b"y", time=3)))],
        b=[stream(batch(41, chunk(40, b"z", time=2)))],
    )
    merge = att.logs.merge(["a", "b"], cursors={"b": 40}, tail=3, markers=True)
    seen = [(name, type(item)) async for name, item in merge]
    assert [kind for name, kind in seen if name == "a"] == [LogGap, RunMarker, LogLine, LogLine]
    assert merge.cursors == {"a": 8, "b": 41}
    starts = {request.project_id: request.start for request in stub.requests["FollowLogs"]}
    assert starts == {"a": log_pb2.LogPosition(tail=3), "b": log_pb2.LogPosition(cursor=40)}


async def test_batches_hold_what_follows_one_another_in_one_project(
    att: Client, stub: StubServer
) -> None:
    script(
        stub,
        a=[stream(batch(3, *(chunk(n, b"a%d" % n, time=t) for n, t in enumerate((1, 2, 8)))))],
        b=[stream(batch(1, chunk(0, b"b", time=5)))],
    )
    merge = att.logs.merge(["a", "b"])
    found = [(name, batch.text(), batch.cursor) async for name, batch in merge.batches()]
    assert found == [("a", "a0\na1\n", 2), ("b", "b\n", 1), ("a", "a2\n", 3)]


async def test_an_interruption_of_one_loses_and_doubles_nothing(
    att: Client, stub: StubServer
) -> None:
    script(
        stub,
        a=[
            stream(batch(1, chunk(0, b"1", time=1), end=2), then=unavailable()),
            stream(batch(2, chunk(1, b"3", time=3))),
        ],
        b=[stream(batch(1, chunk(0, b"2", time=2)))],
    )
    assert [line for _, line in await _lines(att.logs.merge(["a", "b"]))] == ["1", "2", "3"]


async def test_leaving_the_loop_closes_the_calls_and_a_later_one_goes_on(
    att: Client, stub: StubServer
) -> None:
    open_calls = 0
    ended = asyncio.Event()

    def watched(*messages: log_service_pb2.FollowLogsResponse) -> Any:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            nonlocal open_calls
            open_calls += 1
            try:
                for message in messages:
                    yield message
                await _forever()
            finally:
                open_calls -= 1
                ended.set()

        return handle

    script(
        stub,
        a=[
            watched(batch(2, chunk(0, b"1", b"2", time=1))),
            stream(batch(2, chunk(1, b"2", time=1))),
        ],
        b=[watched(batch(1, chunk(0, b"3", time=3))), stream(batch(1, chunk(0, b"3", time=3)))],
    )
    merge = att.logs.merge(["a", "b"])
    async for _, item in merge:
        assert item == "1"
        break
    async with asyncio.timeout(PATIENCE):
        while open_calls:
            ended.clear()
            await ended.wait()
    assert await _lines(merge) == [("a", "2"), ("b", "3")]
    await merge.aclose()
    with pytest.raises(att_client.ClosedError):
        aiter(merge)


async def test_closing_under_a_waiting_loop_raises_there(att: Client, stub: StubServer) -> None:
    script(stub, a=[stream(batch(0), _forever)])
    merge = att.logs.merge(["a"])
    waiting = asyncio.ensure_future(anext(aiter(merge)))
    await asyncio.sleep(0)
    await merge.aclose()
    with pytest.raises(att_client.ClosedError):
        await waiting


async def test_a_project_that_is_not_there_fails_the_merge(att: Client, stub: StubServer) -> None:
    script(stub, a=[stream(batch(0), _forever)])
    with pytest.raises(att_client.ProjectNotFoundError):
        await _lines(att.logs.merge(["a", "b"]))


def _told(
    revision: int, *names: str, complete: bool = False, deleted: tuple[str, ...] = ()
) -> runtime_service_pb2.WatchRuntimesResponse:
    return runtime_service_pb2.WatchRuntimesResponse(
        runtimes=[runtime_pb2.Runtime(project_id=name, revision=revision) for name in names],
        deleted_project_ids=deleted,
        revision=revision,
        complete=complete,
    )


async def test_of_all_projects_later_ones_join_and_deleted_ones_leave(
    att: Client, stub: StubServer
) -> None:
    heard, deleted = asyncio.Event(), asyncio.Event()

    async def until_deleted(request: Any, context: Context) -> AsyncIterator[Any]:
        yield batch(1, chunk(0, b"first life"))
        await deleted.wait()
        await fail(context, grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")

    script(
        stub,
        a=[until_deleted, stream(batch(1, chunk(0, b"second life"), log_id="another"), _forever)],
        b=[stream(batch(1, chunk(0, b"later")), _forever)],
    )
    stub.script(
        "WatchRuntimes",
        stream(
            _told(5, "a", complete=True),
            heard.wait,
            _told(6, "b"),
            _told(7, deleted=("a",)),
            _told(8, "a"),
            _forever,
        ),
    )
    found = set()
    async with asyncio.timeout(PATIENCE):
        async for name, item in att.logs.merge():
            found.add((name, str(item)))
            heard.set()
            if len(found) == 2:
                deleted.set()
            if len(found) == 3:
                break
    assert found == {("a", "first life"), ("b", "later"), ("a", "second life")}


async def test_all_projects_until_now_are_those_that_are_there(
    att: Client, stub: StubServer
) -> None:
    script(stub, a=[stream(batch(1, chunk(0, b"a")), _forever)], b=[stream(batch(0), _forever)])
    stub.script("WatchRuntimes", stream(_told(5, "a", "b", complete=True), _forever))
    async with asyncio.timeout(PATIENCE):
        assert await _lines(att.logs.merge(until_now=True)) == [("a", "a")]


async def test_no_project_at_all_ends_a_merge_until_now(att: Client, stub: StubServer) -> None:
    stub.script("WatchRuntimes", stream(_told(5, complete=True), _forever))
    async with asyncio.timeout(PATIENCE):
        assert await _lines(att.logs.merge(until_now=True)) == []
