"""A follow gives each record once, in order, whatever happens to the server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2

import att_client
from att.v1 import log_pb2, log_service_pb2
from att_client import LogAnchor, LogGap, LogLine, LogSeverity, LogStream, RunMarker
from tests.client.cutting_proxy import CuttingProxy
from tests.client.stub_server import (
    LOG_ID,
    RUN,
    Context,
    StubServer,
    batch,
    chunk,
    ended,
    fail,
    gap,
    started,
    stream,
    unavailable,
)
from tests.server_process import PATIENCE

Client = att_client.Client


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def _at(seconds: int) -> log_pb2.LogRecord:
    record = chunk(0, b"a")
    record.chunk.time.seconds = seconds
    return record


async def _sequences(follow: att_client.LogFollow) -> list[int]:
    return [item.sequence async for item in follow if isinstance(item, LogLine)]


async def test_items_are_the_lines_with_all_that_is_known_of_them(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(3, started(0), chunk(1, b"one", b"tw\xffo", partial=True)), batch(3)),
    )
    items = [item async for item in att.logs.follow("web")]
    assert items == ["one", "tw\ufffdo"]
    one, two = items
    assert isinstance(one, LogLine)
    assert isinstance(two, LogLine)
    assert (one.sequence, one.cursor, one.run_id, one.data) == (1, 2, RUN, b"one")
    assert (two.sequence, two.cursor, two.data) == (2, 3, b"tw\xffo")
    assert (one.partial, two.partial, two.unterminated) == (False, True, False)
    assert one.stream is LogStream.STDOUT
    assert one.time == datetime.fromtimestamp(1_700_000_000.25, UTC)


async def test_markers_and_gaps_come_in_their_place(att: Client, stub: StubServer) -> None:
    stub.script(
        "FollowLogs", stream(batch(9, gap(0, 4), started(4), chunk(5, b"a", b"b", b"c"), ended(8)))
    )
    items = [item async for item in att.logs.follow("web", cursor=0, markers=True)]
    kinds = [type(item) for item in items]
    assert kinds == [LogGap, RunMarker, LogLine, LogLine, LogLine, RunMarker]


async def test_the_position_that_was_asked_for_is_sent(att: Client, stub: StubServer) -> None:
    stub.script("FollowLogs", stream(batch(0)))
    time = datetime(2026, 1, 2, tzinfo=UTC)
    for position in (
        {"cursor": 0, "log_id": LOG_ID},
        {"tail": 0},
        {"since": time},
        {"anchor": LogAnchor.END},
        {},
    ):
        await _sequences(att.logs.follow("web", **position))
    starts = [request.start for request in stub.requests["FollowLogs"]]
    kinds = [start.WhichOneof("position") for start in starts]
    assert kinds == ["cursor", "tail", "since", "anchor", None]
    assert starts[0].log_id == LOG_ID
    assert starts[2].since.ToDatetime(UTC) == time


def test_two_positions_or_a_naive_time_are_refused_before_any_call() -> None:
    client = att_client.connect("unix:/nowhere")
    with pytest.raises(TypeError):
        client.logs.follow("web", cursor=1, tail=1)
    with pytest.raises(ValueError, match="time zone"):
        client.logs.follow("web", since=datetime(2026, 1, 1))  # noqa: DTZ001  # it is the point


async def test_an_interrupted_follow_resumes_behind_the_last_record_in_the_same_log(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(2, chunk(0, b"a", b"b")), then=unavailable()),
        stream(batch(2), then=unavailable("SUPERVISOR_UNREACHABLE")),
        stream(batch(3, chunk(2, b"c"))),
    )
    assert await _sequences(att.logs.follow("web")) == [0, 1, 2]
    first, second, third = [request.start for request in stub.requests["FollowLogs"]]
    assert first.WhichOneof("position") is None
    assert (second.cursor, second.log_id) == (2, LOG_ID)
    assert (third.cursor, third.log_id) == (2, LOG_ID)


@pytest.mark.parametrize("start", [{"tail": 0}, {"anchor": LogAnchor.END}, {"tail": 3}])
async def test_a_relative_position_is_bound_by_the_first_message_before_any_line(
    att: Client, stub: StubServer, start: Any
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(40), then=unavailable()),
        stream(batch(41, chunk(40, b"x"))),
    )
    assert await _sequences(att.logs.follow("web", **start)) == [40]
    assert stub.requests["FollowLogs"][1].start.cursor == 40


async def test_a_position_that_was_not_bound_is_asked_for_again(
    att: Client, stub: StubServer
) -> None:
    stub.script("FollowLogs", stream(then=unavailable()), stream(batch(41, chunk(40, b"x"))))
    assert await _sequences(att.logs.follow("web", tail=1)) == [40]
    assert [request.start.tail for request in stub.requests["FollowLogs"]] == [1, 1]


async def test_a_follow_outlives_a_server_that_stops_and_starts(
    att: Client, stub: StubServer
) -> None:
    stub.script("FollowLogs", stream(batch(1, chunk(0, b"a")), _forever))
    follow = att.logs.follow("web")
    items = aiter(follow)
    assert await anext(items) == "a"
    await stub.stop()
    waiting = asyncio.ensure_future(anext(items))
    stub.script("FollowLogs", stream(batch(2, chunk(1, b"b"))))
    await stub.start()
    assert await waiting == "b"
    with pytest.raises(StopAsyncIteration):
        await anext(items)
    with pytest.raises(StopAsyncIteration):
        await anext(items)


async def test_a_log_of_another_life_is_an_error(att: Client, stub: StubServer) -> None:
    async def ahead(context: Context) -> None:
        await fail(context, grpc.StatusCode.OUT_OF_RANGE, "LOG_CURSOR_AHEAD", "another log")

    stub.script(
        "FollowLogs",
        stream(batch(1, chunk(0, b"a")), then=unavailable()),
        stream(then=ahead),
    )
    with pytest.raises(att_client.LogCursorAheadError) as caught:
        await _sequences(att.logs.follow("web"))
    assert caught.value.reason == "LOG_CURSOR_AHEAD"
    stub.script("FollowLogs", stream(batch(1), batch(1, log_id="01LOG0000000000000000000ZZ")))
    with pytest.raises(att_client.ProtocolError):
        await _sequences(att.logs.follow("web"))


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([batch(3, chunk(0, b"a"), chunk(2, b"c"))], id="a hole"),
        pytest.param([batch(2, chunk(0, b"a", b"b"), chunk(1, b"b"))], id="an overlap"),
        pytest.param([batch(1, chunk(0, b"a")), batch(1, chunk(0, b"a"))], id="a repetition"),
        pytest.param([batch(1, chunk(0, b"a")), batch(5)], id="a cursor that runs ahead"),
        pytest.param([batch(1, chunk(0, b"a")), batch(0)], id="a cursor that falls back"),
        pytest.param([batch(9, gap(0, 4), chunk(5, b"a", b"b", b"c", b"d"))], id="a short gap"),
        pytest.param([batch(2, chunk(0, b"a", line_count=2))], id="fewer lines than counted"),
        pytest.param([batch(1, chunk(0, b"a\nb", line_count=1))], id="more lines than counted"),
        pytest.param([b"\xff\xff\xff"], id="bytes that are no message"),
        pytest.param([batch(1, _at(253_402_300_800))], id="a time after the year 9999"),
        pytest.param([batch(1, _at(-62_135_596_801))], id="a time before the year 1"),
    ],
)
async def test_a_broken_log_raises_and_ends_the_follow(
    att: Client, stub: StubServer, messages: list[Any]
) -> None:
    stub.script("FollowLogs", stream(*messages, _forever))
    items = aiter(att.logs.follow("web", cursor=0))
    with pytest.raises(att_client.ProtocolError):
        await _drain(items)
    # What is behind the error is not given out as if nothing was missing.
    with pytest.raises(att_client.ClosedError):
        await anext(items)
    assert len(stub.requests["FollowLogs"]) == 1


async def test_an_error_of_another_kind_is_raised_at_once(att: Client, stub: StubServer) -> None:
    async def missing(context: Context) -> None:
        await fail(context, grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND", "no project 'web'")

    async def bug(context: Context) -> None:
        await fail(context, grpc.StatusCode.INTERNAL, "INTERNAL", "error 17")

    stub.script("FollowLogs", stream(then=missing), stream(batch(1, chunk(0, b"a")), then=bug))
    with pytest.raises(att_client.ProjectNotFoundError):
        await _sequences(att.logs.follow("web"))
    items = aiter(att.logs.follow("web"))
    assert await anext(items) == "a"
    with pytest.raises(att_client.InternalError):
        await anext(items)
    # What failed stays failed: another wait is not answered with an end.
    with pytest.raises(att_client.ClosedError):
        await anext(items)


async def test_an_outage_longer_than_max_elapsed_raises_unavailable(
    att: Client, stub: StubServer
) -> None:
    stub.script("FollowLogs", stream(batch(1, chunk(0, b"a")), then=unavailable()))
    items = aiter(att.logs.follow("web", max_elapsed=timedelta(0)))
    assert await anext(items) == "a"
    with pytest.raises(att_client.ShuttingDownError):
        await anext(items)


async def test_gaps_raise_where_asked_and_the_next_loop_goes_on_behind(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(9, chunk(0, b"a", b"b"), gap(2, 5), chunk(7, b"c", b"d")), _forever),
        stream(batch(9, chunk(7, b"c", b"d"))),
    )
    follow = att.logs.follow("web", on_gap="raise")
    items = aiter(follow)
    assert [await anext(items), await anext(items)] == ["a", "b"]
    with pytest.raises(att_client.LogGapError) as caught:
        await anext(items)
    assert (caught.value.gap.first_sequence, caught.value.gap.count) == (2, 5)
    assert follow.cursor == 7
    assert await _sequences(follow) == [7, 8]
    assert stub.requests["FollowLogs"][1].start.cursor == 7


async def test_batches_are_cut_before_a_gap_that_raises(att: Client, stub: StubServer) -> None:
    stub.script("FollowLogs", stream(batch(8, chunk(0, b"a"), gap(1, 6), chunk(7, b"c")), _forever))
    follow = att.logs.follow("web", on_gap="raise")
    batches = aiter(follow.batches())
    first = await anext(batches)
    assert [len(first.records), first.cursor, follow.cursor] == [1, 1, 1]
    with pytest.raises(att_client.LogGapError):
        await anext(batches)
    assert follow.cursor == 7


async def test_batches_give_every_message_with_its_cursors(att: Client, stub: StubServer) -> None:
    stub.script("FollowLogs", stream(batch(0, end=2), batch(2, chunk(0, b"a", b"b")), batch(2)))
    follow = att.logs.follow("web")
    batches = [item async for item in follow.batches()]
    assert [item.cursor for item in batches] == [0, 2, 2]
    assert [item.end_cursor for item in batches] == [2, 2, 2]
    assert [item.log_id for item in batches] == [LOG_ID] * 3
    assert list(att_client.log_items(batches[1].records)) == ["a", "b"]
    assert (follow.cursor, follow.log_id) == (2, LOG_ID)


class _WatchedStream:
    """A stream that never ends, and tells when its call did."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def __call__(
        self, request: log_service_pb2.FollowLogsRequest, context: Context
    ) -> AsyncIterator[Any]:
        try:
            yield batch(3, chunk(0, b"a", b"b", b"c"))
            await _forever()
        finally:
            self.ended.set()


