"""What one caller may have going on at once, and how often a call may fail to get in.

Counted by caller and never for all together: a limit that is shared lets one caller
lock out the others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import timedelta

from att_server.core.errors import AttError, Reason
from att_server.core.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one caller gets.

    calls, streams: in flight at once. refusals: how many calls may be refused in a
    row, and one more each `refusal_interval`; what is above is not even recorded.
    write_within, abort_within: how long a message, and the end of a call, may wait to
    be taken. abandoned: how many ends that nobody took the socket's connections keep.
    """

    calls: int = 256
    streams: int = 1500
    refusals: int = 60
    refusal_interval: timedelta = timedelta(seconds=10)
    write_within: timedelta = timedelta(seconds=30)
    abort_within: timedelta = timedelta(seconds=10)
    abandoned: int = 100


_REMEMBERED = 1024
_SOON = timedelta(seconds=1)


class CallLimits:
    """Counts calls by principal, and refusals by principal or peer."""

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits
        self._calls: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()
        # What is left to each, and when that was counted; the longest unseen first.
        self._refusals: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def call(self, principal: str) -> _InFlight:
        """Entered around a call that answers once. Raises RATE_LIMITED."""
        return _InFlight(self._calls, principal, self._limits.calls, "calls")

    def stream(self, principal: str) -> _InFlight:
        """Entered around a stream. Raises RATE_LIMITED."""
        return _InFlight(self._streams, principal, self._limits.streams, "streams")

    def refused(self, who: str) -> None:
        """Counts a call that is refused. Raises RATE_LIMITED where there are too many.

        who: its principal, or its peer where that is not known. Calls that are let in
        are not concerned: nobody can lock out another by failing.
        """
        now, limits = self._clock.monotonic(), self._limits
        left, counted = self._refusals.pop(who, (float(limits.refusals), now))
        left += (now - counted) / limits.refusal_interval.total_seconds()
        left = min(float(limits.refusals), left)
        self._refusals[who] = (max(0.0, left - 1), now)
        if len(self._refusals) > _REMEMBERED:
            self._refusals.popitem(last=False)
        if left < 1:
            raise AttError(
                Reason.RATE_LIMITED,
                "Too many calls of yours were refused. Look at the first refusals, or at "
                "`att events --audit`, and correct the cause; a call that may be made still is.",
                retry_delay=limits.refusal_interval,
                limit=limits.refusals,
            )


class _InFlight:
    """Counts one thing of a caller while the context is open."""

    __slots__ = ("_counts", "_limit", "_name", "_principal")

    def __init__(self, counts: Counter[str], principal: str, limit: int, name: str) -> None:
        self._counts = counts
        self._principal = principal
        self._limit = limit
        self._name = name

    def __enter__(self) -> None:
        if self._counts[self._principal] >= self._limit:
            raise AttError(
                Reason.RATE_LIMITED,
                f"{self._principal} has {self._limit} {self._name} open, and no more are taken "
                "at once. End some, or call again later.",
                retry_delay=_SOON,
                limit=self._limit,
            )
        self._counts[self._principal] += 1

    def __exit__(self, *_: object) -> None:
        self._counts[self._principal] -= 1
        if not self._counts[self._principal]:
            del self._counts[self._principal]
