"""GitHubForges: which repository at GitHub a project has, and whether cycles may use it."""

from __future__ import annotations

from functools import partial

from att_server.adapters.github.access import name_of_remote
from att_server.adapters.github.api import GitHubApi
from att_server.adapters.github.forge import GitHubForge
from att_server.adapters.github.pulls import method_refused, queue_required
from att_server.adapters.github.repository import GitHubRepository
from att_server.core.cycles.forge import Forge, ForgeRefused, ForgeUnavailable
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.model import Project
from att_server.core.repository import Repositories

_WRITES = ("push", "maintain", "admin")


class GitHubForges:
    """Implements `Forges` on GitHub's REST API."""

    def __init__(self, *, api: GitHubApi, repositories: Repositories) -> None:
        self._api = api
        self._repositories = repositories

    def polled(self, settings: BootstrapSettings) -> bool:
        """Always: GitHub runs what the repository has configured there."""
        return True

    async def examine(self, project: Project, settings: BootstrapSettings) -> None:
        """See `Forges`: name, token, rights, and whether it merges as the settings say."""
        found = await self._at_github(project, settings)
        facts = await found.facts()
        if facts.archived:
            raise ForgeRefused("repository_archived", f"{facts.full_name} is archived at GitHub.")
        rights = facts.permissions
        if rights is not None and not any(rights.get(right) for right in _WRITES):
            raise ForgeUnavailable(
                "token_lacks_permission", f"The token may not write to {facts.full_name}."
            )
        if not facts.allows(settings.merge_method):
            raise method_refused(facts.full_name, settings.merge_method)
        if (await found.rules(settings.base_branch)).merge_queue:
            raise queue_required(settings.base_branch)

    async def of(self, project: Project, cycle: Cycle) -> Forge:
        """See `Forges`."""
        return GitHubForge(
            cycle,
            at_github=partial(self._at_github, project, cycle.settings),
            repository=partial(self._repositories.of, project),
        )

    async def _at_github(self, project: Project, settings: BootstrapSettings) -> GitHubRepository:
        """The repository that settings name, else the one of the project's remote."""
        github = settings.github
        name = github.repository
        if not name:
            checkout = await self._repositories.checkout(project)
            name = name_of_remote(checkout.url, github.api_url) or ""
        if not name:
            raise ForgeRefused(
                "remote_is_not_github",
                f"The remote {checkout.remote!a} of {project.project_id} is none that "
                f"{github.api_url} serves. Set its address, or repository in [bootstrap.github]; "
                "for a server of your own, api_url in settings.toml.",
            )
        return GitHubRepository(self._api, github, name)