async def test_leaving_the_loop_closes_the_call_and_another_loop_goes_on(
    att: Client, stub: StubServer
) -> None:
    watched = _WatchedStream()
    stub.script("FollowLogs", watched, stream(batch(3, chunk(2, b"c"))))
    follow = att.logs.follow("web")
    async for item in follow:
        if item == "b":
            break
    assert follow.cursor == 2
    async with asyncio.timeout(PATIENCE):
        await watched.ended.wait()
    assert [item async for item in follow] == ["c"]
    assert stub.requests["FollowLogs"][1].start.cursor == 2


async def test_cancelling_and_closing_end_the_call(att: Client, stub: StubServer) -> None:
    first, second = _WatchedStream(), _WatchedStream()
    stub.script("FollowLogs", first, second)
    task = asyncio.ensure_future(_sequences(att.logs.follow("web")))
    while not stub.requests.get("FollowLogs"):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    follow = att.logs.follow("web")
    items = aiter(follow)
    assert await anext(items) == "a"
    await follow.aclose()
    async with asyncio.timeout(PATIENCE):
        await first.ended.wait()
        await second.ended.wait()


async def test_closing_under_a_waiting_loop_raises_there(att: Client, stub: StubServer) -> None:
    stub.script("FollowLogs", stream(batch(0), _forever))
    for close in ("follow", "client"):
        follow = att.logs.follow("web")
        batches = aiter(follow.batches())
        await anext(batches)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        await (follow.aclose() if close == "follow" else att.aclose())
        with pytest.raises(att_client.ClosedError):
            await waiting
        with pytest.raises(att_client.ClosedError):
            await anext(batches)


