"""ConfiguredForges: for each cycle the forge that its settings name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from att_server.adapters.forge_local import LocalForges
from att_server.core.cycles.forge import Forge, Forges
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.settings import BootstrapSettings, ForgeKind
from att_server.core.model import Project
from att_server.core.ports import Clock
from att_server.core.repository import Repositories

if TYPE_CHECKING:
    from att_server.adapters.github.api import GitHubApi


class ConfiguredForges:
    """Implements `Forges` by those that the settings in force name."""

    def __init__(
        self,
        *,
        local: LocalForges,
        repositories: Repositories,
        clock: Clock,
        environ: Mapping[str, str],
    ) -> None:
        """environ: of the server, where tokens may be."""
        self._local = local
        self._repositories = repositories
        self._clock = clock
        self._environ = environ
        self._github: Forges | None = None
        self._api: GitHubApi | None = None
        self._loading = asyncio.Lock()

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._api is not None:
            await self._api.aclose()

    def polled(self, settings: BootstrapSettings) -> bool:
        """See `Forges`."""
        return settings.forge is not ForgeKind.LOCAL

    async def examine(self, project: Project, settings: BootstrapSettings) -> None:
        """See `Forges`."""
        forges = await self._named_by(settings)
        await forges.examine(project, settings)

    async def of(self, project: Project, cycle: Cycle) -> Forge:
        """See `Forges`."""
        forges = await self._named_by(cycle.settings)
        return await forges.of(project, cycle)

    async def _named_by(self, settings: BootstrapSettings) -> Forges:
        if settings.forge is ForgeKind.LOCAL:
            return self._local
        async with self._loading:
            if self._github is None:
                # Costs time and memory that a server without it does not need.
                self._github = await asyncio.to_thread(self._load)
            return self._github

    def _load(self) -> Forges:
        from att_server.adapters.github.api import GitHubApi
        from att_server.adapters.github.forges import GitHubForges

        self._api = GitHubApi(clock=self._clock, environ=self._environ)
        return GitHubForges(api=self._api, repositories=self._repositories)
