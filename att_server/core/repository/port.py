"""The repositories of projects: the port."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from att_server.core.code_reader import CodeReader
from att_server.core.model import Project
from att_server.core.repository.change import Change
from att_server.core.repository.commits import (
    AppliedChange,
    ChangedPath,
    Commit,
    CommitNote,
    MergeMethod,
)
from att_server.core.repository.outcomes import (
    Conflict,
    Merged,
    Moved,
    NothingToRevert,
    Pushed,
    Removed,
    RevertCandidate,
    Reverted,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A project's own checkout, as a cycle finds it. It is only ever looked at.

    remote, url: where cycles fetch from and push to. branch: None where HEAD is
    detached. head: None before the first commit. dirty: files that git tracks
    differ from HEAD, or some are staged; cycles do not see them.
    """

    directory: Path
    remote: str
    url: str = field(repr=False)  # may hold a password
    object_format: str
    branch: str | None
    head: str | None
    shallow: bool
    submodules: bool
    dirty: bool


class Repository(Protocol):
    """The versions of one project, kept apart from its checkout, with one remote.

    Every method may be repeated at any time, after a kill in the middle too:
    it looks first, or does what changes nothing when done twice. All raise
    RepositoryError; ValueError for ids and names that were not checked before.
    Cancelling ends what runs; repeat the call to know what became of it.
    """

    @property
    def code(self) -> CodeReader:
        """Reads what is kept here."""
        ...

    async def fetch(self, branch: str) -> str | None:
        """Brings the remote branch here and returns its commit; None if there is none."""
        ...

    async def fetch_commit(self, sha: str) -> Commit:
        """The commit, brought here from the remote or the checkout where it is not.

        Raises RepositoryError NOT_FOUND.
        """
        ...

    async def remote_branch(self, branch: str) -> str | None:
        """The commit that the remote branch is at, None if there is none. Brings nothing."""
        ...

    async def read_file(self, commit: str, path: str, *, max_bytes: int) -> bytes | None:
        """The file as of the commit, None if it is none. Raises OUTPUT_TOO_LARGE above."""
        ...

    async def changed_paths(self, base: str, changed: str) -> Sequence[ChangedPath]:
        """What differs between two commits or trees."""
        ...

    async def apply(self, cycle_id: str, base: str, change: Change) -> AppliedChange:
        """Records the tree that `change` makes of the commit `base`; keeps it for the cycle.

        Touches no file but the repository's. Raises AttError EDIT_PATH_INVALID or
        PATCH_DOES_NOT_APPLY.
        """
        ...

    async def worktree(self, cycle_id: str, commit: str, tree: str | None = None) -> Path:
        """The cycle's working directory: HEAD at `commit`, its files exactly those of `tree`.

        Made anew each time: what tests left is gone. Without `tree` it is empty.
        """
        ...

    async def clone(self, cycle_id: str, commit: str) -> Path:
        """A repository of its own at `commit` for checks, without remote; made anew each time."""
        ...

    async def commit(self, cycle_id: str, tree: str, parent: str, note: CommitNote) -> str:
        """The commit of the cycle, with the trailer `Att-Cycle`; keeps it for the cycle."""
        ...

    async def find_commit(self, trailer: str, value: str, *, after: str, upto: str) -> str | None:
        """The oldest commit in `after..upto` with the trailer, None if there is none."""
        ...

    async def contains(self, descendant: str, commit: str) -> bool:
        """Whether `commit` is `descendant` or one of its ancestors. Both are here."""
        ...

    async def push(self, branch: str, commit: str, *, expected: str | None) -> Pushed | Moved:
        """Sets the remote branch from `expected` (None: it does not exist) to `commit`."""
        ...

    async def delete_branch(self, branch: str, *, expected: str) -> Removed | Moved:
        """Removes the remote branch if it is at `expected`; Removed also if it was gone."""
        ...

    async def merge_candidate(
        self, cycle_id: str, base: str, head: str, method: MergeMethod, note: CommitNote
    ) -> Merged | Conflict:
        """The commit that `merge` would push, made here only: to be tested before."""
        ...

    async def merge(
        self,
        cycle_id: str,
        branch: str,
        head: str,
        *,
        expected: str,
        method: MergeMethod,
        note: CommitNote,
    ) -> Merged | Moved | Conflict:
        """Brings `head` into the remote branch, which is at `expected`, in one step.

        Merged also where the branch contains it already, whatever it is at.
        """
        ...

    async def revert(
        self, cycle_id: str, branch: str, *, before: str, after: str, note: CommitNote
    ) -> Reverted | NothingToRevert | Moved | Conflict:
        """Undoes on the remote branch what came between two of its commits, in one step.

        The commit has the trailer `Att-Reverts: <after>`. Moved: the branch moved
        meanwhile; call again.
        """
        ...

    async def revert_candidate(
        self, cycle_id: str, branch: str, *, before: str, after: str, note: CommitNote
    ) -> RevertCandidate | Reverted | NothingToRevert | Conflict:
        """The commit that `revert` would push, made here only; Reverted: the branch has one."""
        ...

    async def export(self, commit: str, directory: Path) -> None:
        """Makes `directory` hold exactly the commit's files, at once and whole.

        Without effect if it holds them already, whatever else it holds. Raises
        RepositoryError CHANGED if it exists and some of them differ.
        """
        ...

    async def verify_export(self, commit: str, directory: Path) -> Sequence[str]:
        """The commit's paths that are missing or differ in `directory`, read afresh."""
        ...

    async def pin(self, commit: str) -> None:
        """Keeps the commit of a release, whatever becomes of branches."""
        ...

    async def unpin(self, commit: str) -> None:
        """Lets go of the commit of a release; without effect if it is not kept."""
        ...

    async def pinned(self) -> frozenset[str]:
        """The commits that are kept."""
        ...

    async def discard(self, cycle_id: str) -> None:
        """Removes everything of the cycle that is here: directories, ids that are kept."""
        ...

    async def discard_others(self, keep: Collection[str]) -> Sequence[str]:
        """Discards all cycles but these, and returns their ids: what killed servers left."""
        ...

    async def tidy(self) -> None:
        """Packs what is kept and drops what nothing has kept for two weeks. Takes a while."""
        ...


class Repositories(Protocol):
    """Finds the repository of a project."""

    async def checkout(self, project: Project) -> Checkout:
        """What the project's checkout is. Raises AttError PROJECT_NOT_REPOSITORY_ROOT,
        PROJECT_HAS_NO_REMOTE, PROJECT_PATH_NOT_ALLOWED, RepositoryError."""
        ...

    async def of(self, project: Project) -> Repository:
        """The project's repository. Raises as `checkout`; cheap after the first time."""
        ...

    async def forget_project(self, project_id: str) -> None:
        """Removes all that is kept of a deleted project; its checkout and remote stay."""
        ...
