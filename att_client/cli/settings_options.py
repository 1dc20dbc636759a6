"""The options that say how an app is run, for every command that takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import typer

import att_client
from att_client.cli.exits import usage_error
from att_client.cli.option_group import takes
from att_client.cli.session import parse_duration

_APP = "How the app runs"
_READY = "When the app is ready"
_LIVE = "When the app is restarted"
_LIMITS = "What the app may use"


# What the messages hold; the server's own bounds are narrower.
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1


def _option(text: str, metavar: str, panel: str) -> Any:
    return typer.Option(help=text, metavar=metavar, show_default=False, rich_help_panel=panel)


def _number(text: str, highest: int, panel: str) -> Any:
    return typer.Option(
        help=text, metavar="N", min=0, max=highest, show_default=False, rich_help_panel=panel
    )


def _words(text: str, panel: str) -> Any:
    return _option(f"{text}; words with shell quoting, run without a shell.", '"WORD …"', panel)


def _span(text: str, panel: str) -> Any:
    return _option(f"{text}, such as 10s, 500ms or 2m.", "DURATION", panel)


_Text = str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsOptions:
    """What the options gave; None where one was not given."""

    command: Annotated[_Text, _words("How to start the app", _APP)] = None
    env: Annotated[
        list[str] | None,
        _option("Add to the app's environment; can be repeated.", "NAME=VALUE", _APP),
    ] = None
    env_file: Annotated[
        _Text,
        _option(
            "A file of secret variables, against the app's directory: masked in the log, never "
            "shown.",
            "FILE",
            _APP,
        ),
    ] = None
    run_as: Annotated[
        _Text,
        _option(
            "The user that it runs as, by name or number. Changing it needs an admin.", "USER", _APP
        ),
    ] = None
    restart: Annotated[
        _Text,
        _option(
            "When to start it again: never, on-failure or always, and at most N times within "
            "10 minutes.",
            "POLICY[:N]",
            _APP,
        ),
    ] = None
    stop_grace: Annotated[_Text, _span("The time between SIGTERM and SIGKILL", _APP)] = None

    ready_http: Annotated[
        _Text, _option("A GET of this URL is answered with 200 to 399.", "URL", _READY)
    ] = None
    ready_tcp: Annotated[
        _Text, _option("This port accepts a connection.", "[HOST:]PORT", _READY)
    ] = None
    ready_grpc: Annotated[
        _Text,
        _option("grpc.health.v1 here answers SERVING.", "HOST:PORT|unix:PATH", _READY),
    ] = None
    ready_log: Annotated[
        _Text, _option("A line of its output matches (RE2).", "PATTERN", _READY)
    ] = None
    ready_command: Annotated[_Text, _words("This command exits with 0", _READY)] = None
    ready_interval: Annotated[_Text, _span("The time between two checks", _READY)] = None
    ready_timeout: Annotated[_Text, _span("The bound of one check", _READY)] = None
    ready_threshold: Annotated[
        int | None,
        _number(
            "Equal results in a row that change the verdict; 1 by default.", _MAX_INT32, _READY
        ),
    ] = None
    ready_deadline: Annotated[
        _Text, _span("The bound until it is ready; an app that misses it is ended", _READY)
    ] = None

    live_http: Annotated[
        _Text, _option("A GET of this URL is not answered with 200 to 399.", "URL", _LIVE)
    ] = None
    live_tcp: Annotated[
        _Text, _option("This port accepts no connection.", "[HOST:]PORT", _LIVE)
    ] = None
    live_grpc: Annotated[
        _Text,
        _option("grpc.health.v1 here does not answer SERVING.", "HOST:PORT|unix:PATH", _LIVE),
    ] = None
    live_command: Annotated[_Text, _words("This command does not exit with 0", _LIVE)] = None
    live_interval: Annotated[_Text, _span("The time between two checks", _LIVE)] = None
    live_timeout: Annotated[_Text, _span("The bound of one check", _LIVE)] = None
    live_threshold: Annotated[
        int | None, _number("Failures in a row that end it; 3 by default.", _MAX_INT32, _LIVE)
    ] = None
    live_deadline: Annotated[_Text, _span("The bound until the first check holds", _LIVE)] = None

    memory: Annotated[_Text, _option("Resident memory of all its processes.", "SIZE", _LIMITS)] = (
        None
    )
    open_files: Annotated[
        int | None, _number("Open files of each process.", _MAX_INT64, _LIMITS)
    ] = None
    processes: Annotated[int | None, _number("Its processes.", _MAX_INT64, _LIMITS)] = None
    cpu_time: Annotated[_Text, _span("Processor time of each process", _LIMITS)] = None

    @property
    def given(self) -> bool:
        """Whether any option was."""
        return any(getattr(self, field.name) not in (None, []) for field in fields(self))

    def over(self, settings: att_client.RuntimeSettings) -> att_client.RuntimeSettings:
        """`settings` with what the options gave over them. Raises CommandError."""
        self._check_text()
        changed: dict[str, Any] = {
            "readiness": self._probe("ready", settings.readiness),
            "liveness": self._probe("live", settings.liveness),
            "limits": self._limits(settings.limits),
        }
        if self.command is not None:
            changed["command"] = _command("--command", self.command)
        if self.env:
            changed["env"] = {**settings.env, **_variables(self.env)}
        if self.env_file is not None:
            changed["env_file"] = self.env_file
        if self.run_as is not None:
            changed["run_as"] = self.run_as
        if self.restart is not None:
            changed["restart"] = _policy(self.restart, settings.restart)
        if self.stop_grace is not None:
            changed["stop_grace"] = parse_duration(self.stop_grace)
        return replace(settings, **changed)

    def _check_text(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                for text in value if isinstance(value, list) else [value]:
                    str(text).encode()
            except UnicodeEncodeError as error:
                option = field.name.replace("_", "-")
                raise usage_error(f"--{option} is not UTF-8. Put the bytes into a file.") from error

    def _probe(self, prefix: str, now: att_client.Probe | None) -> att_client.Probe | None:
        """The probe of the options that begin with `prefix`, over the one that is there."""
        given = {
            name: value
            for name in ("http", "tcp", "grpc", "log", "command", *_PROBE_BOUNDS)
            if (value := getattr(self, f"{prefix}_{name}", None)) is not None
        }
        kinds = [name for name in given if name not in _PROBE_BOUNDS]
        if not given:
            return now
        if len(kinds) > 1:
            options = " and ".join(f"--{prefix}-{kind}" for kind in kinds)
            raise usage_error(f"{options} do not go together: a probe checks one thing.")
        if not kinds and now is None:
            raise usage_error(
                f"--{prefix}-{next(iter(given))} bounds a probe, and there is none. Give one, such "
                f"as --{prefix}-http URL."
            )
        probe = now or att_client.Probe()
        if kinds:
            probe = _of_kind(kinds[0], f"--{prefix}-{kinds[0]}", given[kinds[0]], probe)
        bounds: dict[str, Any] = {
            name: parse_duration(given[name]) if isinstance(given[name], str) else given[name]
            for name in _PROBE_BOUNDS
            if name in given
        }
        return replace(probe, **bounds)

    def _limits(self, now: att_client.ResourceLimits | None) -> att_client.ResourceLimits | None:
        given: dict[str, Any] = {
            "memory_bytes": None if self.memory is None else parse_size(self.memory),
            "open_files": self.open_files,
            "processes": self.processes,
            "cpu_time": None if self.cpu_time is None else parse_duration(self.cpu_time),
        }
        known = {name: value for name, value in given.items() if value is not None}
        return replace(now or att_client.ResourceLimits(), **known) if known else now


_PROBE_BOUNDS = ("interval", "timeout", "threshold", "deadline")


takes_settings = takes(SettingsOptions)
"""Gives a command these options, for its parameter `options`."""


_SIZE = re.compile(r"(?P<number>\d{1,18})(?:(?P<unit>[kmgt])(?:ib)?|b)?", re.IGNORECASE)
_UNITS = {None: 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """The bytes of `1048576`, `512m` or `2GiB`, in powers of 1024. Raises CommandError."""
    match = _SIZE.fullmatch(text.strip())
    unit = match and match["unit"]
    size = int(match["number"]) * _UNITS[unit and unit.lower()] if match else -1
    if not 0 <= size <= _MAX_INT64:
        raise usage_error(f"{text!r} is no size. Write 512m, 2g or a number of bytes.")
    return size


def _command(option: str, text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise usage_error(f"{option} {text!r} has an open quote: {error}.") from error
    if not words:
        raise usage_error(f"{option} is empty. Give the words of a command line.")
    return words


def _variables(items: Sequence[str]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name or not equals:
            raise usage_error(f"--env {item!r} is not NAME=VALUE.")
        variables[name] = value
    return variables


def _policy(text: str, now: att_client.RestartPolicy | None) -> att_client.RestartPolicy:
    name, colon, count = text.partition(":")
    condition = _CONDITIONS.get(name)
    if condition is None or (colon and not count.isdecimal()):
        raise usage_error(
            f"--restart {text!r} is no policy. Write never, on-failure or always, or "
            "on-failure:5 for at most 5 restarts within the window."
        )
    policy = replace(now or att_client.RestartPolicy(), condition=condition)
    return replace(policy, max_restarts=min(int(count), _MAX_INT32)) if colon else policy


_CONDITIONS = {
    "never": att_client.RestartPolicyCondition.NEVER,
    "no": att_client.RestartPolicyCondition.NEVER,
    "on-failure": att_client.RestartPolicyCondition.ON_FAILURE,
    "always": att_client.RestartPolicyCondition.ALWAYS,
}


def _of_kind(kind: str, option: str, text: str, probe: att_client.Probe) -> att_client.Probe:
    """`probe` with what it checks replaced."""
    made: dict[str, Any] = dict.fromkeys(("http", "tcp", "grpc", "log", "command"))
    match kind:
        case "http":
            made[kind] = att_client.HttpProbe(url=text)
        case "tcp":
            made[kind] = _tcp(option, text)
        case "grpc":
            made[kind] = att_client.GrpcProbe(target=text)
        case "log":
            made[kind] = att_client.LogProbe(pattern=text)
        case _:
            made[kind] = att_client.CommandProbe(command=_command(option, text))
    return replace(probe, **made)


def _tcp(option: str, text: str) -> att_client.TcpProbe:
    match = re.fullmatch(r"(?:(?:\[([^\[\]]+)\]|([^:\[\]]+)):)?(\d{1,5})", text)
    if match is None:
        raise usage_error(f"{option} {text!r} is no port. Write 8000, or HOST:PORT.")
    return att_client.TcpProbe(host=match[1] or match[2] or "", port=int(match[3]))
