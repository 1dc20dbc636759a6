"""The repository that ATT keeps of a project: its place, its settings, its refs."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from att_server.adapters.file_tree import remove_tree
from att_server.adapters.git.command import MAX_OUTPUT_BYTES, Git, GitResult
from att_server.adapters.git.locks import locked
from att_server.core.branch_names import branch_violation
from att_server.core.repository import Commit, RepositoryError, RepositoryFailure, is_sha

REPOSITORY = "repository.git"
WORK = "work"
CYCLES = "refs/att/cycles"
FETCHED = "refs/att/fetched"
RELEASES = "refs/att/releases"
SCRATCH = ".scratch"
"""What the names of directories for one operation end with."""

_CYCLE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
_WAITS_FOR_REFS = timedelta(seconds=30)
# The files of a tree are its very bytes, whatever attributes lie among them.
_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding\n"
_CONFIG = """\
[core]
\trepositoryFormatVersion = 1
\tbare = true
\tfileMode = true
\tlogAllRefUpdates = false
[extensions]
\tobjectFormat = {object_format}
[uploadpack]
\tallowAnySHA1InWant = true
"""


class Store:
    """A bare repository `<root>/repository.git`, and `<root>/work` for directories of cycles.

    It is ATT's own: the project's checkout has no part in it, so neither its
    settings nor its locks matter, and nothing done here shows there.
    """

    def __init__(self, git: Git, root: Path, *, object_format: str) -> None:
        """root: the project's directory in the state directory, absolute."""
        if object_format not in {"sha1", "sha256"}:
            raise ValueError(f"no object format: {object_format!a}")
        self.git = git
        self.path = root / REPOSITORY
        self.work = root / WORK
        self.object_format = object_format

    async def run(
        self,
        *arguments: str,
        directory: Path | None = None,
        env: Mapping[str, str] | None = None,
        config: Sequence[tuple[str, str]] = (),
        input: bytes = b"",  # noqa: A002 - as subprocess.run calls it
        network: bool = False,
        max_output: int = MAX_OUTPUT_BYTES,
        memory: int | None = None,
        holding: int | None = None,
        accept: Sequence[int] = (0,),
        take: Callable[[bytes], bool] | None = None,
    ) -> GitResult:
        """As `Git.run`, on this repository, which is made where there is none."""
        await self.open()
        return await self.git.run(
            *arguments,
            directory=directory or self.path,
            env={"GIT_DIR": str(self.path), **(env or {})},
            config=config,
            input=input,
            network=network,
            max_output=max_output,
            memory=memory,
            holding=holding,
            accept=accept,
            take=take,
        )

    async def text(self, *arguments: str, input: bytes = b"") -> str:  # noqa: A002 - as `run`
        """The answer of `run`, without the line's end."""
        return (await self.run(*arguments, input=input)).output.decode().strip()

    async def open(self) -> None:
        """Makes the repository, or gives it back the settings it has to have.

        Tests run in its worktrees, so it may have other ones at any time.
        """
        config = self.path / "config", _CONFIG.format(object_format=self.object_format)
        attributes = self.path / "info" / "attributes", _ATTRIBUTES
        if _holds(*config) and _holds(*attributes):
            return
        for directory in (self.path.parent, self.work):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with locked(self.work / ".open.lock", within=_WAITS_FOR_REFS) as held:
            # Written last, so they say that it was made; making it once more
            # would disturb whoever uses it.
            if not _holds(*attributes):
                await self.git.run(
                    "init", "--quiet", "--bare", "--template=",
                    f"--object-format={self.object_format}", "--", str(self.path),
                    directory=self.work, holding=held,
                )  # fmt: skip
            _keep(*config)
            _keep(*attributes)

    # Objects ------------------------------------------------------------------

    async def read_commit(self, sha: str) -> Commit:
        """The commit, which is here. Raises RepositoryError NOT_FOUND."""
        answer = await self.text(
            "show", "-s", "--no-show-signature", "--format=%T%n%P", "--end-of-options",
            f"{checked_sha(sha)}^{{commit}}",
        )  # fmt: skip
        tree, _, parents = answer.partition("\n")
        return Commit(sha=sha, tree=tree, parents=tuple(parents.split()))

    async def tree_of(self, sha: str) -> str:
        """The tree of a commit, or the tree itself."""
        checked = f"{checked_sha(sha)}^{{tree}}"
        return await self.text("rev-parse", "--verify", "--end-of-options", checked)

    async def is_whole(self, sha: str) -> bool:
        """Whether the commit and all it needs are here: a fetch that was killed leaves parts."""
        found = await self.run(
            "rev-list", "--quiet", "--objects", checked_sha(sha), "--not", "--all",
            accept=(0, 1, 128),
        )  # fmt: skip
        return found.code == 0

    # Refs ---------------------------------------------------------------------

    async def ref(self, name: str) -> str | None:
        """What the ref is at, None if there is none."""
        found = await self.run(
            "rev-parse", "-q", "--verify", "--end-of-options", name, accept=(0, 1)
        )
        return found.output.decode().strip() or None

    async def refs_below(self, prefix: str) -> Mapping[str, str]:
        """The refs under `prefix/`, and what they are at."""
        listed = await self.text("for-each-ref", "--format=%(refname) %(objectname)", prefix)
        return {line.split(" ")[0]: line.split(" ")[1] for line in listed.splitlines()}

    async def set_refs(self, refs: Mapping[str, str | None]) -> None:
        """Sets the refs all at once; None removes one."""
        lines = [
            f"delete {name}\n" if sha is None else f"update {name} {checked_sha(sha)}\n"
            for name, sha in refs.items()
        ]
        if not lines:
            return
        async with self._changing_refs() as held:
            await self.run("update-ref", "--stdin", input="".join(lines).encode(), holding=held)

    async def remove_refs_below(self, prefix: str) -> None:
        """Removes all refs below `prefix`, and what a git that was killed left there."""
        await self.set_refs(dict.fromkeys(await self.refs_below(prefix)))
        async with self._changing_refs():
            # Only directories are left, of a git that was killed after it had removed the refs.
            await remove(self.path / prefix)

    async def remove_dead_locks(self) -> None:
        """Removes the locks of refs that a git left which was killed with its server."""
        async with self._changing_refs():
            pass

    @asynccontextmanager
    async def _changing_refs(self) -> AsyncIterator[int]:
        """The turn to change refs; yields the descriptor to give to commands.

        Whoever holds a lock of git's in here was killed: all that change refs hold
        ours. No such lock is met, and none is left by a git that dies in this turn.
        """
        await self.open()
        async with locked(self.work / ".refs.lock", within=_WAITS_FOR_REFS) as held:
            self._remove_locks()
            try:
                yield held
            except BaseException:
                self._remove_locks()
                raise

    def _remove_locks(self) -> None:
        for lock in (self.path / "packed-refs.lock", *(self.path / "refs").rglob("*.lock")):
            lock.unlink(missing_ok=True)

    async def keep_for_cycle(self, cycle_id: str, what: str, sha: str) -> None:
        """Keeps an object until the cycle is discarded. what: a word, such as `tree`."""
        name = f"{CYCLES}/{checked_cycle(cycle_id)}/{what}"
        if await self.ref(name) != sha:
            await self.set_refs({name: sha})

    # Files --------------------------------------------------------------------

    @asynccontextmanager
    async def scratch(self, whose: str) -> AsyncIterator[Path]:
        """An empty directory for one operation. What a kill leaves is found by `whose`."""
        self.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        prefix = f".{checked_cycle(whose)}."
        path = Path(tempfile.mkdtemp(prefix=prefix, suffix=SCRATCH, dir=self.work))
        try:
            yield path
        finally:
            await remove(path)

    async def remove_scratch(self, whose: str) -> None:
        """Removes what was left of `scratch`; nobody uses any of `whose` now."""
        for entry in list(self.work.iterdir()):
            if entry.name.startswith(f".{whose}.") and entry.name.endswith(SCRATCH):
                await remove(entry)


