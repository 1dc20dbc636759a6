"""Who serves at once where this server is killed: the server before it, then a spare.

Most of a start is spent on the interpreter and its modules. A spare is a second process
of this server that has that behind it, and waits for the end of its server on a
connection that closes with it. The server before has it behind it anyway.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from att_server.lock import LOCK_NAME, Tenure, is_held
from att_server.succession import Predecessor

OPTION = "--spare"
"""What a server is started with to be one."""

_LATER = timedelta(milliseconds=200)
"""After the server serves: those who wait for it come first."""
_AFTER_OTHERS = timedelta(seconds=2)
"""After it serves, where the server before stands by."""
_SOON = timedelta(seconds=3)
"""After a spare serves: the launcher starts another server meanwhile, unless it is not there, or
has a release on trial, for as long as that takes."""
_LOOK_AGAIN = timedelta(milliseconds=100)
_LETS_GO_WITHIN = timedelta(seconds=30)
"""In which whoever holds the directory after a server that was killed serves, or is gone."""
_LOOK_CLOSER = timedelta(milliseconds=5)


class Reserve:
    """The server before this one, then a spare of this one, while the context is open.

    The server before is let go once the spare is prepared, and this server is not on trial.
    """

    def __init__(
        self,
        before: Predecessor | None,
        *,
        has_spare: bool,
        is_spare: bool,
        on_trial: Callable[[], bool],
    ) -> None:
        """before: has handed over. has_spare, is_spare: of this server."""
        self._before = before
        self._has_spare = has_spare
        later = _LATER if before is None else _AFTER_OTHERS
        self._later = (_SOON if is_spare else later).total_seconds()
        self._on_trial = on_trial
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            self._before.give_back()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    def tell_migrating(self) -> None:
        """Has the server before wait for longer, if it is there; from any thread."""
        if self._before is not None:
            self._before.tell_migrating()

    def tell_serving(self) -> None:
        """Has the server before stand by, and a spare be prepared."""
        if self._before is not None:
            self._before.tell_serving()
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(), name="reserve")

    def let_go(self) -> None:
        """Has the server before end, if it is there still."""
        if self._before is not None:
            self._before.let_go()
            self._before = None

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while self._has_spare:
            await asyncio.sleep(self._later)
            spare, ours = _begun()
            with ours:
                if await loop.sock_recv(ours, 1):
                    await self._proven()
                    await loop.sock_recv(ours, 1)
            await asyncio.to_thread(spare.wait)
        await self._proven()

    async def _proven(self) -> None:
        """Returns once it is, and the server before was let go."""
        while self._before is not None and self._on_trial():
            await asyncio.sleep(_LOOK_AGAIN.total_seconds())
        self.let_go()


def _begun() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A spare of this process, and the connection that it waits on."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        spare = subprocess.Popen(
            (sys.executable, *sys.orig_argv[1:], OPTION),
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return spare, ours


async def needed(state_dir: Path) -> bool:
    """Waits in a spare, which is prepared, for the end of its server.

    Returns whether it has to serve in its place: not where that one was asked to end,
    and not where another one serves.
    """
    loop = asyncio.get_running_loop()
    server = os.getppid()
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as connection:
        connection.setblocking(False)
        try:
            await loop.sock_sendall(connection, b"!")
            await loop.sock_recv(connection, 1)
        except OSError:  # it has ended already
            pass
    deadline = loop.time() + _LETS_GO_WITHIN.total_seconds()
    while loop.time() < deadline:
        held = is_held(state_dir)
        try:
            said = json.loads((state_dir / LOCK_NAME).read_bytes())
        except (OSError, ValueError):
            return False
        if said.get("tenure") == Tenure.ENDED:
            return False
        if not held:
            return True
        # The kernel lets go for a server that was killed a moment after its connections.
        if said.get("tenure") == Tenure.SERVES and said.get("pid") != server:
            return False
        await asyncio.sleep(_LOOK_CLOSER.total_seconds())
    return False
