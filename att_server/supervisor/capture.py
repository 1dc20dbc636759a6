"""From the app's two pipes into its log, as fast as they come and no faster."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence

from att_server.supervisor.lines import Blob, LineAssembler
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.mask import Mask, MaskedStream

BATCH_BYTES = 256 * 1024
PAUSE = 0.2
"""Seconds after which an unterminated line is shown."""


class _Stream:
    """One pipe: what is read from it, and since when a line waits for its end."""

    def __init__(self, number: int, mask: Mask) -> None:
        self.number = number
        self.lines = LineAssembler()
        self.masked = MaskedStream(mask) if mask else None
        self.due: float | None = None

    def feed(self, data: bytes) -> list[Blob]:
        """What became whole with `data`."""
        return self.lines.feed(data if self.masked is None else self.masked.feed(data))

    def finish(self) -> list[Blob]:
        """The rest."""
        blobs = [] if self.masked is None else self.lines.feed(self.masked.finish())
        return blobs + self.lines.flush()


class Capture:
    """Reads both pipes of a run into the log, on an epoll that the owner waits on.

    A pipe is read until it is empty or a batch is full, and then written with
    one call: big frames under load, and no delay when there is little.
    """

    def __init__(
        self,
        epoll: select.epoll,
        log: LogWriter,
        run: bytes,
        streams: dict[int, int],
        on_growth: Callable[[], None],
        secrets: Sequence[bytes] = (),
    ) -> None:
        """streams: stream number by descriptor, which `Capture` closes at its end.

        secrets: are masked, see `mask.py`.
        """
        self._epoll = epoll
        self._log = log
        self._run = run
        self._on_growth = on_growth
        mask = Mask(secrets)
        self._streams = {
            descriptor: _Stream(number, mask) for descriptor, number in streams.items()
        }
        for descriptor in streams:
            epoll.register(descriptor, select.EPOLLIN)

    @property
    def ended(self) -> bool:
        """Whether both pipes have come to their end."""
        return not self._streams

    def owns(self, descriptor: int) -> bool:
        """Whether events of this descriptor are for `on_event`."""
        return descriptor in self._streams

    def on_event(self, descriptor: int) -> None:
        """Reads a batch from a pipe and writes it to the log."""
        stream = self._streams[descriptor]
        blobs: list[Blob] = []
        gathered = 0
        ended = False
        while gathered < BATCH_BYTES:
            room = stream.lines.room
            try:
                data = os.read(descriptor, room)
            except BlockingIOError:
                break
            if not data:
                ended = True
                break
            blobs += stream.feed(data)
            gathered += len(data)
            if len(data) < room:  # the pipe is empty
                break
        self._show(stream, blobs)
        stream.due = time.monotonic() + PAUSE if stream.lines.pending else None
        if ended:
            self._end(descriptor)

    @property
    def deadline(self) -> float | None:
        """When `on_deadline` is due, in monotonic seconds."""
        return min(
            (stream.due for stream in self._streams.values() if stream.due is not None),
            default=None,
        )

    def on_deadline(self, now: float) -> None:
        """Shows the lines that have waited long enough for their end."""
        due = [s for s in self._streams.values() if s.due is not None and now >= s.due]
        for stream in due:
            stream.due = None
            self._show(stream, stream.lines.flush())

    def abandon(self) -> None:
        """Takes what is in the pipes now and closes them, whoever may still hold them."""
        for descriptor in list(self._streams):
            # A stranger who holds the pipe and fills it does not keep us: one pipe full.
            self.on_event(descriptor)
            if descriptor in self._streams:
                self._end(descriptor)

    def _end(self, descriptor: int) -> None:
        stream = self._streams.pop(descriptor)
        self._show(stream, stream.finish())
        self._epoll.unregister(descriptor)
        os.close(descriptor)

    def _show(self, stream: _Stream, blobs: list[Blob]) -> None:
        if blobs:
            self._log.append_lines(stream.number, self._run, blobs)
            self._log.flush()
            self._on_growth()
