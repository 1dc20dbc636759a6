"""The forge on any git remote: pull requests in the journal, checks here, merges by git."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from att_server.core.cycles.command_env import command_env
from att_server.core.cycles.forge import Checks, CheckState, Forge, PullRequestRef
from att_server.core.cycles.journal import CycleJournal, PullRequest
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.project_commands import (
    ProjectCommands,
    command_evidence,
    command_failure,
)
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.model import Project
from att_server.core.repository import (
    CommitNote,
    Conflict,
    Merged,
    Moved,
    NothingToRevert,
    Repositories,
    Repository,
    Reverted,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalForges:
    """Implements `Forges` by the local one. inherited_env: what commands get of the server's."""

    journal: CycleJournal
    repositories: Repositories
    commands: ProjectCommands
    inherited_env: Mapping[str, str]

    def polled(self, settings: BootstrapSettings) -> bool:
        """Never."""
        return False

    async def examine(self, project: Project, settings: BootstrapSettings) -> None:
        """Nothing keeps a cycle from using it."""

    async def of(self, project: Project, cycle: Cycle) -> Forge:
        """See `Forges`."""
        return LocalForge(self, project, cycle)


class LocalForge:
    """Implements `Forge`. It is never unavailable; the remote may be."""

    def __init__(self, forges: LocalForges, project: Project, cycle: Cycle) -> None:
        self._forges = forges
        self._project = project
        self._cycle = cycle

    async def open_pull_request(self, *, title: str, body: str) -> PullRequestRef:
        """See `Forge`. The body is not kept: all it says is in the cycle."""
        project_id, facts = self._project.project_id, self._cycle.facts
        kept = await self._forges.journal.open_pull_request(
            PullRequest(
                project_id=project_id,
                number=0,
                cycle_id=self._cycle.cycle_id,
                branch=facts.branch,
                base=facts.base_branch,
                head=facts.commit,
                title=title,
            )
        )
        return PullRequestRef(
            number=kept.number,
            url=f"att://{project_id}/pulls/{kept.number}",
            merged_commit=kept.merge_commit,
        )

    async def checks(self, commit: str) -> Checks:
        """Runs the project's command in a clean clone of the commit, to its end."""
        ci, cycle_id = self._cycle.settings.ci, self._cycle.cycle_id
        if not ci.command:
            return Checks(state=CheckState.NONE, reason="no_checks")
        repository = await self._repository()

        async def clone() -> Path:
            return await repository.clone(cycle_id, commit)

        env = command_env(
            self._forges.inherited_env,
            {"CI": "true", **ci.env},
            project_id=self._project.project_id,
            cycle_id=cycle_id,
        )
        result, duration = await self._forges.commands.run(
            ci.command, directory=clone, env=env, timeout=ci.timeout
        )
        reason = command_failure(result)
        return Checks(
            state=CheckState.FAILURE if reason else CheckState.SUCCESS,
            reason=reason,
            evidence={
                **command_evidence(result),
                "duration": f"{duration.total_seconds():.3f} s",
            },
            log_tail=result.output,
        )

    async def merge(
        self, head: str, *, expected: str, note: CommitNote
    ) -> Merged | Moved | Conflict:
        """See `Forge`."""
        repository = await self._repository()
        merged = await repository.merge(
            self._cycle.cycle_id,
            self._cycle.facts.base_branch,
            head,
            expected=expected,
            method=self._cycle.settings.merge_method,
            note=note,
        )
        if isinstance(merged, Merged):
            await self._put(state="merged", merge_commit=merged.commit)
        return merged

    async def find_merge(self, head: str, *, expected: str, note: CommitNote) -> Merged | None:
        """See `Forge`: what `merge` would have pushed is made again and looked for."""
        repository = await self._repository()
        now = await repository.fetch(self._cycle.facts.base_branch)
        if now is None:
            return None
        made = await repository.merge_candidate(
            self._cycle.cycle_id, expected, head, self._cycle.settings.merge_method, note
        )
        if isinstance(made, Merged) and await repository.contains(now, made.commit):
            return made
        if await repository.contains(now, head):
            return Merged(commit=head, tree="", before=expected, ours=False)
        return None

    async def revert(
        self, *, branch: str, before: str, after: str, note: CommitNote
    ) -> Reverted | NothingToRevert | Moved | Conflict:
        """See `Forge`."""
        repository = await self._repository()
        return await repository.revert(
            self._cycle.cycle_id, branch, before=before, after=after, note=note
        )

    async def close(self, *, comment: str) -> None:
        """See `Forge`. The comment is not kept: the cycle says why it ended."""
        await self._put(state="closed")

    async def _repository(self) -> Repository:
        return await self._forges.repositories.of(self._project)

    async def _put(self, *, state: str, merge_commit: str = "") -> None:
        """Notes what became of the cycle's pull request, if it is open."""
        journal = self._forges.journal
        kept = await journal.pull_request(self._project.project_id, self._cycle.cycle_id)
        if kept is not None and kept.state == "open":
            await journal.put_pull_request(replace(kept, state=state, merge_commit=merge_commit))
