"""A peer that speaks HTTP/2 as no client does: frames by hand, on a socket of its own."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from types import TracebackType
from typing import Self

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.server_process import PATIENCE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16_384
_CANCEL = 8


class Peer:
    """One connection to a server at a unix path or a (host, port). As a context it closes."""

    def __init__(self, address: str | tuple[str, int], *, window: int | None = None) -> None:
        """window: how much the server may send on a stream; None: what HTTP/2 says."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(address)
        self._encoder = Encoder()
        self._next_stream = 1
        self._window = window

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def greet(self) -> None:
        """The preface and settings, as every client begins."""
        settings = {} if self._window is None else {SettingsFrame.INITIAL_WINDOW_SIZE: self._window}
        self.send_raw(PREFACE + SettingsFrame(0, settings=settings).serialize())

    def send_raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self._socket.sendall(data)

    def send(self, *frames: Frame) -> None:
        """Frames as they are."""
        self.send_raw(b"".join(frame.serialize() for frame in frames))

    def headers(self, path: str, **extra: str) -> list[tuple[str, str]]:
        """The headers of a call."""
        return [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *((name.replace("_", "-"), value) for name, value in extra.items()),
        ]

    def call(self, path: str, message: bytes = b"", *, end: bool = True, **extra: str) -> int:
        """Begins a call and returns its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        block = self._encoder.encode(self.headers(path, **extra))
        headers = HeadersFrame(stream, data=block, flags=["END_HEADERS"])
        data = DataFrame(stream, data=b"\0" + len(message).to_bytes(4, "big") + message)
        if end:
            data.flags.add("END_STREAM")
        self.send(headers, data)
        return stream

    def reset(self, path: str, count: int) -> None:
        """Begins calls and takes each back at once."""
        burst = bytearray()
        for _ in range(count):
            stream, self._next_stream = self._next_stream, self._next_stream + 2
            block = self._encoder.encode(self.headers(path))
            burst += HeadersFrame(
                stream, data=block, flags=["END_HEADERS", "END_STREAM"]
            ).serialize()
            burst += RstStreamFrame(stream, error_code=_CANCEL).serialize()
        self.send_raw(bytes(burst))

    def endless_headers(self, path: str, frames: int) -> None:
        """A call whose headers never end."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        block = self._encoder.encode(self.headers(path))
        self.send(HeadersFrame(stream, data=block, flags=[]))
        filler = Encoder().encode([("x-filler", "a" * 8000)])
        for _ in range(frames):
            self.send(ContinuationFrame(stream, data=filler))

    def ping(self, count: int) -> None:
        """Pings that want answers."""
        self.send(*(PingFrame(0, opaque_data=b"\0" * 8) for _ in range(count)))

    def settings(self, count: int) -> None:
        """Settings that want acknowledgements."""
        self.send(*(SettingsFrame(0) for _ in range(count)))

    def open_window(self, size: int) -> None:
        """Lets the server send so much more on the whole connection."""
        self.send(WindowUpdateFrame(0, window_increment=size))

    def acknowledge(self, *, seconds: float) -> bool:
        """Answers pings and settings for so long and takes nothing else; False: it was closed."""
        deadline = time.monotonic() + seconds
        buffer = b""
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                continue
            try:
                data = self._socket.recv(65_536)
                buffer = self._answered(buffer + data)
            except OSError:
                return False
            if not data:
                return False
        return True

    def closed_within(self, seconds: float) -> bool:
        """Whether the server closes the connection, on which nothing more is said."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                try:
                    if not self._socket.recv(65_536):
                        return True
                except ConnectionError:
                    return True
        return False

    def _answered(self, data: bytes) -> bytes:
        while len(data) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            if len(data) < 9 + length:
                break
            with contextlib.suppress(Exception):
                frame.parse_body(memoryview(data[9 : 9 + length]))
            data = data[9 + length :]
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
            elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                self.send(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]))
        return data
