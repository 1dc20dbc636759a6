"""The server is killed again and again while an app floods: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

import att_client
from tests.server_process import ServerProcess

APP = """
import os, sys, time
number = 0
while not os.path.exists(sys.argv[1]):
    burst = "".join(f"{number + i} {(number + i) * 2654435761 % 2**32:08x}\\n" for i in range(500))
    os.write(1, burst.encode())
    number += 500
    time.sleep(0.002)
os.write(1, f"written {number}\\n".encode())
"""


class Received:
    """What a follower was given, and a way to wait for more."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.sequences: list[int] = []
        self._wanted = 0
        self._reached = asyncio.Event()

    def add(self, line: att_client.LogLine) -> None:
        self.lines.append(str(line))
        self.sequences.append(line.sequence)
        if len(self.lines) >= self._wanted:
            self._reached.set()

    async def more(self, count: int) -> None:
        """Returns once `count` more lines are there."""
        self._wanted = len(self.lines) + count
        self._reached.clear()
        await self._reached.wait()


@pytest.mark.timeout(0)  # it has a bound of its own, and may kill a hundred times
async def test_no_line_is_lost_or_doubled_over_random_kills(tmp_path: Path, kills: int) -> None:
    project = tmp_path / "app"
    project.mkdir()
    enough = tmp_path / "enough"
    chance = random.Random(20261123)
    received = Received()

    with ServerProcess(tmp_path / "s") as server:
        async with att_client.connect(server.target) as att:
            await att.projects.create(
                "flood", path=str(project), command=[sys.executable, "-c", APP, str(enough)]
            )
            await att.runtimes.start("flood")

            async def follow() -> None:
                async for line in att.logs.follow("flood", until_exit=True):
                    assert isinstance(line, att_client.LogLine)
                    received.add(line)

            async with asyncio.timeout(60 * kills), asyncio.TaskGroup() as tasks:
                tasks.create_task(follow())
                for _ in range(kills):
                    await received.more(chance.randrange(1, 20_000))
                    server.kill()
                    await asyncio.to_thread(server.start)
                enough.touch()

    lines, sequences = received.lines, received.sequences
    assert lines[-1] == f"written {len(lines) - 1}"
    expected = [f"{i} {i * 2654435761 % 2**32:08x}" for i in range(len(lines) - 1)]
    assert lines[:-1] == expected
    assert sequences == list(range(sequences[0], sequences[0] + len(lines)))
