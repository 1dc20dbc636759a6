"""What a writer leaves on disk while nothing goes wrong."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from att_server.supervisor.log_files import Files
from att_server.supervisor.log_sync import MIN_WINDOW
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import (
    SEGMENT_HEADER_BYTES,
    Frame,
    FrameKind,
    Head,
    SegmentError,
    frames_in,
    segment_name,
    segment_sequences,
)
from tests.server_process import PATIENCE

RUN = bytes(range(16))
OTHER_RUN = bytes(range(1, 17))


def opened(directory: Path, **options: object) -> LogWriter:
    arguments: dict[str, object] = {"log_id": "L", "boot_id": "boot", **options}
    return LogWriter.open(directory, **arguments)  # type: ignore[arg-type]  # checked at run time


def frames_of(directory: Path) -> list[tuple[Frame, bytes]]:
    result = []
    for sequence in segment_sequences(os.listdir(directory)):
        data = (directory / segment_name(sequence)).read_bytes()
        end = SEGMENT_HEADER_BYTES
        for offset, frame in frames_in(data, SEGMENT_HEADER_BYTES, sequence):
            end = offset + frame.total_size
            result.append((frame, data[end - frame.size : end]))
        assert end == len(data)
    return result


def test_nothing_is_visible_before_a_flush_and_everything_after(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    writer.append_lines(1, RUN, [(b"a\nb\n", 0)])
    assert (writer.next_sequence, frames_of(tmp_path)) == (2, [])
    writer.flush()
    ((frame, payload),) = frames_of(tmp_path)
    assert (frame.first_sequence, frame.taken, payload) == (0, 2, b"a\nb\n")
    assert (frame.kind, frame.stream, frame.run, frame.flags) == (FrameKind.LINES, 1, RUN, 0)
    writer.close()


def test_every_blob_and_marker_is_a_frame_in_the_order_of_the_calls(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    writer.append_lines(1, RUN, [(b"a\nb\n", 0), (b"c\n", 2)])
    writer.append_lines(2, RUN, [(b"d\n", 0)])
    writer.append_lines(1, OTHER_RUN, [(b"e\n", 1)])
    assert writer.append_ended(OTHER_RUN, {"signal": 9, "duration": 0.5}) == 5
    writer.append_lines(2, OTHER_RUN, [(b"f\n", 0)])
    writer.close()
    frames = frames_of(tmp_path)
    assert [frame.first_sequence for frame, _ in frames] == [0, 2, 3, 4, 5, 6]
    assert [frame.stream for frame, _ in frames] == [1, 1, 2, 1, 0, 2]
    assert [frame.run for frame, _ in frames] == [RUN] * 3 + [OTHER_RUN] * 3
    assert [frame.flags for frame, _ in frames] == [0, 2, 0, 1, 0, 0]
    assert json.loads(frames.pop(4)[1]) == {"signal": 9, "duration": 0.5}
    assert [payload for _, payload in frames] == [b"a\nb\n", b"c\n", b"d\n", b"e\n", b"f\n"]


@pytest.mark.parametrize("blob", [b"", b"no newline", b"x" * 65_536 + b"\n"])
def test_what_is_no_blob_of_lines_is_refused(tmp_path: Path, blob: bytes) -> None:
    writer = opened(tmp_path)
    with pytest.raises(ValueError, match="newline"):
        writer.append_lines(1, RUN, [(blob, 0)])
    writer.close()
    assert frames_of(tmp_path) == []


def test_a_command_that_does_not_fit_is_cut(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    writer.append_started(RUN, {"command": ["\U0001f600" * 9000] * 9, "pid": 1, "release_id": ""})
    writer.close()
    ((_, payload),) = frames_of(tmp_path)
    assert json.loads(payload) == {
        "command": ["\U0001f600" * 80] * 9,
        "pid": 1,
        "release_id": "",
    }


def test_appending_without_end_takes_bounded_memory(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    for _ in range(40):
        writer.append_lines(1, RUN, [(b"x" * 65_535 + b"\n", 0)])
    assert sum(frame.size for frame, _ in frames_of(tmp_path)) > 1 << 20
    writer.close()


def test_a_full_segment_is_followed_by_another(tmp_path: Path) -> None:
    writer = opened(tmp_path, segment_bytes=500)
    for number in range(30):
        writer.append_lines(1, RUN, [(b"%d\n" % number * 10, 0)])
        writer.flush()
    writer.close()
    assert len(segment_sequences(os.listdir(tmp_path))) > 3
    sequence = 0
    for frame, _ in frames_of(tmp_path):
        assert frame.first_sequence == sequence
        sequence = frame.next_sequence
    assert sequence == 300


def test_writing_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for life in range(4):
        writer = opened(tmp_path, segment_bytes=300)
        assert writer.next_sequence == life * 2
        writer.append_lines(1, RUN, [(b"a\nb\n", 0)])
        writer.close()
    assert [frame.first_sequence for frame, _ in frames_of(tmp_path)] == [0, 2, 4, 6]


def test_a_clean_close_gives_unused_numbers_back(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    writer.append_started(RUN, {"command": ["app"], "pid": 1})
    writer.close()
    writer.close()
    writer.append_ended(RUN, {"exit_code": 0, "duration": 0.0})
    with pytest.raises(ValueError, match="closed"):
        writer.flush()
    head = Head.load(tmp_path)
    assert head is not None
    assert head.next == head.reserved == 1
    assert head.segment == 0
    assert head.offset == (tmp_path / segment_name(0)).stat().st_size


def test_the_open_run_is_known_over_lives(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    assert writer.open_run is None
    writer.append_started(RUN, {"command": ["app"], "pid": 1})
    writer.close()
    writer = opened(tmp_path)
    assert writer.open_run == RUN
    writer.append_ended(OTHER_RUN, {"exit_code": 0, "duration": 0.0})
    assert writer.open_run == RUN
    writer.append_ended(RUN, {"exit_code": 0, "duration": 0.0})
    assert writer.open_run is None
    writer.close()
    writer = opened(tmp_path)
    assert writer.open_run is None
    writer.close()


def test_markers_are_found_over_segments(tmp_path: Path) -> None:
    writer = opened(tmp_path, segment_bytes=200)
    started = writer.append_started(RUN, {"command": ["app"], "pid": 5})
    writer.flush()
    for _ in range(10):
        writer.append_lines(1, RUN, [(b"x" * 100 + b"\n", 0)])
        writer.flush()
    ended = writer.append_ended(RUN, {"exit_code": 4, "duration": 1.0})
    writer.flush()

    found = writer.find_marker(RUN, FrameKind.RUN_STARTED)
    assert found is not None
    assert (found.sequence, found.payload["pid"]) == (started, 5)
    found = writer.find_marker(RUN, FrameKind.RUN_ENDED, from_sequence=started)
    assert found is not None
    assert (found.sequence, found.payload["exit_code"]) == (ended, 4)
    assert writer.find_marker(RUN, FrameKind.RUN_STARTED, from_sequence=started + 1) is None
    assert writer.find_marker(OTHER_RUN, FrameKind.RUN_ENDED) is None
    writer.close()


def test_markers_are_looked_for_while_the_server_removes_segments(tmp_path: Path) -> None:
    writer = opened(tmp_path, segment_bytes=200)
    started = writer.append_started(RUN, {"command": ["app"], "pid": 5})
    for _ in range(5):
        writer.append_lines(1, RUN, [(b"x" * 100 + b"\n", 0)])
        writer.flush()
    # Its name is listed, and when it is opened it is gone.
    first = tmp_path / segment_name(0)
    first.unlink()
    first.symlink_to("gone")
    assert writer.find_marker(RUN, FrameKind.RUN_STARTED, from_sequence=started) is None
    assert writer.find_marker(OTHER_RUN, FrameKind.RUN_ENDED) is None
    ended = writer.append_ended(RUN, {"exit_code": 4, "duration": 1.0})
    writer.flush()
    found = writer.find_marker(RUN, FrameKind.RUN_ENDED)
    assert found is not None
    assert found.sequence == ended
    writer.close()


def test_time_never_goes_back_even_over_lives(tmp_path: Path) -> None:
    for now in (50, 40, 60, 10):
        writer = opened(tmp_path, clock_ns=lambda now=now: now)
        writer.append_lines(1, RUN, [(b"a\n", 0)])
        writer.close()
    assert [frame.time_ns for frame, _ in frames_of(tmp_path)] == [50, 50, 60, 60]


def test_another_log_is_not_touched(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    writer.append_lines(1, RUN, [(b"a\n", 0)])
    writer.close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SegmentError):
        opened(tmp_path, log_id="M")
    (tmp_path / "head.json").unlink()
    with pytest.raises(SegmentError):
        opened(tmp_path, log_id="M")
    del before["head.json"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class SlowFiles(Files):
    """Waits for permission to sync."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()

    def sync(self, fd: int) -> None:
        assert self.free.wait(PATIENCE)


