"""What `att.toml` may say, as pydantic models; imported where there is such a file.

Here are the names and forms of TOML. What values may be is for
`core/settings_rules.py` to say, as it does for requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    InstanceOf,
    model_validator,
)

from att_server.adapters.toml_forms import (
    Duration,
    Table,
    TomlKey,
    Violations,
    Words,
    one_of,
    size,
    valid,
)
from att_server.core import settings_rules
from att_server.core.settings import (
    DEFAULT_NOTIFY_TIMEOUT,
    LIVENESS_THRESHOLD,
    READINESS_THRESHOLD,
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    LogSettings,
    NotifySettings,
    Probe,
    ProbeKind,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)
from att_server.core.violations import SettingPath

MIN_NOTIFY_TIMEOUT = timedelta(seconds=1)
MAX_NOTIFY_TIMEOUT = timedelta(minutes=10)
MIN_LOG_AGE = timedelta(minutes=1)
MIN_LOG_SIZE = 64 << 20

CHECKS = ("http", "tcp", "command", "grpc", "log")
"""The ways to check an app; a probe names one of them."""


def runtime_settings(document: Mapping[str, Any], allowed_hosts: frozenset[str]) -> RuntimeSettings:
    """The settings of a parsed `att.toml`. Raises Violations.

    allowed_hosts: what probes may ask, beside this host.
    """
    settings = valid(_Document, document).runtime.settings()
    found = settings_rules.violations(settings, allowed_hosts=allowed_hosts)
    if found:
        raise Violations([(_key(path), rule) for path, rule in found])
    return settings


def notify_settings(document: Mapping[str, Any]) -> NotifySettings | None:
    """Whom a parsed `att.toml` wants to be told of failures. Raises Violations."""
    notify = valid(_NotifyDocument, document).notify
    return None if notify is None else notify.settings()


def log_settings(document: Mapping[str, Any]) -> LogSettings:
    """How much of the log a parsed `att.toml` wants kept. Raises Violations."""
    log = valid(_LogDocument, document).log
    return LogSettings(**log.given())


# Values ---------------------------------------------------------------------


def _restart(given: object) -> object:
    return {"condition": given} if isinstance(given, str) else given


def _command(given: object) -> object:
    if given == []:
        raise ValueError("must name a program")
    return given


def _user(given: object) -> object:
    # Who has no name at hand writes the number as it is.
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else given


def _notify_command(given: tuple[str, ...]) -> tuple[str, ...]:
    for _, rule in settings_rules.command_violations(given):
        raise ValueError(rule)
    return given


def _notify_timeout(given: timedelta) -> timedelta:
    if not MIN_NOTIFY_TIMEOUT <= given <= MAX_NOTIFY_TIMEOUT:
        raise ValueError("is not between 1 s and 10 min")
    return given


def _at_least(low: Any, name: str) -> Callable[[Any], Any]:
    def check(given: Any) -> Any:
        if given < low:
            raise ValueError(f"must be at least {name}")
        return given

    return check


def _tcp(given: object) -> TcpProbe:
    if isinstance(given, int) and not isinstance(given, bool):
        return TcpProbe(port=given)
    target = settings_rules.split_target(given) if isinstance(given, str) else None
    if target is None:
        raise ValueError('is not a port such as 8000, or "HOST:PORT"')
    return TcpProbe(host=target[0], port=target[1])


_Command = Annotated[Words, BeforeValidator(_command)]
_Condition = Annotated[
    InstanceOf[RestartCondition], BeforeValidator(one_of(RestartCondition, {"no": "never"}))
]


# Tables ---------------------------------------------------------------------


class CheckTable(Table):
    """What to check, in one of the five ways, and how long that may take."""

    http: str | None = None
    tcp: Annotated[InstanceOf[TcpProbe] | None, BeforeValidator(_tcp)] = None
    command: _Command | None = None
    grpc: str | None = None
    log: str | None = None
    service: str | None = None
    timeout: Duration | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> CheckTable:
        given = [name for name in CHECKS if getattr(self, name) is not None]
        if not given:
            raise ValueError(f"must say what to check: give one of {', '.join(CHECKS)}")
        if len(given) > 1:
            raise ValueError(f"must check one thing, not {' and '.join(given)}")
        if self.service is not None and self.grpc is None:
            raise ValueError("must not have service, which is for grpc only")
        return self

    def kind(self) -> ProbeKind:
        """What to check."""
        if self.http is not None:
            return HttpProbe(url=self.http)
        if self.tcp is not None:
            return self.tcp
        if self.command is not None:
            return CommandProbe(command=self.command)
        if self.grpc is not None:
            return GrpcProbe(target=self.grpc, service=self.service or "")
        return LogProbe(pattern=self.log or "")


class _Probe(CheckTable):
    interval: Duration | None = None
    threshold: int | None = None
    deadline: Duration | None = None

    def probe(self, default_threshold: int) -> Probe:
        spans = {name: getattr(self, name) for name in ("interval", "timeout", "deadline")}
        return Probe(
            kind=self.kind(),
            threshold=default_threshold if self.threshold is None else self.threshold,
            **{name: span for name, span in spans.items() if span is not None},
        )


class _Backoff(Table):
    initial: Duration | None = None
    max: Duration | None = None
    factor: float | None = None
    jitter: float | None = None


class _Restart(Table):
    condition: _Condition
    backoff: _Backoff = _Backoff()
    max_restarts: int | None = None
    window: Duration | None = None
    stable_after: Duration | None = None

    def policy(self) -> RestartPolicy:
        given = {
            "initial_backoff": self.backoff.initial,
            "max_backoff": self.backoff.max,
            "backoff_factor": self.backoff.factor,
            "backoff_jitter": self.backoff.jitter,
            "max_restarts": self.max_restarts,
            "window": self.window,
            "stable_after": self.stable_after,
        }
        known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return RestartPolicy(condition=self.condition, **known)


class _Limits(Table):
    memory: Annotated[int | None, BeforeValidator(size)] = None
    open_files: int | None = None
    processes: int | None = None
    cpu_time: Duration | None = None

    def limits(self) -> ResourceLimits:
        return ResourceLimits(
            memory_bytes=self.memory,
            open_files=self.open_files,
            processes=self.processes,
            cpu_time=self.cpu_time,
        )


class _Runtime(Table):
    command: _Command = ()
    env: dict[str, str] = Field(default_factory=dict)
    env_file: str | None = None
    stop_grace: Duration | None = None
    restart: Annotated[_Restart | None, BeforeValidator(_restart)] = None
    limits: _Limits | None = None
    readiness: _Probe | None = None
    liveness: _Probe | None = None
    run_as: Annotated[str | None, BeforeValidator(_user)] = None

    def settings(self) -> RuntimeSettings:
        readiness, liveness = self.readiness, self.liveness
        return RuntimeSettings(
            command=self.command,
            env=self.env,
            env_file=self.env_file,
            stop_grace=self.stop_grace,
            restart=None if self.restart is None else self.restart.policy(),
            limits=None if self.limits is None else self.limits.limits(),
            readiness=None if readiness is None else readiness.probe(READINESS_THRESHOLD),
            liveness=None if liveness is None else liveness.probe(LIVENESS_THRESHOLD),
            run_as=self.run_as,
        )


class _Notify(Table):
    command: Annotated[_Command, AfterValidator(_notify_command)]
    timeout: Annotated[Duration, AfterValidator(_notify_timeout)] = DEFAULT_NOTIFY_TIMEOUT

    def settings(self) -> NotifySettings:
        return NotifySettings(command=self.command, timeout=self.timeout)


class _Log(Table):
    max_size: Annotated[
        int | None, BeforeValidator(size), AfterValidator(_at_least(MIN_LOG_SIZE, "64 MiB"))
    ] = None
    max_age: Annotated[Duration | None, AfterValidator(_at_least(MIN_LOG_AGE, "1 min"))] = None
    min_free: Annotated[float | None, Field(ge=0, le=0.9)] = None


class _LogDocument(BaseModel):
    """The part that retention reads, whatever became of the others."""

    log: _Log = _Log()


class _NotifyDocument(BaseModel):
    """The part that is read when the app has failed, whatever became of the others."""

    notify: _Notify | None = None


class _Document(Table):
    runtime: _Runtime = _Runtime()
    bootstrap: object = None  # read elsewhere
    notify: _Notify | None = None
    log: _Log = _Log()


# What is wrong --------------------------------------------------------------

_KEYS: Mapping[SettingPath, TomlKey] = {
    ("restart", "initial_backoff"): ("restart", "backoff", "initial"),
    ("restart", "max_backoff"): ("restart", "backoff", "max"),
    ("restart", "backoff_factor"): ("restart", "backoff", "factor"),
    ("restart", "backoff_jitter"): ("restart", "backoff", "jitter"),
    ("limits", "memory_bytes"): ("limits", "memory"),
}
"""The key of each field that has another name or place here."""


def _key(path: SettingPath) -> TomlKey:
    """The key that says what the rules call `path`."""
    match path:
        case (("readiness" | "liveness") as probe, "grpc", "service"):
            return ("runtime", probe, "service")
        case (("readiness" | "liveness") as probe, kind, _, *rest) if kind in CHECKS:
            return ("runtime", probe, kind, *rest)
        case _:
            return ("runtime", *_KEYS.get(path, path))