def checked_sha(sha: str) -> str:
    """`sha` if it is a full id; raises ValueError otherwise."""
    if not is_sha(sha):
        raise ValueError(f"not the full id of an object: {sha!a}")
    return sha


def checked_cycle(cycle_id: str) -> str:
    """`cycle_id` if it can be part of a path and a ref; raises ValueError otherwise."""
    if not _CYCLE_ID.fullmatch(cycle_id):
        raise ValueError(f"not the id of a cycle: {cycle_id!a}")
    return cycle_id


def branch_ref(branch: str) -> str:
    """The full name of the ref; raises ValueError for a name that may not be used."""
    if violation := branch_violation(branch):
        raise ValueError(f"the branch name {branch!a} {violation}")
    return f"refs/heads/{branch}"


async def remove(path: Path) -> None:
    """Removes whatever is at `path`, also where tests took away its permissions."""
    await asyncio.to_thread(_remove, path)


def _remove(path: Path) -> None:
    try:
        remove_tree(path)
    except OSError as error:
        raise RepositoryError(
            RepositoryFailure.OTHER, f"{path} cannot be removed: {error.strerror}."
        ) from error


def _holds(path: Path, content: str) -> bool:
    return path.is_file() and path.read_text(errors="replace") == content


def _keep(path: Path, content: str) -> None:
    if not _holds(path, content):
        path.parent.mkdir(exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(content)
        new.replace(path)
