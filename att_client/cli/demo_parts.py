"""What demos are made of: a server that can be killed, a tally of lines, clean ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import Request, urlopen

import att_client
from att_client.cli.exits import CommandError
from att_client.cli.output import to_plain

START_TIMEOUT = timedelta(seconds=10)
STEP_TIMEOUT = 20.0
"""Bounds, in seconds, what a demo waits for."""
END_TIMEOUT = 20.0


class ServerProcess:
    """A server of our own on `state_dir`; ended at the latest when the context is left.

    It has a session of its own, so that Ctrl-C reaches only the demo.
    """

    def __init__(self, command: Sequence[str], state_dir: Path) -> None:
        self._command = command
        self._state_dir = state_dir
        self._process: asyncio.subprocess.Process | None = None
        self.ready = False
        """Whether the last start serves, as far as this side knows."""

    @property
    def target(self) -> str:
        """Where it serves."""
        return f"unix:{self._state_dir}/att.sock"

    @property
    def pid(self) -> int:
        """The process id of the last start; 0 before it."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Starts it and returns when it serves; raises CommandError."""
        log = self._state_dir.parent / "server.log"
        with log.open("ab") as log_file:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "serve",
                "--state-dir",
                os.fspath(self._state_dir),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log_file,
                env=_environment(),
                start_new_session=True,
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT.total_seconds()):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if b"ready" not in line:
            said = log.read_text(errors="replace").strip() or "nothing"
            raise CommandError("SERVER_START_FAILED", f"The server did not start: {said[-300:]}")
        self.ready = True

    async def kill(self) -> None:
        """Kills it with SIGKILL, as a crash would, and returns when it is gone."""
        await self._end(signal.SIGKILL)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT.total_seconds()):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> None:
        self.ready = False
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(number)
            await process.wait()


def _environment() -> dict[str, str]:
    # What an app calls `python3` is the Python that has ATT: the host's may be too old.
    path = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
    return os.environ | {"PATH": os.pathsep.join(path)}


class Tally:
    """Counts and hashes received lines, for each stream, as the example app does its own."""

    def __init__(self) -> None:
        self._counts = {"stdout": 0, "stderr": 0}
        self._hashes = {"stdout": hashlib.sha256(), "stderr": hashlib.sha256()}
        self._grown = asyncio.Event()
        self.next_sequence = 0
        self.doubled = 0
        self.missing = 0

    @property
    def lines(self) -> int:
        """The lines of both streams so far."""
        return sum(self._counts.values())

    def take(self, records: Sequence[att_client.LogRecord]) -> None:
        """Adds what one message brought."""
        for record in records:
            if record.chunk is not None:
                self._take_sequences(record.chunk.first_sequence, record.chunk.line_count)
                self._take_lines(record.chunk)
            elif record.run is not None:
                self._take_sequences(record.run.sequence, 1)
        self._grown.set()

    def received(self) -> dict[str, dict[str, int | str]]:
        """The lines so far, in the form of the app's /printed."""
        return {
            stream: {"lines": count, "sha256": self._hashes[stream].hexdigest()}
            for stream, count in self._counts.items()
        }

    async def reach(self, lines: int) -> None:
        """Returns when `lines` lines have come."""
        while self.lines < lines:
            self._grown.clear()
            await self._grown.wait()

    def _take_sequences(self, first: int, count: int) -> None:
        # A sequence seen again is doubled, one that is jumped over is missing.
        self.doubled += max(0, min(self.next_sequence - first, count))
        self.missing += max(0, first - self.next_sequence)
        self.next_sequence = max(self.next_sequence, first + count)

    def _take_lines(self, chunk: att_client.LogChunk) -> None:
        stream = str(to_plain(chunk.stream))
        # A newline that the log added was not printed by the app.
        added = chunk.partial or chunk.unterminated
        self._counts[stream] += chunk.line_count - added
        self._hashes[stream].update(chunk.lines[:-1] if added else chunk.lines)


async def ask_app(port: int, page: str, body: object = None) -> dict[str, object]:
    """Asks the example app for a page, with `body` by POST; raises OSError."""

    def ask() -> dict[str, object]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{port}{page}", data=data)
        with urlopen(request, timeout=5) as response:  # noqa: S310 - of this host, over http
            answer = json.load(response)
        assert isinstance(answer, dict)
        return answer

    return await asyncio.to_thread(ask)


def count_lines(printed: object) -> int:
    """The lines of both streams in the form of the app's /printed."""
    assert isinstance(printed, dict)
    return sum(int(stream["lines"]) for stream in printed.values())


def example_command(port: int, rate: int, printed_file: Path) -> list[str]:
    """The argument list that runs the example app of this installation."""
    app = Path(att_client.__file__).parent / "example" / "app.py"
    options = ["--port", str(port), "--rate", str(rate), "--printed-file", str(printed_file)]
    return [sys.executable, str(app), *options]


@asynccontextmanager
async def no_app_left(server: ServerProcess, project_id: str) -> AsyncIterator[None]:
    """Ends the project's app whatever happens inside, also with no server left to ask."""
    try:
        yield
    finally:
        async with asyncio.timeout(END_TIMEOUT):
            if not server.ready:
                await server.kill()
                await server.start()
            # A new connection: the old one may wait to try again.
            async with att_client.connect(server.target) as att:
                with contextlib.suppress(att_client.ProjectNotFoundError):
                    await _end_cycles(att, project_id)
                    await att.runtimes.stop(project_id, grace=timedelta(seconds=1))


async def _end_cycles(att: att_client.Client, project_id: str) -> None:
    # A cycle holds the project, and would start what is stopped here.
    async for cycle in att.bootstrap.list(project_id, active_only=True):
        await att.bootstrap.cancel(cycle.cycle_id)
        await att.bootstrap.wait(cycle.cycle_id)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory short enough for a socket path, removed at the end."""
    parent = tempfile.gettempdir()
    directory = Path(
        tempfile.mkdtemp(
            prefix="att-demo-",
            dir=parent if len(parent) < 60 else "/tmp",  # noqa: S108 - mkdtemp's own name in it
        )
    )
    try:
        yield directory
    finally:
        # A supervisor may still write its last words.
        deadline = time.monotonic() + END_TIMEOUT
        while directory.exists() and time.monotonic() < deadline:
            shutil.rmtree(directory, ignore_errors=True)
            time.sleep(0.01)


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_up_on_sigterm() -> None:
    """Makes the first SIGTERM cancel the task, as asyncio does for SIGINT."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def end() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)


def first_error(error: BaseException) -> BaseException:
    """The first error of a group of errors of groups."""
    return first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
