"""supervisord, from PyPI: a daemon of its own for each load."""

from __future__ import annotations

import asyncio
import shlex
import socket
import time
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.stage import PATIENCE, load
from benchmarks.subjects.subject import (
    NotMeasurable,
    Subject,
    ended,
    size_of,
    started,
    until_size,
)

CONFIG = """
[supervisord]
nodaemon = true
logfile = {directory}/supervisord.log
pidfile = {directory}/supervisord.pid
[inet_http_server]
port = 127.0.0.1:{port}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:app]
command = {command}
autostart = false
autorestart = false
startsecs = 0
stdout_logfile = {directory}/app.log
stdout_logfile_maxbytes = 0
"""


class Supervisord(Subject):
    """supervisord with its defaults, but without rotation."""

    name = "supervisord"
    # Its follow takes time that grows with the square of what waits.
    longest = 100_000

    def __init__(self, environment: Path, directory: Path) -> None:
        self._python = environment / "bin" / "python"
        self._directory = directory
        self.start_file = directory / "supervisord.start"
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self._size: int | None = None

    async def prepare(self, kind: str, lines: int) -> None:
        self.start_file.unlink(missing_ok=True)
        await self._serve(load(kind, lines, self.start_file))
        self._size = size_of(kind, lines)

    async def run(self) -> float:
        await self._call("startProcess", "app", False)
        log = self._directory / "app.log"
        if self._size is not None:
            return await until_size(log, self._size) - self.began()
        while (await self._call("getProcessInfo", "app"))["statename"] != "EXITED":
            await asyncio.sleep(0.05)
        return 0.0

    def receiver(self, kind: str, lines: int) -> Sequence[str]:
        if kind == "lines":
            raise NotMeasurable("has no lines as text")
        command = (str(self._python), "-m", "benchmarks.receivers.supervisord", str(self._port))
        return [*command, kind, str(lines)]

    async def start(self) -> float:
        await self._serve(["sleep", "3600"])
        begin = time.perf_counter()
        await self._call("startProcess", "app", True)
        return (time.perf_counter() - begin) * 1e3

    def daemon(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def aclose(self) -> None:
        """Ends it with its app."""
        if self._process is not None:
            await ended(self._process)

    async def _serve(self, command: Sequence[str]) -> None:
        await self.aclose()
        # It follows no log that is not there.
        (self._directory / "app.log").write_bytes(b"")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        config = self._directory / "supervisord.conf"
        config.write_text(
            CONFIG.format(directory=self._directory, port=self._port, command=shlex.join(command))
        )
        self._process = await started(
            [str(self._python), "-m", "supervisor.supervisord", "-c", str(config)]
        )
        deadline = time.monotonic() + PATIENCE.total_seconds()
        while True:
            try:
                await self._call("getState")
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise NotMeasurable("did not start") from error
                await asyncio.sleep(0.02)

    async def _call(self, method: str, *arguments: object) -> Any:
        proxy = xmlrpc.client.ServerProxy(f"http://127.0.0.1:{self._port}/RPC2")
        return await asyncio.to_thread(getattr(proxy.supervisor, method), *arguments)
