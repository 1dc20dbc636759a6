"""Reads projects' code at a commit, a release or a cycle: what one needs to write a change."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from att_server.core.code_reader import (
    CodeFile,
    CodeReader,
    Difference,
    FilePart,
    Matches,
)
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.settings import BootstrapSettingsReader
from att_server.core.cycles.starting_point import NoStart, configured_base
from att_server.core.cycles.test_report import TestReport
from att_server.core.errors import AttError, Reason, field_invalid
from att_server.core.model import Project
from att_server.core.repository import Repositories, RepositoryError, RepositoryFailure, is_sha

MAX_CONTENT_BYTES = 1 << 20
"""Of a part of a file, and of a difference."""
MAX_SEARCH = timedelta(seconds=10)
_SEARCH_SHARE = 0.7  # of the time that is left, so that the answer is in time
_AT_ONCE = 8  # calls that hold parts of a repository in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """Which code: at most one is set. None: the deployed release's, else the base branch's.

    commit: a full sha, or the name of a branch or tag of the remote.
    """

    commit: str = ""
    release_id: str = ""
    cycle_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A tree to read, by the commit's id where there is one. commit: else empty."""

    reader: CodeReader
    tree: str
    commit: str


class CodeManager:
    """Reads code. `within` bounds each call, the wait for the project's remote included.

    All raise PROJECT_NOT_FOUND, PROJECT_NOT_REPOSITORY_ROOT, PROJECT_HAS_NO_REMOTE,
    REVISION_NOT_FOUND, RELEASE_NOT_FOUND, CYCLE_NOT_FOUND, REPOSITORY_UNAVAILABLE.
    """

    def __init__(
        self,
        *,
        find_project: Callable[[str], Project],
        journal: CycleJournal,
        repositories: Repositories,
        settings: BootstrapSettingsReader,
    ) -> None:
        """find_project: raises PROJECT_NOT_FOUND. settings: name the base branch."""
        self._find_project = find_project
        self._journal = journal
        self._repositories = repositories
        self._settings = settings
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def files(
        self,
        project_id: str,
        revision: Revision,
        *,
        directory: str,
        page_size: int,
        page_token: str,
        within: timedelta,
    ) -> tuple[list[CodeFile], str, str]:
        """Files by path, the next page's token, and the commit (empty: there is none yet).

        All pages are of the tree that the first one was of. Raises FILE_NOT_FOUND
        for a directory that is not there.
        """
        after = ""
        given: _Place | None = None
        async with self._reading(project_id, within) as reader:
            if page_token:
                tree, commit, after = _from_token(page_token)
                given = _Place(reader=reader, tree=tree, commit=commit)
            place = given or await self._place(project_id, revision, reader)
            found = await reader.files(
                place.tree, directory=directory, after=after, limit=page_size + 1
            )
        if found is None:
            raise _file_not_found(project_id, directory, place, "directory")
        page = list(found[:page_size])
        more = len(found) > page_size
        token = _to_token(place, page[-1].path) if more and page else ""
        return page, token, place.commit

    async def read(
        self,
        project_id: str,
        revision: Revision,
        path: str,
        *,
        first_line: int,
        line_limit: int,
        within: timedelta,
    ) -> tuple[FilePart, str]:
        """Lines of a file, at most `MAX_CONTENT_BYTES`, and the commit. Raises FILE_NOT_FOUND."""
        async with self._reading(project_id, within) as reader:
            place = await self._place(project_id, revision, reader)
            part = await reader.read(
                place.tree,
                path,
                first_line=first_line,
                line_limit=line_limit,
                max_bytes=MAX_CONTENT_BYTES,
            )
        if part is None:
            raise _file_not_found(project_id, path, place, "file")
        return part, place.commit

    async def search(
        self,
        project_id: str,
        revision: Revision,
        pattern: str,
        *,
        directory: str,
        limit: int,
        within: timedelta,
    ) -> tuple[Matches, str]:
        """Lines that match, and the commit. Raises FILE_NOT_FOUND as `files`."""
        async with self._reading(project_id, within) as reader:
            place = await self._place(project_id, revision, reader)
            found = await reader.search(
                place.tree,
                pattern,
                directory=directory,
                limit=limit,
                within=min(MAX_SEARCH, within * _SEARCH_SHARE),
            )
        if found is None:
            raise _file_not_found(project_id, directory, place, "directory")
        return found, place.commit

    async def diff(
        self,
        project_id: str,
        base: Revision,
        head: Revision,
        *,
        paths: Collection[str],
        within: timedelta,
    ) -> tuple[Difference, str, str]:
        """What differs, at most `MAX_CONTENT_BYTES`, and both commits."""
        async with self._reading(project_id, within) as reader:
            old = await self._place(project_id, base, reader)
            new = await self._place(project_id, head, reader)
            difference = await reader.diff(
                old.tree, new.tree, paths=paths, max_bytes=MAX_CONTENT_BYTES
            )
        return difference, old.commit, new.commit

    async def test_report(self, project_id: str, cycle_id: str) -> TestReport:
        """The last report of the cycle, else of the project. Raises TEST_REPORT_NOT_FOUND."""
        self._find_project(project_id)
        if cycle_id:
            await self._cycle_tree(project_id, cycle_id)
        report = await self._journal.test_report(project_id, cycle_id)
        if report is None:
            whose = f"cycle {cycle_id!r}" if cycle_id else f"project {project_id!r}"
            raise AttError(
                Reason.TEST_REPORT_NOT_FOUND,
                f"No tests were run in {whose}: it has none, or did not come so far. "
                "Set a test command in [bootstrap.test] of att.toml.",
                project_id=project_id,
                cycle_id=cycle_id,
            )
        return report

    # Which code ---------------------------------------------------------------

    async def _place(self, project_id: str, revision: Revision, reader: CodeReader) -> _Place:
        tree, commit = await self._named(project_id, revision, reader)
        return _Place(reader=reader, tree=tree, commit=commit)

    async def _named(
        self, project_id: str, revision: Revision, reader: CodeReader
    ) -> tuple[str, str]:
        """Tree and commit of a revision; no commit where a cycle has made none yet."""
        if revision.cycle_id:
            tree, commit = await self._cycle_tree(project_id, revision.cycle_id)
            if not tree:
                raise _not_found(project_id, revision.cycle_id, "has no code yet")
            if commit:
                await self._commit(project_id, commit, reader)
            return tree, commit
        if revision.release_id:
            await self._check_release(project_id, revision.release_id)
        deployed = self._find_project(project_id).release_id
        sha = revision.release_id or revision.commit or deployed
        if revision.release_id or is_sha(sha):
            await self._commit(project_id, sha, reader)
            return sha, sha
        if not revision.commit:
            head = await self._base(project_id)
            return head, head
        found = await reader.resolve(revision.commit)
        if found is None:
            why = "is no branch or tag of the project's remote"
            raise _not_found(project_id, revision.commit, why)
        return found, found

    async def _base(self, project_id: str) -> str:
        """The head of the base branch, whatever its own settings say where they cannot be read."""
        repository = await self._repositories.of(self._find_project(project_id))
        branch = (await self._settings.at_base(project_id, None)).base_branch
        try:
            branch, head, _ = await configured_base(repository, self._settings, project_id, branch)
        except NoStart as error:
            raise _not_found(project_id, "", error.message) from error
        except AttError as error:
            if error.reason is not Reason.SETTINGS_INVALID:
                raise
            head = await repository.fetch(branch)
        if head is None:
            raise _not_found(project_id, branch, "is the base branch, and the remote has none")
        return head

    async def _commit(self, project_id: str, sha: str, reader: CodeReader) -> None:
        if not is_sha(sha) or await reader.commit(sha) is None:
            raise _not_found(project_id, sha, "is no commit of the project's repository")

    async def _check_release(self, project_id: str, release_id: str) -> None:
        known = await self._journal.releases(project_id)
        if not any(release.release_id == release_id for release in known):
            raise AttError(
                Reason.RELEASE_NOT_FOUND,
                f"Project {project_id!r} has no release {release_id!r}. List its releases.",
                project_id=project_id,
                release_id=release_id,
            )

    async def _cycle_tree(self, project_id: str, cycle_id: str) -> tuple[str, str]:
        """The tree that the cycle has made so far, and its commit; empty where there is none."""
        cycle = await self._journal.cycle(cycle_id)
        if cycle is None or cycle.project_id != project_id:
            raise AttError(
                Reason.CYCLE_NOT_FOUND,
                f"Project {project_id!r} has no cycle {cycle_id!r}. List its cycles.",
                cycle_id=cycle_id,
            )
        facts = cycle.facts
        if facts.commit or not facts.tree:
            commit = facts.commit or facts.base_commit
            return commit, commit
        return facts.tree, ""

    @asynccontextmanager
    async def _reading(self, project_id: str, within: timedelta) -> AsyncIterator[CodeReader]:
        """The project's reader, for as long as the call may take; errors told as the port's."""
        project = self._find_project(project_id)
        try:
            async with asyncio.timeout(within.total_seconds()) as scope, self._slots:
                yield (await self._repositories.of(project)).code
        except RepositoryError as error:
            if error.failure is RepositoryFailure.NOT_FOUND:
                raise _not_found(project_id, "it", "is not in the repository any more") from error
            raise _unavailable(project_id, error.failure, error.message) from error
        except TimeoutError as error:
            if not scope.expired():
                raise
            why = f"Nothing was answered within {within.total_seconds():g} s."
            raise _unavailable(project_id, RepositoryFailure.TIMED_OUT, why) from error


