"""A project's own checkout: what it is, and where its remote is. Only ever looked at."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from att_server.adapters.git.command import Git
from att_server.adapters.git.failures import redacted
from att_server.core.errors import AttError, Reason
from att_server.core.project_roots import ANYWHERE, ProjectRoots
from att_server.core.repository import Checkout, RepositoryError, RepositoryFailure

_DEFAULT_REMOTE = "origin"
# git's own rule for host:path addresses: a colon before the first slash.
_SCP_LIKE = re.compile(r"(?P<host>[^/:]+|[^/]*\[[^\]]+\]):(?P<path>.*)", re.DOTALL)


async def inspect_checkout(
    git: Git,
    directory: Path,
    *,
    project_id: str,
    remote: str | None = None,
    roots: ProjectRoots = ANYWHERE,
) -> Checkout:
    """What a cycle has to know of the checkout in `directory`.

    remote: the one to use; None for `origin`, or the only one. roots: where the checkout
    may lie, and the repository that it may be a worktree of. No filter, hook
    or monitor that the repository's settings name is run. Raises AttError
    PROJECT_NOT_REPOSITORY_ROOT, PROJECT_HAS_NO_REMOTE (also where its address
    cannot be used), RepositoryError.
    """
    await roots.check(directory)
    await _check_top(git, directory, project_id)
    place = await _lines(git, directory, "rev-parse", "--path-format=absolute", "--git-common-dir")
    await roots.check(Path(place[0]))
    name, url = await _remote(git, directory, project_id, remote)
    lines = await _lines(git, directory, "rev-parse", "--is-shallow-repository")
    formats = await _lines(git, directory, "rev-parse", "--show-object-format")
    branch = await _lines(git, directory, "symbolic-ref", "-q", "--short", "HEAD")
    head = await _lines(git, directory, "rev-parse", "-q", "--verify", "HEAD^{commit}")
    return Checkout(
        directory=directory,
        remote=name,
        url=url,
        object_format=formats[0],
        branch=branch[0] if branch else None,
        head=head[0] if head else None,
        shallow=lines == ["true"],
        submodules=await _has_submodules(git, directory),
        dirty=await _is_dirty(git, directory),
    )


def usable_url(url: str, *, directory: Path, protocols: tuple[str, ...]) -> str:
    """The address as a command can use it from anywhere; relative ones are against `directory`.

    Raises ValueError with what is wrong, without the address.
    """
    if not url or not url.isprintable() or url != url.strip():
        raise ValueError("is empty or holds spaces around it or control characters")
    if url.startswith("-"):
        raise ValueError("begins with a hyphen, as an option does")
    if re.match(r"[\w+.-]+::", url):
        raise ValueError("names a remote helper, which is not allowed")
    if "://" in url:
        parts = urlsplit(url)
        if parts.scheme not in protocols:
            raise ValueError(f"uses {parts.scheme}, and allowed are {', '.join(protocols)}")
        if (parts.hostname or "").startswith("-"):
            raise ValueError("has a host that begins with a hyphen")
        return url
    if scp := _SCP_LIKE.fullmatch(url):
        if "ssh" not in protocols:
            raise ValueError(f"uses ssh, and allowed are {', '.join(protocols)}")
        if scp["host"].rpartition("@")[2].startswith("-") or scp["path"].startswith("-"):
            raise ValueError("has a host or path that begins with a hyphen")
        return url
    if "file" not in protocols:
        raise ValueError(f"is a path, and allowed are {', '.join(protocols)}")
    return str(directory / url)


async def _check_top(git: Git, directory: Path, project_id: str) -> None:
    problem = ""
    try:
        top = await _lines(git, directory, "rev-parse", "--show-toplevel")
    except RepositoryError as error:
        if error.failure in {RepositoryFailure.GIT_MISSING, RepositoryFailure.TIMED_OUT}:
            raise
        if "dubious ownership" in error.message:
            problem = "belongs to another user than the server"
        elif "must be run in a work tree" in error.message:
            problem = "is a repository without a checkout"
        else:
            problem = "is in no git repository"
    else:
        if not top or not Path(top[0]).samefile(directory):
            problem = f"lies below the top of its repository, {top[0] if top else 'elsewhere'}"
    if problem:
        raise AttError(
            Reason.PROJECT_NOT_REPOSITORY_ROOT,
            f"The project's directory {directory} {problem}. A cycle needs the top of a "
            "checkout that the server's user owns; make the project there.",
            project_id=project_id,
            path=directory,
        )


async def _remote(
    git: Git, directory: Path, project_id: str, wanted: str | None
) -> tuple[str, str]:
    names = await _lines(git, directory, "remote")
    if wanted is None:
        wanted = names[0] if len(names) == 1 else _DEFAULT_REMOTE
    if wanted not in names:
        there = f"it has {', '.join(sorted(names))}" if names else "it has none"
        raise _no_remote(project_id, f"no remote {wanted!a}; {there}")
    # Where both are set, the address to push to is the one whose branches count.
    told = await git.run(
        "remote", "get-url", "--push", "--end-of-options", wanted, directory=directory
    )
    url = told.output.decode(errors="surrogateescape").removesuffix("\n")
    try:
        usable = usable_url(url, directory=directory, protocols=git.settings.protocols)
    except ValueError as error:
        shown = redacted(ascii(url))
        raise _no_remote(
            project_id, f"a remote {wanted!a} whose address {shown} {error}"
        ) from error
    return wanted, usable


def _no_remote(project_id: str, what: str) -> AttError:
    return AttError(
        Reason.PROJECT_HAS_NO_REMOTE,
        f"The project's repository has {what}. Add one (git remote add origin ADDRESS), "
        "or name one in the settings.",
        project_id=project_id,
    )


async def _has_submodules(git: Git, directory: Path) -> bool:
    entries = await git.run("ls-files", "-s", "-z", directory=directory)
    return any(entry.startswith(b"160000 ") for entry in entries.output.split(b"\0"))


async def _is_dirty(git: Git, directory: Path) -> bool:
    # A filter of the repository's settings would run to compare a file.
    listed = await git.run(
        "config", "-z", "--name-only", "--get-regexp", r"^filter\.", directory=directory,
        accept=(0, 1),
    )  # fmt: skip
    keys = {key for key in listed.output.decode(errors="surrogateescape").split("\0") if key}
    without = [(key, "false" if key.endswith(".required") else "") for key in sorted(keys)]
    status = await git.run(
        "status", "--porcelain", "-z", "--untracked-files=no", "--ignore-submodules=all",
        "--no-renames", directory=directory, config=without,
    )  # fmt: skip
    return bool(status.output)


async def _lines(git: Git, directory: Path, *arguments: str) -> list[str]:
    """The lines of the answer; none where git has nothing to say."""
    result = await git.run(*arguments, directory=directory, accept=(0, 1))
    return result.output.decode(errors="surrogateescape").splitlines()
