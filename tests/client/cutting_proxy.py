"""Stands between client and server and breaks what passes, at any byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path


class CuttingProxy:
    """Relays a unix socket to another.

    budget: how many bytes of the next connections' answers pass before the
        connection is cut; called once a connection, None is no cut.
    """

    def __init__(self, socket: Path, upstream: Path, budget: Callable[[], int | None]) -> None:
        self.target = f"unix:{socket}"
        self.connections = 0
        self.cuts = 0
        self._socket = socket
        self._upstream = upstream
        self._budget = budget
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_unix_server(self._serve, self._socket)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Lets nothing pass any more, and closes nothing: like a stopped process."""
        self._flowing.clear()

    def flow(self) -> None:
        """Lets new connections pass again; the stalled ones stay dead."""
        self._flowing = asyncio.Event()
        self._flowing.set()

    def drop(self) -> None:
        """Cuts all connections now."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        flowing = self._flowing
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
            try:
                async with asyncio.TaskGroup() as group:
                    ask = group.create_task(_relay(reader, up_writer, flowing, None))
                    await _relay(up_reader, writer, flowing, self._budget())
                    ask.cancel()
                self.cuts += 1
            finally:
                up_writer.transport.abort()
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            # The connection ends here, however; Python 3.11 logs a cancelled one.
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    flowing: asyncio.Event,
    budget: int | None,
) -> None:
    """Returns at the end of the input or of the budget."""
    while data := await reader.read(1 << 16):
        await flowing.wait()
        if budget is not None and len(data) >= budget:
            writer.write(data[:budget])
            await writer.drain()
            return
        if budget is not None:
            budget -= len(data)
        writer.write(data)
        await writer.drain()
