"""What every log store does, on the one in memory and on segments."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from att_server.core.model import LogChunk, LogStream, RunEnded, RunStarted
from tests.contract.log_fillings import (
    LOG,
    PROJECT,
    RUN,
    START,
    Filling,
    Lines,
    MemoryFilling,
    SegmentFilling,
    lines_of,
    read_all,
)


@pytest.fixture(params=["memory", "segments"])
def filling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filling]:
    made = MemoryFilling() if request.param == "memory" else SegmentFilling(tmp_path)
    yield made
    made.close()
    asyncio.run(made.store.aclose())


async def test_a_log_that_was_never_written_is_empty(filling: Filling) -> None:
    bounds = await filling.store.bounds(PROJECT, LOG)
    page = await filling.store.read(PROJECT, LOG, cursor=0, max_bytes=100)

    assert (bounds.log_id, bounds.start, bounds.end) == (LOG, 0, 0)
    assert (page.records, page.cursor) == ((), 0)
    assert await filling.store.seek_tail(PROJECT, LOG, 10) == 0
    assert await filling.store.seek_time(PROJECT, LOG, START) == 0


async def test_what_is_written_after_the_first_look_is_found(filling: Filling) -> None:
    await filling.store.bounds(PROJECT, LOG)
    filling.lines(b"one")
    assert lines_of(await read_all(filling.store)) == {0: (b"one", LogStream.STDOUT, RUN)}
    filling.lines(b"two")
    assert lines_of(await read_all(filling.store, 1)) == {1: (b"two", LogStream.STDOUT, RUN)}
    assert (await filling.store.bounds(PROJECT, LOG)).end == 2


async def test_records_keep_everything_that_was_appended(filling: Filling) -> None:
    filling.started()
    filling.lines(b"a", b"\xff\x00", b"", stream=LogStream.STDERR, partial=True)
    filling.time += timedelta(seconds=2)
    filling.lines(b"end", unterminated=True)
    filling.ended()

    records = [record for page in await read_all(filling.store) for record in page.records]

    started, first, second, ended = records
    assert isinstance(started, RunStarted)
    assert (started.sequence, started.time, started.run_id) == (0, START, RUN)
    assert (started.command, started.pid, started.release_id) == (("python", "app.py"), 7, "")
    assert isinstance(first, LogChunk)
    assert (first.first_sequence, first.line_count, first.lines) == (1, 3, b"a\n\xff\x00\n\n")
    assert (first.stream, first.time, first.run_id) == (LogStream.STDERR, START, RUN)
    assert (first.partial, first.unterminated) == (True, False)
    assert isinstance(second, LogChunk)
    assert (second.partial, second.unterminated) == (False, True)
    assert second.time == START + timedelta(seconds=2)
    assert isinstance(ended, RunEnded)
    assert (ended.sequence, ended.run_id, ended.exit.exit_code) == (5, RUN, 3)
    assert (ended.exit.time, ended.exit.duration) == (second.time, timedelta(seconds=1.5))


async def test_a_page_holds_at_least_one_record_and_whole_chunks(filling: Filling) -> None:
    for _ in range(4):
        filling.lines(b"x" * 39, b"y" * 39)

    assert len((await filling.store.read(PROJECT, LOG, cursor=0, max_bytes=1)).records) == 1
    page = await filling.store.read(PROJECT, LOG, cursor=1, max_bytes=200)
    assert page.records[0].next_sequence == 2
    assert all(r.next_sequence % 2 == 0 for r in page.records)


async def test_a_cursor_beyond_the_end_is_an_error(filling: Filling) -> None:
    filling.lines(b"one")
    with pytest.raises(ValueError, match="cursor"):
        await filling.store.read(PROJECT, LOG, cursor=2, max_bytes=100)


async def test_the_page_at_the_end_is_empty(filling: Filling) -> None:
    filling.lines(b"one")
    page = await filling.store.read(PROJECT, LOG, cursor=1, max_bytes=100)
    assert (page.records, page.cursor, page.bounds.end) == ((), 1, 1)


async def test_a_page_says_the_end_as_of_now(filling: Filling) -> None:
    filling.lines(b"one")
    assert (await filling.store.read(PROJECT, LOG, cursor=0, max_bytes=100)).bounds.end == 1
    filling.lines(b"two")
    page = await filling.store.read(PROJECT, LOG, cursor=0, max_bytes=100)
    assert page.bounds.end == 2


async def test_the_tail_counts_lines_only(filling: Filling) -> None:
    filling.lines(b"0", b"1", b"2")
    filling.ended()
    filling.started()
    filling.lines(b"5", b"6")
    filling.ended()

    tails = [await filling.store.seek_tail(PROJECT, LOG, count) for count in range(8)]

    assert tails == [8, 6, 5, 2, 1, 0, 0, 0]


async def test_a_time_is_found_to_the_microsecond(filling: Filling) -> None:
    filling.lines(b"0", b"1")
    filling.time += timedelta(microseconds=1)
    filling.started()
    filling.lines(b"3")
    filling.time += timedelta(seconds=1)
    filling.lines(b"4")

    async def seek(**after: float) -> int:
        return await filling.store.seek_time(PROJECT, LOG, START + timedelta(**after))

    assert await seek(days=-1) == 0
    assert await seek() == 0
    assert await seek(microseconds=1) == 2
    assert await seek(microseconds=2) == 4
    assert await seek(seconds=1, microseconds=1) == 4
    assert await seek(seconds=1, microseconds=2) == 5


async def test_times_never_go_back(filling: Filling) -> None:
    filling.lines(b"0")
    filling.time -= timedelta(hours=1)
    filling.lines(b"1")
    records = [record for page in await read_all(filling.store) for record in page.records]
    assert [r.time for r in records if isinstance(r, LogChunk)] == [START, START]


async def test_a_deleted_log_is_empty_and_can_begin_anew(filling: Filling) -> None:
    filling.lines(b"old", b"older")
    await read_all(filling.store)
    filling.close()
    await filling.store.delete(PROJECT)
    await filling.store.delete(PROJECT)

    bounds = await filling.store.bounds(PROJECT, LOG)
    assert (bounds.start, bounds.end) == (0, 0)
    filling.lines(b"new")
    assert lines_of(await read_all(filling.store)) == {0: (b"new", LogStream.STDOUT, RUN)}


async def test_another_log_id_does_not_show_the_old_log(filling: Filling) -> None:
    filling.lines(b"old")
    await filling.store.bounds(PROJECT, LOG)
    bounds = await filling.store.bounds(PROJECT, "01JNEW00000000000000000000")
    assert (bounds.log_id, bounds.start, bounds.end) == ("01JNEW00000000000000000000", 0, 0)


# Random logs ----------------------------------------------------------------

line_text = st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"."))
appends = st.lists(
    st.tuples(
        st.sampled_from(["lines", "lines", "lines", "started", "ended"]),
        st.lists(line_text, min_size=1, max_size=6),
        st.sampled_from(list(LogStream)),
        st.integers(min_value=0, max_value=3),
    ),
    max_size=25,
)


@contextmanager
def made(kind: str, segment_bytes: int) -> Iterator[Filling]:
    with tempfile.TemporaryDirectory() as name:
        filling: Filling = (
            MemoryFilling() if kind == "memory" else SegmentFilling(Path(name), segment_bytes)
        )
        try:
            yield filling
        finally:
            filling.close()
            asyncio.run(filling.store.aclose())


@pytest.mark.parametrize("kind", ["memory", "segments"])
@settings(max_examples=60)
@given(
    log=appends,
    max_bytes=st.sampled_from([1, 40, 300, 100_000]),
    segment_bytes=st.sampled_from([100, 500, 1 << 20]),
    looks=st.sets(st.integers(min_value=0, max_value=24)),
)
def test_random_logs_read_back_exactly_from_everywhere(
    kind: str,
    log: list[tuple[str, list[bytes], LogStream, int]],
    max_bytes: int,
    segment_bytes: int,
    looks: set[int],
) -> None:
    with made(kind, segment_bytes) as filling:
        asyncio.run(check_random(filling, log, max_bytes, looks))


async def check_random(
    filling: Filling,
    log: list[tuple[str, list[bytes], LogStream, int]],
    max_bytes: int,
    looks: set[int],
) -> None:
    expected: Lines = {}
    times: list[datetime] = []
    for index, (kind, lines, stream, pause) in enumerate(log):
        filling.time += timedelta(seconds=pause)
        first = len(times)
        if kind == "lines":
            filling.lines(*lines, stream=stream)
            expected.update({first + i: (line, stream, RUN) for i, line in enumerate(lines)})
            times += [filling.time] * len(lines)
        else:
            filling.started() if kind == "started" else filling.ended()
            times.append(filling.time)
        if index in looks:
            seen = await read_all(filling.store, max(0, first - 3), max_bytes)
            assert seen[-1].cursor == len(times)
    end = len(times)
    bounds = await filling.store.bounds(PROJECT, LOG)
    assert (bounds.start, bounds.end) == (0, end)
    for cursor in range(end + 1):
        pages = await read_all(filling.store, cursor, max_bytes)
        found = lines_of(pages)
        assert found == {s: line for s, line in expected.items() if s >= cursor}
    numbers = sorted(expected)
    for count in {0, 1, 2, 7, len(numbers), len(numbers) + 1}:
        cursor = await filling.store.seek_tail(PROJECT, LOG, count)
        tail = [s for s in numbers if s >= cursor]
        assert tail == (numbers[-count:] if count else [])
    for moment in {START + timedelta(seconds=s) for s in range(0, 40, 3)}:
        cursor = await filling.store.seek_time(PROJECT, LOG, moment)
        assert cursor == sum(time < moment for time in times)
