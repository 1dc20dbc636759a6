"""The rules for how an app may be run, once for requests and `att.toml`.

A rule that is broken is given as a path and words. The path names fields as
`project.proto` does, relative to the settings: `("restart", "max_backoff")`,
`("command", 0)`, `("env", NAME)`. The words go on from the field's name and
never hold a value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

SettingPath = tuple[str | int, ...]
Violation = tuple[SettingPath, str]

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
MAX_LIMIT = 1 << 53
"""Bounds numbers without a bound of their own to what every JSON reader keeps."""
MAX_RESTARTS = 10_000
MAX_THRESHOLD = 1_000

_RESERVED_ENV = "ATT_"
_TEN_MS = timedelta(milliseconds=10)
_SECOND = timedelta(seconds=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_MONTH = timedelta(days=30)
_DECADE = timedelta(days=3_650)


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


def span_text(span: timedelta) -> str:
    """A span in the form that `att.toml` takes, in the largest unit that gives a whole number."""
    for unit, length in (("d", _DAY), ("h", _HOUR), ("m", timedelta(minutes=1)), ("s", _SECOND)):
        if span and not span % length:
            return f"{span // length}{unit}"
    return f"{span / timedelta(milliseconds=1):g}ms" if span else "0s"


def _of_settings(settings: RuntimeSettings, allowed_hosts: frozenset[str]) -> Iterator[Violation]:
    yield from _under("command", _of_command(settings.command))
    yield from _under("env", _of_env(settings.env))
    if settings.env_file is not None:
        yield from _field("env_file", _path_rule(settings.env_file))
    if settings.stop_grace is not None:
        yield from _span("stop_grace", settings.stop_grace, timedelta(), MAX_STOP_GRACE)
    if settings.restart is not None:
        yield from _under("restart", _of_restart(settings.restart))
    if settings.limits is not None:
        yield from _under("limits", _of_limits(settings.limits))
    if settings.readiness is not None:
        yield from _under("readiness", _of_probe(settings.readiness, allowed_hosts))
    if settings.liveness is not None:
        # A line that was printed once says nothing of an app that hangs now.
        if isinstance(settings.liveness.kind, LogProbe):
            yield ("liveness", "log"), "must be of another kind: a line matches once and for all"
        yield from _under("liveness", _of_probe(settings.liveness, allowed_hosts))


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
        yield from _field(name, variable_rule(name, env[name]))


def _of_restart(policy: RestartPolicy) -> Iterator[Violation]:
    yield from _span("initial_backoff", policy.initial_backoff, _TEN_MS, _DAY)
    yield from _span("max_backoff", policy.max_backoff, _TEN_MS, _DAY)
    if policy.max_backoff < policy.initial_backoff <= _DAY:
        initial = span_text(policy.initial_backoff)
        yield ("max_backoff",), f"must be at least the initial wait, {initial}"
    yield from _number("backoff_factor", policy.backoff_factor, 1, 100)
    yield from _number("backoff_jitter", policy.backoff_jitter, 0, 1)
    yield from _number("max_restarts", policy.max_restarts, 0, MAX_RESTARTS)
    yield from _span("window", policy.window, _SECOND, _MONTH)
    yield from _span("stable_after", policy.stable_after, timedelta(), _MONTH)


def _of_limits(limits: ResourceLimits) -> Iterator[Violation]:
    if limits.memory_bytes is not None:
        yield from _number("memory_bytes", limits.memory_bytes, MIN_MEMORY, MAX_LIMIT)
    if limits.open_files is not None:
        yield from _number("open_files", limits.open_files, MIN_OPEN_FILES, MAX_LIMIT)
    if limits.processes is not None:
        yield from _number("processes", limits.processes, 1, MAX_LIMIT)
    if limits.cpu_time is not None:
        yield from _span("cpu_time", limits.cpu_time, _SECOND, _DECADE)


def _of_probe(probe: Probe, allowed_hosts: frozenset[str]) -> Iterator[Violation]:
    yield from _of_kind(probe.kind, allowed_hosts)
    yield from _span("interval", probe.interval, _TEN_MS, _DAY)
    yield from _span("timeout", probe.timeout, _TEN_MS, _HOUR)
    if probe.threshold is not None:
        yield from _number("threshold", probe.threshold, 1, MAX_THRESHOLD)
    if probe.deadline is not None:
        yield from _span("deadline", probe.deadline, _TEN_MS, _DAY)


def _of_kind(kind: ProbeKind, allowed_hosts: frozenset[str]) -> Iterator[Violation]:
    match kind:
        case HttpProbe():
            yield from _under("http", _field("url", _url_rule(kind.url, allowed_hosts)))
        case TcpProbe():
            yield from _under("tcp", _field("host", host_rule(kind.host, allowed_hosts)))
            yield from _under("tcp", _number("port", kind.port, 1, 65_535))
        case CommandProbe():
            if not kind.command:
                yield ("command", "command"), "must name a program"
            for path, rule in _of_command(kind.command):
                yield ("command", "command", *path), rule
        case GrpcProbe():
            yield from _under("grpc", _field("target", _target_rule(kind.target, allowed_hosts)))
            if len(kind.service) > MAX_SERVICE_LENGTH or not kind.service.isprintable():
                rule = f"must have at most {MAX_SERVICE_LENGTH:,} printable characters"
                yield ("grpc", "service"), rule
        case LogProbe():
            yield from _under("log", _field("pattern", _pattern_rule(kind.pattern)))


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


def _pattern_rule(pattern: str) -> str:
    if not pattern or len(pattern.encode()) > MAX_PATTERN_BYTES:
        return f"must have 1 to {MAX_PATTERN_BYTES:,} bytes"
    # Costs memory that a server without such probes does not need.
    import re2

    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        # The part before the colon names the fault; the rest is of the pattern.
        fault = str(error.args[0], errors="replace").partition(":")[0]
        return f"is not an RE2 pattern that can be used: {fault}"
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


def _span(field: str, span: timedelta, low: timedelta, high: timedelta) -> Iterator[Violation]:
    if not low <= span <= high:
        yield (field,), f"must be {span_text(low)} to {span_text(high)}"


def _number(field: str, number: float, low: int, high: int) -> Iterator[Violation]:
    # Not `number < low or …`, which NaN would pass.
    if not low <= number <= high:
        bounds = f"at least {low:,}" if number < low and high == MAX_LIMIT else ""
        yield (field,), f"must be {bounds or f'{low:,} to {high:,}'}"


def _field(field: str, rule: str) -> Iterator[Violation]:
    if rule:
        yield (field,), rule


def _under(field: str, found: Iterable[Violation]) -> Iterator[Violation]:
    return (((field, *path), rule) for path, rule in found)
