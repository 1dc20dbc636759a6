"""Makes a git repository with a bare remote from the example app.

    python -m att_client.example.repository DIR

DIR gets the app on branch `main`, with its settings and tests; DIR.git is its
remote `origin`. Needs GitPython, which the extra `server` installs.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

FILES = ("app.py", "att.toml", "test_app.py", "README.md")
AUTHOR = ("ATT example", "example@att.invalid")


def make_repository(directory: Path) -> Path:
    """Makes the repository and returns the path of its remote.

    directory: is made; raises FileExistsError where it, or the remote beside it,
    exists already.
    """
    # Not at the top: the module is in every install, GitPython is not.
    from git import Actor, Repo

    directory = directory.absolute()
    remote = directory.with_name(directory.name + ".git")
    if remote.exists():
        raise FileExistsError(f"{remote} exists")
    directory.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(Path(__file__).with_name(name), directory / name)
    (directory / ".gitignore").write_text("__pycache__/\n")

    author = Actor(*AUTHOR)
    with Repo.init(remote, bare=True, initial_branch="main"):
        pass
    with Repo.init(directory, initial_branch="main") as repo:
        repo.index.add([*FILES, ".gitignore"])
        repo.index.commit("Add the example app", author=author, committer=author, skip_hooks=True)
        origin = repo.create_remote("origin", str(remote))
        origin.push("main:main", set_upstream=True).raise_if_error()
    return remote


def main(arguments: list[str]) -> int:
    """Makes the repository that `arguments` name; returns the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m att_client.example.repository DIR", file=sys.stderr)
        return 2
    try:
        remote = make_repository(Path(arguments[0]))
    except FileExistsError as error:
        print(f"error: {error}. Name a directory that does not exist.", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name != "git":
            raise
        print('error: GitPython is missing: pip install "att-control[server]"', file=sys.stderr)
        return 1
    print(f"{Path(arguments[0]).absolute()} is a repository, its remote is {remote}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
