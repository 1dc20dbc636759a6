"""The restart policy: what follows the end of a run.

Nothing here waits, looks at a clock or throws dice: the moments are monotonic
seconds that the caller read, and chance is a number that the caller drew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

NEVER = "never"
ON_FAILURE = "on-failure"
ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Which ends are followed by a restart, and how fast. Spans in seconds.

    condition: `never`, `on-failure` or `always`; what is not known is `never`.
    initial, max, factor: the wait before the first restart, the longest, and
    by what each is longer than the one before.
    jitter: the share, 0 to 1, by which a wait is spread to both sides.
    max_restarts: within `window`; one more is a crash loop.
    stable_after: how long a run lasts after which the wait is `initial` again.
    """

    condition: str = NEVER
    initial: float = 1.0
    max: float = 60.0
    factor: float = 2.0
    jitter: float = 0.1
    max_restarts: int = 10
    window: float = 600.0
    stable_after: float = 60.0

    def form(self) -> dict[str, object]:
        """The JSON object."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_form(cls, form: Mapping[str, object]) -> RestartPolicy:
        """The policy of a JSON object, with defaults where it is silent. Raises ValueError."""
        spans = ("initial", "max", "factor", "jitter", "window", "stable_after")
        default = cls()
        return cls(
            condition=str(form.get("condition", NEVER)),
            max_restarts=int(str(form.get("max_restarts", default.max_restarts))),
            **{key: float(str(form.get(key, getattr(default, key)))) for key in spans},
        )

    def restarts_after(self, *, failed: bool) -> bool:
        """Whether an end that nobody asked for is followed by a restart."""
        return self.condition == ALWAYS or (self.condition == ON_FAILURE and failed)

    def wait(self, attempt: int, chance: float) -> float:
        """The seconds before the restart that follows `attempt` restarts without a stable run.

        chance: 0 to 1, evenly distributed.
        """
        try:
            wait = min(self.max, self.initial * self.factor**attempt)
        except OverflowError:  # an app that crashes for weeks
            wait = self.max
        return max(0.0, wait * (1 + self.jitter * (2 * chance - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The restarts since the last start that a call asked for.

    restarts: how many. attempt: how many of them since the last stable run.
    times: when the ones within the window were made, oldest first.
    """

    restarts: int = 0
    attempt: int = 0
    times: tuple[float, ...] = ()

    def within(self, window: float, now: float) -> History:
        """The same, less the times that lie outside the window at `now`."""
        return replace(self, times=tuple(time for time in self.times if now - time < window))

    def restarted(self, now: float) -> History:
        """The same after one restart more, which is made at `now`."""
        return History(
            restarts=self.restarts + 1, attempt=self.attempt + 1, times=(*self.times, now)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The app is started again in `seconds`."""

    seconds: float
    history: History


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """It ended too often: a crash loop."""

    history: History


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The policy leaves it at this end."""


def decide(
    policy: RestartPolicy,
    history: History,
    *,
    failed: bool,
    lasted: float,
    now: float,
    chance: float,
) -> Wait | GiveUp | Done:
    """What follows a run that ended at `now` without being asked to.

    failed: whether the end was a failure. lasted: the seconds that the run took.
    """
    if not policy.restarts_after(failed=failed):
        return Done()
    history = history.within(policy.window, now)
    if lasted >= policy.stable_after:
        history = replace(history, attempt=0)
    if len(history.times) >= policy.max_restarts:
        return GiveUp(history=history)
    return Wait(seconds=policy.wait(history.attempt, chance), history=history)
