"""Looking for a pattern in the contents of files, line by line, until a time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from att_server.core.settings_rules import MAX_PATTERN_MEMORY

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_LINE_BYTES = 1_000
_BINARY_WITHIN = 8_000  # as git looks for a NUL
_WINDOW = 64 * 1024  # between two looks at the clock, however slow the pattern is


class Searcher:
    """Collects lines that match, as path, number from 1, and the line's first bytes."""

    def __init__(self, pattern: str, *, limit: int, end: float) -> None:
        """pattern: RE2, checked. end: of `time.monotonic`."""
        # Costs memory that a server that is not asked does not need.
        import re2

        options = re2.Options()
        options.max_mem = MAX_PATTERN_MEMORY
        options.log_errors = False
        options.never_nl = True
        self._search = re2.compile(f"(?m:{pattern})".encode(), options).search
        self._limit = limit
        self._end = end
        self.found: list[tuple[bytes, int, bytes]] = []
        self.ended = False
        """Whether it stopped before all was looked at."""

    def look_at(self, paths: Sequence[bytes], batch: bytes) -> None:
        """Looks at an answer of `cat-file --batch` about the files at `paths`."""
        position = 0
        for path in paths:
            start = batch.index(b"\n", position) + 1
            size = int(batch[position:start].rsplit(b" ", 1)[1])
            self._look_at_file(path, batch[start : start + size])
            if self.ended:
                return
            position = start + size + 1

    def _look_at_file(self, path: bytes, content: bytes) -> None:
        if b"\0" in content[:_BINARY_WITHIN]:
            return
        if b"\r" in content:
            content = content.replace(b"\r\n", b"\n")
        number, start = 1, 0
        while start < len(content):
            end = content.find(b"\n", start + _WINDOW) + 1 or len(content)
            window = content[start:end]
            self._look_at_lines(path, number, window)
            if time.monotonic() >= self._end:
                self.ended = True
            if self.ended:
                return
            number += window.count(b"\n")
            start = end

    def _look_at_lines(self, path: bytes, number: int, lines: bytes) -> None:
        counted = position = 0
        while position < len(lines) and (match := self._search(lines, position)) is not None:
            # What is empty behind the last end of a line is no line.
            if match.start() == len(lines) and lines.endswith(b"\n"):
                return
            if len(self.found) == self._limit:
                self.ended = True
                return
            start = lines.rfind(b"\n", 0, match.start()) + 1
            end = lines.find(b"\n", match.start())
            end = len(lines) if end < 0 else end
            number += lines.count(b"\n", counted, start)
            counted = start
            self.found.append((path, number, lines[start : min(end, start + MAX_LINE_BYTES)]))
            position = end + 1
