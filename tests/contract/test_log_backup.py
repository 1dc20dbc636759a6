"""A log that is copied while it is written: whole frames, and a log of its own afterwards."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from att_server.adapters.log_backup import log_files, renew_log
from att_server.adapters.segments import SegmentLogStore
from att_server.core.model import LogGap, LogRecord, RunEnded, RunStarted
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import (
    HEAD_NAME,
    STREAM_STDOUT,
    Head,
    run_to_text,
    segment_sequences,
)
from tests.faults.disk import QuickFiles

RUN = bytes(range(16))
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def open_log(directory: Path, log_id: str = "OLD", boot_id: str = "boot") -> LogWriter:
    return LogWriter.open(
        directory,
        log_id=log_id,
        boot_id=boot_id,
        clock_ns=lambda: int((NOW - timedelta(minutes=1)).timestamp()) * 10**9,
        files=QuickFiles(),
        segment_bytes=8000,
    )


def write_lines(writer: LogWriter, first: int, after: int) -> None:
    for number in range(first, after):
        writer.append_lines(STREAM_STDOUT, RUN, [(b"line %d %s\n" % (number, b"x" * 50), 0)])
        writer.flush()


def copy(source: Path, target: Path, log_id: str = "OLD") -> list[str]:
    target.mkdir(parents=True)
    names = []
    for part in log_files(source, log_id):
        content = part.content.read(part.size)
        assert len(content) == part.size
        (target / part.name).write_bytes(content)
        names.append(part.name)
    return names


async def records(state_dir: Path, log_id: str) -> list[LogRecord]:
    store = SegmentLogStore(state_dir)
    try:
        end = (await store.bounds("web", log_id)).end
        found: list[LogRecord] = []
        cursor = 0
        while cursor < end:
            page = await store.read("web", log_id, cursor=cursor, max_bytes=1 << 20)
            found += page.records
            cursor = page.cursor
        return found
    finally:
        await store.aclose()


def check_dense(found: list[LogRecord]) -> None:
    assert found[0].first_sequence == 0
    assert all(one.next_sequence == other.first_sequence for one, other in pairwise(found))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "old" / "projects" / "web" / "logs"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "projects" / "web" / "logs"


async def test_the_copy_of_an_open_run_reads_equal_and_ends_it(
    tmp_path: Path, source: Path, target: Path
) -> None:
    writer = open_log(source)
    writer.append_started(RUN, {"command": ["app"], "pid": 7, "release_id": ""})
    write_lines(writer, 0, 400)
    names = copy(source, target)
    assert names[0] == HEAD_NAME
    assert len(names) > 3
    write_lines(writer, 400, 410)
    writer.close()

    last = renew_log(target, log_id="NEW", boot_id="boot", time=NOW)
    assert last is not None
    assert last.alive
    assert last.command == ("app",)
    assert last.marker_sequence == 0
    assert last.run.run_id == run_to_text(RUN)
    assert last.run.end is not None
    assert last.run.end.duration == timedelta(minutes=1)
    found = await records(tmp_path / "new", "NEW")
    check_dense(found)
    before = await records(tmp_path / "old", "OLD")
    assert found[:401] == before[:401]
    ended = found[-1]
    assert isinstance(ended, RunEnded)
    assert ended.exit.supervisor_lost
    assert ended.exit.time == NOW
    assert ended.exit.duration == timedelta(minutes=1)
    assert len(found) == 402
    assert await records(tmp_path / "new", "OLD") == []


async def test_a_new_supervisor_goes_on_behind_the_copy_also_after_a_reboot(
    tmp_path: Path, source: Path, target: Path
) -> None:
    writer = open_log(source)
    write_lines(writer, 0, 100)
    copy(source, target)
    writer.close()
    renew_log(target, log_id="NEW", boot_id="boot", time=NOW)
    for boot_id in ("boot", "next boot"):
        second = open_log(target, "NEW", boot_id)
        second.append_started(RUN, {"command": ["app"], "pid": 8, "release_id": ""})
        second.append_ended(RUN, {"exit_code": 0, "duration": 1})
        second.close()
    found = await records(tmp_path / "new", "NEW")
    check_dense(found)
    assert not any(isinstance(record, LogGap) for record in found)
    assert sum(isinstance(record, RunStarted) for record in found) == 2
    assert found[-1].next_sequence == 104


@pytest.mark.parametrize("cut", range(1, 220, 13))
async def test_a_torn_tail_is_left_out(
    tmp_path: Path, source: Path, target: Path, cut: int
) -> None:
    writer = open_log(source)
    write_lines(writer, 0, 20)
    written = await records(tmp_path / "old", "OLD")
    torn = tmp_path / "torn"
    shutil.copytree(source, torn)
    writer.close()
    (segment,) = torn.glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-cut])
    copy(torn, target)
    renew_log(target, log_id="NEW", boot_id="boot", time=NOW)
    found = await records(tmp_path / "new", "NEW")
    assert found == written[: 19 if cut <= 111 else 18]


async def test_broken_bytes_in_the_middle_stay_a_gap_with_the_numbers_behind_them(
    tmp_path: Path, source: Path, target: Path
) -> None:
    writer = open_log(source)
    write_lines(writer, 0, 300)
    writer.close()
    for segment in sorted(source.glob("*.seg"))[-2:]:
        data = bytearray(segment.read_bytes())
        data[400] ^= 0xFF
        segment.write_bytes(data)
    copy(source, target)
    renew_log(target, log_id="NEW", boot_id="boot", time=NOW)
    found = await records(tmp_path / "new", "NEW")
    check_dense(found)
    assert sum(isinstance(record, LogGap) for record in found) == 2
    assert found[-1].next_sequence == 300


@pytest.mark.parametrize("head", [b"", b"{", None])
async def test_a_log_without_a_readable_head_is_copied_by_its_segments(
    tmp_path: Path, source: Path, target: Path, head: bytes | None
) -> None:
    writer = open_log(source)
    writer.append_started(RUN, {"command": ["app"], "pid": 7, "release_id": ""})
    write_lines(writer, 0, 200)
    writer.close()
    if head is None:
        (source / HEAD_NAME).unlink()
    else:
        (source / HEAD_NAME).write_bytes(head)
    copy(source, target)
    assert renew_log(target, log_id="NEW", boot_id="boot", time=NOW) is not None
    found = await records(tmp_path / "new", "NEW")
    check_dense(found)
    assert found[-1].next_sequence == 202


@pytest.mark.parametrize("broken", [False, True])
def test_the_last_run_is_found_behind_lines_of_later_segments(
    source: Path, target: Path, broken: bool
) -> None:
    writer = open_log(source)
    for run in (bytes(range(1, 17)), RUN):
        writer.append_started(run, {"command": ["app", "1"], "pid": 7, "release_id": "r"})
        writer.append_ended(run, {"exit_code": 3, "duration": 2.5})
    write_lines(writer, 0, 300)  # as those of a stranger that holds a pipe
    writer.close()
    if broken:
        segment = sorted(source.glob("*.seg"))[0]
        data = bytearray(segment.read_bytes())
        data[90] ^= 0xFF  # in the first frame
        segment.write_bytes(data)
    copy(source, target)
    last = renew_log(target, log_id="NEW", boot_id="boot", time=NOW)
    assert last is not None
    assert not last.alive
    assert (last.run.run_id, last.command, last.release_id) == (run_to_text(RUN), ("app", "1"), "r")
    assert last.run.end is not None
    assert last.run.end.exit_code == 3
    assert last.run.end.duration == timedelta(seconds=2.5)
    assert last.run.start_time == NOW - timedelta(minutes=1)


def test_a_log_of_another_life_is_not_copied(source: Path, target: Path) -> None:
    writer = open_log(source)
    write_lines(writer, 0, 10)
    writer.close()
    assert copy(source, target, "OTHER") == []
    (source / HEAD_NAME).unlink()
    shutil.rmtree(target)
    assert copy(source, target, "OTHER") == []


def test_no_log_is_no_log_afterwards(tmp_path: Path, source: Path, target: Path) -> None:
    assert copy(source, target) == []
    assert renew_log(target, log_id="NEW", boot_id="boot", time=NOW) is None
    assert renew_log(tmp_path / "absent", log_id="NEW", boot_id="boot", time=NOW) is None


async def test_segments_that_retention_removes_meanwhile_take_the_older_ones_along(
    tmp_path: Path, source: Path, target: Path
) -> None:
    writer = open_log(source)
    write_lines(writer, 0, 400)
    writer.close()
    sequences = segment_sequences(path.name for path in source.iterdir())
    assert len(sequences) > 4
    target.mkdir(parents=True)
    for part in log_files(source, "OLD"):
        (target / part.name).write_bytes(part.content.read(part.size))
        if part.name == f"{sequences[-2]:020d}.seg":
            for old in sequences[:2]:
                (source / f"{old:020d}.seg").unlink()
    renew_log(target, log_id="NEW", boot_id="boot", time=NOW)
    store = SegmentLogStore(tmp_path / "new")
    bounds = await store.bounds("web", "NEW")
    await store.aclose()
    assert (bounds.start, bounds.end) == (sequences[2], 400)


async def test_an_open_run_whose_start_is_gone_is_ended_too(
    tmp_path: Path, source: Path, target: Path
) -> None:
    writer = open_log(source)
    writer.append_started(RUN, {"command": ["app"], "pid": 7, "release_id": ""})
    write_lines(writer, 0, 400)
    writer.close()
    head = Head.load(source)
    assert head is not None
    assert head.run
    for old in segment_sequences(path.name for path in source.iterdir())[:2]:
        (source / f"{old:020d}.seg").unlink()
    copy(source, target)
    last = renew_log(target, log_id="NEW", boot_id="boot", time=NOW)
    assert last is not None
    assert last.alive
    assert last.run.run_id == head.run
    found = await records(tmp_path / "new", "NEW")
    assert isinstance(found[-1], RunEnded)
