"""pm2, from npm: one daemon with a home of its own."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.stage import load
from benchmarks.subjects.subject import (
    ROOT,
    NotMeasurable,
    Subject,
    output,
    size_of,
    until_size,
)

RECEIVER = ROOT / "benchmarks" / "receivers" / "pm2.cjs"


class Pm2(Subject):
    """pm2 with its defaults, but without restarts."""

    name = "pm2"

    def __init__(self, installed: Path, directory: Path) -> None:
        self._module = installed / "node_modules" / "pm2"
        self._home = directory / "pm2"
        self._home.mkdir()
        self.start_file = directory / "pm2.start"
        self._load: list[str] = []
        self._size: int | None = None
        self._count = 0
        self._has_app = False

    async def prepare(self, kind: str, lines: int) -> None:
        if self._has_app:
            await self._pm2("delete", "app")
            self._has_app = False
        self._count += 1
        self.start_file.unlink(missing_ok=True)
        self._load = load(kind, lines, self.start_file)
        self._size = size_of(kind, lines)
        await self._pm2("ping")

    async def run(self) -> float:
        program, *arguments = self._load
        log = self._home / f"app-{self._count}.log"
        options = ("--name", "app", "--interpreter", "none", "--no-autorestart", "-o", str(log))
        self._has_app = True
        await self._pm2("start", program, *options, "--", *arguments)
        if self._size is not None:
            return await until_size(log, self._size) - self.began()
        while '"status":"online"' in (await self._pm2("jlist")).decode():
            await asyncio.sleep(0.05)
        return 0.0

    def receiver(self, kind: str, lines: int) -> Sequence[str]:
        if kind == "lines":
            raise NotMeasurable("has no lines as text")
        if kind != "read":
            return self._node(kind, str(lines))
        logs = shlex.join([*self._command, "logs", "app", "--nostream", "--raw", "--lines"])
        sink = shlex.join([sys.executable, "-m", "benchmarks.receivers.stdin", kind, str(lines)])
        return ["env", f"PM2_HOME={self._home}", "sh", "-c", f"{logs} {lines} | {sink}"]

    async def start(self) -> float:
        await self._pm2("ping")
        return float(json.loads(await output(self._node("start", "/bin/sleep"))))

    def daemon(self) -> int:
        try:
            return int((self._home / "pm2.pid").read_text())
        except OSError as error:
            raise NotMeasurable("its daemon does not run") from error

    async def aclose(self) -> None:
        """Ends the daemon with its apps."""
        await self._pm2("kill")

    @property
    def _command(self) -> list[str]:
        return ["node", str(self._module / "bin" / "pm2")]

    def _node(self, *arguments: str) -> list[str]:
        home = f"PM2_HOME={self._home}"
        return ["env", home, "node", str(RECEIVER), str(self._module), *arguments]

    async def _pm2(self, *arguments: str) -> bytes:
        return await output(["env", f"PM2_HOME={self._home}", *self._command, *arguments])
