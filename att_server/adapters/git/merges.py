"""Bringing a change into the base and undoing it: made here, then one compare-and-swap."""

from __future__ import annotations

from datetime import UTC, datetime

from att_server.adapters.git.commits import contains, find_commit, make_commit
from att_server.adapters.git.remotes import Remote
from att_server.adapters.git.store import Store, checked_sha
from att_server.core.repository import (
    CommitNote,
    Conflict,
    Identity,
    Merged,
    MergeMethod,
    Moved,
    NothingToRevert,
    Pushed,
    RevertCandidate,
    Reverted,
)

# Of commits that say only which tree is the ancestor of which, and are never kept.
_NOTE = CommitNote(
    message="ancestry",
    identity=Identity(name="att", email="att@localhost"),
    time=datetime(2000, 1, 1, tzinfo=UTC),
)


async def merge_candidate(
    store: Store, cycle_id: str, base: str, head: str, method: MergeMethod, note: CommitNote
) -> Merged | Conflict:
    """See `Repository.merge_candidate`."""
    if method is MergeMethod.FAST_FORWARD and await contains(store, head, base):
        return Merged(commit=head, tree=await store.tree_of(head), before=base)
    tree = await _merged_tree(store, base, head)
    if isinstance(tree, Conflict):
        return tree
    parents = (base,) if method is MergeMethod.SQUASH else (base, head)
    commit = await make_commit(store, tree, parents, note, Cycle=cycle_id)
    await store.keep_for_cycle(cycle_id, "merge", commit)
    return Merged(commit=commit, tree=tree, before=base)


async def merge(
    store: Store,
    remote: Remote,
    cycle_id: str,
    branch: str,
    head: str,
    *,
    expected: str,
    method: MergeMethod,
    note: CommitNote,
) -> Merged | Moved | Conflict:
    """See `Repository.merge`."""
    made = await merge_candidate(store, cycle_id, expected, head, method, note)
    now = await remote.fetch(branch)
    if now is None:
        return Moved(actual=None)
    if merged := await _already(store, made, head, expected=expected, now=now):
        return merged
    if now != expected:
        return Moved(actual=now)
    if isinstance(made, Conflict):
        return made
    pushed = await remote.push(branch, made.commit, expected=expected)
    return made if isinstance(pushed, Pushed) else pushed


async def revert(
    store: Store,
    remote: Remote,
    cycle_id: str,
    branch: str,
    *,
    before: str,
    after: str,
    note: CommitNote,
) -> Reverted | NothingToRevert | Moved | Conflict:
    """See `Repository.revert`."""
    made = await revert_candidate(
        store, remote, cycle_id, branch, before=before, after=after, note=note
    )
    if not isinstance(made, RevertCandidate):
        return made
    pushed = await remote.push(branch, made.commit, expected=made.base)
    return Reverted(commit=made.commit) if isinstance(pushed, Pushed) else pushed


async def revert_candidate(
    store: Store,
    remote: Remote,
    cycle_id: str,
    branch: str,
    *,
    before: str,
    after: str,
    note: CommitNote,
) -> RevertCandidate | Reverted | NothingToRevert | Conflict:
    """See `Repository.revert_candidate`."""
    now = await remote.fetch(branch)
    if now is None or not await contains(store, now, after):
        return NothingToRevert()
    if found := await find_commit(store, "Att-Reverts", after, after=after, upto=now):
        return Reverted(commit=found)
    tree = await _undone_tree(store, now, before=before, after=after)
    if isinstance(tree, Conflict):
        return tree
    if tree == await store.tree_of(now):
        return NothingToRevert()
    commit = await make_commit(store, tree, (now,), note, Reverts=after)
    await store.keep_for_cycle(cycle_id, "revert", commit)
    return RevertCandidate(commit=commit, base=now)


async def _already(
    store: Store, made: Merged | Conflict, head: str, *, expected: str, now: str
) -> Merged | None:
    """How the base `now` came to contain the change, None if it does not."""
    if isinstance(made, Merged) and await contains(store, now, made.commit):
        return made
    if not await contains(store, now, head):
        return None
    holding = (
        await store.text("rev-list", "--ancestry-path", now, f"^{checked_sha(head)}")
    ).split()
    steps = (
        await store.text(
            "rev-list", "--first-parent", "--reverse", now, f"^{checked_sha(expected)}"
        )
    ).split()
    first = next((step for step in steps if step in {head, *holding}), now)
    came = await store.read_commit(first)
    return Merged(commit=first, tree=came.tree, before=came.parents[0], ours=False)


async def _undone_tree(store: Store, now: str, *, before: str, after: str) -> str | Conflict:
    # Undoing is merging `before` into `now` as if `after` were where they parted.
    # git 2.38 takes that only as commits, so the three trees get an ancestry.
    ancestor = await make_commit(store, await store.tree_of(after), (), _NOTE)
    ours = await make_commit(store, await store.tree_of(now), (ancestor,), _NOTE)
    theirs = await make_commit(store, await store.tree_of(before), (ancestor,), _NOTE)
    return await _merged_tree(store, ours, theirs)


async def _merged_tree(store: Store, ours: str, theirs: str) -> str | Conflict:
    merged = await store.run(
        "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages",
        checked_sha(ours), checked_sha(theirs), accept=(0, 1),
    )  # fmt: skip
    tree, *paths = merged.output.decode(errors="replace").rstrip("\0").split("\0")
    return checked_sha(tree) if merged.code == 0 else Conflict(paths=tuple(sorted(set(paths))))
