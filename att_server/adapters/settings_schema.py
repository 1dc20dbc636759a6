"""What `att.toml` may say, as pydantic models; imported where there is such a file.

The limits are those of the messages in `project.proto`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from att_server.core.model import HttpProbe, RuntimeSettings

MAX_ENTRIES = 1_000
MAX_BYTES = 128 * 1024
MAX_URL_LENGTH = 2_048

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours"}


class Violations(Exception):
    """The document breaks rules: the key of each, and the rule in words."""

    def __init__(self, violations: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__(violations)
        self.violations = violations


def runtime_settings(document: Mapping[str, Any]) -> RuntimeSettings:
    """The settings of a parsed `att.toml`. Raises Violations."""
    try:
        runtime = _Document.model_validate(document).runtime
    except ValidationError as error:
        raise Violations(
            [(found["loc"], _rule(found)) for found in error.errors(include_url=False)]
        ) from error
    probe = runtime.readiness
    return RuntimeSettings(
        command=runtime.command,
        env=runtime.env,
        stop_grace=runtime.stop_grace,
        readiness=None if probe is None else HttpProbe(**probe.model_dump(exclude_unset=True)),
    )


def _duration(text: object) -> timedelta:
    match = re.fullmatch(
        r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)", text if isinstance(text, str) else ""
    )
    if match is None:
        raise ValueError('is not a duration such as "10s", "500ms", "2m" or "1h"')
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words or not words[0]:
        raise ValueError("has no first word, which names the program")
    if len(words) > MAX_ENTRIES:
        raise ValueError(f"has more than {MAX_ENTRIES:,} words")
    if sum(len(word.encode()) + 1 for word in words) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES:,} bytes in all")
    if any("\0" in word for word in words):
        raise ValueError("has a NUL character")
    return words


def _env(env: dict[str, str]) -> dict[str, str]:
    if len(env) > MAX_ENTRIES:
        raise ValueError(f"has more than {MAX_ENTRIES:,} entries")
    if sum(len(name.encode()) + len(value.encode()) + 2 for name, value in env.items()) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES:,} bytes in all")
    for name, value in env.items():
        if not name or not name.isprintable() or "=" in name:
            raise ValueError(f"has the name {name!r}; names have printable characters, not =")
        if name.startswith("ATT_"):
            raise ValueError(f"has the name {name!r}; names that begin with ATT_ belong to ATT")
        if "\0" in value:
            raise ValueError(f"has a NUL character in {name!r}")
    return env


def _url(url: str) -> str:
    # The parser would drop tabs and newlines without a word.
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL_LENGTH
    if not plain or not _names_local_port(url):
        raise ValueError(
            "is not a URL such as http://127.0.0.1:8000/health, with localhost or a loopback "
            "address"
        )
    return url


def _names_local_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.username is not None or parts.port == 0:
            return False
        if parts.hostname == "localhost":
            return True
        address = ip_address(parts.hostname or "")
    except ValueError:
        return False
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None


def _between(lowest: str, highest: str | None) -> BeforeValidator:
    def between(text: object) -> timedelta:
        duration = _duration(text)
        if duration < _duration(lowest):
            raise ValueError(f"is less than {lowest}")
        if highest is not None and duration > _duration(highest):
            raise ValueError(f"is more than {highest}")
        return duration

    return BeforeValidator(between)


_Grace = Annotated[timedelta, _between("0s", "1h")]
_Interval = Annotated[timedelta, _between("10ms", None)]
_Timeout = Annotated[timedelta, _between("10ms", "1h")]
_Deadline = Annotated[timedelta, _between("10ms", None)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Readiness(_Table):
    # An unset field is left to the default of `HttpProbe`.
    url: Annotated[str, Field(alias="http"), AfterValidator(_url)]
    interval: _Interval | None = None
    timeout: _Timeout | None = None
    threshold: Annotated[int, Field(ge=1, le=1_000)] | None = None
    deadline: _Deadline | None = None


class _Runtime(_Table):
    # TOML has arrays, which strict models do not take for tuples.
    command: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_command)] = ()
    env: Annotated[dict[str, str], AfterValidator(_env)] = {}
    stop_grace: _Grace | None = None
    readiness: _Readiness | None = None


class _Document(_Table):
    runtime: _Runtime = _Runtime()
    bootstrap: object = None  # read elsewhere


_NAMES = {
    (): ("runtime", "bootstrap"),
    ("runtime",): ("command", "env", "stop_grace", "readiness"),
    ("runtime", "readiness"): ("http", "interval", "timeout", "threshold", "deadline"),
}


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
