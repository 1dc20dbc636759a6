"""How the settings of apps lie in the state store, as JSON.

Every release reads what the one before and the one after it wrote. So keys are
only ever added, and stay what they are; a reader takes what it knows and
leaves the rest. Spans are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from att_server.core.settings import (
    LIVENESS_THRESHOLD,
    READINESS_THRESHOLD,
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    Probe,
    ProbeKind,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)


def settings_values(settings: RuntimeSettings) -> dict[str, Any]:
    """The JSON of settings; what is unset is null or empty."""
    restart, limits = settings.restart, settings.limits
    return {
        "command": list(settings.command),
        "env": dict(settings.env),
        "env_file": settings.env_file,
        "stop_grace": _seconds(settings.stop_grace),
        "restart": None if restart is None else _restart_values(restart),
        "limits": None if limits is None else _limits_values(limits),
        "readiness": _probe_values(settings.readiness, READINESS_THRESHOLD),
        "liveness": _probe_values(settings.liveness, LIVENESS_THRESHOLD),
        "run_as": settings.run_as,
    }


def settings_of(values: Mapping[str, Any]) -> RuntimeSettings:
    """The settings of a JSON; what it lacks is unset."""
    restart, limits = values.get("restart"), values.get("limits")
    return RuntimeSettings(
        command=tuple(values.get("command", ())),
        env=values.get("env", {}),
        env_file=values.get("env_file"),
        stop_grace=_span(values.get("stop_grace")),
        restart=None if restart is None else _restart_of(restart),
        limits=None if limits is None else _limits_of(limits),
        readiness=_probe_of(values.get("readiness")),
        liveness=_probe_of(values.get("liveness")),
        run_as=values.get("run_as"),
    )


def _restart_values(policy: RestartPolicy) -> dict[str, Any]:
    return {
        "condition": policy.condition.value,
        "initial_backoff": policy.initial_backoff.total_seconds(),
        "max_backoff": policy.max_backoff.total_seconds(),
        "backoff_factor": policy.backoff_factor,
        "backoff_jitter": policy.backoff_jitter,
        "max_restarts": policy.max_restarts,
        "window": policy.window.total_seconds(),
        "stable_after": policy.stable_after.total_seconds(),
    }


def _restart_of(values: Mapping[str, Any]) -> RestartPolicy:
    # A condition of a later release is none that this one could keep to.
    conditions = {condition.value: condition for condition in RestartCondition}
    return RestartPolicy(
        condition=conditions.get(values["condition"], RestartCondition.NEVER),
        initial_backoff=timedelta(seconds=values["initial_backoff"]),
        max_backoff=timedelta(seconds=values["max_backoff"]),
        backoff_factor=values["backoff_factor"],
        backoff_jitter=values["backoff_jitter"],
        max_restarts=values["max_restarts"],
        window=timedelta(seconds=values["window"]),
        stable_after=timedelta(seconds=values["stable_after"]),
    )


def _limits_values(limits: ResourceLimits) -> dict[str, Any]:
    return {
        "memory_bytes": limits.memory_bytes,
        "open_files": limits.open_files,
        "processes": limits.processes,
        "cpu_time": _seconds(limits.cpu_time),
    }


def _limits_of(values: Mapping[str, Any]) -> ResourceLimits:
    return ResourceLimits(
        memory_bytes=values["memory_bytes"],
        open_files=values["open_files"],
        processes=values["processes"],
        cpu_time=_span(values["cpu_time"]),
    )


def _probe_values(probe: Probe | None, default_threshold: int) -> dict[str, Any] | None:
    if probe is None:
        return None
    kind, values = kind_values(probe.kind)
    return {
        kind: values,
        "interval": probe.interval.total_seconds(),
        "timeout": probe.timeout.total_seconds(),
        # Releases that know of readiness alone take no null for it.
        "threshold": default_threshold if probe.threshold is None else probe.threshold,
        "deadline": _seconds(probe.deadline),
    }


def _probe_of(values: Mapping[str, Any] | None) -> Probe | None:
    """None also for a kind that a later release has added."""
    kind = None if values is None else kind_of(values)
    if values is None or kind is None:
        return None
    return Probe(
        kind=kind,
        interval=timedelta(seconds=values["interval"]),
        timeout=timedelta(seconds=values["timeout"]),
        threshold=values["threshold"],
        deadline=_span(values.get("deadline")),
    )


def kind_values(kind: ProbeKind) -> tuple[str, dict[str, Any]]:
    """The name and the JSON of what a probe asks."""
    match kind:
        case HttpProbe():
            return "http", {"url": kind.url}
        case TcpProbe():
            return "tcp", {"host": kind.host, "port": kind.port}
        case CommandProbe():
            return "command", {"command": list(kind.command)}
        case GrpcProbe():
            return "grpc", {"target": kind.target, "service": kind.service}
        case LogProbe():
            return "log", {"pattern": kind.pattern}


def kind_of(values: Mapping[str, Any]) -> ProbeKind | None:
    """What a probe asks, by its name in `values`; None for one that a later release has added."""
    match values:
        case {"http": {"url": url}}:
            return HttpProbe(url=url)
        case {"tcp": {"host": host, "port": port}}:
            return TcpProbe(host=host, port=port)
        case {"command": {"command": command}}:
            return CommandProbe(command=tuple(command))
        case {"grpc": {"target": target, "service": service}}:
            return GrpcProbe(target=target, service=service)
        case {"log": {"pattern": pattern}}:
            return LogProbe(pattern=pattern)
        case _:
            return None


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