def test_numbers_are_reserved_ahead_so_that_a_slow_disk_does_not_stop_a_flush(
    tmp_path: Path,
) -> None:
    files = SlowFiles()
    writer = opened(tmp_path, files=files)
    writer.append_lines(1, RUN, [(b"a\n", 0)])
    writer.flush()
    files.free.clear()
    writer.append_lines(1, RUN, [(b"b\n" * (MIN_WINDOW - 1), 0)])
    writer.flush()
    assert frames_of(tmp_path)[-1][0].next_sequence == MIN_WINDOW
    files.free.set()
    writer.close()


def test_nothing_above_the_reserved_mark_is_written(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    for number in range(40):
        writer.append_lines(1, RUN, [(b"x\n" * (number * 700 + 1), 0)])
        writer.flush()
        head = Head.load(tmp_path)
        assert head is not None
        assert writer.next_sequence <= head.reserved
    writer.close()


def test_what_was_written_is_synced_without_a_further_call(tmp_path: Path) -> None:
    writer = opened(tmp_path, sync_interval=0.01)
    writer.append_lines(1, RUN, [(b"a\n", 0)])
    writer.flush()
    deadline = time.monotonic() + 30
    while (head := Head.load(tmp_path)) is None or head.next == 0:
        assert time.monotonic() < deadline, "there was no checkpoint"
        time.sleep(0.005)
    assert head.offset == (tmp_path / segment_name(0)).stat().st_size
    writer.close()
