"""TomlBootstrapSettings: `[bootstrap]` of a base commit, with the server's own settings over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from att_server.adapters import toml_file
from att_server.adapters.regular_file import NotReadable, read_own_file
from att_server.adapters.server_settings import SERVER_FILE
from att_server.adapters.toml_lines import Key, line_of, lines_of
from att_server.core.cycles.settings import SETTINGS_FILE, BootstrapSettings
from att_server.core.errors import AttError

if TYPE_CHECKING:
    from att_server.adapters.toml_forms import TomlKey

T = TypeVar("T")

_WHOLE = ("health_check",)
"""Tables that win as a whole: half of one check and half of another are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """One table `[bootstrap]`: of which file, at which key, and where its keys are."""

    path: Path
    at: Key
    table: Mapping[str, Any]
    lines: Mapping[Key, int]

    def depth(self, key: Sequence[object]) -> int:
        """How many parts of `key` the table has."""
        found: object = self.table
        for depth, part in enumerate(key):
            if not isinstance(found, Mapping) or part not in found:
                return depth
            found = found[part]
        return len(key)


class TomlBootstrapSettings:
    """Implements `BootstrapSettingsReader`; keeps nothing, every call reads the server's file.

    That file has to belong to the server's user, and nobody else may read or
    change it: it holds what decides on gates.
    """

    def __init__(self, state_dir: Path, *, allowed_hosts: frozenset[str] = frozenset()) -> None:
        """allowed_hosts: what a health check may ask, beside this host."""
        self._path = state_dir / SERVER_FILE
        self._allowed_hosts = allowed_hosts

    async def at_base(self, project_id: str, content: bytes | None) -> BootstrapSettings:
        """`[bootstrap]` of `content`, an `att.toml`, with the server's over it, key by key.

        Raises SETTINGS_INVALID with path, line and key.
        """
        return await asyncio.to_thread(self._read, project_id, content)

    def _read(self, project_id: str, content: bytes | None) -> BootstrapSettings:
        # Costs memory that a server without cycles does not need.
        from att_server.adapters import bootstrap_schema, toml_forms

        sources = [*_base_sources(content), *_server_sources(self._path, project_id)]
        merged: Mapping[str, Any] = {}
        for source in sources:
            merged = _over(source.table, merged)
        try:
            return bootstrap_schema.bootstrap_settings(merged, self._allowed_hosts)
        except toml_forms.Violations as error:
            raise _broken(sources, error.violations) from error


def _base_sources(content: bytes | None) -> list[_Source]:
    from att_server.adapters import bootstrap_schema

    if content is None:
        return []
    path = Path(SETTINGS_FILE)
    text, document = toml_file.parsed(path, content)
    lines = lines_of(text)
    table = _checked(path, lines, bootstrap_schema.base_table, document)
    return [_Source(path=path, at=("bootstrap",), table=table, lines=lines)]


def _server_sources(path: Path, project_id: str) -> list[_Source]:
    """The server's tables, the strongest last."""
    from att_server.adapters import bootstrap_schema

    try:
        content = read_own_file(path, max_bytes=toml_file.MAX_FILE_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise toml_file.invalid(path, f"cannot be read: {error.strerror}") from error
    except NotReadable as error:
        raise toml_file.invalid(path, str(error)) from error
    text, document = toml_file.parsed(path, content)
    lines = lines_of(text)
    for_all, for_projects = _checked(path, lines, bootstrap_schema.server_tables, document)
    own = for_projects.get(project_id, {})
    return [
        _Source(path=path, at=("bootstrap",), table=for_all, lines=lines),
        _Source(path=path, at=("projects", project_id, "bootstrap"), table=own, lines=lines),
    ]


def _checked(
    path: Path,
    lines: Mapping[Key, int],
    tables: Callable[[Mapping[str, Any]], T],
    document: Mapping[str, Any],
) -> T:
    from att_server.adapters import toml_forms

    try:
        return tables(document)
    except toml_forms.Violations as error:
        found = [
            (line_of(lines, key), toml_file.dotted(key), rule) for key, rule in error.violations
        ]
        raise toml_file.broken(path, found) from error


def _over(table: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """`table` with what it leaves unset taken from `base`, key by key, tables within too."""
    merged = dict(base)
    for name, value in table.items():
        below = base.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and name not in _WHOLE:
            merged[name] = _over(value, below)
        else:
            merged[name] = value
    return merged


def _broken(sources: Sequence[_Source], violations: Sequence[tuple[TomlKey, str]]) -> AttError:
    """The error for the file that the first broken key comes from: of several, the strongest's."""
    found: dict[Path, list[toml_file.Finding]] = {}
    for key, rule in violations:
        source = max(reversed(sources), key=lambda each: each.depth(key))
        whole = (*source.at, *key)
        finding = (line_of(source.lines, whole), toml_file.dotted(whole), rule)
        found.setdefault(source.path, []).append(finding)
    path = next(source.path for source in reversed(sources) if source.path in found)
    return toml_file.broken(path, found[path])