def _unavailable(project_id: str, failure: RepositoryFailure, why: str) -> AttError:
    return AttError(
        Reason.REPOSITORY_UNAVAILABLE,
        f"The repository of {project_id!r} cannot be read now ({failure}): {why} Call again later.",
        project_id=project_id,
        failure=failure,
    )


def _not_found(project_id: str, revision: str, why: str) -> AttError:
    return AttError(
        Reason.REVISION_NOT_FOUND,
        f"{revision!r} {why}. Name a commit by its full sha, or a branch or tag of the remote.",
        project_id=project_id,
        revision=revision,
    )


def _file_not_found(project_id: str, path: str, place: _Place, what: str) -> AttError:
    return AttError(
        Reason.FILE_NOT_FOUND,
        f"There is no {what} {path!a} in {place.commit or place.tree}. List the files.",
        project_id=project_id,
        path=path,
        commit_sha=place.commit,
    )


# A token holds the tree as well, so that a branch which moves does not mix two trees.


def _to_token(place: _Place, after: str) -> str:
    text = f"{place.tree} {place.commit} {after}".encode(errors="surrogateescape")
    return base64.urlsafe_b64encode(text).decode()


def _from_token(token: str) -> tuple[str, str, str]:
    """Tree, commit and path. Raises FIELD_INVALID for a token that no page gave."""
    try:
        text = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        tree, commit, after = text.decode(errors="surrogateescape").split(" ", 2)
    except (binascii.Error, UnicodeError, ValueError):
        raise field_invalid("page_token", "is not a token that a page gave") from None
    if not is_sha(tree) or commit not in ("", tree):
        raise field_invalid("page_token", "is not a token that a page gave")
    return tree, commit, after
