"""Cleanup: what a cycle leaves when it ends, removed."""

from __future__ import annotations

from att_server.core.cycles.artifacts import ArtifactStore
from att_server.core.cycles.forge import Forges
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import Cycle, CycleFacts
from att_server.core.cycles.test_report import JUnitFiles
from att_server.core.model import Project
from att_server.core.ports import Clock
from att_server.core.releases import ReleaseState
from att_server.core.repository import Removed, Repositories, Repository


class Cleanup:
    """Removes a cycle's directories, its branch, its pull request and a release nobody ran.

    What was asked for stays: the branch of a cycle that went well and was not to
    merge, and branch and directories of a failed one with `keep_worktree`.
    """

    def __init__(
        self,
        *,
        repositories: Repositories,
        journal: CycleJournal,
        forges: Forges,
        artifacts: ArtifactStore,
        junit: JUnitFiles,
        clock: Clock,
    ) -> None:
        self._repositories = repositories
        self._journal = journal
        self._forges = forges
        self._artifacts = artifacts
        self._junit = junit
        self._clock = clock

    async def run(self, cycle: Cycle, project: Project) -> None:
        """Removes it; without effect where it is gone already.

        Raises RepositoryError, ForgeError, AttError: what comes after is left then.
        """
        await self._junit.discard(cycle.cycle_id)
        facts = cycle.facts
        begun = facts.base_commit or facts.release_id
        if not begun:
            return
        repository = await self._repositories.of(project)
        await self._artifacts.discard_unsealed(project.project_id)
        for release in await self._journal.releases(project.project_id):
            mine = release.cycle_id == cycle.cycle_id and release.removed_time is None
            if mine and release.state is ReleaseState.STAGED and not facts.cut_over:
                await self._artifacts.discard(project.project_id, release.release_id)
                await repository.unpin(release.release_id)
                await self._journal.put_releases(release.removed(self._clock.now()))
        if cycle.failure is None or not cycle.request.keep_worktree:
            await repository.discard(cycle.cycle_id)
        await self.at_remote(cycle, project)

    async def at_remote(self, cycle: Cycle, project: Project) -> None:
        """Removes what others see of a cycle that is over: its pull request and its branch.

        Raises as `run`.
        """
        facts = cycle.facts
        wanted = cycle.failure is None and not facts.merged_commit
        if wanted or (cycle.failure is not None and cycle.request.keep_worktree):
            return
        if facts.pull_request and not facts.merged_commit:
            forge = await self._forges.of(project, cycle)
            await forge.close(comment="The cycle ended without merging this change.")
        if facts.branch_pushed and facts.commit:
            repository = await self._repositories.of(project)
            await _delete_branch(repository, facts)


async def _delete_branch(repository: Repository, facts: CycleFacts) -> None:
    """Removes it where the cycle left it; one that somebody pushed to since is not the cycle's."""
    # A push that was broken off may have brought it to the next of these.
    for left_at in dict.fromkeys((facts.branch_head, facts.candidate, facts.commit)):
        if left_at:
            deleted = await repository.delete_branch(facts.branch, expected=left_at)
            if isinstance(deleted, Removed):
                return
