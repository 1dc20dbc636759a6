"""Repository on git: a repository of ATT's own for each project, with one remote."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from att_server.adapters.git import changes, commits, merges, worktrees
from att_server.adapters.git.code import GitCodeReader
from att_server.adapters.git.command import Git
from att_server.adapters.git.failures import told
from att_server.adapters.git.remotes import Access, Remote, no_access
from att_server.adapters.git.store import RELEASES, Store, checked_sha
from att_server.core.repository import (
    AppliedChange,
    Change,
    ChangedPath,
    Checkout,
    Commit,
    CommitNote,
    Conflict,
    Merged,
    MergeMethod,
    Moved,
    NothingToRevert,
    Pushed,
    Removed,
    RepositoryError,
    RepositoryFailure,
    RevertCandidate,
    Reverted,
)


class GitRepository:
    """Implements `Repository`, and holds nothing open. Made as often as wanted.

    The project's checkout is only read, for commits that the remote lacks.
    """

    def __init__(
        self, git: Git, root: Path, checkout: Checkout, *, access: Access = no_access
    ) -> None:
        """root: the project's directory in the state directory; it takes
        `repository.git` and `work` there. checkout: as `inspect_checkout` found it.
        access: to the remote.
        """
        self._store = Store(git, root, object_format=checkout.object_format)
        self._remote = Remote(
            self._store, url=checkout.url, checkout=checkout.directory, access=access
        )
        self._code = GitCodeReader(self._store, self._remote)

    @property
    def code(self) -> GitCodeReader:
        """See `Repository`."""
        return self._code

    @told
    async def fetch(self, branch: str) -> str | None:
        """See `Repository`."""
        return await self._remote.fetch(branch)

    @told
    async def fetch_commit(self, sha: str) -> Commit:
        """See `Repository`."""
        return await self._remote.fetch_commit(sha)

    @told
    async def remote_branch(self, branch: str) -> str | None:
        """See `Repository`."""
        return await self._remote.branch(branch)

    @told
    async def read_file(self, commit: str, path: str, *, max_bytes: int) -> bytes | None:
        """See `Repository`. A symbolic link is no file."""
        listed = await self._store.run(
            "ls-tree", "-z", "--full-tree", checked_sha(commit), "--", path
        )
        facts, _, found = listed.output.decode(errors="replace").rstrip("\0").partition("\t")
        if found != path or not facts.startswith("100"):
            return None
        blob = facts.split(" ")[2]
        size = int(await self._store.text("cat-file", "-s", blob))
        if size > max_bytes:
            raise RepositoryError(
                RepositoryFailure.OUTPUT_TOO_LARGE,
                f"{path!a} has {size:,} bytes; at most {max_bytes:,} are read.",
            )
        return (await self._store.run("cat-file", "blob", blob)).output

    @told
    async def changed_paths(self, base: str, changed: str) -> Sequence[ChangedPath]:
        """See `Repository`."""
        return await commits.changed_paths(self._store, base, changed)

    @told
    async def apply(self, cycle_id: str, base: str, change: Change) -> AppliedChange:
        """See `Repository`."""
        return await changes.apply(self._store, cycle_id, base, change)

    @told
    async def worktree(self, cycle_id: str, commit: str, tree: str | None = None) -> Path:
        """See `Repository`."""
        return await worktrees.worktree(self._store, cycle_id, commit, tree)

    @told
    async def clone(self, cycle_id: str, commit: str) -> Path:
        """See `Repository`."""
        return await worktrees.clone(self._store, cycle_id, commit)

    @told
    async def commit(self, cycle_id: str, tree: str, parent: str, note: CommitNote) -> str:
        """See `Repository`."""
        made = await commits.make_commit(self._store, tree, (parent,), note, Cycle=cycle_id)
        await self._store.keep_for_cycle(cycle_id, "commit", made)
        return made

    @told
    async def find_commit(self, trailer: str, value: str, *, after: str, upto: str) -> str | None:
        """See `Repository`."""
        return await commits.find_commit(self._store, trailer, value, after=after, upto=upto)

    @told
    async def contains(self, descendant: str, commit: str) -> bool:
        """See `Repository`."""
        return await commits.contains(self._store, descendant, commit)

    @told
    async def push(self, branch: str, commit: str, *, expected: str | None) -> Pushed | Moved:
        """See `Repository`."""
        return await self._remote.push(branch, commit, expected=expected)

    @told
    async def delete_branch(self, branch: str, *, expected: str) -> Removed | Moved:
        """See `Repository`."""
        return await self._remote.delete(branch, expected=expected)

    @told
    async def merge_candidate(
        self, cycle_id: str, base: str, head: str, method: MergeMethod, note: CommitNote
    ) -> Merged | Conflict:
        """See `Repository`."""
        return await merges.merge_candidate(self._store, cycle_id, base, head, method, note)

    @told
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
        """See `Repository`."""
        return await merges.merge(
            self._store, self._remote, cycle_id, branch, head,
            expected=expected, method=method, note=note,
        )  # fmt: skip

    @told
    async def revert(
        self, cycle_id: str, branch: str, *, before: str, after: str, note: CommitNote
    ) -> Reverted | NothingToRevert | Moved | Conflict:
        """See `Repository`."""
        return await merges.revert(
            self._store, self._remote, cycle_id, branch, before=before, after=after, note=note
        )

    @told
    async def revert_candidate(
        self, cycle_id: str, branch: str, *, before: str, after: str, note: CommitNote
    ) -> RevertCandidate | Reverted | NothingToRevert | Conflict:
        """See `Repository`."""
        return await merges.revert_candidate(
            self._store, self._remote, cycle_id, branch, before=before, after=after, note=note
        )

    @told
    async def export(self, commit: str, directory: Path) -> None:
        """See `Repository`."""
        await worktrees.export(self._store, commit, directory)

    @told
    async def verify_export(self, commit: str, directory: Path) -> Sequence[str]:
        """See `Repository`."""
        return await worktrees.verify_export(self._store, commit, directory)

    @told
    async def pin(self, commit: str) -> None:
        """See `Repository`."""
        await self._store.set_refs({f"{RELEASES}/{checked_sha(commit)}": commit})

    @told
    async def unpin(self, commit: str) -> None:
        """See `Repository`."""
        await self._store.set_refs({f"{RELEASES}/{checked_sha(commit)}": None})

    @told
    async def pinned(self) -> frozenset[str]:
        """See `Repository`."""
        return frozenset((await self._store.refs_below(RELEASES)).values())

    @told
    async def discard(self, cycle_id: str) -> None:
        """See `Repository`."""
        await worktrees.discard(self._store, cycle_id)

    @told
    async def discard_others(self, keep: Collection[str]) -> Sequence[str]:
        """See `Repository`."""
        return await worktrees.discard_others(self._store, keep)

    @told
    async def tidy(self) -> None:
        """See `Repository`."""
        # Refs and worktrees have locks of ours, which it does not know.
        settings = (("gc.packRefs", "false"), ("gc.worktreePruneExpire", "never"))
        await self._store.run("gc", "--quiet", "--prune=14.days.ago", config=settings)
