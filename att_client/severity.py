"""How severe a line is, by the forms in which programs and frameworks write it.

The log has lines as they were printed, without a severity: it is recognised here,
for display.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from att_client._proto.att.v1 import LogSeverity, LogStream
from att_client.log_items import LogLine

_NONE = LogSeverity.UNSPECIFIED
_DEBUG, _INFO, _WARNING = LogSeverity.DEBUG, LogSeverity.INFO, LogSeverity.WARNING
_ERROR, _CRITICAL = LogSeverity.ERROR, LogSeverity.CRITICAL

_WORDS = (
    dict.fromkeys(("trace", "debug", "fine"), _DEBUG)
    | dict.fromkeys(("info", "information", "notice", "success"), _INFO)
    | dict.fromkeys(("warn", "warning"), _WARNING)
    | dict.fromkeys(("err", "error", "severe", "exception"), _ERROR)
    | dict.fromkeys(("crit", "critical", "fatal", "alert"), _CRITICAL)
    | dict.fromkeys(("emerg", "emergency", "panic"), _CRITICAL)
)

_LEVELS: Mapping[str, LogSeverity] = MappingProxyType(
    _WORDS
    # klog's letters
    | {"d": _DEBUG, "i": _INFO, "w": _WARNING, "e": _ERROR, "f": _CRITICAL}
    # the numbers of JSON loggers that follow bunyan
    | {"10": _DEBUG, "20": _DEBUG, "30": _INFO, "40": _WARNING, "50": _ERROR, "60": _CRITICAL}
)

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
_HEAD = 4500  # characters: nothing that is looked for begins later


def severity_of(text: str) -> LogSeverity:
    """The severity that the line itself states; UNSPECIFIED if it states none."""
    if "\x1b" in text:
        text = _COLOUR.sub("", text[:_HEAD])
    match = _ANY_FORM.match(text, 0, _HEAD)
    if match is None or match.lastindex is None:
        return _NONE
    level = match[match.lastindex]
    if level[0] == "<":
        return _SYSLOG[int(level[1:-1]) & 7]
    return _LEVELS[level.lower()]


class SeverityReader:
    """Tells the severity of each line of one log, taken in order.

    A line that states none, such as those of a traceback, has that of the line
    before it in the same stream of the same run.
    """

    def __init__(self) -> None:
        self._before: dict[LogStream, tuple[str, LogSeverity, bool]] = {}

    def read(self, line: LogLine) -> LogSeverity:
        """The severity of the next line; UNSPECIFIED as long as none was stated."""
        run_id, inherited, goes_on = self._before.get(line.stream, ("", _NONE, False))
        if run_id != line.run_id:
            inherited, goes_on = _NONE, False
        # The rest of a line that was cut begins anywhere in its text.
        severity = _NONE if goes_on else severity_of(line)
        severity = severity or inherited
        self._before[line.stream] = (line.run_id, severity, line.partial)
        return severity
