"""ServerSetting: one part of the server's own settings, `settings.toml` in the state directory."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from att_server.adapters import toml_file
from att_server.adapters.regular_file import NotReadable, read_own_file
from att_server.adapters.toml_lines import line_of, lines_of
from att_server.core.ports import Clock

SERVER_FILE = "settings.toml"
"""The server's own settings, in the state directory: only they loosen a gate."""

_KNOWN_FOR = 0.5  # seconds; what was taken out of the file counts no longer than that

T = TypeVar("T")


class ServerSetting(Generic[T]):
    """What the file says of one thing, as it is now.

    The file has to belong to the server's user, and nobody else may read or change it.
    """

    def __init__(
        self, state_dir: Path, clock: Clock, parse: Callable[[Mapping[str, Any]], T], unset: T
    ) -> None:
        """parse: takes it out of the document; raises `toml_forms.Violations`. unset: what
        holds without a file."""
        self._path = state_dir / SERVER_FILE
        self._clock = clock
        self._parse = parse
        self._unset = unset
        self._known = unset
        self._read_at: float | None = None

    async def value(self) -> T:
        """What holds, half a second old at most. Raises SETTINGS_INVALID with line and key."""
        now = self._clock.monotonic()
        if self._read_at is None or now - self._read_at >= _KNOWN_FOR:
            self._known = await to_thread(self._read)
            self._read_at = now
        return self._known

    def _read(self) -> T:
        try:
            content = read_own_file(self._path, max_bytes=toml_file.MAX_FILE_BYTES)
        except FileNotFoundError:
            return self._unset
        except OSError as error:
            raise toml_file.invalid(self._path, f"cannot be read: {error.strerror}") from error
        except NotReadable as error:
            raise toml_file.invalid(self._path, str(error)) from error
        text, document = toml_file.parsed(self._path, content)
        # Costs memory that a server without such settings does not need.
        from att_server.adapters import toml_forms

        try:
            return self._parse(document)
        except toml_forms.Violations as error:
            lines = lines_of(text)
            found = [
                (line_of(lines, key), toml_file.dotted(key), rule) for key, rule in error.violations
            ]
            raise toml_file.broken(self._path, found) from error
