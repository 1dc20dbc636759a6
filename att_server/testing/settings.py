"""FakeSettingsReader, FakeBootstrapSettings: what people wrote about projects, without files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.settings import LogSettings, NotifySettings, RuntimeSettings


class FakeSettingsReader:
    """Implements `SettingsReader`; a project without an entry has empty settings.

    settings: by project id, or by the directory that they are read at, which wins.
    notify, log: by project id. env_files: the variables of each file by its
    path, as the settings name it. An error is raised instead. All may be changed
    at any time.
    """

    def __init__(
        self,
        settings: dict[str | Path, RuntimeSettings | AttError] | None = None,
        *,
        env_files: dict[str, Mapping[str, str] | AttError] | None = None,
        notify: dict[str, NotifySettings | AttError] | None = None,
        log: dict[str, LogSettings | AttError] | None = None,
    ) -> None:
        self.settings = {} if settings is None else settings
        self.env_files = {} if env_files is None else env_files
        self.notify_settings = {} if notify is None else notify
        self.log_settings = {} if log is None else log

    async def read(self, project: Project, directory: Path) -> RuntimeSettings:
        """The entry of the directory, else that of the project."""
        written = self.settings.get(project.project_id, RuntimeSettings())
        entry = self.settings.get(directory, written)
        if isinstance(entry, AttError):
            raise entry
        return entry

    async def log(self, project: Project) -> LogSettings:
        """The entry of the project, else the defaults."""
        entry = self.log_settings.get(project.project_id, LogSettings())
        if isinstance(entry, AttError):
            raise entry
        return entry

    async def notify(self, project: Project) -> NotifySettings | None:
        """The entry of the project, None without one."""
        entry = self.notify_settings.get(project.project_id)
        if isinstance(entry, AttError):
            raise entry
        return entry

    async def env_file(self, project: Project, path: str, *, owner: str = "") -> Mapping[str, str]:
        """The entry of the path. Raises SETTINGS_INVALID without one."""
        entry = self.env_files.get(path)
        if entry is None:
            raise AttError(
                Reason.SETTINGS_INVALID,
                f"{project.path / path}: there is no such file.",
                path=project.path / path,
                line="",
                key="runtime.env_file",
            )
        if isinstance(entry, AttError):
            raise entry
        return entry


class FakeBootstrapSettings:
    """Implements `BootstrapSettingsReader`; a project without an entry has the defaults.

    settings: by project id, whatever the base holds; an error is raised instead.
    May be changed at any time. contents: what was read of bases, in order.
    """

    def __init__(self, settings: dict[str, BootstrapSettings | AttError] | None = None) -> None:
        self.settings = {} if settings is None else settings
        self.contents: list[bytes | None] = []

    async def at_base(self, project_id: str, content: bytes | None) -> BootstrapSettings:
        """The entry of the project."""
        self.contents.append(content)
        entry = self.settings.get(project_id, BootstrapSettings())
        if isinstance(entry, AttError):
            raise entry
        return entry
