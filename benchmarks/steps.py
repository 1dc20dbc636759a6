"""`python -m benchmarks.steps`: what each of our own steps takes, in one process.

Of a line on its way to a follower, with the caches of the processor as the step before left
them (hot) and after 6 MiB of other memory went through them (cold), which is how a line finds
them that comes alone. Of 100 MB in frames of 64 KiB, read and made messages. Of an answer,
read by the SDK. Less a matter of the machine's noise than the benchmarks between processes.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from att_client import log_messages
from att_client._proto.att.v1 import GetRuntimeResponse, Runtime
from att_client.decode import decoder
from att_server.adapters.segments import SegmentLogStore
from att_server.core.model import LogPage
from att_server.rpc.log_service import follow_messages
from att_server.supervisor.checksum import crc32
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import STREAM_STDOUT
from benchmarks.load import BLOCK_LINES, LINE

LOG = ("steps", "steps-log")
RUN = bytes(range(16))
PAGE_BYTES = 256 << 10
LINES = 300
BLOCKS = 800

P = ParamSpec("P")
T = TypeVar("T")


class Steps:
    """Times of steps, in µs by name. cold: other memory goes through the caches before each."""

    def __init__(self, *, cold: bool = False) -> None:
        self.took: dict[str, list[float]] = {}
        self._other = bytearray(6 << 20) if cold else b""

    def take(self, name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Takes a step."""
        bytes(self._other)
        begin = time.perf_counter_ns()
        result = step(*args, **kwargs)
        self.took.setdefault(name, []).append((time.perf_counter_ns() - begin) / 1e3)
        return result


def main() -> None:
    asyncio.set_event_loop(asyncio.new_event_loop())
    ways = [line_by_line(cold=False), line_by_line(cold=True)]
    print("| of a line | hot µs | cold µs |\n|---|---|---|")
    for name in ways[0]:
        hot, cold = (statistics.median(way[name]) for way in ways)
        print(f"| {name} | {hot:.0f} | {cold:.0f} |")
    print("\n| of 100 MB | ms |\n|---|---|")
    for name, took in in_blocks().items():
        # Not the sum, of which a neighbour on the machine may be most.
        all_of_it = statistics.median(took) * len(took) / 1e3
        print(f"| {name} | {all_of_it * 1e8 / (BLOCKS * BLOCK_LINES * len(LINE)):.0f} |")
    print("\n| of an answer of GetRuntime | µs |\n|---|---|")
    for name, took in answers().items():
        print(f"| {name} | {statistics.median(took):.0f} |")


def line_by_line(*, cold: bool) -> dict[str, list[float]]:
    """A line at a time through supervisor, server and SDK."""
    steps = Steps(cold=cold)
    with tempfile.TemporaryDirectory() as state:
        writer, store = _log(Path(state))
        cursor = 1
        for number in range(LINES):
            line = b"line %d\n" % number
            steps.take("supervisor: into the segment", _write, writer, line)
            page = steps.take("server: read", _read, store, cursor)
            (message,) = steps.take("server: made a message", follow_messages, page, "")
            got = steps.take("SDK: decoded", log_messages.parse_page, message)
            steps.take("SDK: made a batch", log_messages.follow_response, got)
            cursor = page.cursor
        writer.close()
    return steps.took


def in_blocks() -> dict[str, list[float]]:
    """64 KiB at a time, all of it written before all of it is read."""
    steps, block = Steps(), LINE * BLOCK_LINES
    with tempfile.TemporaryDirectory() as state:
        writer, store = _log(Path(state))
        for _ in range(BLOCKS):
            steps.take("supervisor: into the segment", _write, writer, block)
            steps.take("of which the checksum", crc32, block)
        cursor = 1
        while cursor < writer.next_sequence:
            page = steps.take("server: read", _read, store, cursor)
            for message in steps.take("server: made messages", follow_messages, page, ""):
                got = steps.take("SDK: decoded", log_messages.parse_page, message)
                steps.take("SDK: made batches", log_messages.follow_response, got)
            cursor = page.cursor
        writer.close()
    return steps.took


def answers() -> dict[str, list[float]]:
    """An answer as the SDK reads it, and as its classes would read it themselves."""
    steps = Steps()
    runtime = Runtime(
        project_id="web",
        run_id="0" * 26,
        pid=1,
        command=["python", "-m", "app"],
        start_time=datetime.now(UTC),
        ready_time=datetime.now(UTC),
        supervisor_id="0" * 26,
    )
    answer = bytes(GetRuntimeResponse(runtime=runtime))
    for _ in range(LINES):
        steps.take("the C decoder", decoder(GetRuntimeResponse), answer)
        steps.take("the classes themselves", GetRuntimeResponse.parse, answer)
    return steps.took


def _log(state: Path) -> tuple[LogWriter, SegmentLogStore]:
    project_id, log_id = LOG
    directory = state / "projects" / project_id / "logs"
    writer = LogWriter.open(directory, log_id=log_id, boot_id="boot")
    writer.append_started(RUN, {"command": ["app"], "pid": 1, "release_id": ""})
    writer.flush()
    store = SegmentLogStore(state)
    _read(store, 0)
    return writer, store


def _write(writer: LogWriter, lines: bytes) -> None:
    writer.append_lines(STREAM_STDOUT, RUN, [(lines, 0)])
    writer.flush()


def _read(store: SegmentLogStore, cursor: int) -> LogPage:
    page = store.fresh(*LOG, cursor=cursor, max_bytes=PAGE_BYTES)
    if page is None:
        read = store.read(*LOG, cursor=cursor, max_bytes=PAGE_BYTES)
        page = asyncio.get_event_loop().run_until_complete(read)
    return page


if __name__ == "__main__":
    main()
