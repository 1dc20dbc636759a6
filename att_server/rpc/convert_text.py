"""Text that a message can hold, from text that may be anything."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ESCAPED = re.compile(r"\\x([89a-f][0-9a-f])")


def text(value: str) -> str:
    """`value`, with what was no UTF-8 (lone surrogates) written as `\\xNN`."""
    try:
        return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return value.encode(errors="backslashreplace").decode()


def raw(value: str) -> str:
    """What `text` made `value` of: `\\xNN` above 7F is a byte again (a lone surrogate)."""
    return _ESCAPED.sub(lambda found: chr(0xDC00 + int(found[1], 16)), value)


def texts(values: Mapping[str, str]) -> dict[str, str]:
    """Keys and values, each as `text`."""
    return {text(key): text(value) for key, value in values.items()}
