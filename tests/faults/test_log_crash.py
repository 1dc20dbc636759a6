"""The log after a killed writer, a crashed machine, and a full disk."""

import asyncio
import random
import resource
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest

from att_server.adapters.segments import SegmentLogStore
from att_server.core.model import GapReason, LogChunk, LogGap, LogRecord, RunEnded, RunStarted
from att_server.supervisor.log_files import Files
from att_server.supervisor.log_writer import LogWriter, SyncMode
from att_server.supervisor.segment import SEGMENT_HEADER_BYTES, Head, segment_sequences
from tests.faults.disk import FullFiles, Kept, OneProcess, QuickFiles, RecordingFiles

LOG = "01JLOG00000000000000000000"
RUN = bytes(range(16))
OTHER_RUN = bytes(range(1, 17))
STARTED = {"command": ["app"], "pid": 1, "release_id": ""}
ENDED = {"exit_code": 0, "duration": 1.0}


def logs_of(state_dir: Path) -> Path:
    return state_dir / "projects" / "p" / "logs"


def open_writer(
    state_dir: Path,
    *,
    files: Files | None = None,
    boot_id: str = "boot",
    sync: SyncMode = "never",
    segment_bytes: int = 1 << 20,
) -> LogWriter:
    return LogWriter.open(
        logs_of(state_dir),
        log_id=LOG,
        boot_id=boot_id,
        files=files or QuickFiles(),
        sync=sync,
        sync_interval=0.001,
        segment_bytes=segment_bytes,
    )


async def _records(state_dir: Path) -> list[LogRecord]:
    store = SegmentLogStore(state_dir)
    records: list[LogRecord] = []
    bounds = await store.bounds("p", LOG)
    cursor = bounds.start
    while cursor < bounds.end:
        page = await store.read("p", LOG, cursor=cursor, max_bytes=1 << 18)
        for record in page.records:
            assert record.first_sequence == cursor
            cursor = record.next_sequence
        records += page.records
    assert cursor == bounds.end
    await store.aclose()
    return records


def records_of(state_dir: Path) -> list[LogRecord]:
    """All records, whose numbers follow each other without a hole."""
    return asyncio.run(_records(state_dir))


def lines_of(records: list[LogRecord]) -> dict[int, bytes]:
    return {
        record.first_sequence + index: line
        for record in records
        if isinstance(record, LogChunk)
        for index, line in enumerate(record.lines.split(b"\n")[:-1])
    }


def gaps_of(records: list[LogRecord]) -> list[LogGap]:
    return [record for record in records if isinstance(record, LogGap)]


def wait_for_room(writer: LogWriter) -> None:
    deadline = time.monotonic() + 30
    while writer.storage_full:
        assert time.monotonic() < deadline, "writing was not resumed"
        time.sleep(0.005)


# A killed writer ------------------------------------------------------------


def copy_log(source: Path, target: Path, *, cut: int | None = None) -> None:
    logs_of(target).mkdir(parents=True)
    for path in logs_of(source).iterdir():
        data = path.read_bytes()
        (logs_of(target) / path.name).write_bytes(data[:cut] if path.suffix == ".seg" else data)