async def test_a_cancelled_wait_for_an_item_loses_nothing(att: Client, stub: StubServer) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(2, chunk(0, b"a", b"b")), _forever),
        stream(batch(3, chunk(2, b"c")), _forever),
    )
    items = aiter(att.logs.follow("web"))
    assert [await anext(items), await anext(items)] == ["a", "b"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(items)
    assert await anext(items) == "c"


async def test_a_later_loop_takes_over_and_the_earlier_one_hears_of_it(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(2, chunk(0, b"a", b"b")), _forever),
        stream(batch(2, chunk(1, b"b")), _forever),
    )
    follow = att.logs.follow("web")
    earlier = aiter(follow)
    assert await anext(earlier) == "a"
    later = aiter(follow)
    assert await anext(later) == "b"
    with pytest.raises(att_client.ClosedError):
        await _drain(earlier)


async def _drain(items: AsyncIterator[Any]) -> None:
    async for _ in items:
        pass


async def test_a_server_that_goes_silent_is_given_up_and_resumed(
    stub: StubServer, directory: Path
) -> None:
    stub.script("FollowLogs", stream(batch(1, chunk(0, b"a")), _forever))
    async with (
        CuttingProxy(directory / "p.sock", directory / "att.sock", lambda: None) as proxy,
        att_client.connect(proxy.target) as att,
    ):
        items = aiter(att.logs.follow("web", progress_interval=timedelta(seconds=0.05)))
        assert await anext(items) == "a"
        proxy.stall()
        stub.script("FollowLogs", stream(batch(2, chunk(1, b"b"))))
        waiting = asyncio.ensure_future(anext(items))
        # The stalled call is given up, and the ones that follow it on its connection.
        await asyncio.wait([waiting], timeout=0.3)
        assert not waiting.done()
        proxy.drop()
        proxy.flow()
        async with asyncio.timeout(PATIENCE):
            assert await waiting == "b"


