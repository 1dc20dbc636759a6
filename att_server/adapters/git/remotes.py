"""What is done with the remote: look, fetch, and move its branches by compare-and-swap."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from att_server.adapters.git.remote_locks import intended_push
from att_server.adapters.git.store import FETCHED, Store, branch_ref, checked_sha
from att_server.core.repository import (
    Commit,
    Moved,
    Pushed,
    Removed,
    RepositoryError,
    RepositoryFailure,
)

GitConfig = Sequence[tuple[str, str]]
Access = Callable[[str], Awaitable[GitConfig]]
"""What git is told to get into the remote at an address, such as a header with a token."""

_NAME = "att"
_TRIES = 4  # of looking at a branch and fetching what it is at, while it moves


async def no_access(url: str) -> GitConfig:
    """For remotes that need nothing but their address."""
    return ()


class Remote:
    """The remote of a project. Its address is told to git through the environment alone."""

    def __init__(self, store: Store, *, url: str, checkout: Path, access: Access) -> None:
        """url: as `usable_url` gave it. checkout: where commits may be that are not there.

        access: asked before each command for what git is told beside the address.
        """
        self._store = store
        self._checkout = checkout
        self._url = url
        self._access = access

    async def branch(self, branch: str) -> str | None:
        """See `Repository.remote_branch`."""
        name = branch_ref(branch)
        listed = await self._store.run(
            "ls-remote", "--refs", "--end-of-options", _NAME, name,
            config=await self._config(), network=True,
        )  # fmt: skip
        # The pattern also finds names that end with it.
        for line in listed.output.decode(errors="replace").splitlines():
            sha, _, found = line.partition("\t")
            if found == name:
                return checked_sha(sha)
        return None

    async def fetch(self, branch: str) -> str | None:
        """See `Repository.fetch`."""
        kept = f"{FETCHED}/{hashlib.sha256(branch.encode()).hexdigest()[:32]}"
        for last in (*[False] * (_TRIES - 1), True):
            sha = await self.branch(branch)
            if sha is None or await self._store.ref(kept) == sha:
                return sha
            try:
                await self._bring(sha, await self._config(), network=True)
            except RepositoryError as error:
                # It may have moved since, and the remote gives only what branches are at.
                if last or error.failure is not RepositoryFailure.NOT_FOUND:
                    raise
                continue
            await self._store.set_refs({kept: sha})
            return sha
        raise AssertionError("the last try returns or raises")

    async def tip(self, name: str) -> str | None:
        """What the branch of this name is at, else the tag; None if there is neither."""
        branch, tag = branch_ref(name), f"refs/tags/{name}"
        listed = await self._store.run(
            "ls-remote", "--refs", "--end-of-options", _NAME, branch, tag,
            config=await self._config(), network=True,
        )  # fmt: skip
        lines = listed.output.decode(errors="replace").splitlines()
        found = {ref: sha for sha, _, ref in (line.partition("\t") for line in lines)}
        sha = found.get(branch) or found.get(tag)
        return None if sha is None else checked_sha(sha)

    async def fetch_tip(self, sha: str) -> str:
        """The commit of what `tip` named, brought here. Raises NOT_FOUND if there is none."""
        if not await self._store.is_whole(checked_sha(sha)):
            await self._bring(sha, await self._config(), network=True)
        return await self._store.text(
            "rev-parse", "--verify", "--end-of-options", f"{sha}^{{commit}}"
        )

    async def fetch_commit(self, sha: str) -> Commit:
        """See `Repository.fetch_commit`."""
        if not await self._store.is_whole(checked_sha(sha)):
            try:
                await self._bring(sha, await self._config(), network=True)
            except RepositoryError as error:
                if error.failure is not RepositoryFailure.NOT_FOUND:
                    raise
                await self._bring_from_checkout(sha)
        return await self._store.read_commit(sha)

    async def push(self, branch: str, commit: str, *, expected: str | None) -> Pushed | Moved:
        """See `Repository.push`."""
        said = await self._update(branch, checked_sha(commit), expected)
        if said is None:
            return Pushed(commit=commit)
        actual = await self.branch(branch)
        if actual == commit:
            return Pushed(commit=commit)
        if actual != expected:
            return Moved(actual=actual)
        raise refused(branch, said)

    async def delete(self, branch: str, *, expected: str) -> Removed | Moved:
        """See `Repository.delete_branch`."""
        said = await self._update(branch, "", checked_sha(expected))
        if said is None:
            return Removed()
        actual = await self.branch(branch)
        if actual is None:
            return Removed()
        if actual != expected:
            return Moved(actual=actual)
        raise refused(branch, said)

    async def _update(self, branch: str, new: str, expected: str | None) -> str | None:
        """Sets the branch, or removes it where `new` is empty. None, or what was said against it.

        That is text; where the branch is then is a fact, and to be looked at.
        """
        name = branch_ref(branch)
        lease = "" if expected is None else checked_sha(expected)
        await self._store.open()
        async with intended_push(self._store.work, self._url, name) as intent:
            pushed = await self._store.run(
                "push", "--porcelain", "--no-verify", "--no-signed", "--no-follow-tags",
                "--no-recurse-submodules", f"--force-with-lease={name}:{lease}",
                "--end-of-options", _NAME, f"{new}:{name}",
                config=await self._config(), network=True, holding=intent.descriptor, accept=(0, 1),
            )  # fmt: skip
            said = pushed.output.decode(errors="replace") + pushed.error
            if "[remote failure]" not in said:
                intent.answered()
        return None if pushed.code == 0 else said

    async def _config(self) -> GitConfig:
        return ((f"remote.{_NAME}.url", self._url), *await self._access(self._url))

    async def _bring_from_checkout(self, sha: str) -> None:
        asked = await self._store.git.run(
            "rev-parse", "--is-shallow-repository", directory=self._checkout
        )
        if asked.output.strip() != b"false":
            # What it gives has no beginning, and would make ours as it is.
            raise RepositoryError(
                RepositoryFailure.NOT_FOUND,
                f"The remote has no commit {sha}, and the checkout is shallow; push the commit.",
            )
        local = ((f"remote.{_NAME}.url", str(self._checkout)),)
        await self._bring(sha, local, network=False)

    async def _bring(self, sha: str, config: GitConfig, *, network: bool) -> None:
        await self._store.run(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
            "--no-recurse-submodules", "--refmap=", "--end-of-options", _NAME, checked_sha(sha),
            config=config, network=network,
            env={} if network else {"GIT_ALLOW_PROTOCOL": "file"},
        )  # fmt: skip


def refused(branch: str, said: str) -> RepositoryError:
    """Why a push was not taken, by what git printed of it."""
    lines = [line.strip() for line in said.splitlines() if line.startswith(("!", "remote:"))]
    failure = RepositoryFailure.REMOTE_REFUSED
    # A branch `a` keeps `a/b` from being made for good, though that reads as a lock.
    if ("cannot lock ref" in said or "failed to lock" in said) and "cannot create" not in said:
        failure = RepositoryFailure.LOCKED
    # Killed at its work, the remote's half refuses in the words of a rule: after a whole pack
    # nothing is missing.
    elif re.search(r"died of signal|abnormal exit|\(missing necessary objects\)", said):
        failure = RepositoryFailure.INTERRUPTED
    return RepositoryError(
        failure,
        f"The remote did not take {branch}: {' / '.join(lines)[-400:] or 'it did not say why'}.",
    )
