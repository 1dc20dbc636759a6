"""A server of its own in a temporary state directory, and a client of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import att_client
from att_client import RuntimeState

LOAD = Path(__file__).with_name("load.py")
PATIENCE = timedelta(minutes=2)
"""Bounds every wait; a measurement that takes longer has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A running server.

    directory: for files of peers, on the same disk as the state.
    server_pid: the server's process.
    """

    client: att_client.Client
    directory: Path
    server_pid: int

    async def project(self, project_id: str, *command: str) -> None:
        """Creates a project that runs `command`."""
        await self.client.projects.create(project_id, path=str(self.directory), command=command)

    async def run_to_end(self, project_id: str) -> None:
        """Starts the project's app and returns when its end is recorded."""
        await self.client.runtimes.start(project_id)
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while not (await self._ended(project_id)):
                await asyncio.sleep(0.05)

    async def _ended(self, project_id: str) -> bool:
        runtime = await self.client.runtimes.get(project_id)
        if runtime.state == RuntimeState.FAILED:
            raise RuntimeError(f"{project_id} failed: {runtime.reason}")
        return runtime.state == RuntimeState.EXITED


def load(kind: str, *arguments: object) -> list[str]:
    """The command of a load generator; see `load.py`."""
    return [sys.executable, "-S", "-E", str(LOAD), kind, *map(str, arguments)]


@contextlib.asynccontextmanager
async def stage(module: Sequence[str] = ("att_server",)) -> AsyncIterator[Stage]:
    """Starts a server and connects to it; afterwards ends its apps, itself and its files.

    module: what runs the server, and arguments before those of `att serve`.
    """
    directory = Path(tempfile.mkdtemp(prefix="att-bench-"))
    try:
        state = directory / "state"
        async with (
            serve(state, module) as server,
            att_client.connect(f"unix:{state}/att.sock") as client,
        ):
            try:
                yield Stage(client=client, directory=directory, server_pid=server.pid)
            finally:
                await end_apps(client)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def serve(
    state: Path, module: Sequence[str] = ("att_server",)
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server process on `state`, ready for calls."""
    command = [sys.executable, "-m", *module, "serve", "--state-dir", str(state)]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            line = await server.stdout.readline()
        if b"ready" not in line:
            raise RuntimeError(f"the server did not start: {line.decode()}")
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.send_signal(signal.SIGTERM)
        await server.wait()


async def end_apps(client: att_client.Client) -> None:
    """Stops every app, at once."""
    async for runtime in client.runtimes.list():
        await client.runtimes.stop(runtime.project_id, grace=timedelta(0))
