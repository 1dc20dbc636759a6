"""How severe a line is, by the forms in which programs and frameworks write it.

The log has lines as they were printed, without a severity: it is recognised from
the text, by the server to select lines and by clients to show them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class Severity(IntEnum):
    """Ranks a line; the numbers are those of `LogSeverity` in `log.proto`."""

    UNSPECIFIED = 0
    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4
    CRITICAL = 5


_NONE = Severity.UNSPECIFIED
_DEBUG, _INFO, _WARNING = Severity.DEBUG, Severity.INFO, Severity.WARNING
_ERROR, _CRITICAL = Severity.ERROR, Severity.CRITICAL

_WORDS = (
    dict.fromkeys(("trace", "debug", "fine"), _DEBUG)
    | dict.fromkeys(("info", "information", "notice", "success"), _INFO)
    | dict.fromkeys(("warn", "warning"), _WARNING)
    | dict.fromkeys(("err", "error", "severe", "exception"), _ERROR)
    | dict.fromkeys(("crit", "critical", "fatal", "alert"), _CRITICAL)
    | dict.fromkeys(("emerg", "emergency", "panic"), _CRITICAL)
)
# klog's letters
_LETTERS = {"d": _DEBUG, "i": _INFO, "w": _WARNING, "e": _ERROR, "f": _CRITICAL}
# the numbers of JSON loggers that follow bunyan
_NUMBERS = {"10": _DEBUG, "20": _DEBUG, "30": _INFO, "40": _WARNING, "50": _ERROR, "60": _CRITICAL}

_LEVELS: Mapping[str, Severity] = MappingProxyType(_WORDS | _LETTERS | _NUMBERS)

# The last three bits of syslog's number, from emergency to debug.
_SYSLOG = (_CRITICAL, _CRITICAL, _CRITICAL, _ERROR, _WARNING, _INFO, _INFO, _DEBUG)

_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
_LEVEL = rf"(?:({_WORD.upper()})|\[((?i:{_WORD}))\s*\])(?=[\s|:,\])]|-\s|$)"
_TIME = (
    r"[\[(]?(?:\d{4}[-/]\d\d[-/]\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?:Z|\s?[+-]\d\d:?\d\d)?[\])]?"
)
_GAP = r"[\s|:-]{1,8}"
_KEY = r"(?:level|severity|levelname|lvl|log\.level)"

_FORMS = (
    # a time, perhaps a name, the level: NAT, uvicorn with dates, logging with asctime,
    # loguru, structlog, slog, tracing, log4j, nginx, flask
    rf"{_TIME}{_GAP}(?:[\[(]?[\w.:/<>#@-]{{1,80}}[\])]?{_GAP})??{_LEVEL}",
    # the level at the beginning: uvicorn, logging.basicConfig
    _LEVEL,
    # what commands say: click, git, compilers
    r"((?i:error|warning|fatal))(?=:\s)",
    # Python's own warnings: file:line: CategoryWarning: text
    r"[^\s:]+:\d+: \w*?(Warning): ",
    # JSON with a level by name or number
    rf'\{{.{{0,4000}}?"{_KEY}"\s*:\s*"?((?i:{_WORD})|[1-6]0)\b',
    # logfmt: key=value key="quoted value" level=info
    rf'(?>[\w.]+=(?>"(?:[^"\\]|\\.)*+"|\S*+)\s++){{0,20}}?{_KEY}="?((?i:{_WORD}))\b',
    # klog: I0102 15:04:05.000000
    r"([DIWEF])\d{4} \d\d:\d\d:\d\d",
    # syslog and journald: <3>
    r"(<\d{1,3}>)",
)
_ANY_FORM = re.compile("|".join(_FORMS), re.ASCII)

# Colours stand around the level or before all of it.
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
HEAD = 4500
"""Characters of a line that are looked at: nothing that is looked for begins later."""


def severity_of(text: str) -> Severity:
    """The severity that the line itself states; UNSPECIFIED if it states none."""
    if "\x1b" in text:
        text = _COLOUR.sub("", text[:HEAD])
    match = _ANY_FORM.match(text, 0, HEAD)
    if match is None or match.lastindex is None:
        return _NONE
    level = match[match.lastindex]
    if level[0] == "<":
        return _SYSLOG[int(level[1:-1]) & 7]
    return _LEVELS[level.lower()]


def hint_of(least: Severity) -> str:
    """A pattern, for `re` and RE2, that is found in every line that states `least` or more.

    For whom it is quicker to look for it in many lines at once. Other lines may hold it too.
    """
    words = [word for word, severity in _WORDS.items() if severity >= least]
    # A shorter word stands for the longer ones that begin with it.
    begins = [w for w in words if not any(w != b and w.startswith(b) for b in words)]
    letters = "".join(letter.upper() for letter, s in _LETTERS.items() if s >= least)
    digits = "".join(number[0] for number, s in _NUMBERS.items() if s >= least)
    return "|".join(
        (
            f"(?i:{'|'.join(begins)})",
            rf"[{letters}][0-9]{{4}} ",
            rf"[{digits}]0",
            r"<[0-9]{1,3}>",
            # A colour within a word or number.
            r"[0-9A-Za-z<](?:\x1b\[[0-9;]*m)+[0-9A-Za-z>]",
        )
    )
