"""NoRepositories: projects that are no repositories."""

from __future__ import annotations

from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.repository import Checkout, Repository


class NoRepositories:
    """Implements `Repositories` where no project has one."""

    async def checkout(self, project: Project) -> Checkout:
        """Raises PROJECT_NOT_REPOSITORY_ROOT."""
        raise _no_repository(project)

    async def of(self, project: Project) -> Repository:
        """Raises PROJECT_NOT_REPOSITORY_ROOT."""
        raise _no_repository(project)

    async def forget_project(self, project_id: str) -> None:
        """There is nothing."""


def _no_repository(project: Project) -> AttError:
    return AttError(
        Reason.PROJECT_NOT_REPOSITORY_ROOT,
        f"The directory {project.path} is not the top of a git repository. Name one that is.",
        project_id=project.project_id,
    )
