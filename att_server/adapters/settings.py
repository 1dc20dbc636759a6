"""TomlSettingsReader: what people write about a project, in its `att.toml`."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from att_server.adapters import env_file
from att_server.adapters.regular_file import NotReadable, read_regular_file
from att_server.adapters.toml_lines import line_of, lines_of
from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.settings import NotifySettings, RuntimeSettings

FILE_NAME = "att.toml"
MAX_FILE_BYTES = 1 << 20

# The capability by key, as a request is refused for it too.
_LATER_KEYS = {
    "data": "settings.data_directories",
    "data_directories": "settings.data_directories",
}

T = TypeVar("T")


class TomlSettingsReader:
    """Implements `SettingsReader`; keeps nothing, every call reads the file."""

    def __init__(self, *, allowed_hosts: frozenset[str] = frozenset()) -> None:
        """allowed_hosts: what probes may ask, beside this host."""
        self._allowed_hosts = allowed_hosts

    async def read(self, project: Project) -> RuntimeSettings:
        """The `[runtime]` table of the project's `att.toml`; empty without one.

        Raises SETTINGS_INVALID with path, line and key; NOT_IMPLEMENTED for a
        key of a capability that comes later; PROJECT_PATH_INVALID.
        """
        return await asyncio.to_thread(_read_runtime, project.path, self._allowed_hosts)

    async def notify(self, project: Project) -> NotifySettings | None:
        """The `[notify]` table of the project's `att.toml`, None without one.

        Raises SETTINGS_INVALID with path, line and key; PROJECT_PATH_INVALID.
        """
        return await asyncio.to_thread(_read_notify, project.path)

    async def env_file(self, project: Project, path: str) -> Mapping[str, str]:
        """The variables of a file in dotenv form; `path` is against the project's directory.

        Raises SETTINGS_INVALID with path and line, and never with a value.
        """
        return await asyncio.to_thread(_read_env_file, project.path / path)


def _read_runtime(directory: Path, allowed_hosts: frozenset[str]) -> RuntimeSettings:
    def parsed(document: Mapping[str, Any]) -> RuntimeSettings:
        _refuse_later_keys(document)
        from att_server.adapters import settings_schema

        return settings_schema.runtime_settings(document, allowed_hosts)

    return _read(directory, parsed) or RuntimeSettings()


def _read_notify(directory: Path) -> NotifySettings | None:
    def parsed(document: Mapping[str, Any]) -> NotifySettings | None:
        from att_server.adapters import settings_schema

        return settings_schema.notify_settings(document) if "notify" in document else None

    return _read(directory, parsed)


def _read(directory: Path, parsed: Callable[[Mapping[str, Any]], T]) -> T | None:
    """What `parsed` makes of the file's document; None without a file."""
    path = directory / FILE_NAME
    try:
        content = read_regular_file(path, max_bytes=MAX_FILE_BYTES)
    except FileNotFoundError:
        if directory.is_dir():
            return None
        raise _no_directory(directory) from None
    except NotADirectoryError as error:
        raise _no_directory(directory) from error
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}") from error
    except NotReadable as error:
        raise _invalid(path, str(error)) from error
    text, document = _parsed(path, content)
    # Costs memory that a server without such files does not need.
    from att_server.adapters import settings_schema

    try:
        return parsed(document)
    except settings_schema.Violations as error:
        lines = lines_of(text)
        found = sorted((line_of(lines, key), _dotted(key), rule) for key, rule in error.violations)
        line, key, _ = found[0]
        rules = "; ".join(f"line {line}: {key} {rule}" for line, key, rule in found[:10])
        raise _invalid(path, rules, line=line, key=key) from error


def _read_env_file(path: Path) -> Mapping[str, str]:
    try:
        return env_file.variables(read_regular_file(path, max_bytes=env_file.MAX_FILE_BYTES))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AttError(
            Reason.SETTINGS_INVALID,
            f"{path}: there is no such file, which `env_file` names. Create it, or change "
            "`env_file`.",
            path=path,
            line="",
            key="runtime.env_file",
        ) from error
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}", key="runtime.env_file") from error
    except NotReadable as error:
        raise _invalid(path, str(error), key="runtime.env_file") from error
    except env_file.EnvFileInvalid as error:
        if not error.line:
            raise _invalid(path, error.rule, key="runtime.env_file") from error
        what = f"line {error.line}: {error.rule}"
        raise _invalid(path, what, line=error.line, key="runtime.env_file") from error


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


def _refuse_later_keys(document: Mapping[str, Any]) -> None:
    runtime = document.get("runtime")
    for key in runtime if isinstance(runtime, dict) else ():
        capability = _LATER_KEYS.get(key)
        if capability is not None:
            raise AttError(
                Reason.NOT_IMPLEMENTED,
                f"This server does not offer {capability!r} yet, which runtime.{key} in "
                f"{FILE_NAME} needs; nothing was done. Remove the key to go on without it.",
                capability=capability,
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
