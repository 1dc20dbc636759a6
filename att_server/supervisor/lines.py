"""From what a pipe gives to whole lines."""

from __future__ import annotations

from att_server.supervisor.segment import (
    FLAG_PARTIAL,
    FLAG_UNTERMINATED,
    MAX_PAYLOAD_BYTES,
)

Blob = tuple[bytes, int]

_SAMPLE_BYTES = 1024
_DENSE = _SAMPLE_BYTES // 36


def count_lines(blob: bytes) -> int:
    """How many newlines there are.

    CPython counts bytes one by one, but looks for the next one in strides: where lines are not
    short, what a copy without newlines lacks is known in half the time or less.
    """
    if len(blob) < _SAMPLE_BYTES or blob.count(b"\n", 0, _SAMPLE_BYTES) > _DENSE:
        return blob.count(b"\n")
    return len(blob) - len(blob.replace(b"\n", b""))


class LineAssembler:
    """Turns the reads of one stream into blobs of whole lines, byte for byte.

    A blob is 1 to 65,536 bytes of lines, each ended by a newline, with the flags
    of its last line. A line of more than 65,535 bytes is cut into parts of
    65,535 bytes with a newline of ours and the flag `partial`; a rest of the
    line always follows. At most 65,535 bytes wait for their newline.
    """

    def __init__(self) -> None:
        self._rest = b""

    @property
    def pending(self) -> bool:
        """Whether bytes wait for the end of their line."""
        return bool(self._rest)

    @property
    def room(self) -> int:
        """How many bytes, 1 to 65,536, `feed` makes at most one blob of."""
        return MAX_PAYLOAD_BYTES - len(self._rest)

    def feed(self, data: bytes) -> list[Blob]:
        """What became whole with `data`, which may be of any length."""
        if len(self._rest) + len(data) <= MAX_PAYLOAD_BYTES:
            # As `room` has it: one blob at most, whose bytes are copied once.
            end = data.rfind(b"\n") + 1
            if end:
                blob = b"".join((self._rest, memoryview(data)[:end]))
                self._rest = data[end:]
                return [(blob, 0)]
        text = self._rest + data
        blobs: list[Blob] = []
        start = 0
        while start < len(text):
            # Lines together decide here, never each line: the last newline that
            # still fits ends the blob.
            room = start + MAX_PAYLOAD_BYTES
            end = text.rfind(b"\n", start, room) + 1
            if end:
                blobs.append((text[start:end], 0))
            elif len(text) >= room:
                end = room - 1
                blobs.append((text[start:end] + b"\n", FLAG_PARTIAL))
            else:
                break
            start = end
        self._rest = text[start:]
        return blobs

    def flush(self) -> list[Blob]:
        """The bytes that wait, as a line with a newline of ours and the flag `unterminated`."""
        if not self._rest:
            return []
        blob = self._rest + b"\n"
        self._rest = b""
        return [(blob, FLAG_UNTERMINATED)]
