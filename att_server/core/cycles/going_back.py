"""GoingBack: the settings that a rollback goes by, which does not wait for a remote."""

from __future__ import annotations

from dataclasses import dataclass

from att_server.core.cycles.in_force import with_request
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import CycleKind, CycleRequest
from att_server.core.cycles.settings import BootstrapSettings, BootstrapSettingsReader
from att_server.core.cycles.starting_point import NoStart, find_start
from att_server.core.errors import AttError
from att_server.core.model import Project
from att_server.core.repository import Repositories, RepositoryError

_REMEMBERED = 20  # cycles that are looked at for settings


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """What a rollback goes by. base_commit: empty where the base is unknown, for `problem`."""

    settings: BootstrapSettings
    base_commit: str = ""
    problem: str = ""


class GoingBack:
    """Finds them: as of the base, else as they were last, else the server's own."""

    def __init__(
        self,
        *,
        repositories: Repositories,
        settings: BootstrapSettingsReader,
        journal: CycleJournal,
    ) -> None:
        self._repositories = repositories
        self._settings = settings
        self._journal = journal

    async def find(self, project: Project, request: CycleRequest) -> WayBack:
        """Never fails: whoever broke the settings may need this rollback most."""
        try:
            repository = await self._repositories.of(project)
            start = await find_start(repository, self._settings, project.project_id, request)
        except (AttError, RepositoryError, NoStart) as error:
            settings = await self._remembered(project.project_id)
            return WayBack(settings=with_request(settings, request), problem=error.message)
        return WayBack(settings=start.settings, base_commit=start.base_commit)

    async def _remembered(self, project_id: str) -> BootstrapSettings:
        """The settings of the last change; those of a rollback were for that one alone."""
        for cycle in await self._journal.cycles(project_id=project_id, limit=_REMEMBERED):
            if cycle.facts.settings is not None and cycle.kind is CycleKind.CHANGE:
                return cycle.facts.settings
        try:
            return await self._settings.at_base(project_id, None)
        except AttError:
            return BootstrapSettings()
