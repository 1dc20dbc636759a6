"""What a cycle needs of version control: the port, what it takes and what it answers.

An id (`sha`) is always a full one: 40 or 64 lower-case hexadecimal digits. A
branch is named without `refs/heads/`. All commits a `Repository` makes are
functions of their arguments: repeated, they have the same id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def is_sha(text: str) -> bool:
    """Whether `text` is a full id of an object."""
    return _SHA.fullmatch(text) is not None


# What is asked for -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """Gives the file at `path` this content, byte for byte; makes it where there is none.

    executable: None keeps what the file is; a new one is not executable.
    """

    path: str
    content: bytes = field(repr=False)
    executable: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteFile:
    """Removes the file or symbolic link at `path`, which is there."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMode:
    """Makes the file at `path`, which is there, executable or not."""

    path: str
    executable: bool


FileEdit = WriteFile | DeleteFile | SetMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A unified diff against the top of the tree, its paths with one leading part (`a/`, `b/`)."""

    diff: bytes = field(repr=False)


Change = Sequence[FileEdit] | Patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a commit says made it. Raises ValueError for what a commit cannot hold."""

    name: str
    email: str

    def __post_init__(self) -> None:
        for text in (self.name, self.email):
            if not text.strip(" .,:;<>\"\\'") or not text.isprintable() or set(text) & set("<>"):
                raise ValueError(f"no name or address of a person: {text!a}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitNote:
    """What a commit says of itself.

    message: the text without trailers of ours; lines of it that look like one
    (`Att-…:`) are quoted. time: aware, kept to the second.
    """

    message: str
    identity: Identity
    time: datetime


class MergeMethod(StrEnum):
    """How a change comes into the base."""

    MERGE = "merge"
    """A commit with two parents, also where the base did not move."""
    SQUASH = "squash"
    """One commit on the base, with the merged tree."""
    FAST_FORWARD = "fast_forward"
    """The change's own commit where the base did not move, else as MERGE."""


# What is answered ------------------------------------------------------------


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit that exists. Of a merge, the first parent is the base before."""

    sha: str
    tree: str
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedPath:
    """A path that two trees differ in. Modes as git writes them, `000000` for none."""

    path: str
    old_mode: str
    new_mode: str
    new_blob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedChange:
    """The tree that a change makes of a base. Nothing changed where `paths` is empty."""

    tree: str
    paths: tuple[ChangedPath, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """The remote branch is at the commit that was asked for."""

    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The remote has no such branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The remote branch is not where it was expected; nothing was done. None: there is none."""

    actual: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The base contains the change.

    commit: the commit of the base that brought it. tree: its tree, which may not
    be the one that was tested. ours: whether this cycle made it, out of the
    expected base; else somebody merged the change, and its first parent is the
    base before.
    """

    commit: str
    tree: str
    ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """What was to be merged or undone conflicts with the base in these paths."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverted:
    """The base no longer contains what `before..after` did, by this commit."""

    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToRevert:
    """The base does not contain the change, or what it did is undone already."""


class RepositoryFailure(StrEnum):
    """Why the repository could not do what it was asked, apart from bad input."""

    REMOTE_UNREACHABLE = "remote_unreachable"
    REMOTE_AUTHENTICATION = "remote_authentication"
    REMOTE_NOT_FOUND = "remote_not_found"
    REMOTE_TIMED_OUT = "remote_timed_out"
    REMOTE_REFUSED = "remote_refused"
    """The remote's own rules (a protected branch, a hook) do not take the push."""
    PROTOCOL_NOT_ALLOWED = "protocol_not_allowed"
    NOT_FOUND = "not_found"
    """No such commit, tree or branch."""
    LOCKED = "locked"
    TIMED_OUT = "timed_out"
    STORAGE_FULL = "storage_full"
    OUTPUT_TOO_LARGE = "output_too_large"
    CHANGED = "changed"
    """What was exported is no longer what it was."""
    DAMAGED = "damaged"
    GIT_MISSING = "git_missing"
    OTHER = "other"

    @property
    def external(self) -> bool:
        """Whether the cause lies outside the change: hold and retry, roll nothing back."""
        return self in {
            RepositoryFailure.REMOTE_UNREACHABLE,
            RepositoryFailure.REMOTE_AUTHENTICATION,
            RepositoryFailure.REMOTE_NOT_FOUND,
            RepositoryFailure.REMOTE_TIMED_OUT,
            RepositoryFailure.LOCKED,
            RepositoryFailure.STORAGE_FULL,
        }


class RepositoryError(Exception):
    """An operation failed; repeating it is safe. The message holds no password."""

    def __init__(self, failure: RepositoryFailure, message: str) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message


# The port --------------------------------------------------------------------


class Repository(Protocol):
    """The versions of one project, kept apart from its checkout, with one remote.

    Every method may be repeated at any time, after a kill in the middle too:
    it looks first, or does what changes nothing when done twice. All raise
    RepositoryError; ValueError for ids and names that were not checked before.
    Cancelling ends what runs; repeat the call to know what became of it.
    """

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
