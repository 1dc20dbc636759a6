"""ATT: a project a load, on a server of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta

from att_client import LogAnchor
from benchmarks.figures import ATT
from benchmarks.stage import Stage, load
from benchmarks.subjects.subject import Subject


class Att(Subject):
    """ATT, through supervisor, server and SDK."""

    name = ATT

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._count = 0
        self._lines = 0
        self._has_started = False
        self.start_file = stage.directory / "att.start"

    @property
    def _project_id(self) -> str:
        return f"app-{self._count:04}"

    async def prepare(self, kind: str, lines: int) -> None:
        self._count += 1
        self._lines = lines
        self.start_file.unlink(missing_ok=True)
        await self._stage.project(self._project_id, *load(kind, lines, self.start_file))

    async def run(self) -> float:
        await self._stage.run_to_end(self._project_id)
        logs = self._stage.client.logs
        end = (await logs.read(self._project_id, anchor=LogAnchor.END)).end_cursor
        if end != self._lines + 2:
            raise RuntimeError(f"{self._lines} lines were written, {end - 2} are in the log")
        marker = (await logs.read(self._project_id, cursor=end - 1)).records[0].run
        assert marker is not None
        assert marker.time is not None
        return marker.time.timestamp() - self.began()

    def receiver(self, kind: str, lines: int) -> Sequence[str]:
        target = self._stage.client.target
        command = (sys.executable, "-m", "benchmarks.receivers.att", target, self._project_id)
        return [*command, kind, str(lines)]

    async def start(self) -> float:
        runtimes = self._stage.client.runtimes
        if not self._has_started:
            await self._stage.project("started", "sleep", "3600")
            self._has_started = True
        begin = time.perf_counter()
        await runtimes.start("started")
        took = (time.perf_counter() - begin) * 1e3
        await runtimes.stop("started", grace=timedelta(0))
        return took

    def daemon(self) -> int:
        return self._stage.server_pid

    async def search(self, pattern: str) -> float:
        begin, found = time.perf_counter(), 0
        follow = self._stage.client.logs.follow(self._project_id, pattern=pattern, until_now=True)
        async for batch in follow.batches():
            found += sum(record.chunk.line_count for record in batch.records if record.chunk)
        return time.perf_counter() - begin
