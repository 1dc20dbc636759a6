"""How an app is run: its command, environment, probes, limits and restart policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from enum import StrEnum

DEFAULT_STOP_GRACE = timedelta(seconds=10)
MAX_STOP_GRACE = timedelta(hours=1)
DEFAULT_TCP_HOST = "127.0.0.1"
READINESS_THRESHOLD = 1
LIVENESS_THRESHOLD = 3
"""The thresholds of probes that have none: one success tells more than one failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """Holds when a GET of `url` is answered with a status from 200 to 399."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProbe:
    """Holds when the port accepts a connection."""

    host: str = DEFAULT_TCP_HOST
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandProbe:
    """Holds when the command, run in the project's directory, exits with 0."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcProbe:
    """Holds when grpc.health.v1 at `target` (`host:port` or `unix:PATH`) answers SERVING."""

    target: str
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProbe:
    """Holds once a line of the current run matches the RE2 pattern anywhere."""

    pattern: str


ProbeKind = HttpProbe | TcpProbe | CommandProbe | GrpcProbe | LogProbe


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A check of a running app, made again and again.

    threshold: equal results in a row that change the verdict; None is 1 for
    readiness and 3 for liveness.
    deadline: bound from the start until the probe first holds; None: no bound.
    """

    kind: ProbeKind
    interval: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(seconds=2)
    threshold: int | None = None
    deadline: timedelta | None = None

    def filled(self, threshold: int) -> Probe:
        """This probe, with `threshold` if it has none."""
        return self if self.threshold is not None else replace(self, threshold=threshold)


class RestartCondition(StrEnum):
    """The ends after which an app is started again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When and how fast an app that ended is started again (`RestartPolicy` in `project.proto`).

    The wait begins at `initial_backoff`, is multiplied by `backoff_factor` at
    each restart up to `max_backoff`, is spread by up to the share
    `backoff_jitter`, and begins anew after a run of `stable_after`. One more
    than `max_restarts` within `window` is a crash loop.
    """

    condition: RestartCondition = RestartCondition.NEVER
    initial_backoff: timedelta = timedelta(seconds=1)
    max_backoff: timedelta = timedelta(seconds=60)
    backoff_factor: float = 2.0
    backoff_jitter: float = 0.1
    max_restarts: int = 10
    window: timedelta = timedelta(minutes=10)
    stable_after: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimits:
    """Bounds what an app may use; None sets no bound.

    memory_bytes, processes: of the tree. open_files, cpu_time: of each process.
    """

    memory_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    cpu_time: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How an app is run; an empty or None field is unset.

    run_as: the name or number of a user; unset: the server's own.
    """

    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    env_file: str | None = None
    stop_grace: timedelta | None = None
    restart: RestartPolicy | None = None
    limits: ResourceLimits | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None
    run_as: str | None = None

    def over(self, base: RuntimeSettings) -> RuntimeSettings:
        """These settings with what they leave unset taken from `base`, key by key."""
        return RuntimeSettings(
            command=self.command or base.command,
            env={**base.env, **self.env},
            env_file=base.env_file if self.env_file is None else self.env_file,
            stop_grace=base.stop_grace if self.stop_grace is None else self.stop_grace,
            restart=self.restart or base.restart,
            limits=self.limits or base.limits,
            readiness=self.readiness or base.readiness,
            liveness=self.liveness or base.liveness,
            run_as=base.run_as if self.run_as is None else self.run_as,
        )

    @property
    def restart_policy(self) -> RestartPolicy:
        """The policy in force: what a liveness probe finds has to have a consequence."""
        if self.restart is not None:
            return self.restart
        implied = RestartCondition.NEVER if self.liveness is None else RestartCondition.ON_FAILURE
        return RestartPolicy(condition=implied)

    @property
    def filled(self) -> RuntimeSettings:
        """These settings as a start takes them: with what they leave unset at its default."""
        return replace(
            self,
            stop_grace=DEFAULT_STOP_GRACE if self.stop_grace is None else self.stop_grace,
            restart=self.restart_policy,
            readiness=self.readiness and self.readiness.filled(READINESS_THRESHOLD),
            liveness=self.liveness and self.liveness.filled(LIVENESS_THRESHOLD),
        )


def changed_fields(given: RestartPolicy | ResourceLimits) -> list[tuple[str, str]]:
    """What differs from the defaults, as texts that stay the same when fields are added."""
    default = type(given)()
    return [
        (field.name, str(getattr(given, field.name)))
        for field in fields(given)
        if getattr(given, field.name) != getattr(default, field.name)
    ]


# Notifications --------------------------------------------------------------

DEFAULT_NOTIFY_TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifySettings:
    """Whom to tell when the app has failed: a command, and how long it may take."""

    command: tuple[str, ...]
    timeout: timedelta = DEFAULT_NOTIFY_TIMEOUT


# Logs -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How much of a log is kept.

    max_size: bytes on disk; max_age: of the youngest record of a part that goes;
    None sets no bound. min_free: the share of the file system below which the
    oldest parts go; 0: never.
    """

    max_size: int | None = None
    max_age: timedelta | None = None
    min_free: float = 0.1
