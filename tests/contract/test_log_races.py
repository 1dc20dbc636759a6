"""Readers of a log on segments while it is written, cut and indexed."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from att.severity import Severity
from att_server.core.log_selection import LogFilter, LogPosition
from att_server.core.logs import LogManager
from att_server.core.model import GapReason, LogChunk, LogGap, LogStream
from tests.contract.log_fillings import LOG, PROJECT, START, SegmentFilling
from tests.core.test_logs import WEB
from tests.server_process import PATIENCE

HOUR = timedelta(hours=1)
OFTEN = timedelta(milliseconds=10)


@pytest.fixture
async def segments(tmp_path: Path) -> AsyncIterator[SegmentFilling]:
    filling = SegmentFilling(tmp_path)
    yield filling
    filling.close()
    await filling.store.aclose()


@pytest.fixture
def logs(segments: SegmentFilling) -> LogManager:
    project = replace(WEB, project_id=PROJECT, log_id=LOG)
    return LogManager(
        store=segments.store, find_project=lambda _: project, current_run=lambda _: ""
    )


async def test_a_follow_knows_the_end_as_of_its_beginning_whatever_others_read_before(
    segments: SegmentFilling, logs: LogManager
) -> None:
    for number in range(20):
        segments.lines(b"%d" % number, b"x" * 99)
    beginning = LogPosition()
    for seen in range(3):
        follow = logs.follow(PROJECT, beginning, progress_interval=HOUR, max_bytes=1000)
        async with aclosing(follow) as pages:
            assert (await anext(pages)).page.bounds.end == 40 + seen
        read = await logs.read(PROJECT, beginning, limit=1, max_bytes=1000)
        assert read.page.bounds.end == 40 + seen
        segments.lines(b"one more")
        logs.grew(PROJECT)
        assert await logs.end_cursor(PROJECT) == 41 + seen


@pytest.fixture(params=["warm", "cold"])
def pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether what is read is in memory, or has to be waited for."""
    preadv = os.preadv

    def refuse(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise OSError(errno.EAGAIN, "not now")
        return preadv(fd, buffers, offset, flags)

    if request.param == "cold":
        monkeypatch.setattr(os, "preadv", refuse)


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("selected", [LogFilter(), LogFilter(pattern="x")])
async def test_readers_go_on_while_many_segments_are_removed_under_them(
    segments: SegmentFilling, logs: LogManager, selected: LogFilter
) -> None:
    for number in range(600):
        segments.lines(b"%d" % number + b"x" * 500)
    segments.close()
    end = await logs.end_cursor(PROJECT)

    async def read_all() -> None:
        cursor = 0
        while cursor < end:
            read = await logs.read(
                PROJECT, LogPosition(cursor=cursor), limit=3, max_bytes=2000, selected=selected
            )
            for record in read.page.records:
                assert record.first_sequence == cursor
                assert isinstance(record, LogChunk | LogGap)
                cursor = record.next_sequence
            assert read.page.cursor == cursor
            await asyncio.sleep(0)

    removing = True

    async def read_on() -> None:
        while removing:
            await read_all()

    readers = [asyncio.ensure_future(read_on()) for _ in range(3)]
    for before in range(50, end, 50):
        await segments.store.remove(PROJECT, LOG, before=before, reason=GapReason.TRIMMED)
        await asyncio.sleep(0)
    removing = False
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*readers)
    # A file that is still open takes its room on the disk.
    opened = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert not [name for name in opened if ".seg (deleted)" in name]


class Writer:
    """Fills a log by chance, and remembers each line by its number, with its stream and time."""

    def __init__(self, filling: SegmentFilling, chance: random.Random) -> None:
        self.filling = filling
        self.chance = chance
        self.lines: dict[int, tuple[bytes, LogStream, datetime]] = {}
        self.end = 0
        self._shown = START

    def write(self) -> None:
        """Some lines, a marker, or nothing but another writer that goes on."""
        # The clock may be set back: a log's time stands still then.
        self.filling.time += timedelta(seconds=self.chance.choice((-30, 0, 1, 1, 2)))
        self._shown = max(self._shown, self.filling.time)
        kind = self.chance.random()
        if kind < 0.05:
            self.filling.close()
        elif kind < 0.1:
            self.chance.choice((self.filling.started, self.filling.ended))()
            self.end += 1
        else:
            stream = self.chance.choice((LogStream.STDOUT, LogStream.STDERR))
            words = (b"INFO:a:%d", b"ERROR:a:%d", b"ERROR:b:%d " + b"x" * 300)
            count = self.chance.choice((1, 1, 2, 9))
            lines = [self.chance.choice(words) % (self.end + n) for n in range(count)]
            self.filling.lines(*lines, stream=stream)
            for line in lines:
                self.lines[self.end] = (line, stream, self._shown)
                self.end += 1