def test_a_tail_torn_at_any_byte_is_cut_and_writing_goes_on(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    writer = open_writer(whole)
    writer.append_lines(1, RUN, [(b"one\ntwo\n", 0)])
    writer.flush()
    (path,) = logs_of(whole).glob("*.seg")
    before = path.stat().st_size
    writer.append_lines(2, RUN, [(b"three\n", 0)])
    writer.flush()
    after = path.stat().st_size
    # The files as a SIGKILL leaves them: without a close.
    for cut in range(SEGMENT_HEADER_BYTES, after + 1):
        state_dir = tmp_path / f"cut-{cut}"
        copy_log(whole, state_dir, cut=cut)
        kept = 3 if cut == after else 2 if cut >= before else 0
        assert len(lines_of(records_of(state_dir))) == kept

        again = open_writer(state_dir)
        assert again.next_sequence == kept
        again.append_lines(1, RUN, [(b"new\n", 0)])
        again.close()

        lines = lines_of(records_of(state_dir))
        assert lines == dict(enumerate([*[b"one", b"two", b"three"][:kept], b"new"]))
    writer.close()


def test_a_segment_without_a_whole_header_is_made_anew(tmp_path: Path) -> None:
    for size in range(SEGMENT_HEADER_BYTES + 1):
        state_dir = tmp_path / str(size)
        writer = open_writer(state_dir)
        writer.append_lines(1, RUN, [(b"one\n", 0)])
        writer.close()
        (logs_of(state_dir) / f"{1:020d}.seg").write_bytes(bytes(size))

        assert lines_of(records_of(state_dir)) == {0: b"one"}
        again = open_writer(state_dir)
        again.append_lines(1, RUN, [(b"two\n", 0)])
        again.close()
        assert lines_of(records_of(state_dir)) == {0: b"one", 1: b"two"}


def test_a_reader_goes_on_over_a_cut_tail(tmp_path: Path) -> None:
    async def follow() -> None:
        store = SegmentLogStore(tmp_path)
        writer = open_writer(tmp_path)
        writer.append_lines(1, RUN, [(b"one\n", 0)])
        writer.flush()
        (path,) = logs_of(tmp_path).glob("*.seg")
        with path.open("ab") as torn:
            torn.write(path.read_bytes()[SEGMENT_HEADER_BYTES:-1])
        assert (await store.bounds("p", LOG)).end == 1
        assert (await store.bounds("p", LOG)).end == 1
        again = open_writer(tmp_path)
        again.append_lines(1, RUN, [(b"two\n", 0)])
        again.flush()
        page = await store.read("p", LOG, cursor=1, max_bytes=100)
        assert lines_of(list(page.records)) == {1: b"two"}
        again.close()
        await store.aclose()

    asyncio.run(follow())


# A crashed machine ----------------------------------------------------------


@dataclass
class Told:
    """What a writer was given: lines by number, and after how many steps they were flushed."""

    lines: dict[int, bytes] = field(default_factory=dict)
    flushes: list[tuple[int, int, int]] = field(default_factory=list)

    def promised(self, steps: int) -> dict[int, bytes]:
        """What was flushed completely by then."""
        numbers = [
            n for done, first, end in self.flushes if done <= steps for n in range(first, end)
        ]
        return {number: self.lines[number] for number in numbers if number in self.lines}


def write_life(writer: LogWriter, files: RecordingFiles, chance: random.Random, word: str) -> Told:
    """One life of a writer, with bursts that outrun the reserved numbers."""
    told = Told()
    for flush in range(8):
        first = writer.next_sequence
        for stream in (1, 2):
            count = chance.choice([1, 3, 40, 900])
            lines = [f"{word} {flush} {stream} {n}".encode() for n in range(count)]
            start = writer.next_sequence
            told.lines.update({start + n: line for n, line in enumerate(lines)})
            writer.append_lines(stream, RUN, [(b"\n".join(lines) + b"\n", 0)])
        writer.flush()
        told.flushes.append((len(files.steps), first, writer.next_sequence))
    return told


def shown_by(files: RecordingFiles, steps: int, state_dir: Path) -> dict[int, bytes]:
    """What readers could have seen by then."""
    files.restore(logs_of(state_dir), steps, content="all", names="all")
    return lines_of(records_of(state_dir))


SYNCS: tuple[SyncMode, ...] = ("always", "interval", "never")
CONTENTS: tuple[Kept, ...] = get_args(Kept)


@pytest.mark.parametrize("sync", SYNCS)
def test_after_a_crash_at_any_moment_no_number_means_two_lines(
    tmp_path: Path, sync: SyncMode
) -> None:
    first = tmp_path / "first"
    logs_of(first).mkdir(parents=True)
    files = RecordingFiles(logs_of(first))
    writer = open_writer(first, files=files, sync=sync, segment_bytes=20_000)
    told = write_life(writer, files, random.Random(1), "before")
    writer.close()

    for steps in range(0, len(files.steps) + 1, 1 if sync == "always" else 3):
        shown = shown_by(files, steps, tmp_path / f"{steps} shown")
        assert shown.items() <= told.lines.items()
        for content in CONTENTS:
            for names in ("nothing", "all"):
                state_dir = tmp_path / f"{steps} {content} {names}"
                files.restore(logs_of(state_dir), steps, content=content, names=names)
                head = Head.load(logs_of(state_dir))
                again = open_writer(state_dir, boot_id="next boot")
                again.append_lines(1, RUN, [(b"after 1\nafter 2\n", 0)])
                again.close()

                records = records_of(state_dir)
                lines = lines_of(records)
                for number, line in lines.items():
                    if line.startswith(b"after"):
                        assert number not in shown
                    else:
                        assert told.lines[number] == line
                kept = range(head.next if head is not None else 0)
                assert lines.keys() >= {number for number in told.lines if number in kept}
                if sync == "always":
                    assert told.promised(steps).items() <= lines.items()
                reasons = {gap.reason for gap in gaps_of(records)}
                assert reasons <= {GapReason.MACHINE_CRASH, GapReason.DAMAGED}
                if content != "last write" and sync == "always":
                    assert reasons <= {GapReason.MACHINE_CRASH}


@pytest.mark.parametrize("seed", range(30))
def test_after_many_kills_and_crashes_no_number_means_two_lines(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    state_dir = tmp_path / "0"
    logs_of(state_dir).mkdir(parents=True)
    shown: dict[int, bytes] = {}
    for boot in range(4):
        files = RecordingFiles(logs_of(state_dir))
        writers = []
        for life in range(3):
            process = OneProcess(files)
            writer = open_writer(
                state_dir,
                files=process,
                boot_id=f"boot {boot}",
                sync=chance.choice(SYNCS),
                segment_bytes=chance.choice([3000, 20_000, 1 << 20]),
            )
            write_life(writer, files, chance, f"boot {boot} life {life}")
            if chance.random() < 0.3:
                writer.close()
            process.kill()
            writers.append(writer)
        steps = chance.randint(0, len(files.steps))
        state_dir = tmp_path / str(boot + 1)
        files.restore(
            logs_of(state_dir),
            steps,
            content=chance.choice(CONTENTS),
            names=chance.choice(["nothing", "all"]),
        )
        shown_now = shown_by(files, steps, tmp_path / f"{boot} shown")
        for number, line in shown_now.items():
            assert shown.setdefault(number, line) == line
        head = Head.load(logs_of(state_dir))
        lines = lines_of(records_of(state_dir))
        assert all(shown[number] == line for number, line in lines.items())
        kept = range(head.next if head is not None else 0)
        assert lines.keys() >= {number for number in shown_now if number in kept}
        for writer in writers:
            with suppress(OSError):
                writer.close()


def test_a_checkpoint_is_never_ahead_of_what_an_earlier_writer_left_unsynced(
    tmp_path: Path,
) -> None:
    before = tmp_path / "before"
    logs_of(before).mkdir(parents=True)
    files = RecordingFiles(logs_of(before))
    process = OneProcess(files)
    killed = open_writer(before, files=process, segment_bytes=3000)
    for _ in range(8):
        killed.append_lines(1, RUN, [(b"x" * 999 + b"\n", 0)])
        killed.flush()
    process.kill()
    writer = open_writer(before, files=files)
    for _ in range(5):
        # More than was reserved: each waits for the mark, which is kept with a checkpoint.
        writer.append_lines(1, RUN, [(b"\n" * 30_000, 0)])
        writer.flush()
    steps = len(files.steps)

    after = tmp_path / "after"
    files.restore(logs_of(after), steps, content="nothing", names="nothing")
    head = Head.load(logs_of(after))
    assert head is not None
    assert lines_of(records_of(after)).keys() >= set(range(head.next))
    writer.close()
    with suppress(OSError):
        killed.close()


def test_a_crash_leaves_a_gap_up_to_the_reserved_number(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    writer.append_lines(1, RUN, [(b"one\n", 0)])
    writer.flush()
    head = Head.load(logs_of(tmp_path))
    assert head is not None
    again = open_writer(tmp_path, boot_id="next boot")
    assert again.next_sequence == head.reserved
    again.close()
    writer.close()

    records = records_of(tmp_path)

    assert lines_of(records) == {0: b"one"}
    gap = LogGap(first_sequence=1, count=head.reserved - 1, reason=GapReason.MACHINE_CRASH)
    assert records[1:] == [gap]


def test_a_clean_close_leaves_no_gap_over_a_reboot(tmp_path: Path) -> None:
    for boot in range(3):
        writer = open_writer(tmp_path, boot_id=f"boot {boot}")
        assert writer.next_sequence == boot
        writer.append_lines(1, RUN, [(b"line\n", 0)])
        writer.close()
    assert gaps_of(records_of(tmp_path)) == []


@pytest.mark.parametrize("head", [None, b"", b"{", b"[]"])
def test_a_lost_head_costs_numbers_but_never_reuses_one(tmp_path: Path, head: bytes | None) -> None:
    writer = open_writer(tmp_path)
    writer.append_lines(1, RUN, [(b"one\n", 0)])
    writer.close()
    path = logs_of(tmp_path) / "head.json"
    path.unlink() if head is None else path.write_bytes(head)

    again = open_writer(tmp_path)
    again.append_lines(1, RUN, [(b"two\n", 0)])
    again.close()

    records = records_of(tmp_path)
    assert list(lines_of(records).values()) == [b"one", b"two"]
    assert [gap.reason for gap in gaps_of(records)] == [GapReason.MACHINE_CRASH]


@pytest.mark.parametrize("taken", ["the last segment", "half of the last segment", "all segments"])
def test_what_somebody_took_away_is_a_gap_and_its_numbers_stay_taken(
    tmp_path: Path, taken: str
) -> None:
    writer = open_writer(tmp_path, segment_bytes=500)
    for number in range(20):
        writer.append_lines(1, RUN, [(b"%d\n" % number, 0)])
        writer.flush()
    writer.close()
    paths = sorted(logs_of(tmp_path).glob("*.seg"))
    if taken.startswith("half"):
        paths[-1].write_bytes(paths[-1].read_bytes()[: SEGMENT_HEADER_BYTES + 10])
    else:
        for path in paths if taken.startswith("all") else paths[-1:]:
            path.unlink()

    again = open_writer(tmp_path, segment_bytes=500)
    again.append_lines(1, RUN, [(b"new\n", 0)])
    again.close()

    lines = lines_of(records_of(tmp_path))
    assert lines.pop(20) == b"new"
    assert all(line == b"%d" % number for number, line in lines.items())


# A full disk ----------------------------------------------------------------


def test_lines_that_find_no_room_are_counted_and_capture_resumes(tmp_path: Path) -> None:
    for room in range(0, 260, 7):
        state_dir = tmp_path / str(room)
        files = FullFiles()
        writer = open_writer(state_dir, files=files)
        writer.append_started(RUN, STARTED)
        writer.append_lines(1, RUN, [(b"kept\n", 0)])
        writer.flush()
        files.room = room
        for number in range(20):
            writer.append_lines(1, RUN, [(b"%d\n" % number * 3, 0)])
            writer.flush()
        assert writer.storage_full
        writer.append_ended(RUN, ENDED)
        writer.append_started(OTHER_RUN, STARTED)
        writer.append_lines(1, OTHER_RUN, [(b"lost too\n", 0)])
        writer.flush()
        files.room = None
        wait_for_room(writer)
        writer.append_lines(1, OTHER_RUN, [(b"again\n", 0)])
        writer.close()

        records = records_of(state_dir)

        gaps = gaps_of(records)
        lines = lines_of(records)
        assert len(lines) + sum(gap.lost_lines or 0 for gap in gaps) == 1 + 60 + 1 + 1
        assert all(gap.count == gap.lost_lines for gap in gaps)
        assert {gap.reason for gap in gaps} == {GapReason.STORAGE_FULL}
        kinds = [type(record) for record in records if not isinstance(record, LogChunk)]
        assert kinds == [RunStarted, LogGap, RunEnded, RunStarted, LogGap]
        assert lines[writer.next_sequence - 1] == b"again"


def test_a_full_disk_before_the_first_record_is_survived(tmp_path: Path) -> None:
    files = FullFiles()
    files.room = 0
    writer = open_writer(tmp_path, files=files)
    writer.append_started(RUN, STARTED)
    writer.append_lines(1, RUN, [(b"lost\n", 0)])
    writer.flush()
    assert writer.storage_full
    files.room = None
    wait_for_room(writer)
    writer.close()
    kinds = [type(record) for record in records_of(tmp_path)]
    assert kinds == [RunStarted, LogGap]


def test_closing_on_a_full_disk_says_so(tmp_path: Path) -> None:
    files = FullFiles()
    writer = open_writer(tmp_path, files=files)
    writer.append_lines(1, RUN, [(b"kept\n", 0)])
    writer.flush()
    files.room = 10
    writer.append_lines(1, RUN, [(b"lost\n", 0)])
    with pytest.raises(OSError, match="no space"):
        writer.close()
    writer.close()
    assert lines_of(records_of(tmp_path)) == {0: b"kept"}


def test_a_limit_of_the_kernel_on_file_size_is_a_full_disk(tmp_path: Path) -> None:
    writer = open_writer(tmp_path, files=Files(), segment_bytes=1 << 22)
    writer.append_lines(1, RUN, [(b"kept\n", 0)])
    writer.flush()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        for _ in range(10):
            writer.append_lines(1, RUN, [(b"x" * 65_000 + b"\n", 0)])
            writer.flush()
        assert writer.storage_full
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    wait_for_room(writer)
    writer.append_lines(1, RUN, [(b"again\n", 0)])
    writer.close()

    records = records_of(tmp_path)

    assert [(gap.reason, gap.count) for gap in gaps_of(records)] == [(GapReason.STORAGE_FULL, 6)]
    assert lines_of(records)[11] == b"again"


def test_a_file_system_that_is_full_while_segments_change_loses_no_number(tmp_path: Path) -> None:
    files = FullFiles()
    writer = open_writer(tmp_path, files=files, segment_bytes=300)
    told = 0
    for turn in range(40):
        files.room = 20 * turn % 130 if turn % 3 == 0 else None
        writer.append_lines(1, RUN, [(b"line %d\n" % turn * 2, 0)])
        writer.flush()
        told += 2
        if turn % 3 == 2:
            wait_for_room(writer)
    files.room = None
    wait_for_room(writer)
    writer.close()
    records = records_of(tmp_path)
    lost = sum(gap.lost_lines or 0 for gap in gaps_of(records))
    assert len(lines_of(records)) + lost == told == records[-1].next_sequence
    assert len(segment_sequences(p.name for p in logs_of(tmp_path).iterdir())) > 3
    assert not any(isinstance(record, RunEnded) for record in records)
