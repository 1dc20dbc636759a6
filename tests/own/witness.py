"""Those who must not notice: an app that prints, who follows it, and who calls the server."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import att_client

COUNTS = """
import time
for number in range(10**9):
    print(number, flush=True)
    time.sleep(0.01)
"""
APP = "counts"


@dataclass
class Witness:
    """What they saw. gaps: of each time without an answer, when it ended, and how long it was.

    calls: how many were answered. releases: that the answers came from, in order.
    """

    run_id: str = ""
    pid: int = 0
    lines: list[int] = field(default_factory=list)
    gaps: list[tuple[datetime, float]] = field(default_factory=list)
    calls: int = 0
    releases: list[str] = field(default_factory=list)

    async def begin(self, att: att_client.Client, directory: Path) -> None:
        """Starts the app."""
        await att.projects.create(APP, path=directory, command=[sys.executable, "-c", COUNTS])
        started = await att.runtimes.start(APP)
        self.run_id, self.pid = started.run_id, started.pid

    async def follow(self, att: att_client.Client) -> None:
        """Takes down every line, until it is cancelled."""
        async for line in att.logs.follow(APP):
            self.lines.append(int(str(line)))

    async def call(self, target: str) -> None:
        """Calls the server all the time, until it is cancelled, with no retry of the SDK's."""
        last, missed = time.monotonic(), False
        while True:
            with contextlib.suppress(att_client.AttError):
                async with att_client.connect(target) as att:
                    while True:
                        before = time.monotonic()
                        info = await att.server.info()
                        now = time.monotonic()
                        # One that had to be repeated took longer than any answer does.
                        if missed or now - before > 0.09:
                            self.gaps.append((datetime.now(UTC), now - last))
                        last, missed = now, False
                        self.calls += 1
                        if self.releases[-1:] != [info.release_id]:
                            self.releases.append(info.release_id)
                        await asyncio.sleep(0.01)
            missed = True
            await asyncio.sleep(0.01)

    def wrong_with_lines(self) -> str:
        """What is wrong with the lines; empty: none is lost, none doubled."""
        if self.lines == list(range(len(self.lines))) and self.lines:
            return ""
        lost = len(set(range(max(self.lines, default=0))) - set(self.lines))
        return f"{lost} lines lost, {len(self.lines) - len(set(self.lines))} doubled"

    def slowest(self, share: float) -> float:
        """The gap that this share of the gaps is no longer than, in seconds."""
        gaps = sorted(gap for _, gap in self.gaps)
        return gaps[min(len(gaps) - 1, int(share * len(gaps)))] if gaps else 0.0
