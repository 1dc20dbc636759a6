"""How the settings of an app read to people."""

from __future__ import annotations

import shlex
from datetime import timedelta

import att_client
from att_client.cli.output import duration_text

_CONDITIONS = {
    att_client.RestartPolicyCondition.ON_FAILURE: "on failure",
    att_client.RestartPolicyCondition.ALWAYS: "always",
}


def settings_facts(settings: att_client.RuntimeSettings) -> dict[str, str]:
    """The settings as names and values; an empty value says that nothing is set."""
    return {
        "command": shlex.join(settings.command),
        "env": " ".join(f"{k}={shlex.quote(v)}" for k, v in sorted(settings.env.items())),
        "env file": settings.env_file or "",
        "run as": settings.run_as or "",
        "ready when": probe_text(settings.readiness),
        "alive while": probe_text(settings.liveness),
        "restart": restart_text(settings.restart),
        "limits": limits_text(settings.limits),
        "stop grace": _span(settings.stop_grace),
    }


def probe_text(probe: att_client.Probe | None) -> str:
    """A probe in words: what it checks, and how often."""
    if probe is None:
        return ""
    parts = [_kind_text(probe)]
    if probe.interval is not None:
        parts.append(f"every {_span(probe.interval)}")
    if probe.threshold is not None and probe.threshold > 1:
        parts.append(f"{probe.threshold} in a row")
    if probe.deadline is not None:
        parts.append(f"within {_span(probe.deadline)}")
    return ", ".join(parts)


def restart_text(policy: att_client.RestartPolicy | None) -> str:
    """A policy in words: when, after which wait, and how often."""
    if policy is None:
        return ""
    condition = _CONDITIONS.get(policy.condition)
    if condition is None:
        return "never"
    parts = [condition]
    if policy.initial_backoff is not None and policy.max_backoff is not None:
        parts.append(f"after {_span(policy.initial_backoff)} to {_span(policy.max_backoff)}")
    if policy.max_restarts is not None:
        within = "" if policy.window is None else f" within {_span(policy.window)}"
        parts.append(f"at most {policy.max_restarts} times{within}")
    return ", ".join(parts)


def limits_text(limits: att_client.ResourceLimits | None) -> str:
    """Limits in words; empty for none."""
    if limits is None:
        return ""
    parts = [
        "" if limits.memory_bytes is None else f"memory {size_text(limits.memory_bytes)}",
        "" if limits.open_files is None else f"{limits.open_files} open files",
        "" if limits.processes is None else f"{limits.processes} processes",
        "" if limits.cpu_time is None else f"CPU {_span(limits.cpu_time)}",
    ]
    return ", ".join(part for part in parts if part)


def size_text(size: int) -> str:
    """A size for people: `512 MiB`, `1.5 GiB`, `100 B`."""
    for unit, length in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= length:
            return f"{size / length:.4g} {unit}"
    return f"{size} B"


def _kind_text(probe: att_client.Probe) -> str:
    if probe.http is not None:
        return f"GET {probe.http.url}"
    if probe.tcp is not None:
        host = probe.tcp.host
        return f"connect {f'[{host}]' if ':' in host else host}:{probe.tcp.port}"
    if probe.command is not None:
        return shlex.join(probe.command.command)
    if probe.grpc is not None:
        return f"grpc {probe.grpc.target} {probe.grpc.service}".rstrip()
    if probe.log is not None:
        return f"log {probe.log.pattern!r}"
    return "?"


def _span(span: timedelta | None) -> str:
    return "" if span is None else duration_text(span)
