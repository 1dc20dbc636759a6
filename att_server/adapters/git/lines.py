"""Lines taken out of what passes by, without keeping the rest."""

from __future__ import annotations


class Lines:
    """Keeps the lines from `first` on, counted from 1, and little more."""

    def __init__(self, *, first: int = 1, limit: int = 0, max_bytes: int) -> None:
        """limit: of lines; 0: none."""
        self._before = first - 1
        self._limit = limit
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._ends = 0

    def take(self, data: bytes) -> bool:
        """Looks at the next bytes; False: no more are needed."""
        if self._before:
            ends = data.count(b"\n")
            if ends < self._before:
                self._before -= ends
                return True
            data = data[_behind_line(data, self._before) :]
            self._before = 0
        self._kept += data
        self._ends += data.count(b"\n")
        # A byte more than is wanted tells that there is more.
        if len(self._kept) > self._max_bytes:
            return False
        if not self._limit or self._ends < self._limit:
            return True
        return self._ends == self._limit and self._kept.endswith(b"\n")

    def part(self) -> tuple[bytes, bool]:
        """Whole lines within the bounds, and whether there is more behind them.

        A first line that is too long by itself is cut.
        """
        end = len(self._kept)
        if self._limit and self._ends >= self._limit:
            end = _behind_line(self._kept, self._limit)
        if end > self._max_bytes:
            end = self._kept.rfind(b"\n", 0, self._max_bytes) + 1 or self._max_bytes
        return bytes(self._kept[:end]), end < len(self._kept)


def _behind_line(data: bytes | bytearray, number: int) -> int:
    """Where the line behind the line with this number begins; there are so many ends of lines."""
    position = 0
    for _ in range(number):
        position = data.index(b"\n", position) + 1
    return position
