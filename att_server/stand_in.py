"""Answers every call with the reason, while no server can be started: gRPC by hand."""

from __future__ import annotations

import base64
import os
import select
import socket
import threading
from urllib.parse import quote

_PREFACE = 24
_SETTINGS, _HEADERS, _PING, _CONTINUATION = 4, 1, 6, 9
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_UNAVAILABLE = 14


class StandIn:
    """Listens where the server would, in a thread, until it is closed."""

    def __init__(self, path: str, message: str) -> None:
        """Takes the path over. message: for people, ASCII. Raises OSError."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connections: dict[socket.socket, bytes] = {}
        self._answer = _answer("NO_WORKING_RELEASE", message[:900])
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
        draft = f"/proc/self/fd/{directory}/stand-in.sock"
        try:
            if os.path.exists(draft):
                os.unlink(draft)
            self._listener.bind(draft)
            os.chmod(draft, 0o600)
            self._listener.listen(64)
            os.replace(draft, path)
        finally:
            os.close(directory)
        threading.Thread(target=self._run, name="stand-in", daemon=True).start()

    def close(self) -> None:
        """Ends it; the path stays, as it may be a server's by now."""
        self._listener.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while True:
            for ready in select.select([self._listener, *self._connections], [], [])[0]:
                if ready is not self._listener:
                    self._on_readable(ready)
                    continue
                try:
                    connection, _ = ready.accept()
                except OSError:  # closed
                    for each in (self._listener, *self._connections):
                        each.close()
                    return
                connection.setblocking(False)
                self._connections[connection] = b""

    def _on_readable(self, ready: socket.socket) -> None:
        try:
            data = ready.recv(1 << 16)
            rest, reply = self._answered(self._connections[ready] + data)
            ready.sendall(reply)
        except (OSError, ValueError):
            data = b""
        if data:
            self._connections[ready] = rest
        else:
            del self._connections[ready]
            ready.close()

    def _answered(self, data: bytes) -> tuple[bytes, bytes]:
        """What is left of the data, and what is to be said to it."""
        reply = b""
        if data.startswith(b"PRI"):
            if len(data) < _PREFACE:
                return data, reply
            data, reply = data[_PREFACE:], _frame(_SETTINGS, 0, 0, b"")
        while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3])):
            kind, flags, stream = data[3], data[4], int.from_bytes(data[5:9])
            payload, data = data[9 : 9 + size], data[9 + size :]
            if kind == _SETTINGS and not flags & _ACK:
                reply += _frame(_SETTINGS, _ACK, 0, b"")
            elif kind == _PING and not flags & _ACK:
                reply += _frame(_PING, _ACK, 0, payload)
            elif kind in (_HEADERS, _CONTINUATION) and flags & _END_HEADERS:
                reply += _frame(_HEADERS, _END_STREAM | _END_HEADERS, stream, self._answer)
        if len(data) > 1 << 20:
            raise ValueError("a frame is too long")
        return data, reply


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _answer(reason: str, message: str) -> bytes:
    """The headers that end a call: status UNAVAILABLE with a `google.rpc.ErrorInfo`."""
    info = _field(1, reason.encode()) + _field(2, b"att.v1")
    detail = _field(1, b"type.googleapis.com/google.rpc.ErrorInfo") + _field(2, info)
    status = bytes([8, _UNAVAILABLE]) + _field(2, message.encode()) + _field(3, detail)
    headers = {
        "content-type": "application/grpc",
        "grpc-status": str(_UNAVAILABLE),
        "grpc-message": quote(message, safe=" !#$&'()*+,/:;=?@[]"),
        "grpc-status-details-bin": base64.b64encode(status).decode().rstrip("="),
    }
    return b"\x88" + b"".join(b"\0" + _text(key) + _text(headers[key]) for key in headers)


def _text(text: str) -> bytes:
    """A string of HPACK: its length, with 7 bits at first, and itself."""
    length = len(text)
    return (bytes([length]) if length < 127 else b"\x7f" + _varint(length - 127)) + text.encode()


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])
