"""A log copied while it is written, and made a log of its own again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from att_server.adapters.segment_records import from_time, to_time
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import (
    HEAD_NAME,
    SEGMENT_HEADER_BYTES,
    Frame,
    FrameKind,
    Head,
    SegmentHeader,
    find_frame,
    frames_in,
    run_to_text,
    segment_name,
    segment_sequences,
)
from att_server.supervisor.state import Run, RunEnd

_MARKERS = (FrameKind.RUN_STARTED, FrameKind.RUN_ENDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """A file of a log: the first `size` bytes of `content`, until the next one is asked for."""

    name: str
    content: BinaryIO
    size: int


def log_files(directory: Path, log_id: str) -> Iterator[LogFile]:
    """What is to be kept of a log that others write meanwhile: whole frames, from its start on.

    The head comes first, then segments from the last to the first; nothing if the
    directory holds another log. Raises OSError.
    """
    # Before the segments: the place it names is then within what is copied of them.
    head = Head.load(directory)
    if head is not None:
        if head.log_id != log_id:
            return
        data = head.encode()
        yield LogFile(name=HEAD_NAME, content=BytesIO(data), size=len(data))
    try:
        sequences = segment_sequences(os.listdir(directory))
    except FileNotFoundError:
        return
    for sequence in reversed(sequences):
        try:
            file = (directory / segment_name(sequence)).open("rb")
        except FileNotFoundError:
            # The oldest go first, and took those before along.
            return
        with file:
            header = SegmentHeader.decode(file.read(SEGMENT_HEADER_BYTES))
            if header is None or header.log_id != log_id or header.first_sequence != sequence:
                # Its maker has not written it yet, or nobody can read it.
                continue
            file.seek(0)
            if sequence != sequences[-1]:
                size = os.fstat(file.fileno()).st_size
                yield LogFile(name=segment_name(sequence), content=file, size=size)
                continue
            # Read, not mapped: it may be cut meanwhile.
            data = file.read()
        size = _whole_bytes(data, sequence)
        yield LogFile(name=segment_name(sequence), content=BytesIO(data), size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """The last run that a copied log tells of. alive: it had not ended at the time of the copy.

    marker_sequence: at or below that of its start marker, if that is kept.
    """

    run: Run
    alive: bool
    command: tuple[str, ...] = ()
    release_id: str = ""
    marker_sequence: int = 0


def renew_log(directory: Path, *, log_id: str, boot_id: str, time: datetime) -> LastRun | None:
    """Makes a copied log one of its own that can be written, and returns its last run.

    log_id: the new one. time: of the copy. A run without an end marker gets one,
    `supervisor_lost`, with that time: its app went on elsewhere, or ended there.
    None: the log tells of no run. Raises SegmentError, OSError.
    """
    if not directory.is_dir():
        return None
    sequences = segment_sequences(os.listdir(directory))
    for sequence in sequences:
        _give_log_id(directory / segment_name(sequence), log_id)
    head = _head(Head.load(directory), sequences)
    if head is None:
        return None
    # The new log's writer may take for granted that nothing beyond the copy was
    # ever shown: nobody knows this log yet. That is what the boot id tells it.
    head = replace(head, log_id=log_id, boot_id=boot_id)
    (directory / HEAD_NAME).write_bytes(head.encode())
    writer = LogWriter.open(
        directory, log_id=log_id, boot_id=boot_id, clock_ns=lambda: from_time(time)
    )
    with closing(writer):
        run = writer.open_run
        if run is None:
            run = _last_marked(directory, sequences)
            return None if run is None else _last_run(writer, run, alive=False)
        started = writer.find_marker(run, FrameKind.RUN_STARTED)
        seconds = 0.0 if started is None else max(0.0, (from_time(time) - started.time_ns) / 1e9)
        writer.append_ended(run, {"supervisor_lost": True, "duration": seconds})
        writer.flush()
        return _last_run(writer, run, alive=True)


def _last_run(writer: LogWriter, run: bytes, *, alive: bool) -> LastRun | None:
    ended = writer.find_marker(run, FrameKind.RUN_ENDED)
    if ended is None:
        return None
    started = writer.find_marker(run, FrameKind.RUN_STARTED)
    end = RunEnd.from_marker(ended.payload, to_time(ended.time_ns))
    if started is None:
        start_time = end.time - end.duration
        known = Run(run_id=run_to_text(run), start_time=start_time, end=end)
        return LastRun(run=known, alive=alive, marker_sequence=ended.sequence)
    return LastRun(
        run=Run(run_id=run_to_text(run), start_time=to_time(started.time_ns), end=end),
        alive=alive,
        command=tuple(map(str, started.payload.get("command", ()))),
        release_id=str(started.payload.get("release_id", "")),
        marker_sequence=started.sequence,
    )


def _last_marked(directory: Path, sequences: list[int]) -> bytes | None:
    """The run of the last marker in the log."""
    for sequence in reversed(sequences):
        data = (directory / segment_name(sequence)).read_bytes()
        runs = [frame.run for _, frame in _frames(data, sequence) if frame.kind in _MARKERS]
        if runs:
            return runs[-1]
    return None


def _frames(data: bytes, sequence: int) -> Iterator[tuple[int, Frame]]:
    """The intact frames of a segment with their offsets, also those behind broken bytes."""
    start: int | None = SEGMENT_HEADER_BYTES
    while start is not None:
        for offset, frame in frames_in(data, start, sequence):
            yield offset, frame
            start, sequence = offset + frame.total_size, frame.next_sequence
        start = find_frame(data, start, sequence)
        if start is not None:
            sequence = Frame.unpack(data, start).first_sequence


def _whole_bytes(data: bytes, sequence: int) -> int:
    """Where the last whole frame of a segment ends. Broken bytes before it are kept."""
    end = SEGMENT_HEADER_BYTES
    for offset, frame in _frames(data, sequence):
        end = offset + frame.total_size
    return end


def _give_log_id(path: Path, log_id: str) -> None:
    with path.open("r+b") as file:
        header = SegmentHeader.decode(file.read(SEGMENT_HEADER_BYTES))
        if header is not None:
            file.seek(0)
            file.write(replace(header, log_id=log_id).encode())


def _head(copied: Head | None, sequences: list[int]) -> Head | None:
    """A checkpoint from which the end of the copy is found; None for no log at all."""
    if copied is not None and sequences:
        return replace(copied, start=sequences[0])
    if copied is None and not sequences:
        return None
    first = sequences[0] if sequences or copied is None else copied.next
    return Head(
        log_id="",
        start=first,
        next=first,
        reserved=first,
        boot_id="",
        segment=first,
        offset=SEGMENT_HEADER_BYTES if sequences else 0,
    )
