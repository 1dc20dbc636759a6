"""The users that apps and the commands of their projects run as."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.settings import RuntimeSettings


class AppUsers(Protocol):
    """Knows which users apps may run as, and what these reach."""

    async def check(self, run_as: str, directory: Path | None = None) -> None:
        """Returns if an app can be run as this user, and in this directory.

        run_as: a name or number; empty: the server's own user. directory: absolute; where
        it is not there yet, the closest one above it counts. Raises
        RUN_AS_NOT_POSSIBLE, SETTINGS_INVALID.
        """
        ...


class _Anybody:
    async def check(self, run_as: str, directory: Path | None = None) -> None:
        return


ANYBODY: AppUsers = _Anybody()
"""Allows all, whoever they are."""


class ProjectUsers:
    """Knows who the commands of projects run as, beside their apps."""

    def __init__(
        self, users: AppUsers, effective: Callable[[Project], Awaitable[RuntimeSettings]]
    ) -> None:
        """effective: the settings that a start would use; raises where they are wrong."""
        self._users = users
        self._effective = effective

    async def of_commands(self, project: Project) -> str:
        """The user that they run as, as the app does; empty: the server's own.

        Raises RUN_AS_NOT_POSSIBLE, SETTINGS_INVALID.
        """
        run_as = await self._run_as(project)
        await self._users.check(run_as, project.path)
        return run_as

    async def check_cycles(self, project: Project) -> None:
        """Returns if the commands of cycles may be run: as the server's own user.

        Raises RUN_AS_NOT_POSSIBLE, SETTINGS_INVALID.
        """
        run_as = await self._run_as(project)
        if run_as:
            raise cycles_not_offered(project.project_id, run_as)
        await self._users.check("")

    async def _run_as(self, project: Project) -> str:
        if project.runtime.run_as is not None:
            return project.runtime.run_as
        try:
            return (await self._effective(project)).run_as or ""
        except AttError:
            # Nobody knows who is meant; the app is not started either.
            return ""


def run_as_not_possible(run_as: str, cause: str, message: str) -> AttError:
    """The error for a user that nothing of a project is run as now.

    cause: `user_not_found`, `no_right`, `user_not_allowed`, `directory_unreachable` or
    `cycles_not_offered`. message: what is the matter and what to do.
    """
    return AttError(Reason.RUN_AS_NOT_POSSIBLE, message, run_as=run_as, cause=cause)


def cycles_not_offered(project_id: str, run_as: str) -> AttError:
    """The error for a cycle of a project whose app runs as another user."""
    return run_as_not_possible(
        run_as,
        "cycles_not_offered",
        f"The app of {project_id!r} runs as the user {run_as!r}. Cycles test, build and deploy "
        "it in the state directory, which that user cannot enter, so there are none for it. "
        "Release it by other means, or run the server itself as that user and take `run_as` back.",
    )
