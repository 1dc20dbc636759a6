"""The clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time and makes ids that sort by it."""

    def now(self) -> datetime:
        """The wall-clock time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary origin."""
        ...

    async def sleep(self, duration: timedelta) -> None:
        """Returns after `duration`; cancelling ends it early."""
        ...

    def new_id(self) -> str:
        """A new id of 26 characters `[0-9A-Z]` that sorts by time of making."""
        ...
