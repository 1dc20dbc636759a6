"""Settings of apps from messages and back: pure and total.

A message may hold anything: what no setting can hold is brought into its
range here, and refused by `validate_settings`, which looks at the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from att.v1 import project_pb2
from att_server.core.settings import (
    DEFAULT_TCP_HOST,
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
from att_server.rpc.convert_time import duration, optional_duration, to_timedelta

_Condition = project_pb2.RestartPolicy.Condition

RESTART_CONDITIONS: Mapping[RestartCondition, _Condition.ValueType] = {
    condition: _Condition.Value(f"CONDITION_{condition.name}") for condition in RestartCondition
}
_CONDITIONS = {value: condition for condition, value in RESTART_CONDITIONS.items()}


def to_runtime_settings(message: project_pb2.RuntimeSettings) -> RuntimeSettings:
    """Fields that are unset stay so; those of a policy or probe take their defaults."""
    return RuntimeSettings(
        command=tuple(message.command),
        env=dict(message.env),
        env_file=message.env_file if message.HasField("env_file") else None,
        stop_grace=to_timedelta(message.stop_grace) if message.HasField("stop_grace") else None,
        restart=_to_restart(message.restart) if message.HasField("restart") else None,
        limits=_to_limits(message.limits) if message.HasField("limits") else None,
        readiness=to_probe(message.readiness, default_threshold=READINESS_THRESHOLD)
        if message.HasField("readiness")
        else None,
        liveness=to_probe(message.liveness, default_threshold=LIVENESS_THRESHOLD)
        if message.HasField("liveness")
        else None,
        run_as=message.run_as if message.HasField("run_as") else None,
    )


def runtime_settings(settings: RuntimeSettings) -> project_pb2.RuntimeSettings:
    """Fields that are unset stay so."""
    return project_pb2.RuntimeSettings(
        command=settings.command,
        env=settings.env,
        env_file=settings.env_file,
        stop_grace=optional_duration(settings.stop_grace),
        restart=None if settings.restart is None else _restart(settings.restart),
        limits=None if settings.limits is None else _limits(settings.limits),
        readiness=None if settings.readiness is None else probe(settings.readiness),
        liveness=None if settings.liveness is None else probe(settings.liveness),
        run_as=settings.run_as,
    )


def to_probe(message: project_pb2.Probe, *, default_threshold: int) -> Probe | None:
    """None: the probe is of no kind that this server knows."""
    kind = _to_kind(message)
    if kind is None:
        return None
    unset = Probe(kind=kind)
    return Probe(
        kind=kind,
        interval=to_timedelta(message.interval) if message.HasField("interval") else unset.interval,
        timeout=to_timedelta(message.timeout) if message.HasField("timeout") else unset.timeout,
        threshold=message.threshold if message.HasField("threshold") else default_threshold,
        deadline=to_timedelta(message.deadline) if message.HasField("deadline") else None,
    )


def probe(checked: Probe) -> project_pb2.Probe:
    """The probe with its defaults filled in."""
    message = project_pb2.Probe(
        interval=duration(checked.interval),
        timeout=duration(checked.timeout),
        threshold=checked.threshold,
        deadline=optional_duration(checked.deadline),
    )
    match checked.kind:
        case HttpProbe(url=url):
            message.http.url = url
        case TcpProbe(host=host, port=port):
            message.tcp.host, message.tcp.port = host, port
        case CommandProbe(command=command):
            message.command.command.extend(command)
        case GrpcProbe(target=target, service=service):
            message.grpc.target, message.grpc.service = target, service
        case LogProbe(pattern=pattern):
            message.log.pattern = pattern
    return message


def _to_kind(message: project_pb2.Probe) -> ProbeKind | None:
    match message.WhichOneof("kind"):
        case "http":
            return HttpProbe(url=message.http.url)
        case "tcp":
            return TcpProbe(host=message.tcp.host or DEFAULT_TCP_HOST, port=message.tcp.port)
        case "command":
            return CommandProbe(command=tuple(message.command.command))
        case "grpc":
            return GrpcProbe(target=message.grpc.target, service=message.grpc.service)
        case "log":
            return LogProbe(pattern=message.log.pattern)
        case _:
            return None


def _to_restart(message: project_pb2.RestartPolicy) -> RestartPolicy:
    given: dict[str, Any] = {}
    for field, value in message.ListFields():
        if isinstance(value, Duration):
            given[field.name] = to_timedelta(value)
        elif field.name == "condition":
            given["condition"] = _CONDITIONS.get(value, RestartCondition.NEVER)
        else:
            given[field.name] = value
    return RestartPolicy(**given)


def _restart(policy: RestartPolicy) -> project_pb2.RestartPolicy:
    return project_pb2.RestartPolicy(
        condition=RESTART_CONDITIONS[policy.condition],
        initial_backoff=duration(policy.initial_backoff),
        max_backoff=duration(policy.max_backoff),
        backoff_factor=policy.backoff_factor,
        backoff_jitter=policy.backoff_jitter,
        max_restarts=policy.max_restarts,
        window=duration(policy.window),
        stable_after=duration(policy.stable_after),
    )


def _to_limits(message: project_pb2.ResourceLimits) -> ResourceLimits:
    given = {field.name: value for field, value in message.ListFields()}
    if message.HasField("cpu_time"):
        given["cpu_time"] = to_timedelta(message.cpu_time)
    return ResourceLimits(**given)


def _limits(limits: ResourceLimits) -> project_pb2.ResourceLimits:
    return project_pb2.ResourceLimits(
        memory_bytes=limits.memory_bytes,
        open_files=limits.open_files,
        processes=limits.processes,
        cpu_time=optional_duration(limits.cpu_time),
    )
