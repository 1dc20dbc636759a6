"""Which symbolic links of a tree lead out of it, through whatever other links."""

from __future__ import annotations

from collections.abc import Mapping

from att_server.adapters.git.store import Store

_MOST_STEPS = 40  # links that one path may lead through, as the kernel counts them


async def escaping_links(store: Store, tree: str) -> frozenset[tuple[str, str]]:
    """Path and target of each link of the tree that leads out, is absolute, or never ends."""
    listed = await store.run("ls-tree", "-r", "-z", "--full-tree", tree)
    shas = {}
    for entry in listed.output.decode(errors="surrogateescape").split("\0")[:-1]:
        facts, _, path = entry.partition("\t")
        mode, _, sha = facts.split(" ")
        if mode == "120000":
            shas[path] = sha
    if not shas:
        return frozenset()
    asked = "".join(f"{sha}\n" for sha in shas.values()).encode()
    told = await store.run("cat-file", "--batch", input=asked)
    links = dict(zip(shas, _contents(told.output), strict=True))
    return frozenset((path, links[path]) for path in links if leads_out(path, links))


def leads_out(path: str, links: Mapping[str, str]) -> bool:
    """Whether the link at `path` leads out of a tree with these links, by path.

    What is no link is taken for a directory.
    """
    at: list[str] = []
    ahead = path.split("/")[::-1]
    steps = 0
    while ahead:
        part = ahead.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not at:
                return True
            at.pop()
            continue
        at.append(part)
        target = links.get("/".join(at))
        if target is None:
            continue
        steps += 1
        if target.startswith("/") or steps > _MOST_STEPS:
            return True
        at.pop()
        ahead += target.split("/")[::-1]
    return False


def _contents(batch: bytes) -> list[str]:
    """The contents in an answer of `cat-file --batch`."""
    found = []
    position = 0
    while position < len(batch):
        end = batch.index(b"\n", position)
        size = int(batch[position:end].rsplit(b" ", 1)[1])
        content = batch[end + 1 : end + 1 + size]
        # The system ends a target at its first NUL.
        found.append(content.partition(b"\0")[0].decode(errors="surrogateescape"))
        position = end + 1 + size + 1
    return found