async def test_a_user_who_takes_long_with_an_item_is_no_silence_of_the_server(
    att: Client, stub: StubServer
) -> None:
    stub.script("FollowLogs", stream(batch(1, chunk(0, b"a")), batch(2, chunk(1, b"b"))))
    items = aiter(att.logs.follow("web", progress_interval=timedelta(seconds=0.05)))
    assert await anext(items) == "a"
    away = asyncio.get_running_loop().create_future()
    await asyncio.wait([away], timeout=0.5)
    assert await anext(items) == "b"
    assert len(stub.requests["FollowLogs"]) == 1


async def test_a_slow_reader_gets_all_before_the_end(att: Client, stub: StubServer) -> None:
    sent = asyncio.Event()

    async def all_sent() -> None:
        sent.set()

    # Fewer bytes than a stream may hold unread: the server ends without the reader.
    messages = [batch(i + 1, chunk(i, b"x" * 1000)) for i in range(40)]
    stub.script("FollowLogs", stream(*messages, all_sent))
    items = aiter(att.logs.follow("web"))
    assert await anext(items) == "x" * 1000
    await sent.wait()
    # What was sent before this answer on the same connection has arrived with it.
    await att.server.info()
    sequences = [item.sequence async for item in items if isinstance(item, LogLine)]
    assert sequences == list(range(1, 40))


class _Log:
    """A growing log, served as the contract says."""

    def __init__(self, lines: int, random: random.Random) -> None:
        self.lines = [b"%d " % i + b"x" * random.randrange(200) for i in range(lines)]
        self._random = random

    async def follow(
        self, request: log_service_pb2.FollowLogsRequest, context: Context
    ) -> AsyncIterator[Any]:
        cursor = request.start.cursor
        if request.start.log_id not in ("", LOG_ID) or cursor > len(self.lines):
            await fail(context, grpc.StatusCode.OUT_OF_RANGE, "LOG_CURSOR_AHEAD", "ahead")
        yield batch(cursor, end=len(self.lines))
        while cursor < len(self.lines):
            count = min(self._random.choice((1, 7, 500)), len(self.lines) - cursor)
            lines = self.lines[cursor : cursor + count]
            yield batch(cursor + count, chunk(cursor, *lines), end=len(self.lines))
            cursor += count
            if self._random.random() < 0.02:
                await unavailable()(context)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", ["items", "batches"])
async def test_connections_cut_at_random_bytes_neither_lose_nor_double_a_line(
    stub: StubServer, directory: Path, seed: int, by: str
) -> None:
    source = random.Random(seed)
    log = _Log(20_000, source)
    stub.script("FollowLogs", log.follow)

    def budget() -> int:
        return int(10 ** source.uniform(2, 6.5))

    got: list[bytes] = []
    async with (
        CuttingProxy(directory / "p.sock", directory / "att.sock", budget) as proxy,
        att_client.connect(proxy.target, lazy=True) as att,
    ):
        follow = att.logs.follow("web", cursor=0)
        if by == "items":
            async for item in follow:
                assert isinstance(item, LogLine)
                assert item.sequence == len(got)
                got.append(item.data)
        else:
            async for message in follow.batches():
                for record in message.records:
                    assert record.chunk is not None
                    got += record.chunk.lines.split(b"\n")[:-1]
    assert proxy.cuts > 0
    assert got == log.lines


