"""What all subjects can be asked to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import LINE
from benchmarks.stage import PATIENCE

ROOT = Path(__file__).parents[2]


class NotMeasurable(Exception):
    """The subject has nothing of the kind, or did not do it; says which."""


class Subject(ABC):
    """Keeps what an app prints, and gives it to receivers.

    longest: lines that it is given in one go; where more are asked for, a result is
        scaled to what was asked for.
    """

    name: str
    longest: int = 1 << 62
    start_file: Path
    """Gets the time before the first write; see `load.py`."""

    def began(self) -> float:
        """When the app began to write, in Unix seconds."""
        return int(self.start_file.read_text()) / 1e9

    @abstractmethod
    async def prepare(self, kind: str, lines: int) -> None:
        """Gets ready to run a load generator (see `load.py`), with an empty log."""

    @abstractmethod
    async def run(self) -> float:
        """Runs it; seconds from its first write until all of it is kept, and nothing is lost."""

    @abstractmethod
    def receiver(self, kind: str, lines: int) -> Sequence[str]:
        """The command of a receiver; see `benchmarks.receivers`. Raises NotMeasurable."""

    async def start(self) -> float:
        """Milliseconds from the call of a start until the app runs."""
        raise NotMeasurable("starts no apps")

    def daemon(self) -> int:
        """The process that keeps the logs."""
        raise NotMeasurable("has no daemon")

    async def search(self, pattern: str) -> float:
        """Seconds to find all lines in which the pattern is found, and to count them."""
        raise NotMeasurable("searches no logs")


@dataclass(slots=True)
class Receiving:
    """A receiver that is attached."""

    process: asyncio.subprocess.Process

    async def result(self) -> object:
        """What it printed once it had all lines."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                line = await self.process.stdout.readline()
        except TimeoutError as error:
            raise NotMeasurable(f"not finished in {PATIENCE.seconds} s") from error
        if not line:
            raise NotMeasurable("its receiver ended early")
        return json.loads(line)


@contextlib.asynccontextmanager
async def receiving(command: Sequence[str]) -> AsyncIterator[Receiving]:
    """Starts a receiver and returns when it is attached; afterwards ends it."""
    process = await started(command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            line = await process.stdout.readline()
        if line != b"ready\n":
            raise NotMeasurable(f"its receiver did not start: {line.decode(errors='replace')}")
        yield Receiving(process)
    finally:
        await ended(process)


async def started(
    command: Sequence[str],
    *,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.DEVNULL,
    env: dict[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Starts a command in a process group of its own, in the root of the project."""
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=stdin,
        stdout=stdout,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        start_new_session=True,
    )


async def ended(process: asyncio.subprocess.Process, how: int = signal.SIGKILL) -> None:
    """Ends a started command with its whole group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, how)
    await process.wait()


async def output(command: Sequence[str], env: dict[str, str] | None = None) -> bytes:
    """What a command prints, run to its end."""
    process = await started(command, stdout=asyncio.subprocess.PIPE, env=env)
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            printed, _ = await process.communicate()
    except TimeoutError as error:
        raise NotMeasurable(f"not finished in {PATIENCE.seconds} s") from error
    finally:
        await ended(process)
    if process.returncode:
        raise NotMeasurable(f"{command[0]} ended with {process.returncode}")
    return printed


def size_of(kind: str, lines: int) -> int | None:
    """The bytes that a load generator writes; None where that is not known before."""
    return None if kind == "ticks" else lines * len(LINE)


async def until_size(file: Path, size: int) -> float:
    """When (Unix, in seconds) the file had so many bytes. Raises NotMeasurable."""
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while not file.exists() or file.stat().st_size < size:
        if time.monotonic() > deadline:
            raise NotMeasurable(f"did not keep all lines within {PATIENCE.seconds} s")
        await asyncio.sleep(0.001)
    if file.stat().st_size > size:
        raise NotMeasurable(f"kept more than the {size:,} bytes that were written")
    return time.time()