SELECTIONS: dict[str, tuple[LogFilter, Callable[[bytes, LogStream, datetime], bool]]] = {
    "all": (LogFilter(), lambda line, stream, time: True),
    "again": (LogFilter(), lambda line, stream, time: True),
    "pattern": (LogFilter(pattern="b:[0-9]*7 "), lambda line, s, t: b"7 " in line),
    "severity": (LogFilter(min_severity=Severity.ERROR), lambda line, s, t: b"ERROR" in line),
    "stream": (
        LogFilter(streams=frozenset({LogStream.STDERR})),
        lambda line, stream, time: stream is LogStream.STDERR,
    ),
    "time": (
        LogFilter(start_time=START + timedelta(seconds=20)),
        lambda line, stream, time: time >= START + timedelta(seconds=20),
    ),
    "nothing": (LogFilter(pattern="never"), lambda line, stream, time: False),
}


@pytest.mark.parametrize("seed", range(4))
async def test_followers_agree_with_the_writer_whatever_happens_to_the_log(
    segments: SegmentFilling, logs: LogManager, seed: int
) -> None:
    chance = random.Random(seed)
    writer = Writer(segments, chance)
    is_over = False

    async def follow(name: str, cursor: int) -> tuple[str, int, dict[int, bytes], set[int]]:
        selected, _ = SELECTIONS[name]
        got: dict[int, bytes] = {}
        missing: set[int] = set()
        at = cursor
        place = LogPosition(cursor=cursor)
        followed = logs.follow(
            PROJECT, place, progress_interval=OFTEN, max_bytes=1000, selected=selected
        )
        async with aclosing(followed) as pages:
            async for item in pages:
                for record in item.page.records:
                    assert record.first_sequence >= at
                    assert selected != LogFilter() or record.first_sequence == at
                    at = record.next_sequence
                    if isinstance(record, LogGap):
                        missing |= set(range(record.first_sequence, at))
                        assert at <= item.page.bounds.start
                    elif isinstance(record, LogChunk):
                        places = record.offsets or range(record.line_count)
                        numbers = [record.first_sequence + place for place in places]
                        lines = record.lines.split(b"\n")[:-1]
                        got |= dict(zip(numbers, lines, strict=True))
                assert item.page.cursor >= at
                at = item.page.cursor
                if is_over and at == writer.end:
                    return name, cursor, got, missing
                for _ in range(chance.choice((0, 1, 20))):
                    await asyncio.sleep(0)
        raise AssertionError("a follow does not end by itself")

    followers: list[asyncio.Task[tuple[str, int, dict[int, bytes], set[int]]]] = []
    for step in range(400):
        writer.write()
        logs.grew(PROJECT)
        if step % 20 == 0:
            name = chance.choice(list(SELECTIONS))
            cursor = chance.choice((0, writer.end, chance.randint(0, writer.end)))
            followers.append(asyncio.ensure_future(follow(name, cursor)))
        if step % 50 == 49:
            before = chance.randint(0, writer.end)
            reason = chance.choice((GapReason.TRIMMED, GapReason.RETENTION))
            await segments.store.remove(PROJECT, LOG, before=before, reason=reason)
            await segments.store.tend(PROJECT, LOG)
        for _ in range(chance.choice((0, 1, 5))):
            await asyncio.sleep(0)
    is_over = True
    segments.lines(b"INFO:the last")
    writer.lines[writer.end] = (b"INFO:the last", LogStream.STDOUT, writer.filling.time)
    writer.end += 1
    logs.grew(PROJECT)
    async with asyncio.timeout(PATIENCE):
        ended = await asyncio.gather(*followers)
    for name, cursor, got, missing in ended:
        wanted = SELECTIONS[name][1]
        for number, (line, stream, time) in writer.lines.items():
            if number >= cursor and number not in missing and wanted(line, stream, time):
                assert got.pop(number) == line
        assert not got, name
    assert any(missing for _, _, _, missing in ended)
