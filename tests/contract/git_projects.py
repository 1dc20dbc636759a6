"""A project with a real checkout and a bare remote, and what a test asks of them."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from att_server.adapters.git import Git, GitRepository, GitSettings
from att_server.core.model import DesiredState, Project, ProjectMode
from att_server.core.repository import Checkout, CommitNote, Identity, Repository
from att_server.core.settings import RuntimeSettings

CYCLE = "01JD0000000000000000000001"
OTHER_CYCLE = "01JD0000000000000000000002"
BASE_FILES: Mapping[str, bytes] = {
    "app.py": b"".join(b"line %d\n" % number for number in range(20)),
    "docs/guide.md": b"guide\n",
    "bin/run": b"#!/bin/sh\n",
}
_ENVIRON = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A Person",
    "GIT_AUTHOR_EMAIL": "person@example.com",
    "GIT_COMMITTER_NAME": "A Person",
    "GIT_COMMITTER_EMAIL": "person@example.com",
}


def git(directory: Path, *arguments: str, input: bytes = b"") -> str:  # noqa: A002 - as subprocess.run calls it
    """What a person's git answers, without the line's end."""
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=directory,
        env=_ENVIRON,
        input=input,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(errors="surrogateescape").strip()


def settings(**changes: object) -> GitSettings:
    """Settings for tests: git as it is found here."""
    return GitSettings(**{"path": os.environ["PATH"], **changes})  # type: ignore[arg-type]  # the settings' own fields


def note(message: str = "Change the app", *, second: int = 0) -> CommitNote:
    return CommitNote(
        message=message,
        identity=Identity(name="ATT", email="att@example.com"),
        time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second),
    )


@dataclass(frozen=True, slots=True)
class Special:
    """A link to a target (mode 120000), or a submodule at a commit (mode 160000)."""

    mode: str
    content: str

    def lines(self, path: str) -> bytes:
        if self.mode == "160000":
            return f"M 160000 {self.content} {path}\n".encode()
        return f"M {self.mode} inline {path}\ndata {len(self.content)}\n{self.content}\n".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class GitProject:
    """A bare remote, a checkout of its branch `main`, and the repository that ATT keeps."""

    remote: Path
    state: Path
    git: Git
    facts: Checkout
    repository: Repository
    base: str

    @property
    def checkout(self) -> Path:
        """The checkout, which is made when it is first asked for."""
        if not self.facts.directory.exists():
            git(self.remote.parent, "clone", "-q", "--no-hardlinks", "remote.git", "checkout")
        return self.facts.directory

    def again(self, **changes: object) -> Repository:
        """The repository as another server process has it."""
        return GitRepository(Git(settings(**changes)), self.state, self.facts)

    def on_remote(self, branch: str = "main") -> str | None:
        """The commit that the remote's branch is at."""
        found = git(self.remote, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        return found or None

    def commit_on_remote(
        self,
        files: Mapping[str, bytes | Special | None],
        *,
        branch: str = "main",
        message: str = "Other",
    ) -> str:
        """Somebody else's commit on the remote's branch; None removes a file."""
        return import_commit(self.remote, files, branch=branch, message=message)

    def file(self, commit: str, path: str) -> str:
        """The content of a file as the remote has it."""
        return git(self.remote, "show", f"{commit}:{path}")

    def left_in_state(self) -> list[str]:
        """What is there of cycles: directories, worktrees git knows, refs."""
        work = [p.name for p in (self.state / "work").iterdir() if not p.name.endswith(".lock")]
        known = self.state / "repository.git" / "worktrees"
        refs = git(self.state / "repository.git", "for-each-ref", "--format=%(refname)")
        kept = [ref for ref in refs.split() if ref.startswith("refs/att/cycles/")]
        worktrees = [p.name for p in known.iterdir()] if known.is_dir() else []
        return [*work, *worktrees, *kept]


def import_commit(
    repository: Path, files: Mapping[str, bytes | Special | None], *, branch: str, message: str
) -> str:
    """A commit on the branch of a repository, made without a checkout."""
    ref = f"refs/heads/{branch}"
    lines = [f"commit {ref}\nmark :1\ncommitter P <p@example.com> 1700000000 +0000\n".encode()]
    lines += [b"data %d\n%s\n" % (len(message.encode()), message.encode())]
    if (repository / ref).exists():
        lines += [f"from {ref}^0\n".encode()]
    for path, content in files.items():
        if content is None:
            lines += [f"D {path}\n".encode()]
        elif isinstance(content, Special):
            lines += [content.lines(path)]
        else:
            mode = 755 if path.startswith("bin/") else 644
            lines += [f"M {mode} inline {path}\n".encode()]
            lines += [b"data %d\n%s\n" % (len(content), content)]
    # The mark's id is what it says last.
    lines += [b"get-mark :1\n"]
    return git(repository, "fast-import", "--quiet", input=b"".join(lines)).splitlines()[-1]


_made: dict[str, tuple[Path, str]] = {}
"""By object format: a directory with `remote.git` and `state`, and the base."""


async def make_project(
    directory: Path, *, object_format: str = "sha1", **changes: object
) -> GitProject:
    """A project below `directory`, whose base its repository has. changes: of the settings."""
    facts = Checkout(
        directory=directory / "checkout",
        remote="origin",
        url=str(directory / "remote.git"),
        object_format=object_format,
        branch="main",
        head=None,
        shallow=False,
        submodules=False,
        dirty=False,
    )
    runner = Git(settings(**changes))
    if object_format not in _made:
        _made[object_format] = await _make(runner, facts)
    made, base = _made[object_format]
    shutil.copytree(made, directory, dirs_exist_ok=True)
    state = directory / "state"
    return GitProject(
        remote=directory / "remote.git",
        state=state,
        git=runner,
        facts=facts,
        repository=GitRepository(runner, state, facts),
        base=base,
    )


async def _make(runner: Git, facts: Checkout) -> tuple[Path, str]:
    directory = Path(tempfile.mkdtemp(prefix="att-git-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    git(
        directory, "init", "-q", "--bare", "--template=", "-b", "main",
        f"--object-format={facts.object_format}", "remote.git",
    )  # fmt: skip
    import_commit(directory / "remote.git", BASE_FILES, branch="main", message="Base")
    facts = replace(facts, url=str(directory / "remote.git"))
    base = await GitRepository(runner, directory / "state", facts).fetch("main")
    assert base is not None
    return directory, base


def project_at(directory: Path, project_id: str = "web") -> Project:
    """A project whose directory this is."""
    made = datetime(2030, 1, 1, tzinfo=UTC)
    return Project(
        project_id=project_id,
        path=directory,
        runtime=RuntimeSettings(),
        mode=ProjectMode.NORMAL,
        log_id="log",
        desired=DesiredState.STOPPED,
        desired_runtime=RuntimeSettings(),
        create_time=made,
        update_time=made,
    )
