"""The rules for how an app may be run, once for requests and `att.toml`.

Paths name fields as `project.proto` does, relative to the settings:
`("restart", "max_backoff")`, `("command", 0)`, `("env", NAME)`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from att_server.core.settings import (
    MAX_STOP_GRACE,
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    Probe,
    ProbeKind,
    ResourceLimits,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)
from att_server.core.violations import (
    DAY,
    DECADE,
    HOUR,
    MAX_LIMIT,
    MONTH,
    SECOND,
    TEN_MS,
    Violation,
    field_rule,
    number_rule,
    span_rule,
    span_text,
    under,
)

MAX_COMMAND_WORDS = 1_000
MAX_ENV_ENTRIES = 1_000
MAX_TEXT_BYTES = 128 * 1024
"""Of a command, and of an environment, each with the byte that ends a string: what
Linux takes as one string, and far below what it takes as all of them."""
MAX_PATH_BYTES = 4_096
MAX_PATTERN_BYTES = 1_000
MAX_PATTERN_MEMORY = 1 << 20
"""What a compiled pattern may take, in bytes; RE2 refuses one that needs more."""
MAX_SERVICE_LENGTH = 1_000
MAX_URL_LENGTH = 2_048

MIN_MEMORY = 1 << 20
MIN_OPEN_FILES = 16
MAX_RESTARTS = 10_000
MAX_THRESHOLD = 1_000

_RESERVED_ENV = "ATT_"
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._@-]{0,63}\$?")
_NO_USER = 2**32 - 1
"""What the kernel takes for `leave it as it is`."""


def violations(settings: RuntimeSettings, *, allowed_hosts: frozenset[str]) -> list[Violation]:
    """Every rule that `settings` break.

    allowed_hosts: names and addresses that probes may ask, beside this host.
    """
    return list(_of_settings(settings, allowed_hosts))


def probe_violations(probe: Probe, *, allowed_hosts: frozenset[str]) -> list[Violation]:
    """Every rule that a probe breaks; paths are relative to it."""
    return list(_of_probe(probe, allowed_hosts))


def command_violations(words: Sequence[str]) -> list[Violation]:
    """Every rule that the words of a command break; none at all break none."""
    return list(_of_command(words))


def environment_violations(env: Mapping[str, str]) -> list[Violation]:
    """Every rule that variables break."""
    return list(_of_env(env))


def environment_rule(env: Mapping[str, str]) -> str:
    """The rule that variables break by their number and size; empty if they do not.

    Holds for `env`, for a file of variables, and for what an app gets of both.
    """
    if len(env) > MAX_ENV_ENTRIES:
        return f"must have at most {MAX_ENV_ENTRIES:,} entries"
    if sum(len(name.encode()) + len(value.encode()) + 2 for name, value in env.items()) > (
        MAX_TEXT_BYTES
    ):
        return f"must have at most {MAX_TEXT_BYTES:,} bytes in all"
    return ""


def variable_rule(name: str, value: str) -> str:
    """The rule that an environment variable breaks; empty if it does not."""
    if not name or not name.isprintable() or "=" in name:
        return "must have a name of printable characters, not ="
    if name.startswith(_RESERVED_ENV):
        return f"must not have a name that begins with {_RESERVED_ENV}"
    return _nul_rule(value)


def host_rule(host: str, allowed_hosts: frozenset[str]) -> str:
    """The rule that the host of a probe breaks; empty if it may be asked.

    host: a name or an address, of IPv6 without brackets.
    """
    form = _host_form(host)
    if form == "localhost" or _is_loopback(form) or form in map(_host_form, allowed_hosts):
        return ""
    return (
        "must name localhost, a loopback address, or a host that the server was told to allow "
        "(att serve --probe-host)"
    )


def split_target(target: str) -> tuple[str, int] | None:
    """Host and port of `host:port` or `[address]:port`; None: it is neither, or no port."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", target)
    if match is None or not 1 <= int(match[3]) <= 65_535:
        return None
    return match[1] or match[2], int(match[3])


def _of_settings(settings: RuntimeSettings, allowed_hosts: frozenset[str]) -> Iterator[Violation]:
    yield from under("command", _of_command(settings.command))
    yield from under("env", _of_env(settings.env))
    if settings.env_file is not None:
        yield from field_rule("env_file", _path_rule(settings.env_file))
    if settings.run_as is not None:
        yield from field_rule("run_as", user_rule(settings.run_as))
    if settings.stop_grace is not None:
        yield from span_rule("stop_grace", settings.stop_grace, timedelta(), MAX_STOP_GRACE)
    if settings.restart is not None:
        yield from under("restart", _of_restart(settings.restart))
    if settings.limits is not None:
        yield from under("limits", _of_limits(settings.limits))
    if settings.readiness is not None:
        yield from under("readiness", _of_probe(settings.readiness, allowed_hosts))
    if settings.liveness is not None:
        # A line that was printed once says nothing of an app that hangs now.
        if isinstance(settings.liveness.kind, LogProbe):
            yield ("liveness", "log"), "must be of another kind: a line matches once and for all"
        yield from under("liveness", _of_probe(settings.liveness, allowed_hosts))


def _of_command(words: Sequence[str]) -> Iterator[Violation]:
    if len(words) > MAX_COMMAND_WORDS:
        yield (), f"must have at most {MAX_COMMAND_WORDS:,} words"
        return
    if sum(len(word.encode()) + 1 for word in words) > MAX_TEXT_BYTES:
        yield (), f"must have at most {MAX_TEXT_BYTES:,} bytes in all"
    if any("\0" in word for word in words):
        yield (), "must not hold a NUL character"
    if words and not words[0]:
        yield (0,), "must name a program"


