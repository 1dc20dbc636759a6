"""The names of what a server can do, as GetServerInfo lists and NOT_IMPLEMENTED names them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.descriptor import MethodDescriptor

_GROUPS: Mapping[str, tuple[str, frozenset[str]]] = MappingProxyType(
    {
        "ProjectService": ("projects", frozenset({"project", "projects"})),
        "CodeService": ("code", frozenset()),
        "RuntimeService": ("runtimes", frozenset({"runtime", "runtimes"})),
        "LogService": ("logs", frozenset({"log", "logs"})),
        "BootstrapService": ("bootstrap", frozenset()),
        "EventService": ("events", frozenset({"event", "events"})),
        "ServerService": ("server", frozenset({"server"})),
    }
)
"""By service: the group, and the nouns that the group says already."""

DATA_DIRECTORIES = "settings.data_directories"

OFFERED = (
    "logs.filter",
    "probes.command",
    "probes.grpc",
    "probes.http",
    "probes.log",
    "probes.tcp",
    "projects.template",
    "settings.env_file",
    "settings.limits",
    "settings.liveness",
    "settings.restart",
    "settings.run_as",
)
"""What this server offers beside its rpcs. An earlier one refuses a request that needs
one of these by the same name."""


def capability(method: MethodDescriptor) -> str:
    """The name of the rpc: `runtimes.start`, `logs.follow`, `bootstrap.start_cycle`."""
    group, nouns = _GROUPS[method.containing_service.name]
    words = re.findall(r"[A-Z][a-z0-9]*", method.name)
    return f"{group}." + "_".join(w for w in map(str.lower, words) if w not in nouns)
