"""Log stores and the ways to fill them, for all tests of stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from att_server.adapters.segments import SegmentLogStore
from att_server.core.model import LogChunk, LogPage, LogStream
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
