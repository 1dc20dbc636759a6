"""How a server that runs makes way for the next one: the lock goes from hand to hand.

The next server connects to `handover.sock` and says that it is ready to begin. The
one that runs ends its streams, closes what it keeps, and sends the lock itself, as
a descriptor: nobody else can take it in between. It stands by until the next one
lets it go; if that one ends before, it serves again, at once, as it has kept the lock
too. Datagrams of one JSON object each, over a connection whose end is the end of the
process at its other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HANDOVER_SOCKET = "handover.sock"
FINDS_WITHIN = timedelta(seconds=10)
"""In which a server that begins or ends now can be asked, or has let go."""
MAKES_WAY_WITHIN = timedelta(seconds=30)
SERVES_WITHIN = timedelta(seconds=4)
"""From the handover on: nobody is served meanwhile, and the server before is there still."""
MIGRATES_WITHIN = timedelta(minutes=1)
"""From when the next server says that it begins to: how long that takes is a matter of size."""

_ENDS_WITHIN = timedelta(seconds=1)
_LOOK_AGAIN = 0.02
_LONGEST = 4096
_CREDENTIALS = struct.Struct("3i")

log = logging.getLogger(__name__)


class PredecessorSilent(Exception):
    """The server that runs does not make way. The text says what it did."""


class Predecessor:
    """The server before, which has handed over. lock: the lock of the state directory."""

    def __init__(self, lock: int, connection: socket.socket) -> None:
        self.lock = lock
        self._connection = connection

    def tell_migrating(self) -> None:
        """Has it wait for longer; without effect if it is gone. From any thread."""
        self._tell({"migrating": True})

    def tell_serving(self) -> None:
        """Has it stand by; without effect if it is gone."""
        self._tell({"serving": True, "stands_by": True})

    def let_go(self) -> None:
        """Has it end, whatever happens to this process from now on."""
        self._tell({"serving": True})
        self.give_back()

    def give_back(self) -> None:
        """Has it serve again, where it was not let go: this process has closed all it had."""
        self._connection.close()

    def _tell(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(_line(message))


async def ask(directory: Path) -> Predecessor | None:
    """Asks the server that runs to make way; None: it cannot be asked now, or has ended.

    directory: the state directory. Cancelling before the answer leaves the server
    as it is. Raises PredecessorSilent.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    locks: list[int] = []
    try:
        with _reachable(directory) as path:
            connection.connect(path)
        connection.send(_line({"take_over": {"pid": os.getpid()}}))
        async with asyncio.timeout(MAKES_WAY_WITHIN.total_seconds()):
            await _readable(connection)
        _, locks, _, _ = socket.recv_fds(connection, _LONGEST, 1, socket.MSG_CMSG_CLOEXEC)
        if locks:
            return Predecessor(locks[0], connection)
    except TimeoutError as error:
        raise PredecessorSilent("it did not answer in time") from error
    except OSError:  # it does not listen yet, or not any more
        return None
    finally:
        if not locks:
            connection.close()
    return None


class Succession:
    """Where this server can be asked to make way, while the context is open."""

    def __init__(self, directory: Path, *, serves_within: timedelta = SERVES_WITHIN) -> None:
        """directory: the state directory, which is held. serves_within: from a handover on."""
        self._directory = directory
        self._serves_within = serves_within
        self._listener = socket.socket()
        self._asked: Successor | None = None

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The file stays: it may be the next server's already.
        self._listener.close()

    def _listen(self) -> None:
        self._listener.close()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        with _reachable(self._directory) as path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._listener.bind(path)
            os.chmod(path, 0o600)
        self._listener.listen(4)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for this server to make way."""
        return self._asked is not None

    async def asked(self) -> Successor:
        """Returns when the next server is ready to begin."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            self._asked = Successor(connection, self._serves_within)
            return self._asked

    async def settled(self, lock: int) -> bool:
        """Hands the lock over, and returns True once the next server has let this one go.

        False: it ended before, or was ended since it did not serve in time; nobody
        else holds the state directory then. Everything has to be closed before.
        """
        successor, self._asked = self._asked, None
        if successor is not None and await successor.settled(lock):
            return True
        self._listen()  # in place of the next server, which had begun to
        return False


class Successor:
    """The next server, which waits for the lock or begins with it."""

    def __init__(self, connection: socket.socket, serves_within: timedelta) -> None:
        self._connection = connection
        self._serves_within = serves_within
        pid, _, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        self.pid = int(pid)

    async def settled(self, lock: int) -> bool:
        """See `Succession.settled`."""
        with self._connection as connection:
            try:
                process = os.pidfd_open(self.pid)
            except ProcessLookupError:
                return False
            try:
                socket.send_fds(connection, [_line({"handed_over": True})], [lock])
                return await self._lets_go(process)
            except OSError:  # it is gone
                return False
            finally:
                os.close(process)

    async def _lets_go(self, process: int) -> bool:
        try:
            async with asyncio.timeout(self._serves_within.total_seconds()) as patience:
                message = await self._message("serving", "migrating")
                if message.get("migrating"):
                    longer = asyncio.get_running_loop().time() + MIGRATES_WITHIN.total_seconds()
                    patience.reschedule(longer)
                    message = await self._message("serving")
        except TimeoutError:
            log.warning("process %d took over and does not serve: it is ended", self.pid)
            await _end(process)
            return False
        while message.get("stands_by"):
            message = await self._message("serving")
        return bool(message)

    async def _message(self, *says: str) -> Mapping[str, Any]:
        """The next one that says any of it; empty: it has ended."""
        loop = asyncio.get_running_loop()
        while line := await loop.sock_recv(self._connection, _LONGEST):
            message: Mapping[str, Any] = json.loads(line)
            if any(message.get(each) for each in says):
                return message
        return {}


async def _end(process: int) -> None:
    """Ends it, and not with SIGKILL: who counts its ends sees that this one speaks against it."""
    for number in (signal.SIGABRT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_WITHIN.total_seconds()):
                await _readable(process)
                return
    await _readable(process)


async def look_again() -> None:
    """Waits a moment, for another process to come so far."""
    await asyncio.sleep(_LOOK_AGAIN)


@contextmanager
def _reachable(directory: Path) -> Iterator[str]:
    """A path to the socket that is short enough, whatever the directory's is."""
    here = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{here}/{HANDOVER_SOCKET}"
    finally:
        os.close(here)


async def _readable(descriptor: socket.socket | int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode()
