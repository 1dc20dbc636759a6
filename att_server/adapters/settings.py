"""TomlSettingsReader: what people write about a project, in its `att.toml`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from att_server.adapters import env_file, toml_file
from att_server.adapters.regular_file import (
    NotReadable,
    open_regular_file,
    read_bounded,
    read_regular_file,
)
from att_server.adapters.toml_lines import line_of, lines_of
from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.project_roots import ANYWHERE, ProjectRoots
from att_server.core.settings import LogSettings, NotifySettings, RuntimeSettings
from att_server.supervisor.user import NoUser, find_user

FILE_NAME = "att.toml"

# The capability by key, as a request is refused for it too.
_LATER_KEYS = {
    "data": "settings.data_directories",
    "data_directories": "settings.data_directories",
}

T = TypeVar("T")


class TomlSettingsReader:
    """Implements `SettingsReader`; keeps nothing, every call reads the file."""

    def __init__(
        self, *, allowed_hosts: frozenset[str] = frozenset(), roots: ProjectRoots = ANYWHERE
    ) -> None:
        """allowed_hosts: what probes may ask, beside this host. roots: where projects may lie."""
        self._allowed_hosts = allowed_hosts
        self._roots = roots

    async def read(self, project: Project, directory: Path) -> RuntimeSettings:
        """The `[runtime]` table of the `att.toml` in `directory`; empty without one.

        Raises SETTINGS_INVALID with path, line and key; NOT_IMPLEMENTED for a
        key of a capability that comes later; PROJECT_PATH_INVALID,
        PROJECT_PATH_NOT_ALLOWED.
        """
        await self._roots.check(project.path)
        return await asyncio.to_thread(_read_runtime, directory, self._allowed_hosts)

    async def notify(self, project: Project) -> NotifySettings | None:
        """The `[notify]` table of the project's `att.toml`, None without one.

        Raises SETTINGS_INVALID with path, line and key; PROJECT_PATH_INVALID,
        PROJECT_PATH_NOT_ALLOWED.
        """
        await self._roots.check(project.path)
        return await asyncio.to_thread(_read_notify, project.path)

    async def log(self, project: Project) -> LogSettings:
        """The `[log]` table of the project's `att.toml`; the defaults without one.

        Raises SETTINGS_INVALID with path, line and key; PROJECT_PATH_INVALID.
        """
        return await asyncio.to_thread(_read_log, project.path)

    async def env_file(self, project: Project, path: str, *, owner: str = "") -> Mapping[str, str]:
        """The variables of a file in dotenv form; `path` is against the project's directory.

        owner: the user whose file it has to be; empty: anybody's.
        Raises SETTINGS_INVALID with path and line, and never with a value;
        PROJECT_PATH_NOT_ALLOWED.
        """
        whole = project.path / path
        with _telling(whole):
            file = await asyncio.to_thread(open_regular_file, whole)
            with file:
                await self._roots.check(whole, opened=file.fileno())
                if owner:
                    await asyncio.to_thread(_check_owner, file, owner)
                return await asyncio.to_thread(_variables, file)


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


def _read_log(directory: Path) -> LogSettings:
    def parsed(document: Mapping[str, Any]) -> LogSettings:
        if "log" not in document:
            return LogSettings()
        from att_server.adapters import settings_schema

        return settings_schema.log_settings(document)

    return _read(directory, parsed) or LogSettings()


def _read(directory: Path, parsed: Callable[[Mapping[str, Any]], T]) -> T | None:
    """What `parsed` makes of the file's document; None without a file."""
    path = directory / FILE_NAME
    try:
        content = read_regular_file(path, max_bytes=toml_file.MAX_FILE_BYTES)
    except FileNotFoundError:
        if directory.is_dir():
            return None
        raise _no_directory(directory) from None
    except NotADirectoryError as error:
        raise _no_directory(directory) from error
    except OSError as error:
        raise toml_file.invalid(path, f"cannot be read: {error.strerror}") from error
    except NotReadable as error:
        raise toml_file.invalid(path, str(error)) from error
    text, document = toml_file.parsed(path, content)
    # Costs memory that a server without such files does not need.
    from att_server.adapters import toml_forms

    try:
        return parsed(document)
    except toml_forms.Violations as error:
        lines = lines_of(text)
        raise toml_file.broken(
            path,
            [(line_of(lines, key), toml_file.dotted(key), rule) for key, rule in error.violations],
        ) from error


def _check_owner(file: BinaryIO, owner: str) -> None:
    """Raises NotReadable where the file is not the user's."""
    try:
        user = find_user(owner)
    except NoUser as error:
        raise NotReadable(str(error)) from error
    if os.fstat(file.fileno()).st_uid != user.uid:
        raise NotReadable(
            f"does not belong to {user.name!r}, whom the app runs as. Give it to that user, or "
            "name it with the project (att project update --env-file)"
        )


def _variables(file: BinaryIO) -> Mapping[str, str]:
    return env_file.variables(read_bounded(file, max_bytes=env_file.MAX_FILE_BYTES))


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Raises SETTINGS_INVALID for what is wrong with the file that `env_file` names."""
    try:
        yield
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
        raise toml_file.invalid(
            path, f"cannot be read: {error.strerror}", key="runtime.env_file"
        ) from error
    except NotReadable as error:
        raise toml_file.invalid(path, str(error), key="runtime.env_file") from error
    except env_file.EnvFileInvalid as error:
        if not error.line:
            raise toml_file.invalid(path, error.rule, key="runtime.env_file") from error
        what = f"line {error.line}: {error.rule}"
        raise toml_file.invalid(path, what, line=error.line, key="runtime.env_file") from error


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
