"""The floor: what the system does by itself, with `cat` into a file and `tail -F` of it."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.stage import load
from benchmarks.subjects.subject import (
    Subject,
    ended,
    output,
    size_of,
    started,
    until_size,
)

FLOOR = "cat, tail -F"


class Floor(Subject):
    """No supervisor, no server: a pipe and a file."""

    name = FLOOR

    def __init__(self, directory: Path) -> None:
        self._file = directory / "floor.log"
        self.start_file = directory / "floor.start"
        self._load: list[str] = []
        self._size: int | None = None

    async def prepare(self, kind: str, lines: int) -> None:
        # A new file: receivers of the one before are gone.
        self._file.unlink(missing_ok=True)
        self._file.touch()
        self.start_file.unlink(missing_ok=True)
        self._load = load(kind, lines, self.start_file)
        self._size = size_of(kind, lines)

    async def run(self) -> float:
        command = f"{shlex.join(self._load)} | cat > {shlex.quote(str(self._file))}"
        writer = await started(["sh", "-c", command])
        try:
            await writer.wait()
            end = time.time()
        finally:
            await ended(writer)
        if self._size is None:
            return 0.0
        await until_size(self._file, self._size)
        return end - self.began()

    def receiver(self, kind: str, lines: int) -> Sequence[str]:
        file = shlex.quote(str(self._file))
        source = (
            f"cat {file}" if kind in ("read", "lines") else f"tail -c +1 -F {file} 2> /dev/null"
        )
        sink = shlex.join([sys.executable, "-m", "benchmarks.receivers.stdin", kind, str(lines)])
        return ["sh", "-c", f"{source} | {sink}"]

    async def start(self) -> float:
        return await asyncio.to_thread(_fork_and_exec)

    async def search(self, pattern: str) -> float:
        begin = time.perf_counter()
        command = f"grep -cE {shlex.quote(pattern)} {shlex.quote(str(self._file))}"
        await output(["sh", "-c", f"{command}; [ $? -lt 2 ]"])
        return time.perf_counter() - begin


def _fork_and_exec() -> float:
    """Milliseconds until a child runs its program."""
    begin = time.perf_counter()
    child = subprocess.Popen(["sleep", "3600"])  # returns when exec has succeeded
    took = (time.perf_counter() - begin) * 1e3
    child.kill()
    child.wait()
    return took
