"""Reading and following a log, on a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att.severity import Severity
from att_server.core.errors import AttError, Reason, project_not_found
from att_server.core.log_selection import LogFilter, LogPosition
from att_server.core.logs import Followed, LogManager, LogRead
from att_server.core.model import (
    DesiredState,
    GapReason,
    LogChunk,
    LogGap,
    LogRecord,
    Project,
    ProjectMode,
    RunEnded,
)
from att_server.core.settings import RuntimeSettings
from att_server.testing.log_store import MemoryLogStore
from tests.server_process import PATIENCE

AGO = datetime(2026, 1, 1, tzinfo=UTC)
WEB = Project(
    project_id="web",
    path=Path("/web"),
    runtime=RuntimeSettings(),
    mode=ProjectMode.NORMAL,
    log_id="life-1",
    desired=DesiredState.STOPPED,
    desired_runtime=RuntimeSettings(),
    create_time=AGO,
    update_time=AGO,
)
HOUR = timedelta(hours=1)


class Stage:
    """A manager, the log that a test appends to, and the run that is alive."""

    def __init__(self) -> None:
        self.store = MemoryLogStore()
        self.projects = {"web": WEB}
        self.run = ""
        self.logs = LogManager(
            store=self.store, find_project=self.find, current_run=lambda _: self.run
        )

    def find(self, project_id: str) -> Project:
        if project_id not in self.projects:
            raise project_not_found(project_id)
        return self.projects[project_id]

    def say(self, *lines: str) -> None:
        """Appends the lines as one chunk and wakes the followers."""
        self.store.append_lines("web", "life-1", *(line.encode() for line in lines))
        self.logs.grew("web")

    def start(self, run_id: str) -> None:
        self.run = run_id
        self.store.append_started("web", "life-1", run_id)
        self.logs.grew("web")

    def end(self, run_id: str) -> None:
        self.store.append_ended("web", "life-1", run_id, exit_code=0)
        self.logs.grew("web")
        self.run = ""
        self.logs.grew("web")

    async def read(
        self, position: LogPosition, *, limit: int = 1000, max_bytes: int = 1 << 20
    ) -> LogRead:
        return await self.logs.read("web", position, limit=limit, max_bytes=max_bytes)

    def follow(
        self,
        position: LogPosition,
        *,
        until_exit: bool = False,
        until_run_id: str = "",
        progress_interval: timedelta = HOUR,
    ) -> AsyncIterator[Followed]:
        return self.logs.follow(
            "web",
            position,
            until_exit=until_exit,
            until_run_id=until_run_id,
            progress_interval=progress_interval,
        )


@pytest.fixture
def stage() -> Stage:
    return Stage()


def texts(records: tuple[LogRecord, ...]) -> list[str]:
    """The lines, and the names of what else there is."""
    found: list[str] = []
    for record in records:
        if isinstance(record, LogChunk):
            found += record.lines.decode().split("\n")[:-1]
        else:
            found.append(type(record).__name__)
    return found


async def soon(pages: AsyncIterator[Followed]) -> Followed:
    async with asyncio.timeout(PATIENCE):
        return await anext(pages)


# ReadLogs: every row of the table ------------------------------------------


async def test_a_log_that_holds_nothing_is_an_empty_page(stage: Stage) -> None:
    read = await stage.read(LogPosition())
    assert read.page.records == ()
    assert (read.page.cursor, read.has_more, read.truncated) == (0, False, False)


async def test_a_cursor_below_the_start_gets_an_exact_gap(stage: Stage) -> None:
    stage.say("a", "b", "c")
    stage.say("d", "e")
    stage.store.trim("web", "life-1", 3)
    read = await stage.read(LogPosition(cursor=1))
    assert read.truncated
    assert read.skipped == 2
    gap = read.page.records[0]
    assert gap == LogGap(first_sequence=1, count=2, reason=GapReason.RETENTION)
    assert texts(read.page.records[1:]) == ["d", "e"]


async def test_a_cursor_at_the_end_gets_no_lines(stage: Stage) -> None:
    stage.say("a", "b")
    read = await stage.read(LogPosition(cursor=2))
    assert (read.page.records, read.page.cursor, read.has_more) == ((), 2, False)


@pytest.mark.parametrize(
    "position", [LogPosition(cursor=3), LogPosition(cursor=0, log_id="life-0")]
)
async def test_a_cursor_above_the_end_or_of_another_life_is_refused(
    stage: Stage, position: LogPosition
) -> None:
    stage.say("a", "b")
    with pytest.raises(AttError) as refused:
        await stage.read(position)
    assert refused.value.reason is Reason.LOG_CURSOR_AHEAD
    assert refused.value.metadata["end_cursor"] == "2"
    assert refused.value.metadata["log_id"] == "life-1"


async def test_tail_since_and_the_ends_say_where_to_begin(stage: Stage) -> None:
    stage.store.append_lines("web", "life-1", b"a", b"b", time=AGO)
    stage.store.append_lines("web", "life-1", b"c", b"d", time=AGO + HOUR)
    assert texts((await stage.read(LogPosition(tail=3))).page.records) == ["b", "c", "d"]
    assert texts((await stage.read(LogPosition(tail=9))).page.records) == ["a", "b", "c", "d"]
    since = await stage.read(LogPosition(since=AGO + timedelta(seconds=1)))
    assert texts(since.page.records) == ["c", "d"]
    assert (await stage.read(LogPosition(at_end=True))).page.cursor == 4
    assert texts((await stage.read(LogPosition())).page.records) == ["a", "b", "c", "d"]


async def test_a_page_is_bounded_in_lines_and_in_bytes(stage: Stage) -> None:
    stage.say("aaaa", "bbbb", "cccc")
    stage.say("dddd")
    two = await stage.read(LogPosition(), limit=2)
    assert texts(two.page.records) == ["aaaa", "bbbb"]
    assert (two.page.cursor, two.has_more) == (2, True)
    bounded = await stage.read(LogPosition(), max_bytes=11)
    assert texts(bounded.page.records) == ["aaaa", "bbbb"]
    tiny = await stage.read(LogPosition(), max_bytes=1)
    assert texts(tiny.page.records) == ["aaaa"]


@given(
    chunks=st.lists(st.lists(st.text("ab", max_size=5), min_size=1, max_size=8), max_size=12),
    limit=st.integers(1, 10),
    max_bytes=st.integers(1, 30),
)
def test_pages_of_any_size_hold_every_line_once(
    chunks: list[list[str]], limit: int, max_bytes: int
) -> None:
    async def scenario() -> None:
        stage = Stage()
        for lines in chunks:
            stage.say(*lines)
        seen: list[str] = []
        cursor = 0
        while True:
            read = await stage.read(LogPosition(cursor=cursor), limit=limit, max_bytes=max_bytes)
            found = texts(read.page.records)
            assert len(found) <= limit
            assert read.page.cursor == cursor + len(found)
            seen += found
            cursor = read.page.cursor
            if not read.has_more:
                break
        assert seen == [line for lines in chunks for line in lines]

    asyncio.run(scenario())


async def test_a_cut_chunk_keeps_its_flags_with_its_last_line(stage: Stage) -> None:
    stage.store.append_lines("web", "life-1", b"a", b"b", unterminated=True)
    first = (await stage.read(LogPosition(), limit=1)).page.records[0]
    last = (await stage.read(LogPosition(cursor=1))).page.records[0]
    assert isinstance(first, LogChunk)
    assert isinstance(last, LogChunk)
    assert (first.unterminated, last.unterminated) == (False, True)


# FollowLogs -----------------------------------------------------------------


async def test_the_first_page_comes_at_once_with_the_cursor_it_is_bound_to(
    stage: Stage,
) -> None:
    stage.say("before")
    pages = stage.follow(LogPosition(at_end=True))
    assert (await soon(pages)).page.cursor == 1
    stage.say("after")
    assert texts((await soon(pages)).page.records) == ["after"]


async def test_a_project_that_never_ran_is_waited_for(stage: Stage) -> None:
    pages = stage.follow(LogPosition())
    assert (await soon(pages)).page.records == ()
    stage.say("hello")
    assert texts((await soon(pages)).page.records) == ["hello"]


async def test_an_idle_follower_is_told_of_progress(stage: Stage) -> None:
    pages = stage.follow(LogPosition(), progress_interval=timedelta(milliseconds=1))
    for _ in range(3):
        followed = await soon(pages)
        assert (followed.page.records, followed.page.cursor) == ((), 0)


async def test_a_follower_that_retention_passes_gets_a_gap(stage: Stage) -> None:
    stage.say("a", "b")
    pages = stage.follow(LogPosition())
    assert texts((await soon(pages)).page.records) == ["a", "b"]
    stage.say("c", "d")
    stage.say("e")
    stage.store.trim("web", "life-1", 4)
    followed = await soon(pages)
    assert followed.page.records[0] == LogGap(first_sequence=2, count=2, reason=GapReason.RETENTION)
    assert texts(followed.page.records[1:]) == ["e"]


async def test_the_end_of_the_current_run_ends_the_stream_after_its_last_record(
    stage: Stage,
) -> None:
    stage.start("run-1")
    pages = stage.follow(LogPosition(), until_exit=True)
    assert (await soon(pages)).bound_run_id == "run-1"
    stage.say("last")
    stage.end("run-1")
    rest = [followed async for followed in pages]
    records = [record for followed in rest for record in followed.page.records]
    assert texts(tuple(records)) == ["last", "RunEnded"]
    assert rest[-1].page.cursor == 3


async def test_the_stream_ends_when_the_end_of_the_run_is_known(stage: Stage) -> None:
    stage.start("run-1")
    pages = stage.follow(LogPosition(at_end=True), until_exit=True)
    await soon(pages)
    stage.store.append_ended("web", "life-1", "run-1", exit_code=0)
    stage.logs.grew("web")
    assert texts((await soon(pages)).page.records) == ["RunEnded"]
    ending = asyncio.ensure_future(anext(pages, None))
    await asyncio.sleep(0)
    assert not ending.done()
    stage.run = ""
    stage.logs.grew("web")
    async with asyncio.timeout(PATIENCE):
        assert await ending is None


async def test_a_run_that_was_quicker_than_its_follower_ends_the_stream(stage: Stage) -> None:
    for run_id in ("run-1", "run-2"):
        stage.start(run_id)
        stage.say(f"of {run_id}")
        stage.end(run_id)
    pages = stage.follow(LogPosition(), until_exit=True)
    followed = [followed async for followed in pages]
    assert {one.bound_run_id for one in followed} == {"run-2"}
    assert texts(followed[0].page.records)[-2:] == ["of run-2", "RunEnded"]


async def test_behind_the_end_of_the_last_run_the_next_one_is_bound(stage: Stage) -> None:
    stage.start("run-1")
    stage.end("run-1")
    pages = stage.follow(LogPosition(at_end=True), until_exit=True)
    first = await soon(pages)
    assert (first.bound_run_id, first.page.records) == ("", ())
    stage.start("run-2")
    assert (await soon(pages)).bound_run_id == "run-2"
    stage.end("run-2")
    rest = [record async for followed in pages for record in followed.page.records]
    assert [type(record) for record in rest] == [RunEnded]


async def test_a_stream_that_resumes_behind_the_end_of_its_run_ends_at_once(
    stage: Stage,
) -> None:
    stage.start("run-1")
    stage.end("run-1")
    pages = stage.follow(LogPosition(cursor=2), until_run_id="run-1")
    rest = [followed async for followed in pages]
    assert [followed.page.records for followed in rest] == [()]


async def test_a_run_that_was_over_before_its_start_was_read_ends_the_stream(
    stage: Stage,
) -> None:
    pages = stage.follow(LogPosition(at_end=True), until_exit=True)
    await soon(pages)
    # Its end marker could not be written.
    stage.store.append_started("web", "life-1", "run-1")
    stage.logs.grew("web")
    async with asyncio.timeout(PATIENCE):
        rest = [followed async for followed in pages]
    assert [texts(followed.page.records) for followed in rest] == [["RunStarted"], []]


async def test_a_stream_bound_to_a_run_whose_end_was_trimmed_ends(stage: Stage) -> None:
    stage.start("run-1")
    pages = stage.follow(LogPosition(), until_exit=True)
    await soon(pages)
    stage.end("run-1")
    stage.say("of another run")
    stage.store.trim("web", "life-1", 2)
    rest = [record async for followed in pages for record in followed.page.records]
    assert texts(tuple(rest)) == ["LogGap", "of another run"]


@pytest.mark.parametrize("recreated", [False, True])
async def test_followers_of_a_deleted_project_are_told(stage: Stage, recreated: bool) -> None:
    pages = stage.follow(LogPosition())
    await soon(pages)
    waiting = asyncio.ensure_future(anext(pages))
    await asyncio.sleep(0)
    if recreated:
        stage.projects["web"] = replace(WEB, log_id="life-2")
    else:
        del stage.projects["web"]
    stage.logs.grew("web")
    with pytest.raises(AttError) as ended:
        await waiting
    assert ended.value.reason is Reason.PROJECT_NOT_FOUND


async def test_many_followers_get_the_same_page(stage: Stage) -> None:
    stage.say("a")
    followers = [stage.follow(LogPosition()) for _ in range(20)]
    pages = [await soon(follower) for follower in followers]
    assert {texts(followed.page.records)[0] for followed in pages} == {"a"}
    stage.say("b")
    later = [await soon(follower) for follower in followers]
    assert {texts(followed.page.records)[0] for followed in later} == {"b"}


async def test_the_last_lines_are_text_and_of_that_run(stage: Stage) -> None:
    stage.store.append_lines("web", "life-1", b"earlier", run_id="run-1")
    stage.store.append_lines("web", "life-1", b"fine", b"\xff\xfe", run_id="run-2")
    assert await stage.logs.last_lines("web", "run-2", 5) == ["fine", "\ufffd\ufffd"]
    assert await stage.logs.last_lines("web", "run-3", 5) == []


# Filters --------------------------------------------------------------------

ERRORS = LogFilter(min_severity=Severity.ERROR)


async def read_selected(stage: Stage, selected: LogFilter, position: LogPosition) -> LogRead:
    return await stage.logs.read("web", position, limit=1000, max_bytes=1 << 20, selected=selected)


async def test_the_cursor_moves_past_what_is_not_selected(stage: Stage) -> None:
    stage.say("one", "two", "three")
    read = await read_selected(stage, LogFilter(pattern="w"), LogPosition())
    assert texts(read.page.records) == ["two"]
    assert (read.page.cursor, read.has_more) == (3, False)


async def test_a_page_that_begins_in_a_traceback_has_all_of_it(stage: Stage) -> None:
    stage.say("ERROR: no", "Traceback", "ValueError: x", "INFO: on", "on")
    for cursor, found in ((0, 3), (1, 2), (2, 1), (3, 0)):
        read = await read_selected(stage, ERRORS, LogPosition(cursor=cursor))
        assert len(texts(read.page.records)) == found


async def test_the_tail_counts_lines_that_are_selected(stage: Stage) -> None:
    for number in range(1500):
        stage.say(f"INFO: {number}", *(["ERROR: no", "more"] if number % 500 == 0 else []))

    async def tail(lines: int, selected: LogFilter = ERRORS) -> list[str]:
        read = await read_selected(stage, selected, LogPosition(tail=lines))
        return texts(read.page.records)

    assert await tail(0) == []
    assert await tail(3) == ["more", "ERROR: no", "more"]
    assert await tail(100) == ["ERROR: no", "more"] * 3
    assert await tail(2, LogFilter(pattern=r"\b(7|8|1499)$")) == ["INFO: 8", "INFO: 1499"]


async def test_a_range_of_times_is_read_without_what_lies_around_it(stage: Stage) -> None:
    for number in range(10):
        stage.store.append_lines(
            "web", "life-1", b"%d" % number, time=AGO + timedelta(seconds=number)
        )
    between = LogFilter(start_time=AGO + timedelta(seconds=3), end_time=AGO + timedelta(seconds=6))
    read = await read_selected(stage, between, LogPosition())
    assert texts(read.page.records) == ["3", "4", "5"]
    assert (read.page.cursor, read.has_more) == (10, False)


async def test_a_filter_does_not_hide_what_was_removed(stage: Stage) -> None:
    stage.say("a")
    stage.say("b")
    stage.store.trim("web", "life-1", 1)
    read = await read_selected(stage, LogFilter(pattern="b"), LogPosition(cursor=0))
    assert texts(read.page.records) == ["LogGap", "b"]
    assert (read.truncated, read.skipped) == (True, 1)


def follow_selected(
    stage: Stage, selected: LogFilter, *, until_exit: bool = False, progress: timedelta = HOUR
) -> AsyncIterator[Followed]:
    return stage.logs.follow(
        "web",
        LogPosition(),
        until_exit=until_exit,
        progress_interval=progress,
        selected=selected,
    )


async def test_a_follower_gets_what_is_selected_as_it_comes(stage: Stage) -> None:
    pages = follow_selected(stage, ERRORS)
    assert texts((await soon(pages)).page.records) == []
    stage.say("ERROR: one")
    assert texts((await soon(pages)).page.records) == ["ERROR: one"]
    waiting = asyncio.ensure_future(soon(pages))
    stage.say("more")
    assert texts((await waiting).page.records) == ["more"]
    waiting = asyncio.ensure_future(soon(pages))
    for number in range(100):
        stage.say(f"INFO: {number}")
        await asyncio.sleep(0)
    stage.say("ERROR: two")
    page = (await waiting).page
    assert texts(page.records) == ["ERROR: two"]
    assert page.cursor == 103


async def test_a_follower_of_what_never_comes_is_told_how_far_it_got(stage: Stage) -> None:
    pages = follow_selected(stage, LogFilter(pattern="never"), progress=timedelta(seconds=0.05))
    assert (await soon(pages)).page.cursor == 0
    stage.say("one", "two")
    while (page := (await soon(pages)).page).cursor < 2:
        pass
    assert page.records == ()


async def test_a_follower_of_what_never_came_is_told_once_that_it_came_to_the_end(
    stage: Stage,
) -> None:
    lines = 300
    for _ in range(lines):
        stage.say("x" * 60_000)
    pages = follow_selected(stage, LogFilter(pattern="never"))
    assert 0 < (await soon(pages)).page.cursor < lines
    assert (await soon(pages)).page.cursor == lines
    waiting = asyncio.ensure_future(soon(pages))
    stage.say("also passed over")
    await asyncio.sleep(0)
    stage.say("never say never")
    assert texts((await waiting).page.records) == ["never say never"]


async def test_the_end_of_a_run_ends_a_stream_that_does_not_select_it(stage: Stage) -> None:
    stage.start("one")
    pages = follow_selected(stage, LogFilter(run_id="other"), until_exit=True)
    assert (await soon(pages)).bound_run_id == "one"
    stage.say("x")
    stage.end("one")
    assert [followed.page.cursor async for followed in pages] == [3]


async def test_a_stream_ends_where_nothing_later_is_selected(stage: Stage) -> None:
    stage.store.append_lines("web", "life-1", b"a", time=AGO)
    pages = follow_selected(stage, LogFilter(end_time=AGO + timedelta(seconds=5)))
    assert texts((await soon(pages)).page.records) == ["a"]
    stage.store.append_lines("web", "life-1", b"b", time=AGO + timedelta(seconds=5))
    stage.logs.grew("web")
    async with asyncio.timeout(PATIENCE):
        assert [texts(followed.page.records) async for followed in pages] == [[]]