async def test_a_follow_that_is_dropped_is_closed_without_a_word(
    att: Client, stub: StubServer
) -> None:
    watched = _WatchedStream()
    stub.script("FollowLogs", watched)
    items = aiter(att.logs.follow("web"))
    assert await anext(items) == "a"
    del items
    async with asyncio.timeout(PATIENCE):
        await watched.ended.wait()


async def test_aclosing_a_follow_closes_it(att: Client, stub: StubServer) -> None:
    watched = _WatchedStream()
    stub.script("FollowLogs", watched)
    async with aclosing(att.logs.follow("web")) as follow:
        async for _ in follow:
            break
    async with asyncio.timeout(PATIENCE):
        await watched.ended.wait()
    with pytest.raises(att_client.ClosedError):
        aiter(follow)


async def test_what_is_selected_is_asked_for_again_after_an_interruption(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(
            batch(9, chunk(2, b"a", b"b", sequence_offsets=[0, 3])),
            batch(20),
            then=unavailable(),
        ),
        stream(batch(31, gap(20, 4), chunk(30, b"c"))),
    )
    follow = att.logs.follow(
        "web",
        cursor=0,
        streams={LogStream.STDERR, LogStream.STDOUT},
        run_id=RUN,
        min_severity=LogSeverity.WARNING,
        pattern="a|b",
        start_time=datetime(2026, 1, 1, tzinfo=UTC),
        end_time=datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert await _sequences(follow) == [2, 5, 30]
    first, second = stub.requests["FollowLogs"]
    assert first.filter == second.filter
    assert first.filter == log_pb2.LogFilter(
        streams=[log_pb2.LOG_STREAM_STDOUT, log_pb2.LOG_STREAM_STDERR],
        run_id=RUN,
        min_severity=log_pb2.LOG_SEVERITY_WARNING,
        pattern="a|b",
        start_time=timestamp_pb2.Timestamp(seconds=1_767_225_600),
        end_time=timestamp_pb2.Timestamp(seconds=1_767_312_000),
    )
    assert second.start.cursor == 20


@pytest.mark.parametrize(
    "pages",
    [
        [batch(9, chunk(5, b"a"), chunk(5, b"b"))],
        [batch(9, chunk(5, b"a"), chunk(4, b"b"))],
        [batch(9, chunk(9, b"a"))],
        [batch(9), batch(8)],
        [batch(9, chunk(5, b"a", b"b", sequence_offsets=[0, 4]))],
    ],
)
async def test_a_selection_that_does_not_rise_is_an_error(
    att: Client, stub: StubServer, pages: list[log_service_pb2.FollowLogsResponse]
) -> None:
    stub.script("FollowLogs", stream(*pages))
    with pytest.raises(att_client.ProtocolError):
        await _sequences(att.logs.follow("web", cursor=0, pattern="."))


async def test_a_run_that_a_filter_hides_is_bound_anew_after_an_interruption(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs", stream(batch(3), then=unavailable()), stream(batch(7, bound=RUN), batch(9))
    )
    async for _ in att.logs.follow("web", until_exit=True, pattern="never").batches():
        pass
    _, second = stub.requests["FollowLogs"]
    assert (second.until_exit, second.until_run_id) == (True, "")


def test_a_selection_that_means_something_else_is_refused_before_any_call() -> None:
    att = att_client.connect("unix:/nowhere")
    for wrong in ({"streams": LogStream.STDOUT}, {"streams": "stdout"}, {"severity": 3}):
        with pytest.raises(TypeError):
            att.logs.follow("web", **wrong)
    with pytest.raises(ValueError, match="end_time"):
        att.logs.follow("web", end_time=datetime(2026, 1, 1))  # noqa: DTZ001  # that is refused


async def test_a_follow_until_now_ends_where_the_log_ended_when_it_began(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(2, chunk(0, b"a", b"b"), end=4), then=unavailable()),
        stream(batch(5, chunk(2, b"c", b"d"), chunk(4, b"later"), end=5), _forever),
    )
    follow = att.logs.follow("web", until_now=True)
    assert [item async for item in follow] == ["a", "b", "c", "d"]
    assert [item async for item in follow] == []
    assert follow.cursor == 4
    with pytest.raises(TypeError):
        att.logs.follow("web", until_now=True, until_exit=True)


async def test_a_follow_until_now_of_an_empty_log_ends(att: Client, stub: StubServer) -> None:
    stub.script("FollowLogs", stream(batch(0), _forever))
    assert [b.cursor async for b in att.logs.follow("web", until_now=True).batches()] == [0]
