"""Whoever is killed when, a repetition ends as if nobody had been, and nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from att_server.core.repository import (
    Merged,
    MergeMethod,
    Pushed,
    RepositoryError,
    RepositoryFailure,
)
from tests.contract.git_cycle_process import STEPS
from tests.contract.git_projects import CYCLE, GitProject, git, make_project, note
from tests.server_process import PATIENCE

MANY = 1000


@pytest.fixture
async def project(tmp_path: Path) -> GitProject:
    return await make_project(tmp_path)


def kill_git() -> int:
    """Kills every process that this one began; returns how many."""
    killed = 0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
            killed += 1
    return killed


async def killed_once(operation: Coroutine[Any, Any, object], when: Callable[[], bool]) -> bool:
    """Runs the operation, kills git as soon as `when` holds, and says whether that failed it."""
    running = asyncio.create_task(operation)
    async with asyncio.timeout(PATIENCE):
        while not running.done() and not when():
            await asyncio.sleep(0.002)
        kill_git()
        try:
            await running
        except RepositoryError:
            return True
    return False


async def test_a_worktree_whose_git_was_killed_is_made_whole(project: GitProject) -> None:
    files = {f"many/{number % 25}/{number}": b"%d\n" % number for number in range(MANY)}
    base = project.commit_on_remote(files)
    tree = (await project.repository.fetch_commit(base)).tree
    top = project.state / "work" / CYCLE
    admin = project.state / "repository.git" / "worktrees" / CYCLE
    moments: list[Callable[[], bool]] = [
        top.exists,
        admin.exists,
        (admin / "index.lock").exists,
        (top / "many" / "3").exists,
        (top / "many" / "20").exists,
    ]
    failed = []
    for moment in moments:
        await project.repository.discard(CYCLE)
        failed.append(
            await killed_once(project.repository.worktree(CYCLE, base, tree), when=moment)
        )
        made = await project.again().worktree(CYCLE, base, tree)
        assert sum(path.is_file() for path in (made / "many").rglob("*")) == MANY
        assert git(made, "status", "--porcelain") == ""
    assert any(failed)
    await project.repository.discard(CYCLE)
    assert project.left_in_state() == []


@pytest.mark.parametrize("hook", ["pre-receive", "post-receive"])
async def test_a_push_whose_git_was_killed_is_repeated_once(
    project: GitProject, hook: str, tmp_path: Path
) -> None:
    """Before the remote took it, and after."""
    began, goes_on = tmp_path / "began", tmp_path / "goes on"
    program = project.remote / "hooks" / hook
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f"#!/bin/sh\necho x >> '{began}'\nwhile ! [ -e '{goes_on}' ]; do sleep 0.01; done\n"
    )
    program.chmod(0o755)
    applied = await project.repository.apply(CYCLE, project.base, [])
    head = await project.repository.commit(CYCLE, applied.tree, project.base, note())

    async def merge() -> Merged:
        outcome = await project.again().merge(
            CYCLE, "main", head, expected=project.base, method=MergeMethod.MERGE, note=note("Merge")
        )
        assert isinstance(outcome, Merged)
        return outcome

    assert await killed_once(merge(), when=lambda: began.exists() and began.read_text() != "")
    taken = project.on_remote() != project.base
    assert taken == (hook == "post-receive")
    goes_on.touch()
    outcome = await merge()
    assert project.on_remote() == outcome.commit
    assert git(project.remote, "log", "--format=%s", "main").split() == [
        "Merge",
        "Change",
        "the",
        "app",
        "Base",
    ]
    assert began.read_text().count("x") == (1 if taken else 2)
    pushed = await project.repository.push("main", outcome.commit, expected=project.base)
    assert pushed == Pushed(commit=outcome.commit)


def run_cycle(project: GitProject, kill_at: str | None) -> bool:
    """A server process that works on the cycle; killed in the step `kill_at`, its git not.

    Whether it was killed before it had ended.
    """
    told = {"state": str(project.state), "remote": str(project.remote), "base": project.base}
    command = [sys.executable, "-m", "tests.contract.git_cycle_process", json.dumps(told)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == kill_at:
                while process.poll() is None and not psutil.Process(process.pid).children():
                    time.sleep(0.002)
                process.kill()
        assert process.wait() in ({0} if kill_at is None else {0, -9})
    return process.returncode != 0


def test_a_server_that_is_killed_at_every_step_does_everything_once(project: GitProject) -> None:
    killed = [run_cycle(project, step) for step in STEPS[:-1]]
    assert sum(killed) > len(killed) / 2
    run_cycle(project, None)
    log = git(project.remote, "log", "--format=%s%x00%P", "main").splitlines()
    assert [line.split("\0")[0] for line in log] == ["Undo", "Merge", "Change", "Base"]
    assert git(project.remote, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert project.left_in_state() == []
    kept = project.state / "repository.git"
    assert not [path for path in kept.rglob("*.lock") if path.name != "config.lock"]
    assert (project.state / "release" / "app.py").read_text() == "new\n"


@pytest.mark.parametrize("lock", ["refs/heads/main.lock", "HEAD.lock"])
async def test_a_lock_that_a_killed_push_left_in_a_local_remote_is_removed(
    project: GitProject, lock: str, tmp_path: Path
) -> None:
    """Where the hook of a prepared transaction runs, the remote's half holds its locks."""
    began = tmp_path / "began"
    hook = project.remote / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n[ $1 = prepared ] || exit 0\ntouch '{began}'\nexec sleep 60\n")
    hook.chmod(0o755)
    applied = await project.repository.apply(CYCLE, project.base, [])
    head = await project.repository.commit(CYCLE, applied.tree, project.base, note())
    pushing = project.repository.push("main", head, expected=project.base)
    assert await killed_once(pushing, when=began.exists)
    hook.unlink()
    (project.remote / lock).touch()
    assert (project.remote / "refs/heads/main.lock").exists()
    pushed = await project.again().push("main", head, expected=project.base)
    assert pushed == Pushed(commit=head)
    assert not list(project.remote.rglob("*.lock"))


async def test_a_lock_that_somebody_else_holds_in_the_remote_is_respected(
    project: GitProject,
) -> None:
    lock = project.remote / "refs/heads/main.lock"
    lock.touch()
    applied = await project.repository.apply(CYCLE, project.base, [])
    head = await project.repository.commit(CYCLE, applied.tree, project.base, note())
    for _ in range(2):
        with pytest.raises(RepositoryError) as failed:
            await project.repository.push("main", head, expected=project.base)
        assert failed.value.failure is RepositoryFailure.LOCKED
        assert lock.exists()


async def test_git_killed_at_any_moment_never_spoils_a_cycle(project: GitProject) -> None:
    chance = random.Random(1)
    repository = project.repository
    applied = await repository.apply(CYCLE, project.base, [])
    for number in range(12):
        seen = 0

        def now(enough: int = chance.randrange(1, 6)) -> bool:
            nonlocal seen
            seen += bool(psutil.Process().children())
            return seen >= enough

        words = note(f"Change {number}")
        commit = await repository.commit(CYCLE, applied.tree, project.base, words)
        branch = f"att/{number}"
        works: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda branch=branch, commit=commit: repository.push(branch, commit, expected=None),  # type: ignore[misc]  # bound now
            lambda: repository.worktree(CYCLE, project.base, applied.tree),
            lambda commit=commit: repository.pin(commit),  # type: ignore[misc]  # bound now
            lambda: repository.fetch("main"),
        ]
        work = chance.choice(works)
        await killed_once(work(), when=now)
        await work()
        if work is works[0]:
            assert project.on_remote(branch) == commit
