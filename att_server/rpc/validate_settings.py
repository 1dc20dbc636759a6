"""The rules for how an app is run, wherever a request gives that.

The rules are the core's (`settings_rules.py`). Here is what only the message
shows: what no setting can hold, and what this server lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from att.v1 import project_pb2
from att_server.core import settings_rules
from att_server.core.settings import READINESS_THRESHOLD
from att_server.core.violations import SettingPath, Violation
from att_server.rpc import capabilities, convert_settings
from att_server.rpc.checks import Checks, is_duration

_MAPS = ("env",)
"""The fields whose keys are names that clients chose."""


def check_runtime_settings(
    checks: Checks,
    field: str,
    settings: project_pb2.RuntimeSettings,
    allowed_hosts: frozenset[str],
) -> None:
    """Notes what is wrong with `settings`, the message at the path `field`.

    allowed_hosts: what probes may ask, beside this host.
    """
    for name in ("readiness", "liveness"):
        if settings.HasField(name):
            check_kind(checks, f"{field}.{name}", getattr(settings, name))
    if settings.data_directories:
        checks.lacking(capabilities.DATA_DIRECTORIES)
    converted = convert_settings.to_runtime_settings(settings)
    rules = settings_rules.violations(converted, allowed_hosts=allowed_hosts)
    note(checks, field, unholdable(settings), rules)


def check_probe(
    checks: Checks, field: str, probe: project_pb2.Probe, allowed_hosts: frozenset[str]
) -> None:
    """Notes what is wrong with `probe`, the message at the path `field`."""
    check_kind(checks, field, probe)
    converted = convert_settings.to_probe(probe, default_threshold=READINESS_THRESHOLD)
    rules: Sequence[Violation] = ()
    if converted is not None:
        rules = settings_rules.probe_violations(converted, allowed_hosts=allowed_hosts)
    note(checks, field, unholdable(probe), rules)


def check_kind(checks: Checks, field: str, probe: project_pb2.Probe) -> None:
    """Notes a probe of no kind."""
    if probe.WhichOneof("kind") is None:
        checks.broken(field, "must say what to check: set http, tcp, command, grpc or log")


def note(
    checks: Checks, field: str, unheld: Iterable[Violation], rules: Iterable[Violation]
) -> None:
    """Notes what is wrong with the message at the path `field`.

    Each path once: what cannot be held is no use to a rule.
    """
    noted: set[SettingPath] = set()
    for path, rule in unheld:
        noted.add(path)
        checks.broken(_field(field, path), rule)
    for path, rule in rules:
        if path not in noted:
            checks.broken(_field(field, path), rule)


def unholdable(message: Message, path: SettingPath = ()) -> Iterable[Violation]:
    """Durations that are none and enum values that are unknown, at any depth."""
    for field, value in message.ListFields():
        inner = (*path, field.name)
        if field.enum_type is not None:
            if value not in field.enum_type.values_by_number:
                yield inner, f"has the unknown value {value}"
        elif isinstance(value, Duration):
            if not is_duration(value):
                yield inner, "is not a valid duration"
        elif isinstance(value, Message):
            yield from unholdable(value, inner)


def _field(field: str, path: SettingPath) -> str:
    """The path as clients write it: `runtime.env['NAME']`, `runtime.command[0]`."""
    text, mapped = field, False
    for part in path:
        if mapped or isinstance(part, int):
            text += f"[{part!r}]"
        else:
            text += f".{part}"
        mapped = part in _MAPS
    return text
