"""FakeSettingsReader: what people wrote about projects, without files."""

from __future__ import annotations

from att_server.core.errors import AttError
from att_server.core.model import Project, RuntimeSettings


class FakeSettingsReader:
    """Implements `SettingsReader`; a project without an entry has empty settings.

    settings: by project id; an error is raised instead. May be changed at any time.
    """

    def __init__(self, settings: dict[str, RuntimeSettings | AttError] | None = None) -> None:
        self.settings = {} if settings is None else settings

    async def read(self, project: Project) -> RuntimeSettings:
        """The entry of the project."""
        entry = self.settings.get(project.project_id, RuntimeSettings())
        if isinstance(entry, AttError):
            raise entry
        return entry
