"""The repository that ATT was installed from, which can be a project of its own server."""

from __future__ import annotations

import asyncio
import json
import os
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from att_server.adapters.git.checkout import inspect_checkout
from att_server.adapters.git.command import Git, GitSettings
from att_server.adapters.launcher_files import register
from att_server.command_failed import CommandFailed
from att_server.core.cycles.server_launcher import OwnProject
from att_server.core.errors import AttError
from att_server.core.repository import RepositoryError
from att_server.lock import make_private

PROJECT_ID = "att"


def init_self(state_dir: Path, repository: Path | None) -> OwnProject:
    """Registers the repository as the project `att`, whose releases replace the server.

    repository: None: where this installation says that it comes from. The next server
    creates the project. Raises CommandFailed, StartRefused.
    """
    path = _installed_from() if repository is None else repository.absolute()
    for part in (".git", "att_server/launcher", "att.toml"):
        if not (path / part).exists():
            raise CommandFailed(
                "NOT_ATT_REPOSITORY",
                f"{path} is no checkout of ATT: it has no {part}. Name one with --repository DIR.",
            )
    make_private(state_dir)
    own = OwnProject(project_id=PROJECT_ID, path=path, baseline=asyncio.run(_head(path)))
    try:
        register(state_dir, own)
    except OSError as error:
        raise CommandFailed(
            "STATE_DIR_NOT_WRITABLE", f"Cannot write below {state_dir}: {error.strerror}."
        ) from error
    return own


async def _head(path: Path) -> str:
    """The commit that it is at; empty where no cycle could work on it either."""
    git = Git(GitSettings(path=os.environ.get("PATH", os.defpath)))
    try:
        return (await inspect_checkout(git, path, project_id=PROJECT_ID)).head or ""
    except (AttError, RepositoryError):
        return ""


def _installed_from() -> Path:
    origin = metadata.distribution("att-control").read_text("direct_url.json")
    url = urlsplit(json.loads(origin)["url"]) if origin else None
    if url is None or url.scheme != "file":
        raise CommandFailed(
            "SELF_REPOSITORY_UNKNOWN",
            "ATT was not installed from a directory here. Clone its repository, and name the clone "
            "with --repository DIR.",
        )
    return Path(unquote(url.path))
