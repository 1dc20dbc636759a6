"""Repositories on git: for each project its own, in the state directory."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from att_server.adapters.git.checkout import inspect_checkout
from att_server.adapters.git.command import Git
from att_server.adapters.git.remotes import GitConfig
from att_server.adapters.git.repository import GitRepository
from att_server.adapters.git.store import REPOSITORY, WORK, remove
from att_server.core.model import Project
from att_server.core.project_roots import ANYWHERE, ProjectRoots
from att_server.core.repository import Checkout, Repository

_SETTINGS = (".git", ".git/config", ".git/config.worktree")
"""What a checkout's remote and object format come from, as long as these stay as they are."""

ProjectAccess = Callable[[str, str], Awaitable[GitConfig]]

_Seen = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    directory: Path
    seen: _Seen
    repository: GitRepository


async def _no_access(project_id: str, url: str) -> GitConfig:
    return ()


class GitRepositories:
    """Implements `Repositories`. A checkout is inspected anew when its settings have changed."""

    def __init__(
        self,
        git: Git,
        state_dir: Path,
        *,
        access: ProjectAccess = _no_access,
        roots: ProjectRoots = ANYWHERE,
    ) -> None:
        """state_dir: of the server, absolute; in it lies all that is kept of projects.

        access: to the remote of a project, by its id and the address. roots: where
        checkouts may lie, and what they have outside of themselves.
        """
        self._git = git
        self._roots = roots
        self._access = access
        self._projects = state_dir / "projects"
        self._known: dict[str, _Known] = {}

    async def checkout(self, project: Project) -> Checkout:
        """See `Repositories`."""
        return await inspect_checkout(
            self._git, project.path, project_id=project.project_id, roots=self._roots
        )

    async def of(self, project: Project) -> Repository:
        """See `Repositories`."""
        project_id, directory = project.project_id, project.path
        seen = _seen(directory)
        known = self._known.get(project_id)
        if known is not None and (known.directory, known.seen) == (directory, seen):
            await self._roots.check(directory)  # it may lie elsewhere by now
            return known.repository
        # Looked at before it is inspected: a change in between is seen the next time.
        checkout = await self.checkout(project)
        repository = GitRepository(
            self._git,
            self._projects / project_id,
            checkout,
            access=partial(self._access, project_id),
        )
        if all(part is not None for part in seen[:2]):
            self._known[project_id] = _Known(directory, seen, repository)
        else:
            # A checkout that is a worktree of another has its settings elsewhere.
            self._known.pop(project_id, None)
        return repository

    async def forget_project(self, project_id: str) -> None:
        """See `Repositories`."""
        self._known.pop(project_id, None)
        for directory in (REPOSITORY, WORK):
            await remove(self._projects / project_id / directory)


def _seen(directory: Path) -> _Seen:
    found: list[tuple[int, int, int] | None] = []
    for name in _SETTINGS:
        try:
            status = os.stat(directory / name)
        except OSError:
            found.append(None)
            continue
        # A directory changes with every lock in it; it only has to be the same one.
        is_directory = name == _SETTINGS[0]
        changed = (0, 0) if is_directory else (status.st_mtime_ns, status.st_size)
        found.append((status.st_ino, *changed))
    return tuple(found)
