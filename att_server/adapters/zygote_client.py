"""The zygote of this server: started when needed, and again when it died."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import isal

import att_server

_CODE = (
    "import sys; sys.path += sys.argv[2:]; "
    "from att_server.supervisor.zygote import main; main(int(sys.argv[1]))"
)
# Under load the same few buffers are used again and again: giving them back to
# the kernel each time costs a third of the time of capture.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 20),
}
_STARTS_WITHIN = 10.0
_ENDS_WITHIN = 5.0
"""Seconds in which a zygote ends after its socket is closed."""
_TAKES_WITHIN = 10.0
"""Seconds in which it makes room for a job."""


@dataclass(frozen=True, slots=True)
class _Zygote:
    """A zygote, which is no child of ours: its socket, its pid and a pidfd of it."""

    channel: socket.socket
    pid: int
    pidfd: int

    def ended(self, within: float = 0.0) -> bool:
        """Whether it has ended, after at most so many seconds."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(within * 1000))

    def resume(self) -> None:
        """Has it go on if somebody stopped it (SIGSTOP): it could not take a job."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)

    def end(self) -> None:
        """Returns when it has ended. Its socket is closed."""
        try:
            if not self.ended(_ENDS_WITHIN):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
                self.ended(_ENDS_WITHIN)
        finally:
            os.close(self.pidfd)


class ZygoteClient:
    """Hands jobs to the zygote; see `supervisor/zygote.py` for what a job is.

    May have several users at once; whoever made it closes it. The zygote has
    nothing of the server's environment, and ends with the server.
    """

    def __init__(self) -> None:
        self._zygote: _Zygote | None = None
        # Held by whoever uses the channel, so that nobody closes it meanwhile.
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The process id of the zygote, 0 if there is none."""
        return 0 if self._zygote is None else self._zygote.pid

    @property
    def alive(self) -> bool:
        """Whether there is a zygote and it has not ended."""
        return self._zygote is not None and not self._zygote.ended()

    async def open(self) -> None:
        """Has a live zygote. Raises OSError."""
        async with self._turn:
            await self._opened()

    async def submit(self, job: Mapping[str, object], connection: socket.socket) -> None:
        """Has a job begun; `connection` is passed to it and remains the caller's to close.

        Returns when the zygote has been told; the job speaks for itself over
        the connection, and its end of file is the job's end. Raises OSError.
        """
        message = json.dumps(job).encode()
        async with self._turn:
            try:
                await self._send(message, connection)
            except (BrokenPipeError, ConnectionResetError):  # it died since we looked
                await self._end()
                await self._send(message, connection)

    async def aclose(self) -> None:
        """Ends the zygote. What it started runs on."""
        async with self._turn:
            await self._end()

    async def _opened(self) -> _Zygote:
        if self._zygote is None or self._zygote.ended():
            await self._end()
            self._zygote = await _started()
        return self._zygote

    async def _send(self, message: bytes, connection: socket.socket) -> None:
        zygote = await self._opened()
        try:
            async with asyncio.timeout(_TAKES_WITHIN):
                zygote.resume()
                await _send(zygote.channel, message, connection)
        except TimeoutError as error:
            await self._end()
            raise OSError(errno.ETIMEDOUT, "the zygote takes no job") from error

    async def _end(self) -> None:
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.channel.close()
            await asyncio.to_thread(zygote.end)


async def _started() -> _Zygote:
    """A new zygote. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    try:
        async with asyncio.timeout(_STARTS_WITHIN):
            await asyncio.to_thread(_launch, theirs)
            hello = await asyncio.get_running_loop().sock_recv(ours, 1024)
        if not hello:
            raise OSError(errno.ECHILD, "the zygote ended at once")
        pid = json.loads(hello)["pid"]
        return _Zygote(ours, pid, os.pidfd_open(pid))
    except TimeoutError as error:
        ours.close()
        raise OSError(errno.ETIMEDOUT, "the zygote did not start") from error
    except BaseException:
        ours.close()
        raise


def _launch(theirs: socket.socket) -> None:
    """Returns when the zygote has left the process that it was started as."""
    # Its own code, and what makes checksums quicker where it can be loaded.
    folders = [str(Path(file).parent.parent) for file in (att_server.__file__, isal.__file__)]
    with theirs:  # which has to be open until here, also if nobody waits any more
        subprocess.run(
            # Without `site` it starts in a third of the time.
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _CODE, str(theirs.fileno()), *folders],
            cwd="/",
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            check=False,  # a zygote that is not there says so by not saying hello
        )


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
