"""How parts of logs are removed, on the store in memory and on segments."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from att_server.adapters.segment_index import INDEX_SUFFIX
from att_server.core.log_selection import LineSelection, LogFilter
from att_server.core.model import GapReason, LogChunk, LogGap
from tests.contract.log_fillings import LOG, PROJECT, START, Filling, MemoryFilling, SegmentFilling


@pytest.fixture(params=["memory", "segments"])
def filling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filling]:
    made = MemoryFilling() if request.param == "memory" else SegmentFilling(tmp_path)
    yield made
    made.close()
    asyncio.run(made.store.aclose())


def fill(filling: Filling, *, lines: int = 200) -> None:
    for number in range(lines):
        filling.time += timedelta(seconds=1)
        filling.lines(b"%d " % number + b"x" * 40)


async def remove(filling: Filling, before: int, reason: GapReason) -> int:
    # Who writes has made the disk keep what is complete.
    filling.close()
    left = await filling.store.remove(PROJECT, LOG, before=before, reason=reason)
    return left.start


async def gaps_from(filling: Filling, cursor: int) -> list[tuple[int, int, GapReason]]:
    page = await filling.store.read(PROJECT, LOG, cursor=cursor, max_bytes=100)
    gaps = [record for record in page.records if isinstance(record, LogGap)]
    return [(gap.first_sequence, gap.count, gap.reason) for gap in gaps]


async def test_the_parts_of_a_log_follow_each_other(filling: Filling) -> None:
    fill(filling)
    filling.close()
    parts = await filling.store.segments(PROJECT, LOG)
    assert len(parts) > 3
    assert (parts[0].first_sequence, parts[-1].next_sequence) == (0, 200)
    assert all(a.next_sequence == b.first_sequence for a, b in pairwise(parts))
    assert [part.removable for part in parts] == [True] * (len(parts) - 1) + [False]
    assert all(part.size_bytes > 0 for part in parts)
    for part in parts:
        assert part.first_time == START + timedelta(seconds=part.first_sequence + 1)


async def test_whole_parts_go_from_the_front(filling: Filling) -> None:
    fill(filling)
    start = await remove(filling, 100, GapReason.RETENTION)
    assert 0 < start <= 100
    assert (await filling.store.bounds(PROJECT, LOG)).start == start
    assert (await filling.store.segments(PROJECT, LOG))[0].first_sequence == start
    assert await gaps_from(filling, 7) == [(7, start - 7, GapReason.RETENTION)]
    assert await gaps_from(filling, start) == []
    assert await remove(filling, 100, GapReason.RETENTION) == start


async def test_what_is_being_written_is_kept(filling: Filling) -> None:
    fill(filling)
    start = await remove(filling, 200, GapReason.TRIMMED)
    assert start < 200
    fill(filling, lines=1)
    page = await filling.store.read(PROJECT, LOG, cursor=200, max_bytes=1000)
    assert [record.first_sequence for record in page.records] == [200]


async def test_a_gap_says_of_each_number_why_it_is_missing(filling: Filling) -> None:
    fill(filling, lines=600)
    ends = []
    for before, reason in (
        (100, GapReason.RETENTION),
        (200, GapReason.TRIMMED),
        (300, GapReason.TRIMMED),
        (400, GapReason.RETENTION),
        (500, GapReason.TRIMMED),
    ):
        ends.append(await remove(filling, before, reason))
    assert await gaps_from(filling, 1) == [
        (1, ends[0] - 1, GapReason.RETENTION),
        (ends[0], ends[2] - ends[0], GapReason.TRIMMED),
        (ends[2], ends[3] - ends[2], GapReason.RETENTION),
        (ends[3], ends[4] - ends[3], GapReason.TRIMMED),
    ]
    await filling.store.read(PROJECT, LOG, cursor=ends[2] - 1, max_bytes=100)
    assert (await gaps_from(filling, ends[2] - 1))[0] == (ends[2] - 1, 1, GapReason.TRIMMED)


async def test_a_reader_that_is_passed_goes_on_behind_the_gap(filling: Filling) -> None:
    fill(filling)
    page = await filling.store.read(PROJECT, LOG, cursor=0, max_bytes=100)
    start = await remove(filling, 150, GapReason.TRIMMED)
    selection = LineSelection(LogFilter(pattern="^1"))
    selected = await filling.store.select(
        PROJECT,
        LOG,
        selection,
        cursor=page.cursor,
        max_lines=1000,
        max_bytes=1 << 20,
        scan_bytes=1 << 20,
    )
    first, *others = selected.records
    assert isinstance(first, LogGap)
    assert (first.first_sequence, first.next_sequence) == (page.cursor, start)
    assert sum(other.line_count for other in others if isinstance(other, LogChunk)) == 200 - start


async def test_info_adds_up_what_is_kept(filling: Filling) -> None:
    empty = await filling.store.info(PROJECT, LOG, since=START)
    assert (empty.size_bytes, empty.segment_count, empty.first_time) == (0, 0, None)
    fill(filling)
    start = await remove(filling, 100, GapReason.RETENTION)

    info = await filling.store.info(PROJECT, LOG, since=START + timedelta(seconds=191))

    assert (info.bounds.start, info.bounds.end) == (start, 200)
    parts = await filling.store.segments(PROJECT, LOG)
    assert info.segment_count == len(parts)
    assert info.size_bytes == sum(part.size_bytes for part in parts)
    assert info.first_time == START + timedelta(seconds=start + 1)
    assert info.last_time == START + timedelta(seconds=200)
    assert info.recent_records == 10
    assert 400 < info.recent_bytes < 2000


# Indexes --------------------------------------------------------------------


async def tended(filling: SegmentFilling) -> list[Path]:
    """Has all indexes made, and returns their files."""
    while await filling.store.tend(PROJECT, LOG):
        pass
    return sorted(filling.directory.glob("*" + INDEX_SUFFIX))


@pytest.fixture
def segments(tmp_path: Path) -> Iterator[SegmentFilling]:
    made = SegmentFilling(tmp_path)
    yield made
    made.close()
    asyncio.run(made.store.aclose())


async def test_every_complete_segment_gets_an_index_that_goes_with_it(
    segments: SegmentFilling,
) -> None:
    fill(segments)
    files = await tended(segments)
    assert len(files) == len(list(segments.directory.glob("*.seg"))) - 1
    start = await remove(segments, 100, GapReason.RETENTION)
    left = sorted(segments.directory.glob("*" + INDEX_SUFFIX))
    assert [int(file.stem) >= start for file in left] == [True] * len(left)
    assert await segments.store.seek_time(PROJECT, LOG, START + timedelta(seconds=180)) == 179
    assert await segments.store.seek_tail(PROJECT, LOG, 60) == 140


@pytest.mark.parametrize("content", [b"", b"\0" * 100, None], ids=["empty", "zeros", "flipped"])
async def test_a_damaged_index_is_made_again(
    segments: SegmentFilling, content: bytes | None
) -> None:
    fill(segments)
    files = await tended(segments)
    kept = files[1].read_bytes()
    await segments.store.aclose()
    files[1].write_bytes(kept[:-1] + b"\xff" if content is None else content)
    again = SegmentFilling(segments.directory.parents[2])
    assert await again.store.seek_time(PROJECT, LOG, START + timedelta(seconds=60)) == 59
    await tended(again)
    assert files[1].read_bytes() == kept
    await again.store.aclose()


async def test_a_damaged_segment_has_no_index_and_is_read_all_the_same(
    segments: SegmentFilling,
) -> None:
    fill(segments)
    segments.close()
    damaged = sorted(segments.directory.glob("*.seg"))[1]
    with damaged.open("r+b") as file:
        file.seek(300)
        file.write(b"\xff" * 4)
    files = await tended(segments)
    assert damaged.with_suffix(INDEX_SUFFIX) not in files
    assert await segments.store.tend(PROJECT, LOG) is False
    assert await segments.store.seek_time(PROJECT, LOG, START + timedelta(seconds=180)) == 179
