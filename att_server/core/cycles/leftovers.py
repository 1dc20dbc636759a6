"""What ended cycles and killed servers left behind, removed once a server's life."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable

from att_server.core.cycles.artifacts import ArtifactStore
from att_server.core.cycles.cleanup import Cleanup
from att_server.core.cycles.forge import ForgeError
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.runtime import Deployments
from att_server.core.errors import AttError, Reason
from att_server.core.repository import Repositories, RepositoryError

LOOKED_AT = 20
"""How many of a project's last cycles are looked at: what older ones left, is left."""

_NO_REPOSITORY = {Reason.PROJECT_NOT_REPOSITORY_ROOT, Reason.PROJECT_HAS_NO_REMOTE}

log = logging.getLogger(__name__)


class Leftovers:
    """Clears projects, each once, and before the first step of any of its cycles.

    While it clears, a new cycle of the project waits: what it makes would else be
    taken for a leftover.
    """

    def __init__(
        self,
        *,
        journal: CycleJournal,
        repositories: Repositories,
        artifacts: ArtifactStore,
        deployments: Deployments,
        cleanup: Cleanup,
    ) -> None:
        self._journal = journal
        self._repositories = repositories
        self._artifacts = artifacts
        self._deployments = deployments
        self._cleanup = cleanup
        self._cleared: set[str] = set()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def clear(self, project_id: str) -> None:
        """Removes what is here of the project's past cycles; what cannot be removed stays."""
        async with self._turns[project_id]:
            if project_id not in self._cleared:
                self._cleared.add(project_id)
                await _tried(project_id, self._clear)

    async def clean_up_ended(self, project_id: str) -> None:
        """Cleans up after the cycles that ended without; what cannot be removed stays."""
        await _tried(project_id, self._clean_up_ended)

    async def clean_up_remote(self, cycle: Cycle) -> bool:
        """Removes what others still see of a cycle that has ended; whether it is gone."""

        async def remove(project_id: str) -> None:
            await self._cleanup.at_remote(cycle, self._deployments.project(project_id))

        return await _tried(cycle.project_id, remove)

    async def _clear(self, project_id: str) -> None:
        project = self._deployments.project(project_id)
        cycles = await self._journal.cycles(project_id=project_id, limit=LOOKED_AT)
        if not cycles:
            return
        if all(cycle.ended for cycle in cycles):
            await self._artifacts.discard_unsealed(project_id)
        try:
            repository = await self._repositories.of(project)
        except AttError as error:
            if error.reason in _NO_REPOSITORY:
                return
            raise
        kept = {each.cycle_id for each in cycles if not each.ended or each.request.keep_worktree}
        gone = await repository.discard_others(kept)
        if gone:
            log.info("what %d cycles of %s left is removed", len(gone), project_id)

    async def _clean_up_ended(self, project_id: str) -> None:
        project = self._deployments.project(project_id)
        for cycle in await self._journal.cycles(project_id=project_id, limit=LOOKED_AT):
            if cycle.ended and not cycle.facts.cleaned_up:
                await self._cleanup.run(cycle, project)


async def _tried(project_id: str, work: Callable[[str], Awaitable[None]]) -> bool:
    """Whether it was done."""
    try:
        await work(project_id)
    except (AttError, RepositoryError, ForgeError) as error:
        log.info("leftovers of %s stay: %s", project_id, error.message)
    except Exception:
        log.exception("defect while %s was cleared", project_id)
    else:
        return True
    return False
