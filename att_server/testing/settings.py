"""FakeSettingsReader: what people wrote about projects, without files."""

from __future__ import annotations

from collections.abc import Mapping

from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.settings import NotifySettings, RuntimeSettings


class FakeSettingsReader:
    """Implements `SettingsReader`; a project without an entry has empty settings.

    settings, notify: by project id. env_files: the variables of each file by its
    path, as the settings name it. An error is raised instead. All may be changed
    at any time.
    """

    def __init__(
        self,
        settings: dict[str, RuntimeSettings | AttError] | None = None,
        *,
        env_files: dict[str, Mapping[str, str] | AttError] | None = None,
        notify: dict[str, NotifySettings | AttError] | None = None,
    ) -> None:
        self.settings = {} if settings is None else settings
        self.env_files = {} if env_files is None else env_files
        self.notify_settings = {} if notify is None else notify

    async def read(self, project: Project) -> RuntimeSettings:
        """The entry of the project."""
        entry = self.settings.get(project.project_id, RuntimeSettings())
        if isinstance(entry, AttError):
            raise entry
        return entry

    async def notify(self, project: Project) -> NotifySettings | None:
        """The entry of the project, None without one."""
        entry = self.notify_settings.get(project.project_id)
        if isinstance(entry, AttError):
            raise entry
        return entry

    async def env_file(self, project: Project, path: str) -> Mapping[str, str]:
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
