"""GitHubForge: pull requests, checks, merges and reverts at GitHub."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from att_server.adapters.github.checks import judged
from att_server.adapters.github.pulls import (
    MERGES,
    behind,
    differs_from,
    existing,
    find_or_open,
    marker_of,
    merge_of,
    mine,
    refuse_closed,
    why_blocked,
)
from att_server.adapters.github.repository import GitHubRepository, RequiredCheck
from att_server.core.cycles.forge import (
    Checks,
    ForgeRefused,
    PullRequestRef,
)
from att_server.core.cycles.model import Cycle
from att_server.core.repository import (
    CommitNote,
    Conflict,
    Merged,
    Moved,
    NothingToRevert,
    Repository,
    RevertCandidate,
    Reverted,
)

_REVERTS = "Att-Reverts"


class GitHubForge:
    """Implements `Forge` on GitHub's REST API.

    The remote that cycles push to is the repository itself: branches are moved by
    git, and all else by the API. A cycle without a pull request is merged by git.
    """

    def __init__(
        self,
        cycle: Cycle,
        *,
        at_github: Callable[[], Awaitable[GitHubRepository]],
        repository: Callable[[], Awaitable[Repository]],
    ) -> None:
        """at_github, repository: the project's, at GitHub and here."""
        self._cycle = cycle
        self._at_github = at_github
        self._repository = repository

    async def open_pull_request(self, *, title: str, body: str) -> PullRequestRef:
        """See `Forge`."""
        found, facts = await self._at_github(), self._cycle.facts
        pull = await find_or_open(
            found,
            facts.branch,
            facts.base_branch,
            title=title,
            body=body,
            marker=marker_of(self._cycle.cycle_id),
        )
        merged = pull.merge_commit_sha if pull.merged_at is not None else None
        return PullRequestRef(number=pull.number, url=pull.html_url, merged_commit=merged or "")

    async def checks(self, commit: str) -> Checks:
        """See `Forge`: what the base requires, and what the settings do."""
        found, cycle = await self._at_github(), self._cycle
        rules = await found.rules(cycle.facts.base_branch)
        own = [RequiredCheck(context=name) for name in cycle.settings.github.required_checks]
        return judged(
            await found.check_runs(commit), await found.statuses(commit), [*rules.required, *own]
        )

    # Merges -------------------------------------------------------------------

    async def merge(
        self, head: str, *, expected: str, note: CommitNote
    ) -> Merged | Moved | Conflict:
        """See `Forge`. GitHub holds the head, not the base: what it merged is looked at."""
        cycle, method = self._cycle, self._cycle.settings.merge_method
        repository = await self._repository()
        facts = cycle.facts
        if not facts.pull_request:
            return await repository.merge(
                cycle.cycle_id,
                facts.base_branch,
                head,
                expected=expected,
                method=method,
                note=note,
            )
        found = await self._at_github()
        pull = await existing(found, facts.branch, facts.base_branch, marker_of(cycle.cycle_id))
        if pull.merged_at is not None:
            return await merge_of(repository, pull, head)
        wanted = facts.branch_head or head
        if differs := await differs_from(repository, pull, wanted, expected):
            return differs
        title, _, text = note.message.partition("\n")
        trailers = f"Att-Cycle: {cycle.cycle_id}\n{MERGES}: {head}"
        answer = await found.merge(
            pull.number,
            head=wanted,
            method=method,
            title=title,
            message=_with_trailers(text, trailers),
        )
        # Whatever it says, what counts is what became of the pull request.
        pull = await found.pull(pull.number)
        if pull.merged_at is not None:
            return await merge_of(repository, pull, head)
        if answer.status == 200:
            raise behind("the merge that it has just made")
        if differs := await differs_from(repository, pull, wanted, expected):
            return differs
        if pull.mergeable is False:
            made = await repository.merge_candidate(cycle.cycle_id, expected, head, method, note)
            if isinstance(made, Conflict):
                return made
        raise await why_blocked(found, pull, answer, method)

    async def find_merge(self, head: str, *, expected: str, note: CommitNote) -> Merged | None:
        """See `Forge`."""
        repository, facts = await self._repository(), self._cycle.facts
        if facts.pull_request:
            found, marker = await self._at_github(), marker_of(self._cycle.cycle_id)
            pull = await existing(found, facts.branch, facts.base_branch, marker)
            if pull.merged_at is not None:
                return await merge_of(repository, pull, head)
        base = await repository.fetch(facts.base_branch)
        if base is None or not await repository.contains(base, head):
            return None
        return Merged(commit=head, tree="", before=expected, ours=False)

    # Reverts ------------------------------------------------------------------

    async def revert(
        self, *, branch: str, before: str, after: str, note: CommitNote
    ) -> Reverted | NothingToRevert | Moved | Conflict:
        """See `Forge`: by a pull request of its own, which waits for what the base requires."""
        cycle, settings = self._cycle, self._cycle.settings
        repository = await self._repository()
        if not settings.create_pr:
            return await repository.revert(
                cycle.cycle_id, branch, before=before, after=after, note=note
            )
        own = f"att/revert-{after[:16]}"
        made = await repository.revert_candidate(
            cycle.cycle_id, branch, before=before, after=after, note=note
        )
        if not isinstance(made, RevertCandidate):
            await _remove(repository, own)
            return made
        head = await _pushed(repository, own, made, after)
        found = await self._at_github()
        title, _, text = note.message.partition("\n")
        pull = await find_or_open(
            found,
            own,
            branch,
            title=f"Revert {cycle.facts.branch or after[:16]}",
            body=f"{title}\n{text}\n\n{cycle.facts.pull_request}".strip(),
            marker=marker_of(f"revert {after}"),
        )
        refuse_closed(pull)
        if pull.merged_at is None:
            answer = await found.merge(
                pull.number,
                head=head,
                method=settings.merge_method,
                title=title,
                message=_with_trailers(text, f"{_REVERTS}: {after}"),
            )
            pull = await found.pull(pull.number)
            refuse_closed(pull)
            if pull.merged_at is None:
                if pull.mergeable is False or pull.mergeable_state == "behind":
                    # The base has moved: what undoes the change there is shown instead.
                    await repository.push(own, made.commit, expected=head)
                raise await why_blocked(found, pull, answer, settings.merge_method)
        undone = await repository.revert_candidate(
            cycle.cycle_id, branch, before=before, after=after, note=note
        )
        if isinstance(undone, RevertCandidate):
            raise behind(f"that {pull.html_url} is merged")
        await _remove(repository, own)
        return undone

    async def close(self, *, comment: str) -> None:
        """See `Forge`. Says why in a comment, once."""
        facts, cycle_id = self._cycle.facts, self._cycle.cycle_id
        marker = marker_of(f"{cycle_id} closed")
        found = await self._at_github()
        pull = mine(await found.pulls(facts.branch, facts.base_branch), marker_of(cycle_id))
        if pull is None or pull.state != "open":
            return
        if not any(marker in (each.body or "") for each in await found.comments(pull.number)):
            await found.comment(pull.number, f"{comment}\n\n{marker}")
        await found.close_pull(pull.number)


def _with_trailers(text: str, trailers: str) -> str:
    """`text`, whose last paragraph is of trailers, with more of them."""
    return f"{text.strip()}\n{trailers}".strip()


# Branches of reverts ----------------------------------------------------------------


async def _pushed(repository: Repository, branch: str, made: RevertCandidate, after: str) -> str:
    """What the branch is at: a commit that undoes `after`, also one made on an earlier base."""
    at = await repository.fetch(branch)
    if at is None:
        moved = await repository.push(branch, made.commit, expected=None)
        if isinstance(moved, Moved):
            raise behind(f"what {branch} is at")
        return made.commit
    if (
        at != made.commit
        and await repository.find_commit(_REVERTS, after, after=after, upto=at) != at
    ):
        raise ForgeRefused(
            "head_moved", f"Somebody pushed to {branch}, which is to undo {after}. Remove it."
        )
    return at


async def _remove(repository: Repository, branch: str) -> None:
    """Removes the branch of a revert that is done; one that moves meanwhile stays."""
    at = await repository.remote_branch(branch)
    if at is not None:
        await repository.delete_branch(branch, expected=at)
