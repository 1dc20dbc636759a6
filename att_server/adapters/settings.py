"""TomlSettingsReader: what people write about a project, in its `att.toml`."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from att_server.core.errors import AttError, Reason
from att_server.core.model import Project, RuntimeSettings

FILE_NAME = "att.toml"
MAX_FILE_BYTES = 1 << 20

# The capability by key, as a request is refused for it too.
_LATER_KEYS = {
    "env_file": "settings.env_file",
    "restart": "settings.restart",
    "limits": "settings.limits",
    "liveness": "settings.liveness",
    "data": "settings.data_directories",
    "data_directories": "settings.data_directories",
}
_LATER_PROBES = {
    "tcp": "probes.tcp",
    "command": "probes.command",
    "grpc": "probes.grpc",
    "log": "probes.log",
}

Key = tuple[str, ...]


class TomlSettingsReader:
    """Implements `SettingsReader`; keeps nothing, every call reads the file."""

    async def read(self, project: Project) -> RuntimeSettings:
        """The `[runtime]` table of the project's `att.toml`; empty without one.

        Raises SETTINGS_INVALID with path, line and key; NOT_IMPLEMENTED for a
        key of a capability that comes later; PROJECT_PATH_INVALID.
        """
        return await asyncio.to_thread(_read, project.path)


def _read(directory: Path) -> RuntimeSettings:
    path = directory / FILE_NAME
    try:
        content = _content(path)
    except FileNotFoundError:
        if directory.is_dir():
            return RuntimeSettings()
        raise _no_directory(directory) from None
    except NotADirectoryError as error:
        raise _no_directory(directory) from error
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}") from error
    text, document = _parsed(path, content)
    later = _later_capability(document)
    if later is not None:
        key, capability = later
        raise AttError(
            Reason.NOT_IMPLEMENTED,
            f"This server does not offer {capability!r} yet, which {key} in {FILE_NAME} needs; "
            "nothing was done. Remove the key to go on without it.",
            capability=capability,
        )
    # Costs memory that a server without such files does not need.
    from att_server.adapters import settings_schema

    try:
        return settings_schema.runtime_settings(document)
    except settings_schema.Violations as error:
        lines = _lines_of(text)
        found = sorted((_line(lines, key), _dotted(key), rule) for key, rule in error.violations)
        line, key, _ = found[0]
        rules = "; ".join(f"line {line}: {key} {rule}" for line, key, rule in found[:10])
        raise _invalid(path, rules, line=line, key=key) from error


def _content(path: Path) -> bytes:
    # The directory is written by others: no waiting for a pipe, no endless file.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _invalid(path, "is not a file")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise _invalid(path, f"has more than {MAX_FILE_BYTES} bytes")
    return content


def _parsed(path: Path, content: bytes) -> tuple[str, dict[str, Any]]:
    try:
        # As tomllib does it, so that lines are counted in the same text.
        text = content.decode().replace("\r\n", "\n")
        return text, tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _invalid(path, f"line {line}: not UTF-8", line=line) from error
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        line = int(at[1]) if at else text.rstrip().count("\n") + 1
        raise _invalid(path, f"line {line}: {error}", line=line) from error
    except RecursionError as error:
        raise _invalid(path, "is nested too deeply") from error


def _later_capability(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first key that belongs to a capability which comes later, and the capability."""
    runtime = document.get("runtime")
    runtime = runtime if isinstance(runtime, dict) else {}
    readiness = runtime.get("readiness")
    readiness = readiness if isinstance(readiness, dict) else {}
    return next(
        chain(
            ((f"runtime.{key}", _LATER_KEYS[key]) for key in runtime if key in _LATER_KEYS),
            (
                (f"runtime.readiness.{key}", _LATER_PROBES[key])
                for key in readiness
                if key in _LATER_PROBES
            ),
        ),
        None,
    )


def _no_directory(directory: Path) -> AttError:
    return AttError(
        Reason.PROJECT_PATH_INVALID,
        f"The project's path {str(directory)!r} is not a directory. "
        "Create the directory, or update the project.",
        path=directory,
    )


def _invalid(path: Path, what: str, *, line: int | None = None, key: str = "") -> AttError:
    return AttError(
        Reason.SETTINGS_INVALID,
        f"{path}: {what}. Correct the file and call again.",
        path=path,
        line="" if line is None else line,
        key=key,
    )


def _dotted(key: Sequence[object]) -> str:
    return ".".join(str(part) for part in key)


# Where a key is. tomllib does not say, so the text, which tomllib has found to
# be valid, is cut into statements, and tomllib reads each of them alone.

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|#[^\n]*"
    r"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<newline>\n)",
    re.DOTALL,
)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a valid document, each with its line."""
    start, line, depth = 0, 1, 0
    for token in _TOKEN.finditer(text):
        depth += (token["open"] is not None) - (token["close"] is not None)
        if token["newline"] is not None and depth == 0:
            yield line, text[start : token.end()]
            line += text.count("\n", start, token.end())
            start = token.end()
    yield line, text[start:]


def _lines_of(text: str) -> dict[Key, int]:
    """The line of each table and key of a valid document, the first where there are several."""
    lines: dict[Key, int] = {}
    table: Key = ()
    for line, statement in _statements(text):
        keys = list(_keys(tomllib.loads(statement)))
        if statement.lstrip().startswith("["):
            table = max(keys, key=len)
            keys = [table[: end + 1] for end in range(len(table))]
        else:
            keys = [table + key for key in keys]
        for key in keys:
            lines.setdefault(key, line)
    return lines


def _keys(value: object) -> Iterator[Key]:
    """The path of every key within `value`; elements of arrays have their array's."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (name,)
            yield from ((name, *key) for key in _keys(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def _line(lines: Mapping[Key, int], key: Sequence[str | int]) -> int:
    """The line of the longest part of `key` that the document has."""
    names = tuple(part for part in key if isinstance(part, str))
    return next((lines[names[:end]] for end in range(len(names), 0, -1) if names[:end] in lines), 1)
