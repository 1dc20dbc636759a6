"""The rules for how an app is run, wherever a request gives that."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from att.v1 import project_pb2
from att_server.core.model import MAX_STOP_GRACE
from att_server.rpc import capabilities
from att_server.rpc.checks import Checks

MAX_COMMAND_WORDS = 1000
MAX_ENV_ENTRIES = 1000
MAX_TEXT_BYTES = 128 * 1024
MAX_URL_LENGTH = 2048
MAX_THRESHOLD = 1000
MIN_PROBE_SPAN = timedelta(milliseconds=10)
MAX_PROBE_TIMEOUT = timedelta(hours=1)

_RESERVED_ENV = "ATT_"


def check_runtime_settings(
    checks: Checks, field: str, settings: project_pb2.RuntimeSettings
) -> None:
    """Notes what is wrong with `settings`, the message at the path `field`."""
    _check_command(checks, f"{field}.command", settings.command)
    _check_env(checks, f"{field}.env", settings.env)
    if settings.HasField("stop_grace"):
        checks.duration(f"{field}.stop_grace", settings.stop_grace, timedelta(), MAX_STOP_GRACE)
    if settings.HasField("readiness"):
        check_probe(checks, f"{field}.readiness", settings.readiness)
    if settings.HasField("restart"):
        _check_restart(checks, f"{field}.restart", settings.restart)
    if settings.HasField("env_file"):
        checks.lacking(capabilities.ENV_FILE)
    if settings.HasField("limits"):
        checks.lacking(capabilities.LIMITS)
    if settings.HasField("liveness"):
        checks.lacking(capabilities.LIVENESS)
    if settings.data_directories:
        checks.lacking(capabilities.DATA_DIRECTORIES)


def check_probe(checks: Checks, field: str, probe: project_pb2.Probe) -> None:
    """Notes what is wrong with `probe`, the message at the path `field`."""
    kind = probe.WhichOneof("kind")
    if kind is None:
        checks.broken(field, "must say what to check: set http, tcp, command, grpc or log")
    elif kind == "http":
        wrong = _wrong_with_url(probe.http.url)
        if wrong:
            checks.broken(f"{field}.http.url", wrong)
    else:
        checks.lacking(capabilities.probe(kind))
    if probe.HasField("interval"):
        checks.duration(f"{field}.interval", probe.interval, MIN_PROBE_SPAN)
    if probe.HasField("timeout"):
        checks.duration(f"{field}.timeout", probe.timeout, MIN_PROBE_SPAN, MAX_PROBE_TIMEOUT)
    if probe.HasField("threshold"):
        checks.range(f"{field}.threshold", probe.threshold, 1, MAX_THRESHOLD)
    if probe.HasField("deadline"):
        checks.duration(f"{field}.deadline", probe.deadline, MIN_PROBE_SPAN)


def _check_command(checks: Checks, field: str, words: Iterable[str]) -> None:
    words = list(words)
    if len(words) > MAX_COMMAND_WORDS:
        checks.broken(field, f"must have at most {MAX_COMMAND_WORDS:,} words")
    if sum(len(word.encode()) + 1 for word in words) > MAX_TEXT_BYTES:
        checks.broken(field, f"must have at most {MAX_TEXT_BYTES:,} bytes in all")
    if any("\0" in word for word in words):
        checks.broken(field, "must not hold a NUL character")
    if words and not words[0]:
        checks.broken(f"{field}[0]", "must name a program")


def _check_env(checks: Checks, field: str, env: Mapping[str, str]) -> None:
    if len(env) > MAX_ENV_ENTRIES:
        checks.broken(field, f"must have at most {MAX_ENV_ENTRIES:,} entries")
    if sum(len(n.encode()) + len(v.encode()) + 2 for n, v in env.items()) > MAX_TEXT_BYTES:
        checks.broken(field, f"must have at most {MAX_TEXT_BYTES:,} bytes in all")
    for name in sorted(env):
        if not name or not name.isprintable() or "=" in name:
            checks.broken(f"{field}[{name!r}]", "must have a name of printable characters, not =")
        elif name.startswith(_RESERVED_ENV):
            checks.broken(f"{field}[{name!r}]", f"must not begin with {_RESERVED_ENV}")
        if "\0" in env[name]:
            checks.broken(f"{field}[{name!r}]", "must not hold a NUL character")


def _check_restart(checks: Checks, field: str, policy: project_pb2.RestartPolicy) -> None:
    checks.enum(
        f"{field}.condition",
        policy.condition,
        project_pb2.RestartPolicy.Condition.DESCRIPTOR.values_by_number,
    )
    never = project_pb2.RestartPolicy(condition=project_pb2.RestartPolicy.CONDITION_NEVER)
    if policy not in (project_pb2.RestartPolicy(), never):
        checks.lacking(capabilities.RESTART_POLICY)


def _wrong_with_url(url: str) -> str:
    """The rule that the URL breaks; empty if it is one that a probe may ask."""
    if not url or len(url) > MAX_URL_LENGTH:
        return f"must have 1 to {MAX_URL_LENGTH:,} characters"
    # The parser would drop tabs and newlines without a word.
    if not url.isascii() or not url.isprintable() or " " in url:
        return "must have printable ASCII characters only, without spaces"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme != "http" or not host or parts.username is not None or port == 0:
        return "must be http://HOST[:PORT][/PATH], without a user"
    if host != "localhost" and not _is_loopback(host):
        return "must name localhost or a loopback address"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None
