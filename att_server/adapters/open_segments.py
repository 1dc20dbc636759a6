"""Which files of segments are open: few, however many there are."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from att_server.supervisor.segment import FRAME_HEADER_BYTES, MAX_PAYLOAD_BYTES

READ_BYTES = 256 << 10
# A page of full frames is a little longer on disk than the lines in it.
SCRATCH_BYTES = READ_BYTES + FRAME_HEADER_BYTES + MAX_PAYLOAD_BYTES


class OpenSegment(Protocol):
    """What has a file open."""

    @property
    def idle(self) -> bool: ...
    def close(self) -> None: ...


class OpenSegments:
    """The open files of segments, the least recently used of which are closed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[OpenSegment, None] = OrderedDict()
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))

    def used(self, segment: OpenSegment) -> None:
        """Notes that the segment is open and in use now."""
        self._open[segment] = None
        self._open.move_to_end(segment)
        if len(self._open) > self._limit:
            for other in self._open:
                if other is not segment and other.idle:
                    other.close()
                    break

    def close(self) -> None:
        """Closes all of them."""
        for segment in list(self._open):
            segment.close()

    def closed(self, segment: OpenSegment) -> None:
        """Notes that the segment is not open any more."""
        self._open.pop(segment, None)
