"""Secrets in what an app prints, replaced before anybody sees or stores them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MIN_BYTES = 4
"""Shorter values are not masked: they are everywhere."""
MIN_LINE_BYTES = 8
"""Of a line of a value of several lines, which is masked for itself too."""
_MASKS = b"*#-_.xX+=~%@0123456789 " + bytes(range(255, 127, -1)) + bytes(range(33, 127))


class Mask:
    """Knows the secrets of a run; may be shared by streams.

    What is masked is every byte that belongs to an occurrence of a secret,
    overlapping ones included. A stretch of such bytes becomes `***`, or three
    of another character where secrets with asterisks could appear anew.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        """secrets: values; those that are too short are left out."""
        self.patterns = sorted(_patterns(secrets), key=len, reverse=True)
        self.replacement = _replacement(self.patterns)
        self._rows: dict[bytes, re.Pattern[bytes]] = {}
        # The beginnings that a text can end with, by their last byte, longest first.
        self._beginnings: dict[int, list[tuple[int, bytes]]] = {}
        longest = len(self.patterns[0]) if self.patterns else 0
        for size in range(longest - 1, 0, -1):
            for pattern in self.patterns:
                if len(pattern) <= size:
                    break
                self._beginnings.setdefault(pattern[size - 1], []).append((size, pattern))

    def __bool__(self) -> bool:
        """Whether there is anything to mask."""
        return bool(self.patterns)

    def applied(self, text: bytes) -> bytes:
        """The whole text with the secrets masked."""
        stream = MaskedStream(self)
        return stream.feed(text) + stream.finish()

    def stretches(self, text: bytes) -> list[tuple[int, int]]:
        """Where secrets are in the text: start and end of each stretch, which do not touch."""
        found: list[tuple[int, int]] = []
        for pattern in self.patterns:
            at = text.find(pattern)
            while at >= 0:
                end = at + len(pattern)
                if text.startswith(pattern, end):
                    end = self._end_of_row(pattern, text, at)
                found.append((at, end))
                at = text.find(pattern, end - len(pattern) + 1)
        found.sort()
        merged: list[tuple[int, int]] = []
        for start, end in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _end_of_row(self, pattern: bytes, text: bytes, at: int) -> int:
        """Where one occurrence after the other ends: a page full of `----` is one stretch."""
        row = self._rows.get(pattern)
        if row is None:
            row = self._rows[pattern] = re.compile(b"(?:%b)++" % re.escape(pattern))
        match = row.match(text, at)
        assert match is not None  # there is one at `at`
        return match.end()

    def undecided(self, text: bytes) -> int:
        """How many bytes at the end of the text may be the beginning of a secret."""
        if text:
            for size, pattern in self._beginnings.get(text[-1], ()):
                if text.endswith(pattern[:size]):
                    return size
        return 0


class MaskedStream:
    """One stream with its secrets masked, whatever the reads it comes in.

    What may be the beginning of a secret is held back until what follows
    decides, so at most one byte less than the longest secret.
    """

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""
        self._masked: int | None = None
        """If a stretch was told and may go on: how many bytes of `_held` belong to it."""

    def feed(self, data: bytes) -> bytes:
        """What is decided now."""
        text = self._held + data
        cut = len(text) - self._mask.undecided(text)
        return self._told(text, cut)

    def finish(self) -> bytes:
        """The rest: the stream has ended."""
        return self._told(self._held, len(self._held))

    def _told(self, text: bytes, cut: int) -> bytes:
        stretches = self._mask.stretches(text)
        if self._masked is None and not stretches:
            self._held = text[cut:]
            return text if cut == len(text) else text[:cut]
        parts: list[bytes] = []
        # `done`: what is told or masked, of which a stretch that goes on is the end.
        done = self._masked or 0
        going_on = self._masked is not None
        for start, end in stretches:
            if start >= cut:
                break
            if not (going_on and start <= done):
                parts += (text[done:start], self._mask.replacement)
            done, going_on = max(done, end), True
        if done < cut:
            parts.append(text[done:cut])
            done, going_on = cut, False
        self._held = text[cut:]
        self._masked = done - cut if going_on else None
        return b"".join(parts)


def _patterns(secrets: Iterable[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for value in secrets:
        if len(value) >= MIN_BYTES:
            found.add(value)
        lines = value.splitlines()
        if len(lines) > 1:
            found.update(line for line in lines if len(line) >= MIN_LINE_BYTES)
    return found


def _replacement(patterns: Sequence[bytes]) -> bytes:
    """Three of a character that no secret has at an end, nor three of in a row.

    So a secret cannot come about where the replacement meets other text.
    """
    ends = {end for pattern in patterns for end in (pattern[0], pattern[-1])}
    for character in _MASKS:
        mask = bytes([character]) * 3
        if character not in ends and not any(mask in pattern for pattern in patterns):
            return mask
    raise ValueError("there are too many different secrets to mask them")
