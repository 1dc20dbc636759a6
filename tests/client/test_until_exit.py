"""A follow until exit ends with the run it was bound to, on whatever connection."""

from __future__ import annotations

import asyncio

import att_client
from att_client import LogAnchor, LogLine, RunMarker
from tests.client.stub_server import (
    NEXT_RUN,
    RUN,
    StubServer,
    batch,
    chunk,
    ended,
    gap,
    started,
    stream,
    unavailable,
)
from tests.server_process import PATIENCE

Client = att_client.Client
LATER_RUN = "01RUN0000000000000000000CC"


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


async def _sequences(follow: att_client.LogFollow) -> list[int]:
    found = []
    async with asyncio.timeout(PATIENCE):
        async for item in follow:
            assert isinstance(item, LogLine | RunMarker)
            found.append(item.sequence)
    return found


async def test_the_server_is_asked_to_bind_once_and_then_held_to_its_word(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(then=unavailable()),
        stream(batch(10, end=10, bound=RUN), then=unavailable()),
        stream(batch(11, chunk(10, b"a"), bound=RUN)),
    )
    follow = att.logs.follow("web", tail=0, until_exit=True)
    assert await _sequences(follow) == [10]
    asked = [(r.until_exit, r.until_run_id) for r in stub.requests["FollowLogs"]]
    assert asked == [(True, ""), (True, ""), (False, RUN)]


async def test_a_run_that_ended_during_the_outage_ends_the_follow_at_its_marker(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(10, end=10, bound=RUN), batch(11, chunk(10, b"a")), then=unavailable()),
        stream(
            batch(
                15,
                chunk(11, b"b"),
                ended(12),
                started(13, NEXT_RUN),
                chunk(14, b"not ours", run_id=NEXT_RUN),
            ),
        ),
    )
    follow = att.logs.follow("web", anchor=LogAnchor.END, until_exit=True, markers=True)
    assert await _sequences(follow) == [10, 11, 12]
    assert follow.cursor == 13


async def test_a_run_that_goes_on_after_the_outage_ends_the_follow_later(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(10, end=10, bound=RUN), then=unavailable()),
        stream(batch(11, chunk(10, b"a"), bound=RUN), then=unavailable()),
        stream(batch(12, chunk(11, b"b")), batch(13, ended(12))),
    )
    follow = att.logs.follow("web", tail=0, until_exit=True, markers=True)
    assert await _sequences(follow) == [10, 11, 12]


async def test_a_next_run_that_came_and_went_during_the_outage_ends_the_follow(
    att: Client, stub: StubServer
) -> None:
    # Nothing ran at first. A second bind would be to the run after the next.
    stub.script(
        "FollowLogs",
        stream(batch(3, started(0), chunk(1, b"a"), ended(2)), then=unavailable()),
        stream(
            batch(3),
            batch(4, started(3, NEXT_RUN)),
            batch(
                7,
                chunk(4, b"b", run_id=NEXT_RUN),
                ended(5, NEXT_RUN),
                started(6, LATER_RUN),
            ),
            _forever,
        ),
    )
    follow = att.logs.follow("web", cursor=0, until_exit=True, markers=True)
    assert await _sequences(follow) == [0, 1, 2, 3, 4, 5]
    asked = [(r.until_exit, r.until_run_id) for r in stub.requests["FollowLogs"]]
    assert asked == [(True, ""), (False, "")]


async def test_an_earlier_run_in_the_log_does_not_end_the_follow(
    att: Client, stub: StubServer
) -> None:
    whole = [started(0), ended(1), started(2, NEXT_RUN), chunk(3, b"a", run_id=NEXT_RUN)]
    stub.script(
        "FollowLogs",
        stream(batch(1, whole[0], end=4, bound=NEXT_RUN), then=unavailable()),
        stream(batch(4, *whole[1:], bound=NEXT_RUN), batch(5, ended(4, NEXT_RUN))),
    )
    follow = att.logs.follow("web", until_exit=True, markers=True)
    assert await _sequences(follow) == [0, 1, 2, 3, 4]


async def test_a_connection_that_breaks_behind_the_end_marker_is_not_opened_again(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(1, chunk(0, b"a"), end=1, bound=RUN), batch(2, ended(1)), then=unavailable()),
        stream(_forever),
    )
    assert await _sequences(att.logs.follow("web", until_exit=True, markers=True)) == [0, 1]
    assert len(stub.requests["FollowLogs"]) == 1


async def test_an_end_marker_lost_in_a_gap_is_noticed_by_the_run_behind_it(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(5, chunk(4, b"a"), end=5, bound=RUN), then=unavailable()),
        stream(
            batch(52, gap(5, 45), chunk(50, b"b", run_id=NEXT_RUN), ended(51, NEXT_RUN)),
            _forever,
        ),
    )
    follow = att.logs.follow("web", cursor=4, until_exit=True)
    assert [type(item).__name__ async for item in follow] == ["LogLine", "LogGap"]
    assert follow.cursor == 50


async def test_a_start_lost_in_a_gap_binds_the_run_that_shows_behind_it(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(5, end=5), then=unavailable()),
        stream(batch(53, gap(5, 45), chunk(50, b"b"), ended(51), started(52, NEXT_RUN)), _forever),
    )
    follow = att.logs.follow("web", cursor=5, until_exit=True)
    assert [type(item).__name__ async for item in follow] == ["LogGap", "LogLine"]
    assert follow.cursor == 52


async def test_a_loop_that_was_left_ends_at_the_same_place_when_taken_up_again(
    att: Client, stub: StubServer
) -> None:
    whole = batch(4, started(0), chunk(1, b"a", b"b"), ended(3), end=1, bound=RUN)
    stub.script(
        "FollowLogs",
        stream(whole),
        stream(batch(5, chunk(2, b"b"), ended(3), started(4, NEXT_RUN))),
    )
    follow = att.logs.follow("web", until_exit=True)
    async for item in follow:
        assert item == "a"
        break
    assert [item async for item in follow] == ["b"]
    assert follow.cursor == 4
    assert [item async for item in follow] == []
    assert [request.start.cursor for request in stub.requests["FollowLogs"]] == [0, 2]
