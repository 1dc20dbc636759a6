"""Where logs are read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from att_server.core.log_facts import FreeSpace, LogInfo, LogSegment
from att_server.core.log_selection import LineSelection
from att_server.core.model import (
    GapReason,
    LogBounds,
    LogPage,
)


class LogStore(Protocol):
    """Reads logs. The supervisor writes them; see `supervisor/`.

    No call waits for growth; `LogManager` does, on the driver's word.
    """

    async def bounds(self, project_id: str, log_id: str) -> LogBounds:
        """What the log holds now; 0 to 0 before the first record."""
        ...

    async def read(self, project_id: str, log_id: str, *, cursor: int, max_bytes: int) -> LogPage:
        """The page from `cursor` (0 to end) on: records up to `max_bytes` bytes of lines.

        A page before the end holds at least one record. The first chunk is
        sliced where `cursor` lies inside it, others are whole. A cursor below
        the start begins with one gap up to the start. The same page object may
        be handed to several readers.
        """
        ...

    def fresh(self, project_id: str, log_id: str, *, cursor: int, max_bytes: int) -> LogPage | None:
        """The page from `cursor` on, if that was the end so far and something little is new there.

        None: `read` has to look. Looks at the last part of the log alone, so where the
        page ends, its `bounds` say, the log may go on: `goes_on` tells.
        """
        ...

    def goes_on(self, project_id: str, log_id: str) -> bool:
        """Whether a part of the log has begun that was not looked at yet."""
        ...

    async def select(
        self,
        project_id: str,
        log_id: str,
        selection: LineSelection,
        *,
        cursor: int,
        max_lines: int,
        max_bytes: int,
        scan_bytes: int,
    ) -> LogPage:
        """What is selected from `cursor` (0 to end) on: up to `max_lines` lines and `max_bytes`
        bytes of them.

        Looks at about `scan_bytes` bytes of the log, or for about a second, and at
        something if there is anything; the page's cursor is behind all of that. A
        page with lines holds at least one, cut anywhere.
        """
        ...

    async def seek_tail(self, project_id: str, log_id: str, lines: int) -> int:
        """The cursor before the last `lines` lines; the start if there are fewer."""
        ...

    async def seek_time(self, project_id: str, log_id: str, time: datetime) -> int:
        """The cursor before the first record that arrived at or after `time`, else the end."""
        ...

    async def segments(self, project_id: str, log_id: str) -> Sequence[LogSegment]:
        """The parts that can be removed, from the start to the end of the log."""
        ...

    async def remove(
        self, project_id: str, log_id: str, *, before: int, reason: GapReason
    ) -> LogBounds:
        """Removes the removable parts that lie before a sequence number as a whole.

        reason: RETENTION or TRIMMED, which the gap in their place will say. Returns
        what is left. Raises STORAGE_FULL.
        """
        ...

    async def info(self, project_id: str, log_id: str, *, since: datetime) -> LogInfo:
        """What there is to say of the log; `recent` is what arrived at or after `since`."""
        ...

    async def tend(self, project_id: str, log_id: str) -> bool:
        """Does some of what makes later reads quick; returns whether there was anything to do."""
        ...

    async def free_space(self) -> FreeSpace:
        """The room where the logs are kept."""
        ...

    async def delete(self, project_id: str) -> None:
        """Removes everything kept for the project; without effect if there is nothing."""
        ...

    async def aclose(self) -> None:
        """Closes all files."""
        ...
