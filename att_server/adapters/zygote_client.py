"""The zygote of this server: started when needed, and again when it died."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import att_server

_CODE = (
    "import sys; sys.path.append(sys.argv[2]); "
    "from att_server.supervisor.zygote import main; main(int(sys.argv[1]))"
)
# Under load the same few buffers are used again and again: giving them back to
# the kernel each time costs a third of the time of capture.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 20),
}
_ENDS_WITHIN = 5.0
"""Seconds in which a zygote ends after its socket is closed."""


class ZygoteClient:
    """Hands jobs to the zygote; see `supervisor/zygote.py` for what a job is.

    The zygote has nothing of the server's environment and ends with the server.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._changing = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The process id of the zygote, 0 if there is none."""
        return 0 if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether there is a zygote and it has not ended."""
        return self._process is not None and self._process.poll() is None

    async def open(self) -> None:
        """Has a live zygote. Raises OSError."""
        await self._opened()

    async def submit(self, job: Mapping[str, object], connection: socket.socket) -> None:
        """Has a job begun; `connection` is passed to it and remains the caller's to close.

        Returns when the zygote has been told; the job speaks for itself over
        the connection, and its end of file is the job's end. Raises OSError.
        """
        message = json.dumps(job).encode()
        channel = await self._opened()
        try:
            await _send(channel, message, connection)
        except (BrokenPipeError, ConnectionResetError):  # it died since we looked
            await self._discard(channel)
            await _send(await self._opened(), message, connection)

    async def aclose(self) -> None:
        """Ends the zygote. What it started runs on."""
        async with self._changing:
            await self._end()

    async def _opened(self) -> socket.socket:
        async with self._changing:
            if self._channel is None or not self.alive:
                await self._end()
                self._channel = await self._start()
            return self._channel

    async def _discard(self, channel: socket.socket) -> None:
        """Ends the zygote behind `channel`, if nobody has put another in its place."""
        async with self._changing:
            if self._channel is channel:
                await self._end()

    async def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(att_server.__file__).parent.parent)
        # Without `site` it starts in a third of the time.
        python = [sys.executable, "-I", "-S", "-X", "utf8"]
        ours.setblocking(False)

        def launch() -> subprocess.Popen[bytes]:
            with theirs:  # which has to be open until here, also if nobody waits any more
                return subprocess.Popen(
                    [*python, "-c", _CODE, str(theirs.fileno()), root],
                    cwd="/",
                    env=_ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )

        try:
            self._process = await asyncio.to_thread(launch)
        except BaseException:
            ours.close()
            raise
        return ours

    async def _end(self) -> None:
        channel, self._channel = self._channel, None
        process, self._process = self._process, None
        if channel is not None:
            channel.close()
        if process is not None:
            await asyncio.to_thread(_await_end, process)


def _await_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _send(channel: socket.socket, message: bytes, connection: socket.socket) -> None:
    while True:
        try:
            socket.send_fds(channel, [message], [connection.fileno()])
            return
        except BlockingIOError:
            await _writable(channel)


async def _writable(channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(channel, wake)
    try:
        await ready
    finally:
        loop.remove_writer(channel)
