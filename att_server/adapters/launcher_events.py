"""What the launcher told, in files that are removed once it is told as events.

launcher/events.jsonl          what it adds to; it opens the file for each line, and closes it
launcher/events-<first>.jsonl  what it added to before; first: the number of its first line

Lines are counted from 1 on over all files. The newest of the older files stays: the numbers
of the lines in `events.jsonl` are known by it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from att_server.supervisor import json_file

_MOST_BYTES = 256 * 1024
"""From which on the file is put aside, once all of it was told."""


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    first: int


class LauncherEvents:
    """Reads and removes them; nobody else does, since a server holds the state directory."""

    def __init__(self, directory: Path, *, most_bytes: int = _MOST_BYTES) -> None:
        """directory: of the launcher."""
        self._directory = directory
        self._most_bytes = most_bytes

    def lines(self, after: int) -> list[tuple[int, str]]:
        """The whole lines after the first `after`, with their numbers. Raises OSError."""
        found: list[tuple[int, str]] = []
        for part, lines in self._parts():
            numbered = enumerate(lines, part.first)
            found += [(number, line) for number, line in numbered if number > after]
        return found

    def forget(self, told: int) -> None:
        """Removes what lies in files of which all lines were told, `told` in all.

        Called again and again: what it does not do now, it does later. Raises OSError.
        """
        parts = self._parts()
        for (part, _), (following, _) in itertools.pairwise(parts):
            if following.path != self._current and following.first <= told + 1:
                part.path.unlink()
        if not parts or parts[-1][0].path != self._current:
            return
        part, lines = parts[-1]
        whole = part.first + len(lines) - 1 <= told
        if whole and self._current.stat().st_size >= self._most_bytes:
            self._current.rename(self._directory / f"events-{part.first:012d}.jsonl")

    @property
    def _current(self) -> Path:
        return self._directory / "events.jsonl"

    def _parts(self) -> list[tuple[_Part, list[str]]]:
        """All files with their whole lines, oldest first.

        Without the last one where the launcher may add to the one before still: it had
        that open when it was put aside.
        """
        parts: list[tuple[_Part, list[str]]] = []
        after = 1
        for path in sorted(self._directory.glob("events-*.jsonl")):
            first = int(path.stem.removeprefix("events-"))
            open_still = self._launcher_has_open(path)
            lines = _whole_lines(path)
            parts.append((_Part(path, first), lines))
            if open_still:
                return parts
            after = first + len(lines)
        if self._current.exists():
            parts.append((_Part(self._current, after), _whole_lines(self._current)))
        return parts

    def _launcher_has_open(self, path: Path) -> bool:
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = int(json_file.read(str(self._directory / "lock"))["pid"])
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.path.samefile(f"/proc/{pid}/fd/{descriptor}", path):
                        return True
        return False


def _whole_lines(path: Path) -> list[str]:
    """Its lines up to the last that is whole: the rest is being written, or comes no more."""
    return path.read_text(errors="replace").split("\n")[:-1]
