"""ReleaseList: the releases of projects, as calls ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from att_server.core.cycles.journal import CycleJournal
from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.pages import page_after
from att_server.core.releases import Release


class ReleaseList:
    """Shows releases, and which of them a project is at."""

    def __init__(self, *, journal: CycleJournal, find_project: Callable[[str], Project]) -> None:
        """find_project: raises PROJECT_NOT_FOUND."""
        self._journal = journal
        self._find_project = find_project

    async def page(
        self, project_id: str, page_size: int, page_token: str
    ) -> tuple[Sequence[Release], str, str]:
        """Releases, the newest first, the id of the current one, and the next page's token.

        Raises PROJECT_NOT_FOUND, FIELD_INVALID.
        """
        project = self._find_project(project_id)
        releases = await self._journal.releases(project_id)
        page, token = page_after(releases, lambda each: each.release_id, page_size, page_token)
        return page, project.release_id, token

    async def get(self, project_id: str, release_id: str) -> tuple[Release, str]:
        """The release, and the id of the current one.

        Raises PROJECT_NOT_FOUND, RELEASE_NOT_FOUND.
        """
        project = self._find_project(project_id)
        for release in await self._journal.releases(project_id):
            if release.release_id == release_id:
                return release, project.release_id
        raise AttError(
            Reason.RELEASE_NOT_FOUND,
            f"Project {project_id} has no release {release_id!r}. List its releases.",
            project_id=project_id,
            release_id=release_id,
        )
