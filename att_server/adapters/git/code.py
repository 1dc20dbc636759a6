"""CodeReader on git's object store: nothing is checked out, and nothing of the code is run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from att_server.adapters.git.code_search import MAX_FILE_BYTES, Searcher
from att_server.adapters.git.failures import told
from att_server.adapters.git.lines import Lines
from att_server.adapters.git.remotes import Remote
from att_server.adapters.git.store import Store, checked_sha
from att_server.core.code_reader import CodeFile, Difference, FilePart, Match, Matches
from att_server.core.repository import RepositoryError, RepositoryFailure

_FILE, _PROGRAM, _LINK, _TREE = b"100644", b"100755", b"120000", b"040000"
_FILES = {_FILE, _PROGRAM, _LINK}
_BATCH_BYTES = 8 * 1024 * 1024
_BATCH_FILES = 2_000
# Above this git takes a file for binary and does not read it to compare it.
_DIFF_CONFIG = (("core.bigFileThreshold", "8m"),)
_DIFF_MEMORY = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class _Entry:
    mode: bytes
    sha: str
    path: bytes
    size: int = 0

    def file(self, size: int) -> CodeFile:
        return CodeFile(
            path=_text(self.path),
            size_bytes=size,
            executable=self.mode == _PROGRAM,
            symlink=self.mode == _LINK,
        )


class GitCodeReader:
    """Implements `CodeReader` on the repository that ATT keeps of a project."""

    def __init__(self, store: Store, remote: Remote) -> None:
        self._store = store
        self._remote = remote

    @told
    async def resolve(self, name: str) -> str | None:
        """See `CodeReader`."""
        for _ in range(2):
            tip = await self._remote.tip(name)
            if tip is None:
                return None
            try:
                return await self._remote.fetch_tip(tip)
            except RepositoryError as error:
                if error.failure is not RepositoryFailure.NOT_FOUND:
                    raise
                # It moved in between, or it is a tag of something else than a commit.
        return None

    @told
    async def commit(self, sha: str) -> str | None:
        """See `CodeReader`."""
        try:
            return (await self._remote.fetch_commit(checked_sha(sha))).sha
        except RepositoryError as error:
            if error.failure is not RepositoryFailure.NOT_FOUND:
                raise
            return None

    @told
    async def files(
        self, tree: str, *, directory: str, after: str, limit: int
    ) -> Sequence[CodeFile] | None:
        """See `CodeReader`."""
        listed = await self._listed(tree, directory)
        if listed is None:
            return None
        page = await asyncio.to_thread(_page, listed, directory, _bytes(after), limit)
        sizes = await self._sizes([entry.sha for entry in page])
        return [entry.file(size) for entry, size in zip(page, sizes, strict=True)]

    @told
    async def read(
        self, tree: str, path: str, *, first_line: int, line_limit: int, max_bytes: int
    ) -> FilePart | None:
        """See `CodeReader`."""
        entry = await self._entry(tree, path)
        if entry is None or entry.mode not in _FILES:
            return None
        (size,) = await self._sizes([entry.sha])
        lines = Lines(first=first_line, limit=line_limit, max_bytes=max_bytes)
        await self._store.run("cat-file", "blob", entry.sha, take=lines.take)
        content, has_more = lines.part()
        return FilePart(file=entry.file(size), content=content, has_more=has_more)

    @told
    async def search(
        self, tree: str, pattern: str, *, directory: str, limit: int, within: timedelta
    ) -> Matches | None:
        """See `CodeReader`."""
        end = time.monotonic() + within.total_seconds()
        listed = await self._listed(tree, directory, "-l")
        if listed is None:
            return None
        searcher = Searcher(pattern, limit=limit, end=end)
        for batch in _batches(listed, directory):
            asked = "".join(f"{entry.sha}\n" for entry in batch).encode()
            answer = await self._store.run("cat-file", "--batch", input=asked)
            # In a thread, which ends by itself at `end` whatever becomes of the call.
            await asyncio.to_thread(
                searcher.look_at, [entry.path for entry in batch], answer.output
            )
            if searcher.ended:
                break
        return Matches(
            matches=tuple(
                Match(path=_text(path), line_number=number, line=line)
                for path, number, line in searcher.found
            ),
            truncated=searcher.ended,
        )

    @told
    async def diff(
        self, base: str, head: str, *, paths: Collection[str], max_bytes: int
    ) -> Difference:
        """See `CodeReader`."""
        trees = [await self._store.tree_of(base), await self._store.tree_of(head)]
        first = Lines(max_bytes=max_bytes)
        await self._store.run(
            *self.diff_arguments(trees, paths),
            config=_DIFF_CONFIG, memory=_DIFF_MEMORY, take=first.take,
        )  # fmt: skip
        diff, truncated = first.part()
        return Difference(diff=diff, truncated=truncated)

    @staticmethod
    def diff_arguments(trees: Sequence[str], paths: Collection[str]) -> list[str]:
        """The command that compares two trees, and runs nothing that settings name."""
        return [
            "diff-tree", "-r", "-p", "--no-ext-diff", "--no-textconv", "--no-renames",
            "--no-color", "--full-index", "--src-prefix=a/", "--dst-prefix=b/", "-O/dev/null",
            "--submodule=short", *trees, "--", *paths,
        ]  # fmt: skip

    async def _listed(self, tree: str, directory: str, *options: str) -> bytes | None:
        """What `ls-tree` says of the files below the directory, whose path is left out."""
        below = checked_sha(tree)
        if directory:
            entry = await self._entry(tree, directory)
            if entry is None or entry.mode != _TREE:
                return None
            below = entry.sha
        listed = await self._store.run("ls-tree", "-r", "-z", "--full-tree", *options, below)
        return listed.output

    async def _entry(self, tree: str, path: str) -> _Entry | None:
        listed = await self._store.run(
            "ls-tree", "-z", "--full-tree", checked_sha(tree), "--", path
        )
        entries = [_parsed(line) for line in listed.output.split(b"\0")[:-1]]
        return next((entry for entry in entries if entry.path == _bytes(path)), None)

    async def _sizes(self, shas: Sequence[str]) -> list[int]:
        if not shas:
            return []
        asked = "".join(f"{sha}\n" for sha in shas).encode()
        told = await self._store.run("cat-file", "--batch-check=%(objectsize)", input=asked)
        return [int(size) for size in told.output.split()]


def _page(listed: bytes, directory: str, after: bytes, limit: int) -> list[_Entry]:
    above = _bytes(f"{directory}/") if directory else b""
    page: list[_Entry] = []
    for line in listed.split(b"\0")[:-1]:
        if len(page) == limit:
            break
        path = above + line.partition(b"\t")[2]
        if path > after and line[:6] in _FILES:
            page.append(_parsed(line, above))
    return page


def _batches(listed: bytes, directory: str) -> Iterator[list[_Entry]]:
    """The files that are searched, as many at once as are held in memory."""
    above = _bytes(f"{directory}/") if directory else b""
    batch: list[_Entry] = []
    size = 0
    for line in listed.split(b"\0")[:-1]:
        if line[:6] not in {_FILE, _PROGRAM}:
            continue
        entry = _parsed(line, above)
        if entry.size > MAX_FILE_BYTES:
            continue
        if batch and (size + entry.size > _BATCH_BYTES or len(batch) == _BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch


def _parsed(line: bytes, above: bytes = b"") -> _Entry:
    """A line of `ls-tree`, with or without sizes."""
    facts, _, path = line.partition(b"\t")
    mode, _, sha, *size = facts.split()
    return _Entry(
        mode=mode,
        sha=sha.decode(),
        path=above + path,
        size=int(size[0]) if size and size[0] != b"-" else 0,
    )


def _bytes(path: str) -> bytes:
    return path.encode(errors="surrogateescape")


def _text(path: bytes) -> str:
    return path.decode(errors="surrogateescape")
