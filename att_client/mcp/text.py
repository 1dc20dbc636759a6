"""Text of apps, files and people on its way to a model: data, without what drives a terminal."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import Enum

# Whole escape sequences first, such as colours and window titles; then what is left of
# C0 and C1, and what changes the direction of text or cannot be seen.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f\ud800-\udfff]"
)


def printable(text: str) -> str:
    """`text` without escape sequences, control and invisible characters.

    Tabs and ends of lines stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def one_line(text: str) -> str:
    """`printable` on one line."""
    return printable(text).replace("\r\n", " ").replace("\n", " ")


def decoded(data: bytes) -> str:
    """The text in `data`, printable; bytes that are no UTF-8 are U+FFFD."""
    return printable(data.decode("utf-8", "replace"))


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, with a note of how many more there were."""
    return text if len(text) <= limit else f"{text[:limit]}…[{len(text) - limit} more]"


def cut_front(text: str, limit: int) -> str:
    """The last `limit` characters of `text`, with a note of how many there were before."""
    return text if len(text) <= limit else f"[{len(text) - limit} before]…{text[-limit:]}"


def word(value: Enum) -> str:
    """A value of an enum in lower case; one that a later server adds is a number."""
    return (value.name or str(value.value)).lower()


def stamp(time: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC, to the second; None for None."""
    return None if time is None else time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
