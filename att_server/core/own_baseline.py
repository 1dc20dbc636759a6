"""The release that ATT runs from when its repository is registered: the first to go back to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from att_server.core.cycles.artifacts import ArtifactStore, Manifest
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.server_launcher import OwnProject
from att_server.core.cycles.steps.release_events import state_event
from att_server.core.errors import AttError
from att_server.core.model import Project
from att_server.core.ports import Clock
from att_server.core.releases import Release
from att_server.core.repository import Repositories, RepositoryError

log = logging.getLogger(__name__)


class OwnBaseline:
    """Registers it, with its files, in the way of any other release; it is good as it serves.

    The launcher starts the installation for it, not these files: they are what a rollback
    compares with its commit, as for any release, and where its health is checked.
    """

    def __init__(
        self,
        own: OwnProject,
        *,
        find_project: Callable[[str], Project],
        repositories: Repositories,
        artifacts: ArtifactStore,
        journal: CycleJournal,
        clock: Clock,
        furnish: Callable[[Path], None],
    ) -> None:
        """furnish: gives the files in a directory the environment of the installation."""
        self._own = own
        self._find_project = find_project
        self._repositories = repositories
        self._artifacts = artifacts
        self._journal = journal
        self._clock = clock
        self._furnish = furnish

    async def register(self) -> None:
        """Does so unless the project has any release; tried again by the next server."""
        project_id, commit = self._own.project_id, self._own.baseline
        if not commit or await self._journal.releases(project_id):
            return
        try:
            repository = await self._repositories.of(self._find_project(project_id))
            directory = self._artifacts.directory(project_id, commit)
            tree = (await repository.fetch_commit(commit)).tree
            await repository.export(commit, directory)
            await asyncio.to_thread(self._furnish, directory)
            await repository.pin(commit)
        except (AttError, RepositoryError, OSError) as error:
            log.warning("the release that ATT runs from is not registered: %s", error)
            return
        now = self._clock.now()
        manifest = Manifest(release_id=commit, tree=tree, cycle_id="", create_time=now)
        await self._artifacts.seal(project_id, manifest)
        tried = Release(
            release_id=commit,
            project_id=project_id,
            tree_sha=tree,
            state_time=now,
            create_time=now,
        ).trying(1, now)
        good = tried.started().deployed(now).good(now)
        event = replace(state_event(good), project_id=project_id)
        await self._journal.put_releases(good, events=[event])
