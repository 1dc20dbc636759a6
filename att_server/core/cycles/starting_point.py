"""Where a cycle begins: the base, its commit, and the settings that are in force there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from att_server.core.branch_names import branch_violation
from att_server.core.cycles.in_force import with_request
from att_server.core.cycles.model import CycleRequest
from att_server.core.cycles.settings import (
    SETTINGS_FILE,
    BootstrapSettings,
    BootstrapSettingsReader,
)
from att_server.core.repository import Commit, Repository, RepositoryError

MAX_SETTINGS_BYTES = 1024 * 1024
COMMIT_IS_ON_BASE = "commit_is_on_base"
"""Why there is nothing to branch, push, review or merge."""


class NoStart(Exception):
    """The cycle cannot begin. reason: in snake case; the message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingPoint:
    """Where a cycle begins.

    settings: in force, as of `base_commit`, with what the request gives over them.
    other_base: the request names another base than the settings do.
    commit: the one that the request names, None if it names none. on_base: the
    base contains it, so that there is nothing to merge.
    """

    base_branch: str
    base_commit: str
    settings: BootstrapSettings
    other_base: bool = False
    commit: Commit | None = None
    on_base: bool = False


async def find_start(
    repository: Repository,
    reader: BootstrapSettingsReader,
    project_id: str,
    request: CycleRequest,
) -> StartingPoint:
    """Looks at the remote. Raises NoStart, RepositoryError, AttError SETTINGS_INVALID."""
    first = (await reader.at_base(project_id, None)).base_branch
    branch, base, settings = await configured_base(repository, reader, project_id, first)
    other = bool(request.base_branch) and request.base_branch != branch
    if other:
        branch = request.base_branch
        base = await _head(repository, branch)
        if base is not None:
            settings = await _settings_at(repository, reader, project_id, base)
    if base is None:
        raise NoStart(
            "base_branch_missing",
            f"The remote has no branch {branch!a}. Push it, name another one with the request, "
            "or set base_branch in [bootstrap].",
        )
    settings = with_request(settings, replace(request, base_branch=branch))
    start = StartingPoint(base_branch=branch, base_commit=base, settings=settings, other_base=other)
    return await _with_commit(repository, start, request.commit) if request.commit else start


async def configured_base(
    repository: Repository, reader: BootstrapSettingsReader, project_id: str, first: str
) -> tuple[str, str | None, BootstrapSettings]:
    """The base that settings name: the server's, or those on its default branch."""
    base = await _head(repository, first)
    settings = await _settings_at(repository, reader, project_id, base)
    if settings.base_branch == first:
        return first, base, settings
    # Followed once: what the other branch says of a base is not asked.
    branch = settings.base_branch
    base = await _head(repository, branch)
    return branch, base, await _settings_at(repository, reader, project_id, base)


async def _head(repository: Repository, branch: str) -> str | None:
    if violation := branch_violation(branch):
        raise NoStart("base_branch_invalid", f"The branch name {branch!a} {violation}.")
    return await repository.fetch(branch)


async def _settings_at(
    repository: Repository,
    reader: BootstrapSettingsReader,
    project_id: str,
    commit: str | None,
) -> BootstrapSettings:
    content = None
    if commit is not None:
        content = await repository.read_file(commit, SETTINGS_FILE, max_bytes=MAX_SETTINGS_BYTES)
    return await reader.at_base(project_id, content)


async def _with_commit(repository: Repository, start: StartingPoint, sha: str) -> StartingPoint:
    try:
        commit = await repository.fetch_commit(sha)
    except RepositoryError as error:
        if error.failure.external:
            raise
        raise NoStart(
            "commit_not_found",
            f"Neither the remote nor the checkout has the commit {sha}. Push it, and ask again.",
        ) from error
    if not await repository.contains(start.base_commit, sha):
        return replace(start, commit=commit)
    # There is nothing left to merge, so nobody's leave to merge is waited for.
    settings = replace(start.settings, auto_merge_on_ci_success=True)
    return replace(start, commit=commit, on_base=True, settings=settings)
