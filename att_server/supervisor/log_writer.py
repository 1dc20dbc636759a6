"""Writing a log: appended records become frames, in order, in segments.

One writer at a time per directory; the caller holds the project's writer lock.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from att_server.supervisor.lines import count_lines
from att_server.supervisor.log_appender import Appender, Record, gap
from att_server.supervisor.log_files import Files
from att_server.supervisor.log_recovery import mapped, recover
from att_server.supervisor.log_sync import LogSync
from att_server.supervisor.segment import (
    FRAME_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SEGMENT_BYTES,
    SEGMENT_HEADER_BYTES,
    STREAM_NONE,
    FrameKind,
    frame_at,
    frame_intact,
    segment_name,
    segment_sequences,
)

SyncMode = Literal["interval", "always", "never"]

_FLUSH_BYTES = 1 << 20
# On the way of every line, and in Python 3.11 a member is looked up by a call.
_LINES = int(FrameKind.LINES)
# A command line beyond a frame is cut to what is worth showing.
_SHOWN_ARGUMENTS = 64
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A run marker as it was appended."""

    sequence: int
    time_ns: int
    payload: Mapping[str, Any]


class LogWriter:
    """Appends to the log in one directory.

    Appended records are on disk and visible to readers after `flush`; what is
    appended beyond 1 MiB is flushed by itself. Nothing here fails because the
    disk does: while it cannot be written (`storage_full`) lines are counted, and
    when it can again a gap takes their place, by itself; markers are kept.

    A flush may wait for the disk when sequence numbers are used up faster than
    they can be reserved there. Not for use by several threads.
    """

    def __init__(self, appender: Appender, sync: LogSync, clock_ns: Callable[[], int]) -> None:
        self._appender = appender
        self._sync = sync
        self._clock_ns = clock_ns
        place = appender.place
        self._next = appender.next_sequence
        self._time_ns = place.time_ns
        self._run = place.run
        self._records: list[Record] = []
        self._bytes = 0

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        log_id: str,
        boot_id: str,
        clock_ns: Callable[[], int] = time.time_ns,
        files: Files | None = None,
        sync: SyncMode = "interval",
        sync_interval: float = 1.0,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> LogWriter:
        """Opens the log in `directory`, which is made if need be, and repairs its end.

        log_id: at most 26 ASCII characters. sync: when the content of segments
        is forced to the disk: every `sync_interval` seconds, at every flush, or
        only when a segment is complete. If the machine was restarted since the
        last writer without a clean close, a gap `machine_crash` takes the place
        of all numbers that may have been given out.

        Raises SegmentError if the directory holds another log, OSError if it
        cannot be read or made.
        """
        files = files or Files()
        files.make_directory(directory)
        recovered = recover(directory, log_id=log_id, boot_id=boot_id, files=files)
        appender = Appender(
            directory,
            log_id=log_id,
            recovered=recovered,
            files=files,
            segment_bytes=segment_bytes,
        )
        place = recovered.place
        if recovered.resume_at > place.next_sequence:
            hole = gap(
                place.next_sequence,
                recovered.resume_at - place.next_sequence,
                reason="machine_crash",
                lost_lines=None,
                time_ns=max(clock_ns(), place.time_ns),
            )
            appender.add([hole])
            appender.write(recovered.resume_at)
        keeper = LogSync(
            appender,
            log_id=log_id,
            boot_id=boot_id,
            recovered=recovered,
            files=files,
            interval=sync_interval if sync == "interval" else None,
            every_write=sync == "always",
        )
        keeper.start()
        return cls(appender, keeper, clock_ns)

    @property
    def next_sequence(self) -> int:
        """The sequence number that the next record will get."""
        return self._next

    @property
    def storage_full(self) -> bool:
        """Whether what was flushed is not all on disk, for want of space or a failing disk."""
        return self._appender.failure is not None

    @property
    def open_run(self) -> bytes | None:
        """The run that was started last, if it has no end marker yet."""
        return self._run

    def append_lines(self, stream: int, run: bytes, blobs: Iterable[tuple[bytes, int]]) -> None:
        """Appends whole lines of one stream (1 stdout, 2 stderr) of one run (16 bytes).

        blobs: lines, each ended by a newline, 1 to 65,536 bytes together, with
        the flags of their last line. Each becomes one frame.
        """
        for blob, flags in blobs:
            if not 0 < len(blob) <= MAX_PAYLOAD_BYTES or blob[-1] != 10:
                raise ValueError("a blob is 1 to 65,536 bytes of lines, each ended by a newline")
            self._add(_LINES, blob, count_lines(blob), run, stream, flags)
        if self._bytes > _FLUSH_BYTES:
            self.flush()

    def append_started(self, run: bytes, payload: Mapping[str, Any]) -> int:
        """Appends the start marker of a run and returns its sequence number.

        payload: `command` (list of text; cut if it is very long), `pid`, `release_id`.
        """
        data = _encoded(payload)
        if len(data) > MAX_PAYLOAD_BYTES:
            command = [text[:_SHOWN_CHARACTERS] for text in payload["command"][:_SHOWN_ARGUMENTS]]
            data = _encoded({**payload, "command": command})
        self._run = run
        return self._append_marker(FrameKind.RUN_STARTED, run, data)

    def append_ended(self, run: bytes, payload: Mapping[str, Any]) -> int:
        """Appends the end marker of a run and returns its sequence number.

        payload: one of `exit_code`, `signal`, `start_error`, `supervisor_lost`,
        and `duration` in seconds.
        """
        if run == self._run:
            self._run = None
        return self._append_marker(FrameKind.RUN_ENDED, run, _encoded(payload))

    def flush(self) -> None:
        """Writes everything that was appended, in one go; readers see it afterwards."""
        if self._records:
            records, self._records, self._bytes = self._records, [], 0
            self._sync.write(records)

    def close(self) -> None:
        """Writes and syncs everything, and lets go of all files. May be called again.

        Raises OSError if the disk cannot be written at the end: then the records
        since are lost (their numbers are not used).
        """
        if self._sync.stopped:
            return
        self.flush()
        self._sync.close()

    def find_marker(self, run: bytes, kind: FrameKind, from_sequence: int = 0) -> Marker | None:
        """The marker of a kind of a run among the flushed records from `from_sequence` on.

        Reads headers from there on, or from the end back for an end marker.
        """
        if kind == FrameKind.RUN_ENDED and run == self._run:
            return None
        directory = self._appender.directory
        sequences = segment_sequences(os.listdir(directory))
        before = [sequence for sequence in sequences if sequence <= from_sequence]
        searched = sequences[max(0, len(before) - 1) :]
        for sequence in searched if kind == FrameKind.RUN_STARTED else reversed(searched):
            # One that the server removed meanwhile holds nothing any more.
            with suppress(FileNotFoundError):
                marker = _marker_in(directory / segment_name(sequence), run, kind, from_sequence)
                if marker is not None:
                    return marker
        return None

    def _append_marker(self, kind: FrameKind, run: bytes, payload: bytes) -> int:
        sequence = self._next
        self._add(kind, payload, 1, run, STREAM_NONE, 0)
        return sequence

    def _add(
        self, kind: int, payload: bytes, count: int, run: bytes, stream: int, flags: int
    ) -> None:
        time_ns = self._time_ns = max(self._time_ns, self._clock_ns())
        self._records.append(Record(kind, payload, self._next, count, time_ns, run, stream, flags))
        self._bytes += FRAME_HEADER_BYTES + len(payload)
        self._next += count


def _encoded(payload: Mapping[str, Any]) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()


def _marker_in(path: Path, run: bytes, kind: FrameKind, from_sequence: int) -> Marker | None:
    with mapped(path) as data:
        view = memoryview(data)
        offset = SEGMENT_HEADER_BYTES
        while frame := frame_at(view, offset):
            end = offset + frame.total_size
            if end > len(view):
                break
            wanted = frame.kind == kind and frame.run == run
            late = frame.first_sequence >= from_sequence
            if wanted and late and frame_intact(view, offset, frame):
                return Marker(
                    sequence=frame.first_sequence,
                    time_ns=frame.time_ns,
                    payload=json.loads(view[end - frame.size : end].tobytes()),
                )
            offset = end
    return None
