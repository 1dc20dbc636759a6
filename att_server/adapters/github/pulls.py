"""Pull requests at GitHub: found before they are opened, looked at before and after a merge."""

from __future__ import annotations

from att_server.adapters.github.api import Answer
from att_server.adapters.github.repository import GitHubRepository, Pull
from att_server.core.cycles.forge import ForgeError, ForgeRefused, ForgeUnavailable
from att_server.core.repository import (
    Merged,
    MergeMethod,
    Moved,
    Repository,
    RepositoryError,
    RepositoryFailure,
    is_sha,
)

MAX_BODY = 60_000
"""Characters of a pull request's text; GitHub takes a little more."""

MERGES = "Att-Merges"
"""The trailer of a merge of ours, with the change that it brings."""


async def find_or_open(
    repository: GitHubRepository, branch: str, base: str, *, title: str, body: str, marker: str
) -> Pull:
    """The pull request of the branch, opened where there is none."""
    if (found := mine(await repository.pulls(branch, base), marker)) is not None:
        return found
    opened = await repository.open_pull(branch, base, title, f"{body[:MAX_BODY]}\n\n{marker}")
    if isinstance(opened, Pull):
        return opened
    # Whoever asked before may have died with the answer.
    if (found := mine(await repository.pulls(branch, base), marker)) is not None:
        return found
    raise _not_opened(repository.name, branch, opened)


def _not_opened(name: str, branch: str, answer: Answer) -> ForgeError:
    message = f"GitHub does not open a pull request of {branch} at {name}: {answer.message}."
    if "head invalid" in answer.message.replace(".", "").lower():
        return ForgeUnavailable(
            "branch_not_seen",
            f"{message} It does not see the branch yet, or the project's remote is not {name}.",
        )
    return ForgeRefused("pull_request_refused", message)


async def existing(repository: GitHubRepository, branch: str, base: str, marker: str) -> Pull:
    """The pull request of the branch as it is now. Raises ForgeRefused if there is none."""
    pull = mine(await repository.pulls(branch, base), marker)
    if pull is None:
        raise ForgeRefused(
            "pull_request_missing",
            f"There is no pull request of {branch} to {base} at {repository.name} any more.",
        )
    return await repository.pull(pull.number)


def mine(pulls: list[Pull], marker: str) -> Pull | None:
    """The open one of a branch, of which there is one at most; else the newest that was ours."""
    opened = [pull for pull in pulls if pull.state == "open"]
    ours = [pull for pull in pulls if marker in (pull.body or "")]
    return next(iter([*opened, *ours]), None)


def marker_of(what: str) -> str:
    """What a text of ours is known by; GitHub does not show it."""
    return f"<!-- att: {what} -->"


# What may be merged, and what was ---------------------------------------------------


async def differs_from(repository: Repository, pull: Pull, head: str, base: str) -> Moved | None:
    """Moved: the base is not at `base`. Raises where the pull request is not what was checked."""
    refuse_closed(pull)
    at = await repository.remote_branch(pull.base.ref)
    if at != base:
        return Moved(actual=at)
    if pull.head.sha != head:
        if await repository.remote_branch(pull.head.ref) == head:
            raise behind(f"that {pull.head.ref} is at {head}")
        raise ForgeRefused(
            "head_moved",
            f"{pull.html_url} is at {pull.head.sha}, and {head} was checked: somebody pushed to "
            f"{pull.head.ref}. Ask for a cycle with that commit.",
        )
    return None


def refuse_closed(pull: Pull) -> None:
    """Raises ForgeRefused where it was closed without a merge."""
    if pull.merged_at is None and pull.state != "open":
        raise ForgeRefused("pull_request_closed", f"Somebody closed {pull.html_url}.")


async def merge_of(repository: Repository, pull: Pull, head: str) -> Merged:
    """The merge of a pull request that is merged, as the remote has it."""
    sha = pull.merge_commit_sha or ""
    if not is_sha(sha):
        raise behind(f"the merge of {pull.html_url}")
    base = await repository.fetch(pull.base.ref)
    try:
        commit = await repository.fetch_commit(sha)
        there = base is not None and await repository.contains(base, sha)
    except RepositoryError as error:
        if error.failure is not RepositoryFailure.NOT_FOUND:
            raise
        there = False
    if not there:
        raise behind(f"{pull.base.ref} with the merge {sha}")
    before = commit.parents[0]
    ours = await repository.find_commit(MERGES, head, after=before, upto=sha) == sha
    return Merged(commit=sha, tree=commit.tree, before=before, ours=ours)


async def why_blocked(
    repository: GitHubRepository, pull: Pull, answer: Answer, method: MergeMethod
) -> ForgeError:
    """Why an open pull request, at the expected head and base, was not merged."""
    said = answer.message or "it does not say why"
    if "merge queue" in said.lower():
        return queue_required(pull.base.ref)
    if not (await repository.facts()).allows(method):
        return method_refused(repository.name, method)
    return ForgeUnavailable(
        "merge_blocked",
        f"GitHub does not merge {pull.html_url} yet ({pull.mergeable_state}): {said}.",
    )


def method_refused(name: str, method: MergeMethod) -> ForgeRefused:
    """Of a repository that does not merge by this method."""
    return ForgeRefused(
        "merge_method_not_allowed",
        f"{name} does not allow the method {method}. Allow it there, or set merge_method in "
        "[bootstrap].",
    )


def queue_required(branch: str) -> ForgeRefused:
    """Of a branch with a merge queue."""
    return ForgeRefused(
        "merge_queue_required",
        f"{branch} takes changes through a merge queue alone, which ATT does not use. Let its "
        "token bypass the queue, or set auto_merge_on_ci_success = false.",
    )


def behind(what: str) -> ForgeUnavailable:
    """Of something that is so and cannot be seen yet."""
    return ForgeUnavailable("forge_behind", f"GitHub does not show {what} yet.")
