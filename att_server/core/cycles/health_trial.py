"""HealthTrial: what a series of checks says of a release, as they come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from att_server.core.model import ProbeResult

FAILURES_IN_A_ROW = 3
"""One that was healthy is unhealthy after so many: one alone may be a matter of load."""
FLAPPING = "health_flapping"

_GONE = frozenset({"process_exited", "process_not_running"})
_NOT_MADE = frozenset({"command_error", "port_owned_by_other_process"})
"""Not the app's word: the command could not be started, or somebody else answered."""


class Health(StrEnum):
    """What the trial found."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthVerdict:
    """The end of a trial. reason: of the check that decided, or `health_flapping`."""

    health: Health
    reason: str


class HealthTrial:
    """Takes the results of checks, one after the other, until it has a verdict.

    Healthy: `retries` successes in a row, then `bake_time` without a failure.
    A failure while it bakes begins both anew; three in a row, or more than
    three bake times of that, are unhealthy. So is what was not healthy when the
    time is up, and whose process is gone. A series of successes that goes on
    when the time is up may come to its end. A check that could not be made says
    nothing; three in a row over two intervals, and the trial is inconclusive.

    Times are seconds of a monotonic clock.
    """

    def __init__(
        self,
        *,
        retries: int,
        interval: timedelta,
        bake_time: timedelta,
        due: float,
        healthy_since: float | None = None,
        patient: bool = False,
    ) -> None:
        """due: when it has to be healthy first. healthy_since: an earlier trial of the
        same run found it so; it bakes on once it is found healthy again. patient:
        nobody is asked before `due` where checks cannot be made."""
        self._retries = retries
        self._interval = interval.total_seconds()
        self._bake = bake_time.total_seconds()
        self._due = due
        self._patient = patient
        self._first_healthy = healthy_since
        self._successes = 0
        self._failures = 0
        self._not_made = 0
        self._not_made_since = 0.0
        self._answered = False
        self.healthy_since = healthy_since
        self.checks = 0

    @property
    def answered(self) -> bool:
        """Whether any check of this trial succeeded."""
        return self._answered

    @property
    def ends(self) -> float | None:
        """When the bake time ends, if it goes on."""
        return None if self.healthy_since is None else self.healthy_since + self._bake

    def saw(self, result: ProbeResult, now: float) -> HealthVerdict | None:
        """Takes the result of a check that ended `now`. None: go on checking."""
        self.checks += 1
        if result.reason in _NOT_MADE:
            return self._could_not_check(result.reason, now)
        return self._healthy(result, now) if result.healthy else self._failed(result, now)

    def not_made(self, reason: str, now: float) -> HealthVerdict | None:
        """Takes a check that could not even be tried."""
        self.checks += 1
        return self._could_not_check(reason, now)

    def _healthy(self, result: ProbeResult, now: float) -> HealthVerdict | None:
        self._answered = True
        self._failures = self._not_made = 0
        self._successes += 1
        if self._successes < self._retries:
            return None
        if self.healthy_since is None:
            self.healthy_since = now
        if self._first_healthy is None:
            self._first_healthy = now
        if now - self.healthy_since >= self._bake:
            return HealthVerdict(health=Health.HEALTHY, reason=result.reason)
        return None

    def _failed(self, result: ProbeResult, now: float) -> HealthVerdict | None:
        self._not_made = self._successes = 0
        self._failures += 1
        self.healthy_since = None
        if result.reason in _GONE:
            return _unhealthy(result.reason)
        if self._first_healthy is None:
            if now < self._due:
                return None
            return _unhealthy(FLAPPING if self._answered else result.reason)
        if self._failures >= FAILURES_IN_A_ROW:
            return _unhealthy(result.reason)
        if now >= max(self._due, self._first_healthy) + 3 * self._bake:
            return _unhealthy(FLAPPING)
        return None

    def _could_not_check(self, reason: str, now: float) -> HealthVerdict | None:
        if not self._not_made:
            self._not_made_since = now
        self._not_made += 1
        self._successes = 0
        lasts = now - self._not_made_since >= 2 * self._interval
        if self._not_made >= FAILURES_IN_A_ROW and lasts and not self._patient:
            return HealthVerdict(health=Health.INCONCLUSIVE, reason=reason)
        if self._first_healthy is None and now >= self._due:
            return HealthVerdict(health=Health.INCONCLUSIVE, reason=reason)
        return None


def _unhealthy(reason: str) -> HealthVerdict:
    return HealthVerdict(health=Health.UNHEALTHY, reason=reason)
