"""What every log store does, on the one in memory and on segments."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from att_server.adapters.segments import SegmentLogStore
from att_server.core.model import (
    GapReason,
    LogChunk,
    LogGap,
    LogPage,
    LogStream,
    RunEnded,
    RunStarted,
)
from att_server.core.ports import LogStore
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import (
    FLAG_PARTIAL,
    FLAG_UNTERMINATED,
    STREAM_STDERR,
    STREAM_STDOUT,
    run_to_bytes,
)
from att_server.testing.log_store import MemoryLogStore

PROJECT = "web"
LOG = "01JLOG00000000000000000000"
RUN = "01JRAN00000000000000000000"
START = datetime(2026, 1, 1, tzinfo=UTC)

# The line, its stream and its run, by sequence number.
Lines = dict[int, tuple[bytes, LogStream, str]]


class MemoryFilling:
    """Fills a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryLogStore()
        self.time = START

    def lines(
        self,
        *lines: bytes,
        stream: LogStream = LogStream.STDOUT,
        partial: bool = False,
        unterminated: bool = False,
    ) -> None:
        self.store.append_lines(
            PROJECT,
            LOG,
            *lines,
            stream=stream,
            run_id=RUN,
            time=self.time,
            partial=partial,
            unterminated=unterminated,
        )

    def started(self) -> None:
        self.store.append_started(
            PROJECT, LOG, RUN, command=["python", "app.py"], pid=7, time=self.time
        )

    def ended(self) -> None:
        self.store.append_ended(
            PROJECT, LOG, RUN, exit_code=3, duration=timedelta(seconds=1.5), time=self.time
        )

    def close(self) -> None:
        pass


class SegmentFilling:
    """Fills small segments as a supervisor does."""

    def __init__(self, state_dir: Path, segment_bytes: int = 2000) -> None:
        self.store = SegmentLogStore(state_dir, cache_bytes=8192)
        self.time = START
        self.directory = state_dir / "projects" / PROJECT / "logs"
        self._writer: LogWriter | None = None
        self._segment_bytes = segment_bytes

    @property
    def writer(self) -> LogWriter:
        if self._writer is None:
            self._writer = LogWriter.open(
                self.directory,
                log_id=LOG,
                boot_id="boot",
                clock_ns=lambda: (
                    (self.time - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000
                ),
                sync="never",
                segment_bytes=self._segment_bytes,
            )
        return self._writer

    def lines(
        self,
        *lines: bytes,
        stream: LogStream = LogStream.STDOUT,
        partial: bool = False,
        unterminated: bool = False,
    ) -> None:
        blob = b"\n".join(lines) + b"\n"
        flags = FLAG_PARTIAL * partial | FLAG_UNTERMINATED * unterminated
        number = STREAM_STDOUT if stream is LogStream.STDOUT else STREAM_STDERR
        self.writer.append_lines(number, run_to_bytes(RUN), [(blob, flags)])
        self.writer.flush()

    def started(self) -> None:
        payload = {"command": ["python", "app.py"], "pid": 7, "release_id": ""}
        self.writer.append_started(run_to_bytes(RUN), payload)
        self.writer.flush()

    def ended(self) -> None:
        self.writer.append_ended(run_to_bytes(RUN), {"exit_code": 3, "duration": 1.5})
        self.writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


Filling = MemoryFilling | SegmentFilling


@pytest.fixture(params=["memory", "segments"])
def filling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filling]:
    made = MemoryFilling() if request.param == "memory" else SegmentFilling(tmp_path)
    yield made
    made.close()
    asyncio.run(made.store.aclose())


async def read_all(store: LogStore, cursor: int = 0, max_bytes: int = 1000) -> list[LogPage]:
    """All pages from `cursor` to the end, each checked for shape."""
    pages = []
    while True:
        page = await store.read(PROJECT, LOG, cursor=cursor, max_bytes=max_bytes)
        at = cursor
        for record in page.records:
            assert record.first_sequence == at
            at = record.next_sequence
        assert at == page.cursor
        if page.records:
            pages.append(page)
        if page.cursor == page.bounds.end:
            return pages
        assert page.cursor > cursor
        cursor = page.cursor


def lines_of(pages: list[LogPage]) -> Lines:
    result: Lines = {}
    for page in pages:
        for record in page.records:
            if isinstance(record, LogChunk):
                lines = record.lines.split(b"\n")[:-1]
                assert len(lines) == record.line_count
                for index, line in enumerate(lines):
                    result[record.first_sequence + index] = (line, record.stream, record.run_id)
    return result


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
@settings(max_examples=60, deadline=None)
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


# Segments -------------------------------------------------------------------


@pytest.fixture
def segments(tmp_path: Path) -> Iterator[SegmentFilling]:
    filling = SegmentFilling(tmp_path)
    yield filling
    filling.close()
    asyncio.run(filling.store.aclose())


async def test_readers_at_one_place_share_one_page(segments: SegmentFilling) -> None:
    segments.lines(*[b"x" * 50] * 10)
    pages = [await segments.store.read(PROJECT, LOG, cursor=3, max_bytes=400) for _ in range(3)]
    assert pages[0] is pages[1] is pages[2]


async def test_a_segment_removed_from_the_front_leaves_a_gap(segments: SegmentFilling) -> None:
    for _ in range(10):
        segments.lines(*[b"x" * 99] * 10)
    await read_all(segments.store)
    (segments.directory / f"{0:020d}.seg").unlink()
    await segments.store.aclose()

    page = await segments.store.read(PROJECT, LOG, cursor=5, max_bytes=100)

    start = page.bounds.start
    gap = LogGap(first_sequence=5, count=start - 5, reason=GapReason.RETENTION)
    assert start > 5
    assert page.records[0] == gap
    assert page.records[1].first_sequence == start


@pytest.mark.parametrize("looked_before", [False, True])
async def test_damage_anywhere_is_a_gap_and_never_wrong_lines(
    tmp_path: Path, looked_before: bool
) -> None:
    segments = SegmentFilling(tmp_path, 400)
    for number in range(12):
        segments.lines(b"%d" % number, b"second")
    segments.close()
    expected = {s: (line, LogStream.STDOUT, RUN) for s, line in enumerate(range_lines())}
    path = segments.directory / f"{0:020d}.seg"
    whole = path.read_bytes()
    store = SegmentLogStore(tmp_path, cache_bytes=0)
    for offset in range(len(whole)):
        path.write_bytes(whole)
        if looked_before:
            await read_all(store)
        else:
            await store.aclose()
        broken = bytearray(whole)
        broken[offset] ^= 0xFF
        path.write_bytes(broken)
        pages = await read_all(store)
        lines = lines_of(pages)
        assert lines.items() <= expected.items()
        gaps = [r for page in pages for r in page.records if isinstance(r, LogGap)]
        missing = sum(gap.count for gap in gaps)
        assert {gap.reason for gap in gaps} <= {GapReason.DAMAGED}
        assert len(lines) + missing == 24
    await store.aclose()


def range_lines() -> Iterator[bytes]:
    for number in range(12):
        yield b"%d" % number
        yield b"second"
