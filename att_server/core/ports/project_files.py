"""What lies in directories of projects: settings, releases, what templates leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from att_server.core.model import (
    Project,
)
from att_server.core.settings import LogSettings, NotifySettings, RuntimeSettings


class SettingsReader(Protocol):
    """Reads what people write about a project."""

    async def read(self, project: Project, directory: Path) -> RuntimeSettings:
        """The `[runtime]` table of the `att.toml` in `directory`; empty without one.

        directory: the project's own, or that of the release its app is run from.
        Raises SETTINGS_INVALID, with line and key, or PROJECT_PATH_INVALID.
        """
        ...

    async def notify(self, project: Project) -> NotifySettings | None:
        """The `[notify]` table of the project's `att.toml`, None without one.

        Raises SETTINGS_INVALID, with line and key, or PROJECT_PATH_INVALID.
        """
        ...

    async def log(self, project: Project) -> LogSettings:
        """The `[log]` table of the project's `att.toml`; the defaults without one.

        Raises SETTINGS_INVALID, with line and key, or PROJECT_PATH_INVALID.
        """
        ...

    async def env_file(self, project: Project, path: str, *, owner: str = "") -> Mapping[str, str]:
        """The variables of a file in dotenv form; `path` is against the project's directory.

        owner: the user whose file it has to be; empty: anybody's.
        Raises SETTINGS_INVALID, with the line and never a value.
        """
        ...


class RunDirectories(Protocol):
    """Where apps run that are run from a release, and what lives across releases.

    Paths are functions of their arguments and never change.
    """

    def directory(self, project_id: str, release_id: str) -> Path:
        """Where the release's files lie, or would."""
        ...

    def data_directory(self, project_id: str) -> Path:
        """What lives across releases: ATT_DATA_DIR."""
        ...

    async def prepare_data(self, project_id: str) -> Path:
        """Makes the data directory where there is none, and returns it. Raises STORAGE_FULL."""
        ...


class TemplateStore(Protocol):
    """Holds the templates that fill the directory of a new project."""

    def names(self) -> Sequence[str]:
        """The templates' names, sorted."""
        ...

    async def fill(self, name: str, directory: Path) -> None:
        """Makes the directory, or fills the empty one: with the whole template or nothing.

        name: one of `names`. directory: absolute. Without effect if it holds
        exactly the template already. Raises PROJECT_PATH_INVALID if it holds
        anything else or cannot be written, STORAGE_FULL.
        """
        ...
