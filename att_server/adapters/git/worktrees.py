"""Directories with the files of a tree: worktrees and clones of cycles, exports of releases.

A worktree is made anew for every use, under a lock that its commands hold with
this process. So none is trusted, repaired or shared, whoever was killed when.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from att_server.adapters.git.locks import locked
from att_server.adapters.git.store import CYCLES, SCRATCH, Store, checked_cycle, checked_sha, remove
from att_server.core.edit_paths import edit_refused
from att_server.core.repository import RepositoryError, RepositoryFailure

_WAITS = timedelta(minutes=5)
_CLONE = ".clone"
_EXPORT = "export"  # in the place of a cycle; used by who is alone, so found by others it is left


async def worktree(store: Store, cycle_id: str, commit: str, tree: str | None) -> Path:
    """See `Repository.worktree`."""
    path = store.work / checked_cycle(cycle_id)
    async with _alone(store) as held:
        await _forget(store, path)
        await store.run(
            "worktree", "add", "--quiet", "--detach", "--no-checkout", "--",
            str(path), checked_sha(commit), holding=held,
        )  # fmt: skip
        if tree is not None:
            env = {"GIT_DIR": str(store.path / "worktrees" / path.name)}
            env |= {"GIT_WORK_TREE": str(path)}
            await _write_files(store, checked_sha(tree), path, env, held)
    return path


async def clone(store: Store, cycle_id: str, commit: str) -> Path:
    """See `Repository.clone`.

    The objects are copied: commands that check it may write to all it holds,
    and a hard link to an object of ours would be ours.
    """
    path = store.work / f"{checked_cycle(cycle_id)}{_CLONE}"
    config = (("remote.att.url", str(store.path)),)
    env = {"GIT_ALLOW_PROTOCOL": "file"}
    await store.open()
    async with _alone(store) as held:
        await remove(path)
        await store.git.run(
            "init", "--quiet", "--template=", f"--object-format={store.object_format}",
            "--", str(path), directory=store.work, holding=held,
        )  # fmt: skip
        await store.git.run(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=",
            "--end-of-options", "att", checked_sha(commit),
            directory=path, env=env, config=config, holding=held,
        )  # fmt: skip
        await store.git.run("checkout", "--quiet", "--detach", commit, directory=path, holding=held)
    return path


async def export(store: Store, commit: str, directory: Path) -> None:
    """See `Repository.export`. `directory` is on the file system of the state directory."""
    tree = await store.tree_of(commit)
    async with _alone(store) as held:
        await store.remove_scratch(_EXPORT)
        if directory.is_symlink() or directory.exists():
            if differing := await _differing(store, tree, directory):
                raise RepositoryError(
                    RepositoryFailure.CHANGED,
                    f"{directory} exists and differs from {commit} in {len(differing)} files, "
                    f"the first is {differing[0]!a}.",
                )
            return
        async with store.scratch(_EXPORT) as scratch:
            draft = scratch / "files"
            draft.mkdir(mode=0o755)
            env = {"GIT_WORK_TREE": str(draft), "GIT_INDEX_FILE": str(scratch / "index")}
            await _write_files(store, tree, draft, env, held)
            if differing := await _differing(store, tree, draft):
                raise RepositoryError(
                    RepositoryFailure.CHANGED, f"{differing[0]!a} was changed while exported."
                )
            directory.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(directory)


async def verify_export(store: Store, commit: str, directory: Path) -> Sequence[str]:
    """See `Repository.verify_export`."""
    tree = await store.tree_of(commit)
    async with _alone(store):
        await store.remove_scratch(_EXPORT)
        return await _differing(store, tree, directory)


async def discard(store: Store, cycle_id: str) -> None:
    """See `Repository.discard`."""
    async with _alone(store):
        await _forget(store, store.work / checked_cycle(cycle_id))
        await remove(store.work / f"{cycle_id}{_CLONE}")
        await store.remove_scratch(cycle_id)
        await store.remove_scratch(_EXPORT)
    await store.remove_refs_below(f"{CYCLES}/{cycle_id}")


async def discard_others(store: Store, keep: Collection[str]) -> Sequence[str]:
    """See `Repository.discard_others`."""
    await store.remove_dead_locks()
    found = {ref.removeprefix(f"{CYCLES}/").split("/")[0] for ref in await store.refs_below(CYCLES)}
    for entry in store.work.iterdir():
        if entry.name.endswith(SCRATCH):
            found.add(entry.name[1:].split(".")[0])
        elif not entry.name.startswith("."):
            found.add(entry.name.removesuffix(_CLONE))
    for known in (store.path / "worktrees", store.path / CYCLES):
        if known.is_dir():
            found |= {entry.name for entry in known.iterdir()}
    others = sorted(found - set(keep))
    for cycle_id in others:
        await discard(store, cycle_id)
    return others


@asynccontextmanager
async def _alone(store: Store) -> AsyncIterator[int]:
    await store.open()
    async with locked(store.work / ".worktrees.lock", within=_WAITS) as held:
        yield held


async def _differing(store: Store, tree: str, directory: Path) -> Sequence[str]:
    """The paths of the tree that `directory` lacks or has otherwise. The caller is alone."""
    if directory.is_symlink() or not directory.is_dir():
        listed = await store.run("ls-tree", "-r", "-z", "--name-only", "--full-tree", tree)
    else:
        async with store.scratch(_EXPORT) as scratch:
            env = {"GIT_WORK_TREE": str(directory), "GIT_INDEX_FILE": str(scratch / "index")}
            # A new index knows nothing of the files, so each is read.
            await store.run("read-tree", tree, env=env)
            listed = await store.run("ls-files", "-m", "-z", directory=directory, env=env)
    paths = listed.output.decode(errors="backslashreplace").split("\0")[:-1]
    return sorted(set(paths))


async def _forget(store: Store, path: Path) -> None:
    # The directory first: while git knows of it, a kill leaves something to find.
    await remove(path)
    await remove(store.path / "worktrees" / path.name)


async def _write_files(
    store: Store, tree: str, directory: Path, env: Mapping[str, str], held: int
) -> None:
    await store.run("read-tree", tree, env=env, holding=held)
    try:
        await store.run(
            "checkout-index", "-a", "-f", "-q", "-u", directory=directory, env=env, holding=held
        )
    except RepositoryError as error:
        if "File name too long" not in error.message:
            raise
        raise edit_refused("", f"is too long below {directory}") from error
