"""The server's end of a supervisor's control socket; see `supervisor/control.py`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from att_server.supervisor.state import CONTROL_SOCKET

Message = Mapping[str, Any]

_GREW = b'{"push": "grew"}\n'


class SupervisorLost(Exception):
    """The connection has ended."""


class SupervisorSilent(Exception):
    """No answer came in time."""


class CommandRefused(Exception):
    """The supervisor answered that it does not do that; `error` says why."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


class ControlClient(asyncio.Protocol):
    """One connection to a supervisor."""

    def __init__(
        self,
        *,
        epoch: int,
        on_message: Callable[[Message], None],
        on_grew: Callable[[], None],
        on_lost: Callable[[ControlClient], None],
    ) -> None:
        """on_message: is given every message, an answer before its caller has it.

        on_grew: is called instead where the message is only that the log grew.

        on_lost: is called once, when the connection ends from the other side.
        """
        self._epoch = epoch
        self._on_message = on_message
        self._on_grew = on_grew
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._last_id = 0

    async def open(self, connection: socket.socket, *, first: Message | None = None) -> None:
        """Takes over a connected socket. first: is sent before anything else is done."""
        rest = b"" if first is None else _line(first)
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # full, or closed: both are the transport's to handle
            rest = rest[connection.send(rest) :]
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_unix_connection(lambda: self, sock=connection)
        if rest:
            transport.write(rest)

    def send(self, message: Message) -> None:
        """Sends a message that has no answer."""
        if self._transport is not None:
            self._transport.write(_line(message))

    async def call(self, command: str, *, within: timedelta | None, **arguments: object) -> Message:
        """Sends a command and returns its answer.

        within: None waits as long as the connection lasts. Cancelling does not
        take the command back. Raises SupervisorLost, SupervisorSilent,
        CommandRefused.
        """
        if self._transport is None:
            raise SupervisorLost
        self._last_id += 1
        number = self._last_id
        answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[number] = answered
        self.send({"v": 1, "id": number, "epoch": self._epoch, "command": command, **arguments})
        try:
            async with asyncio.timeout(None if within is None else within.total_seconds()):
                answer = await answered
        except TimeoutError as error:
            raise SupervisorSilent from error
        finally:
            self._answers.pop(number, None)
        if not answer.get("ok"):
            raise CommandRefused(str(answer.get("error")), str(answer.get("message", "")))
        return answer

    def close(self) -> None:
        """Lets go of the supervisor; `on_lost` is not called."""
        self._on_lost = lambda _: None
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)  # narrows the type
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hands out the messages that are whole."""
        if data == _GREW and not self._received:  # comes with every line of an app
            self._on_grew()
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self._on_message(message)
            answered = self._answers.get(message.get("id", 0))
            if answered is not None and not answered.done():
                answered.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all calls."""
        self._transport = None
        for answered in self._answers.values():
            if not answered.done():
                answered.set_exception(SupervisorLost())
        self._on_lost(self)


def _line(message: Message) -> bytes:
    return json.dumps(message).encode() + b"\n"


def connect(directory: Path) -> socket.socket:
    """A connection to the supervisor of a supervisor directory, at once or never.

    Raises FileNotFoundError or ConnectionRefusedError if there is none, other
    OSErrors (BlockingIOError: it does not accept) if there may be one.
    """
    with contextlib.ExitStack() as opened:
        here = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, here)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            # The path of a socket is limited to 107 bytes, that of a directory is not.
            connection.connect(f"/proc/self/fd/{here}/{CONTROL_SOCKET}")
        except OSError:
            connection.close()
            raise
        return connection
