"""How severe a line is: recognised from its text, for display; see `att.severity`."""

from __future__ import annotations

from att import severity as lines
from att_client._proto.att.v1 import LogSeverity, LogStream
from att_client.log_items import LogLine

_NONE = LogSeverity.UNSPECIFIED
_SEVERITIES = tuple(LogSeverity(number) for number in lines.Severity)


def severity_of(text: str) -> LogSeverity:
    """The severity that the line itself states; UNSPECIFIED if it states none."""
    return _SEVERITIES[lines.severity_of(text)]


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
