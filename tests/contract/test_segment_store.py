"""What the log store on segments does beyond the contract."""

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from att_server.adapters.segments import SegmentLogStore
from att_server.core.model import GapReason, LogGap, LogStream
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, encode_frame
from tests.contract.log_fillings import LOG, PROJECT, SegmentFilling, lines_of, read_all
from tests.server_process import PATIENCE


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


@pytest.mark.parametrize("segment", ["first", "last"])
@pytest.mark.parametrize("looked_before", [False, True])
async def test_damage_anywhere_is_a_gap_of_one_frame_and_never_wrong_lines(
    tmp_path: Path, looked_before: bool, segment: str
) -> None:
    segments = SegmentFilling(tmp_path, 400)
    for number in range(12):
        segments.lines(b"%d" % number, b"second")
    segments.close()
    expected = lines_of(await read_all(segments.store))
    paths = sorted(segments.directory.glob("*.seg"))
    path = paths[0 if segment == "first" else -1]
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
        if offset >= SEGMENT_HEADER_BYTES:
            assert len(lines) + missing == 24
            assert missing == 2
    await store.aclose()


async def test_followers_beside_a_flood_get_every_line_once(tmp_path: Path) -> None:
    segments = SegmentFilling(tmp_path, 200_000)
    total = 60_000

    def flood() -> None:
        for first in range(0, total, 50):
            segments.lines(*[b"line %d" % number for number in range(first, first + 50)])
        segments.close()

    async def follow(max_bytes: int) -> list[bytes]:
        got: list[bytes] = []
        while len(got) < total:
            page = await segments.store.read(PROJECT, LOG, cursor=len(got), max_bytes=max_bytes)
            got += [line for line, _, _ in lines_of([page]).values()]
            assert page.cursor == len(got)
            await asyncio.sleep(0)
        return got

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(flood))
        followers = [tasks.create_task(follow(max_bytes)) for max_bytes in (700, 8000, 1 << 18)]
    expected = [b"line %d" % number for number in range(total)]
    assert all(follower.result() == expected for follower in followers)
    await segments.store.aclose()


