"""What `att.toml` may say, as pydantic models; imported where there is such a file.

Here are the names and forms of TOML. What values may be is for
`core/settings_rules.py` to say, as it does for requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    model_validator,
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
    NotifySettings,
    Probe,
    ProbeKind,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)
from att_server.core.settings_rules import SettingPath

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

MIN_NOTIFY_TIMEOUT = timedelta(seconds=1)
MAX_NOTIFY_TIMEOUT = timedelta(minutes=10)

Model = TypeVar("Model", bound=BaseModel)
TomlKey = tuple[str | int, ...]


class Violations(Exception):
    """The document breaks rules: the key of each, and the rule in words."""

    def __init__(self, violations: Sequence[tuple[TomlKey, str]]) -> None:
        super().__init__(violations)
        self.violations = violations


def runtime_settings(document: Mapping[str, Any], allowed_hosts: frozenset[str]) -> RuntimeSettings:
    """The settings of a parsed `att.toml`. Raises Violations.

    allowed_hosts: what probes may ask, beside this host.
    """
    settings = _valid(_Document, document).runtime.settings()
    found = settings_rules.violations(settings, allowed_hosts=allowed_hosts)
    if found:
        raise Violations([(_key(path), rule) for path, rule in found])
    return settings


def notify_settings(document: Mapping[str, Any]) -> NotifySettings | None:
    """Whom a parsed `att.toml` wants to be told of failures. Raises Violations."""
    notify = _valid(_NotifyDocument, document).notify
    return None if notify is None else notify.settings()


def _valid(model: type[Model], document: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise Violations(
            [(found["loc"], _rule(found)) for found in error.errors(include_url=False)]
        ) from error


# Values ---------------------------------------------------------------------


def _duration(text: object) -> timedelta:
    match = re.fullmatch(
        r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)", text if isinstance(text, str) else ""
    )
    if match is None:
        raise ValueError('is not a duration such as "10s", "500ms", "2m", "1h" or "1d"')
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError as error:
        raise ValueError("is too long a duration") from error


def _size(given: object) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    text = given if isinstance(given, str) else ""
    # Not MB, which means a million to some and 1024 KiB to others.
    match = re.fullmatch(r"(\d{1,18})(?:([KMGTkmgt])(?:iB)?|B)?", text)
    if match is None:
        raise ValueError('is not a size such as "512MiB" or "2GiB", nor a number of bytes')
    return int(match[1]) * _SIZES[(match[2] or "").upper()]


def _condition(given: object) -> RestartCondition:
    names = [condition.value for condition in RestartCondition]
    if given in names:
        return RestartCondition(given)
    close = ["never"] if given == "no" else get_close_matches(str(given), names, n=1)
    meant = f"; is {close[0]!r} meant?" if close else ""
    raise ValueError(f"is not one of {', '.join(map(repr, names))}{meant}")


def _restart(given: object) -> object:
    return {"condition": given} if isinstance(given, str) else given


def _command(given: object) -> object:
    if given == []:
        raise ValueError("must name a program")
    return given


def _notify_command(given: tuple[str, ...]) -> tuple[str, ...]:
    for _, rule in settings_rules.command_violations(given):
        raise ValueError(rule)
    return given


def _notify_timeout(given: timedelta) -> timedelta:
    if not MIN_NOTIFY_TIMEOUT <= given <= MAX_NOTIFY_TIMEOUT:
        raise ValueError("is not between 1 s and 10 min")
    return given


def _tcp(given: object) -> TcpProbe:
    if isinstance(given, int) and not isinstance(given, bool):
        return TcpProbe(port=given)
    target = settings_rules.split_target(given) if isinstance(given, str) else None
    if target is None:
        raise ValueError('is not a port such as 8000, or "HOST:PORT"')
    return TcpProbe(host=target[0], port=target[1])


_Duration = Annotated[timedelta, BeforeValidator(_duration)]
_Size = Annotated[int, BeforeValidator(_size)]
# TOML has arrays, which strict models do not take for tuples.
_Words = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_command)]


# Tables ---------------------------------------------------------------------


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Probe(_Table):
    http: str | None = None
    tcp: Annotated[InstanceOf[TcpProbe] | None, BeforeValidator(_tcp)] = None
    command: _Words | None = None
    grpc: str | None = None
    log: str | None = None
    service: str | None = None
    interval: _Duration | None = None
    timeout: _Duration | None = None
    threshold: int | None = None
    deadline: _Duration | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> _Probe:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if not given:
            raise ValueError(f"must say what to check: give one of {', '.join(_KINDS)}")
        if len(given) > 1:
            raise ValueError(f"must check one thing, not {' and '.join(given)}")
        if self.service is not None and self.grpc is None:
            raise ValueError("must not have service, which is for grpc only")
        return self

    def probe(self, default_threshold: int) -> Probe:
        spans = {name: getattr(self, name) for name in ("interval", "timeout", "deadline")}
        return Probe(
            kind=self._kind(),
            threshold=default_threshold if self.threshold is None else self.threshold,
            **{name: span for name, span in spans.items() if span is not None},
        )

    def _kind(self) -> ProbeKind:
        if self.http is not None:
            return HttpProbe(url=self.http)
        if self.tcp is not None:
            return self.tcp
        if self.command is not None:
            return CommandProbe(command=self.command)
        if self.grpc is not None:
            return GrpcProbe(target=self.grpc, service=self.service or "")
        return LogProbe(pattern=self.log or "")


class _Backoff(_Table):
    initial: _Duration | None = None
    max: _Duration | None = None
    factor: float | None = None
    jitter: float | None = None


class _Restart(_Table):
    condition: Annotated[InstanceOf[RestartCondition], BeforeValidator(_condition)]
    backoff: _Backoff = _Backoff()
    max_restarts: int | None = None
    window: _Duration | None = None
    stable_after: _Duration | None = None

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


class _Limits(_Table):
    memory: Annotated[int | None, BeforeValidator(_size)] = None
    open_files: int | None = None
    processes: int | None = None
    cpu_time: _Duration | None = None

    def limits(self) -> ResourceLimits:
        return ResourceLimits(
            memory_bytes=self.memory,
            open_files=self.open_files,
            processes=self.processes,
            cpu_time=self.cpu_time,
        )


class _Runtime(_Table):
    command: _Words = ()
    env: dict[str, str] = {}
    env_file: str | None = None
    stop_grace: _Duration | None = None
    restart: Annotated[_Restart | None, BeforeValidator(_restart)] = None
    limits: _Limits | None = None
    readiness: _Probe | None = None
    liveness: _Probe | None = None

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
        )


class _Notify(_Table):
    command: Annotated[_Words, AfterValidator(_notify_command)]
    timeout: Annotated[_Duration, AfterValidator(_notify_timeout)] = DEFAULT_NOTIFY_TIMEOUT

    def settings(self) -> NotifySettings:
        return NotifySettings(command=self.command, timeout=self.timeout)


class _NotifyDocument(BaseModel):
    """The part that is read when the app has failed, whatever became of the others."""

    notify: _Notify | None = None


class _Document(_Table):
    runtime: _Runtime = _Runtime()
    bootstrap: object = None  # read elsewhere
    notify: _Notify | None = None


# What is wrong --------------------------------------------------------------

_KINDS = ("http", "tcp", "command", "grpc", "log")

_NAMES: Mapping[tuple[str | int, ...], Sequence[str]] = {
    (): tuple(_Document.model_fields),
    ("notify",): tuple(_Notify.model_fields),
    ("runtime",): tuple(_Runtime.model_fields),
    ("runtime", "restart"): tuple(_Restart.model_fields),
    ("runtime", "restart", "backoff"): tuple(_Backoff.model_fields),
    ("runtime", "limits"): tuple(_Limits.model_fields),
    ("runtime", "readiness"): tuple(_Probe.model_fields),
    ("runtime", "liveness"): tuple(_Probe.model_fields),
}

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
        case (("readiness" | "liveness") as probe, kind, _, *rest) if kind in _KINDS:
            return ("runtime", probe, kind, *rest)
        case _:
            return ("runtime", *_KEYS.get(path, path))


def _rule(found: Mapping[str, Any]) -> str:
    """What pydantic found, as the end of a sentence that begins with the key."""
    match found["type"]:
        case "extra_forbidden":
            *table, name = found["loc"]
            close = get_close_matches(str(name), _NAMES.get(tuple(table), ()), n=1)
            return f"is unknown; is {close[0]!r} meant?" if close else "is unknown"
        case "missing":
            return "is missing"
        case "value_error":
            return str(found["ctx"]["error"])
        case "model_type" | "dict_type":
            return "is not a table"
        case "tuple_type":
            return "is not an array"
        case _:
            return str(found["msg"]).removeprefix("Input ")
