"""NATS JetStream, from PyPI: a service in Python that publishes and one that follows."""

from __future__ import annotations

import asyncio
import shlex
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.stage import PATIENCE, load
from benchmarks.subjects.subject import (
    NotMeasurable,
    Subject,
    ended,
    output,
    started,
)


class JetStream(Subject):
    """A stream in files, a message a line, acknowledged; nats-py on both ends."""

    name = "JetStream"
    # A message for each line, twice through Python: a million lines take a quarter of a minute.
    longest = 100_000

    def __init__(self, environment: Path, directory: Path) -> None:
        self._environment = environment
        self._directory = directory
        self.start_file = directory / "jetstream.start"
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self._load: list[str] = []

    async def prepare(self, kind: str, lines: int) -> None:
        if self._process is None:
            await self._serve()
        self.start_file.unlink(missing_ok=True)
        self._load = load(kind, lines, self.start_file)
        await output(self._python("make"))

    async def run(self) -> float:
        command = f"{shlex.join(self._load)} | {shlex.join(self._python('publish'))}"
        await output(["sh", "-c", command])
        return time.time() - self.began()

    def receiver(self, kind: str, lines: int) -> Sequence[str]:
        return [*self._python("follow"), kind, str(lines)]

    def daemon(self) -> int:
        if self._process is None:
            raise NotMeasurable("does not run")
        return self._process.pid

    async def aclose(self) -> None:
        """Ends the server."""
        if self._process is not None:
            await ended(self._process)

    def _python(self, what: str) -> list[str]:
        python = str(self._environment / "bin" / "python")
        return [python, "-m", "benchmarks.receivers.jetstream", what, str(self._port)]

    async def _serve(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        server = str(self._environment / "bin" / "nats-server")
        options = ("-js", "-sd", str(self._directory / "nats"), "-a", "127.0.0.1")
        self._process = await started([server, *options, "-p", str(self._port)])
        deadline = time.monotonic() + PATIENCE.total_seconds()
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.close()
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise NotMeasurable("did not start") from error
                await asyncio.sleep(0.02)