@pytest.fixture(params=[errno.EAGAIN, errno.EOPNOTSUPP])
def cold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in the page cache, or the file system cannot tell."""

    def preadv(*_: object) -> int:
        raise OSError(request.param, "not now")

    monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.usefixtures("cold")
async def test_what_is_not_in_memory_is_read_all_the_same(segments: SegmentFilling) -> None:
    for number in range(20):
        segments.lines(b"%d" % number, b"x" * 100)
    assert len(lines_of(await read_all(segments.store))) == 40
    assert await segments.store.seek_tail(PROJECT, LOG, 7) == 33


@pytest.mark.usefixtures("cold")
async def test_a_cancelled_reader_does_no_harm_to_the_next(segments: SegmentFilling) -> None:
    for number in range(20):
        segments.lines(b"%d" % number)
    for _ in range(20):
        reader = asyncio.ensure_future(read_all(segments.store, 0, 10))
        await asyncio.sleep(0)
        reader.cancel()
        await segments.store.aclose()
    assert len(lines_of(await read_all(segments.store))) == 20


async def test_few_files_are_open_however_many_segments_there_are(tmp_path: Path) -> None:
    segments = SegmentFilling(tmp_path, 100)
    for number in range(300):
        segments.lines(b"%d" % number)
    segments.close()
    before = len(os.listdir("/proc/self/fd"))
    assert len(lines_of(await read_all(segments.store))) == 300
    assert len(os.listdir("/proc/self/fd")) - before <= 128
    await segments.store.aclose()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_frame_of_a_later_version_is_a_gap(segments: SegmentFilling) -> None:
    segments.lines(b"before")
    segments.close()
    path = segments.directory / f"{0:020d}.seg"
    for kind, payload, taken in ((9, b"what?", 3), (3, b"{", 1), (4, b'{"reason":"new"}', 2)):
        end = (await segments.store.bounds(PROJECT, LOG)).end
        frame = encode_frame(kind, payload, first_sequence=end, count=taken, time_ns=0)
        with path.open("ab") as file:
            file.write(frame + payload)
    pages = await read_all(segments.store)
    assert [r for page in pages for r in page.records][1:] == [
        LogGap(first_sequence=1, count=3, reason=GapReason.DAMAGED),
        LogGap(first_sequence=4, count=1, reason=GapReason.DAMAGED),
        LogGap(first_sequence=5, count=2, reason=GapReason.DAMAGED),
    ]


async def test_a_new_project_in_the_place_of_a_deleted_one_is_followed(tmp_path: Path) -> None:
    segments = SegmentFilling(tmp_path)
    segments.lines(b"old", b"old")
    await read_all(segments.store)
    segments.close()
    await segments.store.delete(PROJECT)
    other = "01JNEW00000000000000000000"
    assert (await segments.store.bounds(PROJECT, other)).end == 0
    writer = LogWriter.open(segments.directory, log_id=other, boot_id="boot")
    writer.append_lines(1, bytes(16), [(b"new\n", 0)])
    writer.close()
    page = await segments.store.read(PROJECT, other, cursor=0, max_bytes=100)
    assert lines_of([page]) == {0: (b"new", LogStream.STDOUT, "")}
    await segments.store.aclose()


async def test_a_page_tells_of_segments_that_began_while_its_reader_was_at_the_end(
    tmp_path: Path,
) -> None:
    segments = SegmentFilling(tmp_path, 400)
    segments.lines(b"0")
    page = await segments.store.read(PROJECT, LOG, cursor=0, max_bytes=8000)
    for number in range(1, 20):
        segments.lines(b"%d" % number, b"second")
    assert len(list(segments.directory.glob("*.seg"))) > 2
    pages = [await segments.store.read(PROJECT, LOG, cursor=page.cursor, max_bytes=8000)]
    # As a follower reads after one ring: until a page says that this is the end.
    while pages[-1].cursor < pages[-1].bounds.end:
        cursor = pages[-1].cursor
        pages.append(await segments.store.read(PROJECT, LOG, cursor=cursor, max_bytes=8000))
    assert sorted(lines_of(pages)) == list(range(1, 39))
    segments.close()
    await segments.store.aclose()


async def test_a_segment_that_its_writer_had_only_begun_is_read_when_another_made_it_anew(
    segments: SegmentFilling,
) -> None:
    segments.lines(b"x" * 2000)
    begun = segments.directory / f"{1:020d}.seg"
    begun.touch()
    assert (await segments.store.bounds(PROJECT, LOG)).end == 1
    assert await read_all(segments.store, 1) == []
    begun.unlink()
    assert (await segments.store.bounds(PROJECT, LOG)).end == 1
    segments.lines(b"next")
    assert [line for line, _, _ in lines_of(await read_all(segments.store, 1)).values()] == [
        b"next"
    ]


async def test_a_missing_segment_in_the_middle_is_a_gap(tmp_path: Path) -> None:
    segments = SegmentFilling(tmp_path, 200)
    for number in range(30):
        segments.lines(b"%d" % number)
    segments.close()
    paths = sorted(segments.directory.glob("*.seg"))
    first, after = int(paths[2].stem), int(paths[3].stem)
    await read_all(segments.store)
    await segments.store.aclose()
    paths[2].unlink()
    pages = await read_all(segments.store)
    gaps = [r for page in pages for r in page.records if isinstance(r, LogGap)]
    assert gaps == [LogGap(first_sequence=first, count=after - first, reason=GapReason.DAMAGED)]
    assert len(lines_of(pages)) == 30 - (after - first)
    await segments.store.aclose()


async def test_a_large_log_is_found_from_its_checkpoint(tmp_path: Path) -> None:
    """The first look at a log reads its end, not all of it."""
    segments = SegmentFilling(tmp_path, 1 << 20)
    for _ in range(2000):
        segments.lines(b"x" * 200)
    segments.close()
    path = max(segments.directory.glob("*.seg"))
    data = bytearray(path.read_bytes())
    middle = SEGMENT_HEADER_BYTES + 3 * (FRAME_HEADER_BYTES + 201)
    data[middle : middle + 20] = bytes(20)
    path.write_bytes(data)
    assert (await segments.store.bounds(PROJECT, LOG)).end == 2000
    assert await segments.store.seek_tail(PROJECT, LOG, 10) == 1990
    pages = await read_all(segments.store)
    assert [r.count for page in pages for r in page.records if isinstance(r, LogGap)] == [1]
    await segments.store.aclose()
