"""The supervisor's end of the control socket: newline-delimited JSON objects.

Commands come in, each with `id`, `epoch` and `command`, and are answered once
with the same `id`. A peer that has said hello is also told `state` (the newest)
and `grew` (look at the log again). Both are levels: what a slow peer has not
taken is merged, so that it costs one flag each, and never blocks anybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

MAX_LINE = 64 * 1024
MAX_REPLIES = 64
MAX_PEERS = 64
GREW_INTERVAL = 0.001
_GREW = b'{"push": "grew"}\n'

Command = Mapping[str, Any]
Handler = Callable[["Peer", Command], None]


class Peer:
    """One connection. Reading pauses while the peer does not take its replies.

    gone: whether it was dropped; what it is told then goes nowhere.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.told = False
        self.gone = False
        self.awaited = select.EPOLLIN
        self._received = bytearray()
        self._replies: list[Mapping[str, object]] = []
        self._sending = b""
        self._state: Mapping[str, object] | None = None
        self._grew = False

    def reply(self, command: Command, state: Mapping[str, object]) -> None:
        """Answers a command that was carried out."""
        self._replies.append({"id": command.get("id"), "ok": True, "state": state})

    def refuse(self, command: Command, error: str, message: str) -> None:
        """Answers a command that was not."""
        self._replies.append(
            {"id": command.get("id"), "ok": False, "error": error, "message": message}
        )

    def offer_state(self, state: Mapping[str, object]) -> None:
        """Has the peer told the newest state, once it has said hello."""
        if self.told:
            self._state = state

    def offer_growth(self) -> None:
        """Has the peer told that the log grew, once it has said hello."""
        self._grew = self.told

    def send(self) -> None:
        """Sends what the peer takes without waiting. Raises OSError when it is gone."""
        while self._sending or self._next():
            try:
                sent = self.connection.send(self._sending)
            except BlockingIOError:
                return
            self._sending = self._sending[sent:]

    def receive(self) -> list[Command]:
        """The commands that have come. Raises OSError, ValueError, EOFError."""
        try:
            data = self.connection.recv(MAX_LINE)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        self._received += data
        *lines, rest = self._received.split(b"\n")
        if len(rest) > MAX_LINE:
            raise ValueError("a line is too long")
        self._received = rest
        return [_command(line) for line in lines]

    @property
    def interest(self) -> int:
        """What should be waited for, as an epoll mask; `awaited` is what is."""
        reading = select.EPOLLIN if len(self._replies) < MAX_REPLIES else 0
        return reading | (select.EPOLLOUT if self._sending else 0)

    @property
    def owed(self) -> bool:
        """Whether there is something the peer has not taken."""
        return bool(self._sending or self._replies or self._grew or self._state)

    def _next(self) -> bool:
        message: Mapping[str, object]
        if self._replies:
            message = self._replies.pop(0)
        elif self._grew:
            self._grew, self._sending = False, _GREW
            return True
        elif self._state is not None:
            self._state, message = None, {"push": "state", "state": self._state}
        else:
            return False
        self._sending = json.dumps(message).encode() + b"\n"
        return True


class ControlServer:
    """The listener and its peers, on an epoll that the owner waits on."""

    def __init__(self, epoll: select.epoll, path: str, handle: Handler) -> None:
        """Listens at `path` (a socket only the owner may use). Raises OSError."""
        self._epoll = epoll
        self._handle = handle
        self._peers: dict[int, Peer] = {}
        self._grew_at = 0.0
        self._grew = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(16)
        epoll.register(self._listener, select.EPOLLIN)

    def add(self, connection: socket.socket, *, told: bool = False) -> None:
        """Takes on a connected peer, for the oldest one where there are too many.

        told: it need not say hello.
        """
        if len(self._peers) >= MAX_PEERS:
            self._drop(next(iter(self._peers.values())))
        peer = Peer(connection)
        peer.told = told
        self._peers[connection.fileno()] = peer
        self._epoll.register(connection, peer.awaited)

    def owns(self, descriptor: int) -> bool:
        """Whether events of this descriptor are for `on_event`."""
        return descriptor in self._peers or descriptor == self._listener.fileno()

    def on_event(self, descriptor: int, mask: int) -> None:
        """Takes new connections, commands, and room to send."""
        if descriptor == self._listener.fileno():
            with contextlib.suppress(OSError):
                self.add(self._listener.accept()[0])
            return
        peer = self._peers[descriptor]
        try:
            if mask & ~select.EPOLLOUT:
                for command in peer.receive():
                    self._handle(peer, command)
        except (OSError, ValueError, EOFError):
            self._drop(peer)
            return
        self.flush(peer)

    def flush(self, peer: Peer) -> None:
        """Sends what the peer takes now, and waits for room for the rest."""
        descriptor = peer.connection.fileno()
        if descriptor not in self._peers:
            return
        try:
            peer.send()
            interest = peer.interest
            if interest != peer.awaited:
                self._epoll.modify(descriptor, interest)
                peer.awaited = interest
        except OSError:
            self._drop(peer)

    def push_state(self, state: Mapping[str, object]) -> None:
        """Tells all peers the newest state."""
        for peer in list(self._peers.values()):
            peer.offer_state(state)
            self.flush(peer)

    def push_grew(self) -> None:
        """Tells all peers that the log grew: at once, or 1 ms after the last time."""
        now = time.monotonic()
        if now >= self._grew_at + GREW_INTERVAL:
            self._tell_growth(now)
        else:
            self._grew = True

    @property
    def deadline(self) -> float | None:
        """When `on_deadline` is due, in monotonic seconds."""
        return self._grew_at + GREW_INTERVAL if self._grew else None

    def on_deadline(self, now: float) -> None:
        """Tells of growth if that is due."""
        if self._grew and now >= self._grew_at + GREW_INTERVAL:
            self._tell_growth(now)

    def close(self, linger: float) -> None:
        """Sends what is owed, for at most `linger` seconds, and closes all."""
        self._epoll.unregister(self._listener)
        self._listener.close()
        deadline = time.monotonic() + linger
        poll = select.poll()
        for descriptor, peer in self._peers.items():
            if self._grew:
                peer.offer_growth()
            poll.register(descriptor, select.POLLOUT)
        while any(peer.owed for peer in self._peers.values()) and time.monotonic() < deadline:
            for descriptor, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                peer = self._peers[descriptor]
                self.flush(peer)
                if descriptor not in self._peers or not peer.owed:
                    poll.unregister(descriptor)
        for peer in list(self._peers.values()):
            self._drop(peer)

    def _tell_growth(self, now: float) -> None:
        self._grew, self._grew_at = False, now
        for peer in list(self._peers.values()):
            peer.offer_growth()
            self.flush(peer)

    def _drop(self, peer: Peer) -> None:
        descriptor = peer.connection.fileno()
        peer.gone = True
        if self._peers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)
            peer.connection.close()


def _command(line: bytes | bytearray) -> Command:
    try:
        command = json.loads(line)
    except RecursionError as error:
        raise ValueError("a command is nested too deep") from error
    if not isinstance(command, dict):
        raise ValueError("a command is a JSON object")
    return command