def _of_env(env: Mapping[str, str]) -> Iterator[Violation]:
    rule = environment_rule(env)
    if rule:
        # The rules of each of a hundred thousand variables help nobody.
        yield (), rule
        return
    for name in sorted(env):
        yield from field_rule(name, variable_rule(name, env[name]))


def _of_restart(policy: RestartPolicy) -> Iterator[Violation]:
    yield from span_rule("initial_backoff", policy.initial_backoff, TEN_MS, DAY)
    yield from span_rule("max_backoff", policy.max_backoff, TEN_MS, DAY)
    if policy.max_backoff < policy.initial_backoff <= DAY:
        initial = span_text(policy.initial_backoff)
        yield ("max_backoff",), f"must be at least the initial wait, {initial}"
    yield from number_rule("backoff_factor", policy.backoff_factor, 1, 100)
    yield from number_rule("backoff_jitter", policy.backoff_jitter, 0, 1)
    yield from number_rule("max_restarts", policy.max_restarts, 0, MAX_RESTARTS)
    yield from span_rule("window", policy.window, SECOND, MONTH)
    yield from span_rule("stable_after", policy.stable_after, timedelta(), MONTH)


def _of_limits(limits: ResourceLimits) -> Iterator[Violation]:
    if limits.memory_bytes is not None:
        yield from number_rule("memory_bytes", limits.memory_bytes, MIN_MEMORY, MAX_LIMIT)
    if limits.open_files is not None:
        yield from number_rule("open_files", limits.open_files, MIN_OPEN_FILES, MAX_LIMIT)
    if limits.processes is not None:
        yield from number_rule("processes", limits.processes, 1, MAX_LIMIT)
    if limits.cpu_time is not None:
        yield from span_rule("cpu_time", limits.cpu_time, SECOND, DECADE)


def _of_probe(probe: Probe, allowed_hosts: frozenset[str]) -> Iterator[Violation]:
    yield from _of_kind(probe.kind, allowed_hosts)
    yield from span_rule("interval", probe.interval, TEN_MS, DAY)
    yield from span_rule("timeout", probe.timeout, TEN_MS, HOUR)
    if probe.threshold is not None:
        yield from number_rule("threshold", probe.threshold, 1, MAX_THRESHOLD)
    if probe.deadline is not None:
        yield from span_rule("deadline", probe.deadline, TEN_MS, DAY)


def _of_kind(kind: ProbeKind, allowed_hosts: frozenset[str]) -> Iterator[Violation]:
    match kind:
        case HttpProbe():
            yield from under("http", field_rule("url", _url_rule(kind.url, allowed_hosts)))
        case TcpProbe():
            yield from under("tcp", field_rule("host", host_rule(kind.host, allowed_hosts)))
            yield from under("tcp", number_rule("port", kind.port, 1, 65_535))
        case CommandProbe():
            if not kind.command:
                yield ("command", "command"), "must name a program"
            for path, rule in _of_command(kind.command):
                yield ("command", "command", *path), rule
        case GrpcProbe():
            yield from under("grpc", field_rule("target", _target_rule(kind.target, allowed_hosts)))
            if len(kind.service) > MAX_SERVICE_LENGTH or not kind.service.isprintable():
                rule = f"must have at most {MAX_SERVICE_LENGTH:,} printable characters"
                yield ("grpc", "service"), rule
        case LogProbe():
            yield from under("log", field_rule("pattern", pattern_rule(kind.pattern)))


def _url_rule(url: str, allowed_hosts: frozenset[str]) -> str:
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
    return host_rule(host, allowed_hosts)


def _target_rule(target: str, allowed_hosts: frozenset[str]) -> str:
    scheme, _, path = target.partition(":")
    if scheme == "unix":
        return _path_rule(path)
    found = split_target(target)
    if found is None:
        return "must be HOST:PORT or unix:PATH"
    return host_rule(found[0], allowed_hosts)


def pattern_rule(
    pattern: str, *, max_bytes: int = MAX_PATTERN_BYTES, max_memory: int = MAX_PATTERN_MEMORY
) -> str:
    """The rule that an RE2 pattern breaks; empty if it can be used."""
    if not pattern or len(pattern.encode()) > max_bytes:
        return f"must have 1 to {max_bytes:,} bytes"
    # Costs memory that a server without such probes does not need.
    import re2

    options = re2.Options()
    options.max_mem = max_memory
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        # The part before the colon names the fault; the rest is of the pattern.
        fault = str(error.args[0], errors="replace").partition(":")[0]
        return f"is not an RE2 pattern that can be used: {fault}"
    return ""


def user_rule(user: str) -> str:
    """The rule that the name or number of a user breaks, whether there is one or not."""
    if user.isascii() and user.isdecimal():
        return "" if int(user[:11]) < _NO_USER else f"must be below {_NO_USER}"
    if not _USER_NAME.fullmatch(user):
        return (
            "must be the name of a user, at most 64 letters, digits and ._@- that begin with a "
            "letter or _, or a number"
        )
    return ""


def _path_rule(path: str) -> str:
    if not path or len(path.encode()) > MAX_PATH_BYTES:
        return f"must be a path of 1 to {MAX_PATH_BYTES:,} bytes"
    return _nul_rule(path)


def _nul_rule(text: str) -> str:
    return "must not hold a NUL character" if "\0" in text else ""


def _host_form(host: str) -> str:
    """One form for all that name the same address."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        # Neither another way to write an address of IPv4, nor any text as a zone.
        return address.is_loopback and address.ipv4_mapped is None and address.scope_id is None
    return address.is_loopback
