"""The tree that a change makes of a base, made in the object store: no file is written through."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from att_server.adapters.git.commits import changed_paths
from att_server.adapters.git.store import Store
from att_server.adapters.git.symlinks import escaping_links
from att_server.core.edit_paths import (
    check_edits,
    check_path,
    check_size,
    edit_refused,
    parents,
)
from att_server.core.errors import AttError, Reason
from att_server.core.repository import (
    AppliedChange,
    Change,
    ChangedPath,
    DeleteFile,
    FileEdit,
    Patch,
    RepositoryError,
    SetMode,
    WriteFile,
)

_NONE, _FILE, _PROGRAM, _LINK, _MODULE, _TREE = (
    "000000", "100644", "100755", "120000", "160000", "040000",
)  # fmt: skip
_WHAT = {_LINK: "a symbolic link", _MODULE: "a submodule", _TREE: "a directory"}
_ARGUMENT_BYTES = 64 * 1024  # of paths in one command
_PATCH_MEMORY = 2 * 1024**3
_BINARY = re.compile(rb"^(?:literal|delta) (\d+)\r?$", re.MULTILINE)
_AT_LINE = re.compile(r"(?:patch failed: (?P<path>.+):|(?:at|on) line )(?P<line>\d+)")
_PATH_REFUSED = re.compile(r"invalid path '(?P<bad>.*)'|affected file '(?P<link>.*)' is beyond")


async def apply(store: Store, cycle_id: str, base: str, change: Change) -> AppliedChange:
    """See `Repository.apply`."""
    base_tree = await store.tree_of(base)
    async with store.scratch(cycle_id) as scratch:
        env = {"GIT_INDEX_FILE": str(scratch / "index")}
        if isinstance(change, Patch):
            _check_patch(change)
            await store.run("read-tree", base_tree, env=env)
            await _apply_patch(store, change, env)
        else:
            check_edits(change)
            entries = await _index_entries(store, base_tree, change)
            await store.run("read-tree", base_tree, env=env)
            await store.run("update-index", "-z", "--index-info", env=env, input=entries)
        written = await store.run("write-tree", env=env)
    tree = written.output.decode().strip()
    paths = await changed_paths(store, base_tree, tree)
    await _check_result(store, base_tree, tree, paths)
    await store.keep_for_cycle(cycle_id, "tree", tree)
    return AppliedChange(tree=tree, paths=tuple(paths))


# Edits ------------------------------------------------------------------------


async def _index_entries(store: Store, base_tree: str, edits: Sequence[FileEdit]) -> bytes:
    """What `update-index --index-info` makes of the edits. Raises EDIT_PATH_INVALID."""
    touched = {path for edit in edits for path in (edit.path, *parents(edit.path))}
    there = await _entries(store, base_tree, touched)
    gone = {edit.path for edit in edits if isinstance(edit, DeleteFile)}
    blobs = await _written(store, [edit for edit in edits if isinstance(edit, WriteFile)])
    removed, made = [], []
    for edit in edits:
        mode, blob = there.get(edit.path, (_NONE, ""))
        _check_place(edit, mode, there, gone)
        if isinstance(edit, DeleteFile):
            removed.append(f"0 {'0' * len(base_tree)}\t{edit.path}\0")
            continue
        if edit.executable is not None:
            mode = _PROGRAM if edit.executable else _FILE
        elif mode == _NONE:
            mode = _FILE
        made.append(f"{mode} {blobs.get(edit.path, blob)}\t{edit.path}\0")
    # What makes room comes first: a file may become a directory.
    return "".join(removed + made).encode()


def _check_place(
    edit: FileEdit, mode: str, there: Mapping[str, tuple[str, str]], gone: Collection[str]
) -> None:
    for parent in parents(edit.path):
        above = there.get(parent, (_TREE, ""))[0]
        if above != _TREE and parent not in gone:
            what = _WHAT.get(above, "a file")
            raise edit_refused(edit.path, f"lies below {parent!a}, which is {what}")
    if isinstance(edit, WriteFile):
        allowed = {_NONE, _FILE, _PROGRAM}
    elif isinstance(edit, SetMode):
        allowed = {_FILE, _PROGRAM}
    else:
        allowed = {_FILE, _PROGRAM, _LINK}
    if mode not in allowed:
        raise edit_refused(edit.path, f"is {_WHAT.get(mode, 'not there')} in the base")


async def _entries(
    store: Store, tree: str, paths: Collection[str]
) -> Mapping[str, tuple[str, str]]:
    """Mode and id of those paths that the tree has."""
    found = {}
    for some in _portions(sorted(paths)):
        listed = await store.run("ls-tree", "-z", "--full-tree", tree, "--", *some)
        for entry in listed.output.decode(errors="surrogateescape").split("\0")[:-1]:
            facts, _, path = entry.partition("\t")
            mode, _, sha = facts.split(" ")
            found[path] = mode, sha
    return found


def _portions(paths: Iterable[str]) -> Iterable[list[str]]:
    some: list[str] = []
    size = 0
    for path in paths:
        size += len(path.encode()) + 16
        if some and size > _ARGUMENT_BYTES:
            yield some
            some, size = [], len(path.encode()) + 16
        some.append(path)
    if some:
        yield some


async def _written(store: Store, edits: Sequence[WriteFile]) -> Mapping[str, str]:
    """The ids of the contents, by path; the contents are in the object store."""
    if not edits:
        return {}
    parts = []
    for mark, edit in enumerate(edits, 1):
        parts += [b"blob\nmark :%d\ndata %d\n" % (mark, len(edit.content)), edit.content]
        parts += [b"\nget-mark :%d\n" % mark]
    told = await store.run("fast-import", "--quiet", input=b"".join(parts))
    return dict(zip((edit.path for edit in edits), told.output.decode().split(), strict=True))


# Patches ----------------------------------------------------------------------


def _check_patch(patch: Patch) -> None:
    check_size(0, len(patch.diff))
    # Packed contents say how large they become, and git holds them to it.
    check_size(0, sum(int(size[:12]) for size in _BINARY.findall(patch.diff)))


async def _apply_patch(store: Store, patch: Patch, env: Mapping[str, str]) -> None:
    if not patch.diff.strip():
        raise _does_not_apply("it is empty", {})
    try:
        await store.run(
            "apply", "--cached", "--binary", "--whitespace=nowarn", "-p1", "-",
            env=env, input=patch.diff, memory=_PATCH_MEMORY,
        )  # fmt: skip
    except RepositoryError as error:
        if error.failure.external:
            raise
        said = error.message.partition(": ")[2]
        if refused := _PATH_REFUSED.search(said):
            bad = refused["bad"] or refused["link"] or ""
            why = "is one that git does not take" if refused["bad"] else "lies beyond a link"
            raise edit_refused(bad, why) from error
        place = _AT_LINE.search(said)
        where = {key: text for key, text in (place.groupdict() if place else {}).items() if text}
        raise _does_not_apply(said, where) from error


def _does_not_apply(why: str, where: Mapping[str, str]) -> AttError:
    return AttError(
        Reason.PATCH_DOES_NOT_APPLY,
        f"The patch does not apply to the base commit: {why}. Make it anew against that commit.",
        path=where.get("path", ""),
        line=where.get("line", ""),
    )


# What became of it ------------------------------------------------------------


async def _check_result(
    store: Store, base_tree: str, tree: str, paths: Sequence[ChangedPath]
) -> None:
    """Judges the tree itself, whatever it was made from."""
    for changed in paths:
        if changed.new_mode == _NONE:
            continue
        check_path(changed.path)
        if changed.new_mode == _MODULE:
            raise edit_refused(changed.path, "would be a submodule, which a change cannot bring")
    blobs = [changed.new_blob for changed in paths if changed.new_mode != _NONE]
    check_size(len(paths), await _sizes(store, blobs))
    if any(_LINK in {changed.old_mode, changed.new_mode} for changed in paths):
        new = await escaping_links(store, tree) - await escaping_links(store, base_tree)
        for path, target in sorted(new):
            raise edit_refused(path, f"is a symbolic link to {target!a}, out of the tree")


async def _sizes(store: Store, blobs: Sequence[str]) -> int:
    if not blobs:
        return 0
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    told = await store.run("cat-file", "--batch-check=%(objectsize)", input=asked)
    return sum(int(size) for size in told.output.split())
