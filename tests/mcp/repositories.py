"""A project that can be released: a git repository of a small app, with a bare remote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import att_client
from tests.contract.git_projects import git

SETTINGS = """
[runtime]
command = ["python3", "-S", "app.py"]

[runtime.readiness]
log = "price"

[bootstrap]
health_timeout = "20s"
restart_watchdog_retries = 2
restart_watchdog_interval = "50ms"
health_check_retries = 1
health_check_interval = "50ms"

[bootstrap.test]
command = ["python3", "-S", "-m", "py_compile", "app.py"]
"""

APP = """\
import time


def price(parts):
    return 100 / parts


while True:
    try:
        print("price", price(0), flush=True)
    except ZeroDivisionError as error:
        print("ERROR no price:", error, flush=True)
    time.sleep(0.1)
"""
"""Stays up, and says in its log what is wrong with it."""


async def released(att: att_client.Client, project_id: str, directory: Path) -> att_client.Cycle:
    """Makes the project and its first release, which runs then."""
    files = {"app.py": APP, "att.toml": SETTINGS, "README.md": "An app.\n"}
    make_repository(directory, files)
    await att.projects.create(project_id, path=directory)
    await att.runtimes.start(project_id)
    cycle = await att.bootstrap.start(
        project_id, edits={"README.md": "A small app.\n"}, message="Say what it is"
    )
    ended = await cycle.wait()
    assert ended.outcome is att_client.CycleOutcome.SUCCEEDED, ended
    return ended


def make_repository(directory: Path, files: Mapping[str, str]) -> None:
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_text(content)
    remote = directory.with_name(directory.name + ".git")
    git(directory.parent, "init", "-q", "--bare", "--initial-branch=main", remote.name)
    git(directory, "init", "-q", "--initial-branch=main")
    git(directory, "add", "--all")
    git(directory, "commit", "-q", "-m", "Add the app")
    git(directory, "remote", "add", "origin", str(remote))
    git(directory, "push", "-q", "-u", "origin", "main")
