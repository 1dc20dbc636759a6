"""What every log store selects, on the one in memory and on segments."""

import asyncio
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import re2

from att.severity import Severity, severity_of
from att_server.core.log_selection import LineSelection, LogFilter
from att_server.core.model import LogChunk, LogGap, LogRecord, LogStream
from tests.contract.log_fillings import (
    LOG,
    PROJECT,
    RUN,
    START,
    Filling,
    MemoryFilling,
    SegmentFilling,
)

SEGMENT_BYTES = 300_000
TEXTS = (b"INFO: all is well", b"ERROR: timeout", b"Traceback", b"WARNING: refused", b"", b"\xff\0")

Found = dict[int, bytes]


@pytest.fixture(params=["memory", "segments"])
def filling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filling]:
    made = MemoryFilling() if request.param == "memory" else SegmentFilling(tmp_path, SEGMENT_BYTES)
    yield made
    made.close()
    asyncio.run(made.store.aclose())


class Written:
    """A log of 1 MB with lines of many kinds, long stretches of them alike."""

    def __init__(self, filling: Filling, *, seed: int = 1) -> None:
        self.lines: dict[int, tuple[bytes, LogStream, timedelta]] = {}
        rng = random.Random(seed)
        sequence = 0
        filling.started()
        sequence += 1
        for number in range(600):
            filling.time += timedelta(milliseconds=10)
            stream = rng.choice(list(LogStream))
            dull = number % 200 > 20
            count = rng.choice([1, 5, 100])
            lines = [
                (b"INFO: dull " + b"x" * 70 if dull else rng.choice(TEXTS)) + b" %d" % n
                for n in range(count)
            ]
            filling.lines(*lines, stream=stream)
            for line in lines:
                self.lines[sequence] = (line, stream, filling.time - START)
                sequence += 1
        filling.ended()
        self.end = sequence + 1

    def selected(self, selected: LogFilter) -> Found:
        """What a look at each line for itself selects."""
        found: Found = {}
        pattern = re2.compile(selected.pattern.encode())
        high = dict.fromkeys(LogStream, Severity.UNSPECIFIED)
        for sequence, (line, stream, age) in self.lines.items():
            high[stream] = severity_of(line.decode(errors="replace")) or high[stream]
            if (
                (not selected.streams or stream in selected.streams)
                and selected.run_id in ("", RUN)
                and high[stream] >= selected.min_severity
                and pattern.search(line)
                and (selected.start_time is None or START + age >= selected.start_time)
                and (selected.end_time is None or START + age < selected.end_time)
            ):
                found[sequence] = line
        return found


async def select_all(
    filling: Filling,
    selected: LogFilter,
    *,
    max_lines: int = 10_000,
    max_bytes: int = 1 << 20,
    scan_bytes: int = 64 << 20,
) -> tuple[list[LogRecord], int]:
    """All records of all pages, and the number of pages."""
    selection, cursor, pages = LineSelection(selected), 0, 0
    records: list[LogRecord] = []
    while True:
        if selection.inherits and selection.cursor != cursor:
            before = await filling.store.read(PROJECT, LOG, cursor=0, max_bytes=4 << 20)
            part = list(before.records)
            while part and part[-1].first_sequence >= cursor:
                part.pop()
            if part and isinstance(part[-1], LogChunk) and part[-1].next_sequence > cursor:
                part[-1] = part[-1].slice(part[-1].first_sequence, cursor)
            selection.look_back(part, cursor)
        page = await filling.store.select(
            PROJECT,
            LOG,
            selection,
            cursor=cursor,
            max_lines=max_lines,
            max_bytes=max_bytes,
            scan_bytes=scan_bytes,
        )
        pages += 1
        records += page.records
        if page.cursor == page.bounds.end or selection.past:
            return records, pages
        assert page.cursor > cursor
        cursor = page.cursor


def lines_of(records: list[LogRecord]) -> Found:
    found: Found = {}
    for record in records:
        if isinstance(record, LogChunk):
            offsets = record.offsets or range(record.line_count)
            lines = record.lines.split(b"\n")[:-1]
            for offset, line in zip(offsets, lines, strict=True):
                found[record.first_sequence + offset] = line
    return found


FILTERS = [
    LogFilter(pattern="timeout|refused"),
    LogFilter(pattern="^Trace"),
    LogFilter(pattern=r"\Adull|x 7\z"),
    LogFilter(pattern="nowhere to be found"),
    LogFilter(streams=frozenset([LogStream.STDERR])),
    LogFilter(min_severity=Severity.ERROR),
    LogFilter(min_severity=Severity.WARNING, pattern="r", streams=frozenset([LogStream.STDOUT])),
    LogFilter(run_id=RUN, pattern="refused"),
    LogFilter(run_id="01JNEVER000000000000000000"),
    LogFilter(start_time=START + timedelta(seconds=3), pattern="timeout"),
    LogFilter(end_time=START + timedelta(seconds=3), pattern="timeout"),
]


@pytest.mark.parametrize("indexed", [False, True], ids=["plain", "indexed"])
@pytest.mark.parametrize("selected", FILTERS, ids=range(len(FILTERS)))
async def test_a_filter_selects_what_it_selects_line_by_line(
    filling: Filling, selected: LogFilter, indexed: bool
) -> None:
    written = Written(filling)
    wanted = written.selected(selected)
    while indexed and await filling.store.tend(PROJECT, LOG):
        pass
    assert lines_of((await select_all(filling, selected))[0]) == wanted
    few = await select_all(filling, selected, max_lines=700, max_bytes=30_000, scan_bytes=40_000)
    assert lines_of(few[0]) == wanted


async def test_a_page_that_finds_nothing_still_moves(filling: Filling) -> None:
    written = Written(filling)
    nothing = LogFilter(pattern="nowhere", run_id="01JNEVER000000000000000000")
    records, pages = await select_all(filling, nothing, scan_bytes=50_000)
    assert records == []
    assert pages > 2
    assert written.end > 0


async def test_markers_are_selected_by_run(filling: Filling) -> None:
    Written(filling)
    mine = (await select_all(filling, LogFilter(run_id=RUN, pattern="nowhere")))[0]
    assert [type(record).__name__ for record in mine] == ["RunStarted", "RunEnded"]
    assert (await select_all(filling, LogFilter(run_id="other")))[0] == []


@pytest.mark.parametrize("indexed", [False, True], ids=["plain", "indexed"])
async def test_a_damaged_place_is_a_gap_under_a_filter_too(tmp_path: Path, indexed: bool) -> None:
    filling = SegmentFilling(tmp_path, SEGMENT_BYTES)
    written = Written(filling)
    filling.close()
    while indexed and await filling.store.tend(PROJECT, LOG):
        pass
    for path in sorted(filling.directory.glob("*.seg"))[:3]:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"\0" * 9)

    records, _ = await select_all(filling, LogFilter(pattern="timeout"))

    gaps = [record for record in records if isinstance(record, LogGap)]
    assert len(gaps) == 3
    missing = {n for gap in gaps for n in range(gap.first_sequence, gap.next_sequence)}
    wanted = written.selected(LogFilter(pattern="timeout"))
    assert lines_of(records) == {n: line for n, line in wanted.items() if n not in missing}
    await filling.store.aclose()
