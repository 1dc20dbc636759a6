"""Commits that are functions of what they are made from, and what is known of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from att_server.adapters.git.store import Store, checked_sha
from att_server.core.repository import ChangedPath, CommitNote

_OURS = re.compile(r"(?im)^(?=[ \t]*att-[\w-]*[ \t]*:)")
_TRAILER = re.compile(r"[A-Za-z0-9-]+: \S.*")
_TRAILER_NAME = re.compile(r"Att-[A-Za-z]+")


async def make_commit(
    store: Store, tree: str, parents: Sequence[str], note: CommitNote, **trailers: str
) -> str:
    """The commit of `tree`, made or there already. trailers: values by name without `Att-`."""
    who = note.identity
    time = f"@{int(note.time.timestamp())} +0000"
    env: dict[str, str] = {}
    for role in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{role}_NAME": who.name, f"GIT_{role}_EMAIL": who.email}
        env |= {f"GIT_{role}_DATE": time}
    arguments = [part for parent in parents for part in ("-p", checked_sha(parent))]
    made = await store.run(
        "commit-tree", *arguments, "-F", "-", "--end-of-options", checked_sha(tree),
        env=env, input=_message(note.message, trailers),
    )  # fmt: skip
    return checked_sha(made.output.decode().strip())


async def find_commit(
    store: Store, trailer: str, value: str, *, after: str, upto: str
) -> str | None:
    """See `Repository.find_commit`."""
    if not _TRAILER_NAME.fullmatch(trailer):
        raise ValueError(f"not a trailer of ours: {trailer!a}")
    listed = await store.run(
        "log", "-z", "--reverse", "--no-show-signature", "--no-color",
        f"--format=%H %(trailers:key={trailer},valueonly,separator=%x2C)",
        "--end-of-options", checked_sha(upto), f"^{checked_sha(after)}",
    )  # fmt: skip
    for entry in listed.output.decode(errors="replace").split("\0"):
        sha, _, values = entry.partition(" ")
        if value in values.split(","):
            return sha
    return None


async def contains(store: Store, descendant: str, commit: str) -> bool:
    """See `Repository.contains`."""
    answer = await store.run(
        "merge-base", "--is-ancestor", "--end-of-options",
        checked_sha(commit), checked_sha(descendant), accept=(0, 1),
    )  # fmt: skip
    return answer.code == 0


async def changed_paths(store: Store, base: str, changed: str) -> Sequence[ChangedPath]:
    """See `Repository.changed_paths`. Bytes of a path that are not UTF-8 are lone surrogates."""
    trees = [await store.tree_of(base), await store.tree_of(changed)]
    compared = await store.run("diff-tree", "-r", "-z", "--raw", "--no-renames", *trees)
    fields = compared.output.decode(errors="surrogateescape").split("\0")
    found = []
    for facts, path in zip(fields[::2], fields[1::2], strict=False):
        old_mode, new_mode, _, new_blob, _ = facts[1:].split(" ")
        found.append(
            ChangedPath(path=path, old_mode=old_mode, new_mode=new_mode, new_blob=new_blob)
        )
    return found


def _message(message: str, trailers: dict[str, str]) -> bytes:
    if "\0" in message:
        raise ValueError("the message holds a NUL")
    # Only what we write ourselves may read as ours.
    text = _OURS.sub("> ", message.strip()).encode(errors="replace").decode()
    lines = [f"Att-{name}: {value}" for name, value in trailers.items()]
    last = text.rpartition("\n\n")[2].splitlines() if "\n\n" in text else []
    joined = bool(last) and all(_TRAILER.fullmatch(line) for line in last)
    between = "\n" if joined else "\n\n"
    return (
        between.join([text or "Change", *(["\n".join(lines)] if lines else [])]) + "\n"
    ).encode()
