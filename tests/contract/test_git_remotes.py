"""The remote's branches move by compare-and-swap, and a repeated call moves nothing twice."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.git import Git, GitRepository
from att_server.adapters.git.remotes import refused
from att_server.core.repository import (
    CommitNote,
    Conflict,
    Identity,
    Merged,
    MergeMethod,
    Moved,
    NothingToRevert,
    Pushed,
    Removed,
    Repository,
    RepositoryError,
    RepositoryFailure,
    Reverted,
    WriteFile,
)
from tests.contract.git_projects import (
    BASE_FILES,
    CYCLE,
    OTHER_CYCLE,
    GitProject,
    git,
    make_project,
    note,
    settings,
)


@pytest.fixture
async def project(tmp_path: Path) -> GitProject:
    return await make_project(tmp_path)


async def change(
    project: GitProject, *, path: str = "app.py", content: bytes = b"new\n", cycle: str = CYCLE
) -> str:
    """The commit of a cycle's change of the base."""
    applied = await project.repository.apply(
        cycle, project.base, [WriteFile(path=path, content=content)]
    )
    return await project.repository.commit(cycle, applied.tree, project.base, note())


def edited(line: int) -> bytes:
    return BASE_FILES["app.py"].replace(b"line %d\n" % line, b"LINE %d\n" % line)


def log_of(project: GitProject, branch: str = "main") -> list[str]:
    return git(project.remote, "log", "--format=%s", branch).splitlines()


# Fetching ---------------------------------------------------------------------


async def test_a_fetch_follows_the_branch_and_a_missing_one_is_none(project: GitProject) -> None:
    later = project.commit_on_remote({"x": b"x"})
    assert await project.repository.remote_branch("main") == later
    assert await project.repository.fetch("main") == later
    assert await project.repository.contains(later, project.base)
    assert not await project.repository.contains(project.base, later)
    assert await project.repository.fetch("none") is None
    assert await project.repository.fetch("ain") is None
    rewritten = project.commit_on_remote({"y": b"y"}, branch="other")
    git(project.remote, "update-ref", "refs/heads/main", rewritten)
    assert await project.again().fetch("main") == rewritten


async def test_an_empty_remote_has_no_branch(project: GitProject) -> None:
    git(project.remote, "update-ref", "-d", "refs/heads/main")
    assert await project.repository.fetch("main") is None
    assert await project.repository.remote_branch("main") is None


async def test_many_fetches_at_once_all_bring_the_branch(project: GitProject) -> None:
    later = project.commit_on_remote({"x": b"x"})
    repositories = [project.repository, project.again(), project.again()]
    brought = await asyncio.gather(*(each.fetch("main") for each in repositories * 2))
    assert set(brought) == {later}


async def test_a_branch_below_the_name_of_a_removed_one_can_be_fetched(
    project: GitProject,
) -> None:
    project.commit_on_remote({"x": b"x"}, branch="a")
    await project.repository.fetch("a")
    git(project.remote, "update-ref", "-d", "refs/heads/a")
    commit = project.commit_on_remote({"x": b"x"}, branch="a/b")
    assert await project.repository.fetch("a/b") == commit


async def test_a_commit_is_brought_from_the_remote_or_else_the_checkout(
    project: GitProject,
) -> None:
    remote = project.commit_on_remote({"x": b"x"}, branch="other")
    assert (await project.repository.fetch_commit(remote)).sha == remote
    (project.checkout / "new").write_text("new\n")
    git(project.checkout, "add", "new")
    git(project.checkout, "commit", "-q", "-m", "Not pushed")
    local = git(project.checkout, "rev-parse", "HEAD")
    found = await project.repository.fetch_commit(local)
    assert found.parents == (project.base,)
    with pytest.raises(RepositoryError) as failed:
        await project.repository.fetch_commit("1" * 40)
    assert failed.value.failure is RepositoryFailure.NOT_FOUND


async def test_a_shallow_checkout_costs_nothing(project: GitProject, tmp_path: Path) -> None:
    later = project.commit_on_remote({"x": b"x"})
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{project.remote}", "checkout")
    (project.checkout / "new").write_text("new\n")
    git(project.checkout, "add", "new")
    git(project.checkout, "commit", "-q", "-m", "Not pushed")
    local = git(project.checkout, "rev-parse", "HEAD")
    with pytest.raises(RepositoryError) as failed:
        await project.again().fetch_commit(local)
    assert failed.value.failure is RepositoryFailure.NOT_FOUND
    assert await project.repository.fetch("main") == later
    assert await project.repository.contains(later, project.base)
    git(project.checkout, "push", "-q", "origin", "HEAD:main")
    assert (await project.repository.fetch_commit(local)).parents == (later,)
    assert await project.repository.contains(local, project.base)


@pytest.mark.parametrize("branch", ["-x", "--upload-pack=touch x", "a b", "a\x07", "..", ""])
async def test_a_name_that_is_none_reaches_no_command(project: GitProject, branch: str) -> None:
    commit = project.base
    for call in (
        project.repository.fetch(branch),
        project.repository.remote_branch(branch),
        project.repository.push(branch, commit, expected=None),
        project.repository.delete_branch(branch, expected=commit),
    ):
        with pytest.raises(ValueError, match="branch name"):
            await call


# Commits ----------------------------------------------------------------------


async def test_a_commit_is_a_function_of_what_it_is_made_of(project: GitProject) -> None:
    assert await change(project) == await change(project)


async def test_only_the_trailer_of_ours_counts(project: GitProject) -> None:
    message = (
        f"Title\n\nBody\n\nAtt-Cycle: {OTHER_CYCLE}\natt-reverts : x\nSigned-off-by: A <a@b.c>"
    )
    applied = await project.repository.apply(
        CYCLE, project.base, [WriteFile(path="x", content=b"")]
    )
    commit = await project.repository.commit(CYCLE, applied.tree, project.base, note(message))
    find = project.repository.find_commit
    assert await find("Att-Cycle", CYCLE, after=project.base, upto=commit) == commit
    assert await find("Att-Cycle", OTHER_CYCLE, after=project.base, upto=commit) is None
    assert await find("Att-Reverts", "x", after=project.base, upto=commit) is None
    assert await find("Att-Cycle", CYCLE, after=commit, upto=commit) is None


async def test_trailers_of_a_message_stay_trailers(project: GitProject) -> None:
    message = "Title\n\nSigned-off-by: A <a@b.c>"
    applied = await project.repository.apply(CYCLE, project.base, [])
    commit = await project.repository.commit(CYCLE, applied.tree, project.base, note(message))
    shown = git(
        project.state / "repository.git", "show", "-s",
        "--format=%(trailers:only,key_value_separator==)", commit,
    )  # fmt: skip
    assert shown.splitlines() == ["Signed-off-by=A <a@b.c>", f"Att-Cycle={CYCLE}"]


@pytest.mark.parametrize("name", ["", " ", "<>", "a\nb", "x<y"])
def test_an_identity_that_no_commit_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="person"):
        Identity(name=name, email="a@example.com")
    with pytest.raises(ValueError, match="person"):
        Identity(name="A", email=name)


# Pushing ----------------------------------------------------------------------


async def test_a_branch_is_made_moved_and_removed_once(project: GitProject) -> None:
    first, second = await change(project), await change(project, content=b"newer\n")
    push = project.repository.push
    for repository in (project.repository, project.again()):
        assert await repository.push("att/x", first, expected=None) == Pushed(commit=first)
    assert await push("att/x", second, expected=None) == Moved(actual=first)
    assert project.on_remote("att/x") == first
    for _ in range(2):
        assert await push("att/x", second, expected=first) == Pushed(commit=second)
    assert await project.repository.delete_branch("att/x", expected=first) == Moved(actual=second)
    for _ in range(2):
        assert await project.repository.delete_branch("att/x", expected=second) == Removed()
    assert project.on_remote("att/x") is None
    assert await push("att/x", second, expected=first) == Moved(actual=None)


async def test_of_two_that_push_at_once_one_wins(project: GitProject) -> None:
    commits = [await change(project, content=b"%d\n" % number) for number in range(4)]
    pushed = await asyncio.gather(
        *(project.again().push("main", commit, expected=project.base) for commit in commits),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Pushed) for outcome in pushed) == 1
    assert project.on_remote() in commits
    for outcome in pushed:
        if isinstance(outcome, RepositoryError):
            assert outcome.failure is RepositoryFailure.LOCKED
        else:
            assert not isinstance(outcome, BaseException)


async def test_a_push_that_the_remote_forbids_is_no_external_cause(project: GitProject) -> None:
    hook = project.remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'main is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(RepositoryError) as failed:
        await project.repository.push("main", await change(project), expected=project.base)
    assert failed.value.failure is RepositoryFailure.REMOTE_REFUSED
    assert not failed.value.failure.external
    assert "main is protected" in failed.value.message
    assert project.on_remote() == project.base


async def test_a_remote_that_is_gone_is_an_external_cause(project: GitProject) -> None:
    commit = await change(project)
    project.remote.rename(project.remote.with_name("moved"))
    for call in (
        project.repository.fetch("main"),
        project.repository.push("x", commit, expected=None),
    ):
        with pytest.raises(RepositoryError) as failed:
            await call
        assert failed.value.failure is RepositoryFailure.REMOTE_NOT_FOUND
        assert failed.value.failure.external


async def test_a_remote_that_hangs_costs_a_deadline_and_no_more(project: GitProject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/r.git"
        away = GitRepository(
            Git(settings(protocols=("http",), network=timedelta(seconds=0.4))),
            project.state,
            replace(project.facts, url=url),
        )
        commit = await change(project)
        for call in (away.fetch("main"), away.push("x", commit, expected=None)):
            with pytest.raises(RepositoryError) as failed:
                await call
            assert failed.value.failure is RepositoryFailure.REMOTE_TIMED_OUT


# Merging ----------------------------------------------------------------------


async def merged(
    repository: Repository, project: GitProject, head: str, method: MergeMethod
) -> Merged | Moved | Conflict:
    return await repository.merge(
        CYCLE, "main", head, expected=project.base, method=method, note=note("Merge")
    )


@pytest.mark.parametrize("method", list(MergeMethod))
async def test_a_change_is_merged_once_however_often_it_is_asked_for(
    project: GitProject, method: MergeMethod
) -> None:
    head = await change(project)
    candidate = await project.repository.merge_candidate(
        CYCLE, project.base, head, method, note("Merge")
    )
    assert project.on_remote() == project.base
    outcome = await merged(project.repository, project, head, method)
    assert isinstance(outcome, Merged)
    assert outcome == candidate
    assert project.on_remote() == outcome.commit
    parents = git(project.remote, "show", "-s", "--format=%P", "main").split()
    assert parents == ([project.base, head] if method is MergeMethod.MERGE else [project.base])
    assert project.file("main", "app.py") == "new"
    # Others go on; the change is still what it was.
    project.commit_on_remote({"x": b"x"})
    assert await merged(project.again(), project, head, method) == outcome
    assert len(log_of(project)) == {MergeMethod.MERGE: 4}.get(method, 3)


async def test_a_base_that_moved_is_reported_and_not_touched(project: GitProject) -> None:
    head = await change(project, content=edited(1))
    moved = project.commit_on_remote({"app.py": edited(18)})
    outcome = await merged(project.repository, project, head, MergeMethod.MERGE)
    assert outcome == Moved(actual=moved)
    assert project.on_remote() == moved
    again = await project.repository.merge(
        CYCLE, "main", head, expected=moved, method=MergeMethod.FAST_FORWARD, note=note("Merge")
    )
    assert isinstance(again, Merged)
    both = edited(1).replace(b"line 18\n", b"LINE 18\n").decode().strip()
    assert project.file("main", "app.py") == both
    assert again.tree == git(project.remote, "rev-parse", "main^{tree}")


async def test_a_conflict_names_its_paths(project: GitProject) -> None:
    head = await change(project, content=b"mine\n")
    moved = project.commit_on_remote({"app.py": b"theirs\n", "docs/guide.md": b"x\n"})
    await project.repository.fetch("main")
    outcome = await project.repository.merge(
        CYCLE, "main", head, expected=moved, method=MergeMethod.MERGE, note=note()
    )
    assert outcome == Conflict(paths=("app.py",))
    assert project.on_remote() == moved


async def test_a_change_that_somebody_else_merged_is_merged(project: GitProject) -> None:
    head = await change(project)
    await project.repository.push("att/x", head, expected=None)
    git(project.checkout, "fetch", "-q")
    git(project.checkout, "merge", "-q", "--no-ff", "-m", "By hand", "origin/att/x")
    git(project.checkout, "push", "-q", "origin", "main")
    by_hand = project.on_remote()
    project.commit_on_remote({"x": b"x"})
    outcome = await merged(project.repository, project, head, MergeMethod.MERGE)
    assert isinstance(outcome, Merged)
    assert (outcome.commit, outcome.ours) == (by_hand, False)


async def test_a_base_that_is_gone_has_moved(project: GitProject) -> None:
    head = await change(project)
    git(project.remote, "update-ref", "-d", "refs/heads/main")
    outcome = await merged(project.repository, project, head, MergeMethod.SQUASH)
    assert outcome == Moved(actual=None)
    assert project.on_remote() is None


# Reverting --------------------------------------------------------------------


async def reverted(
    repository: Repository, project: GitProject, after: str, words: CommitNote
) -> Reverted | NothingToRevert | Moved | Conflict:
    return await repository.revert(CYCLE, "main", before=project.base, after=after, note=words)


@pytest.mark.parametrize("method", list(MergeMethod))
async def test_a_merge_is_undone_once_and_what_came_later_stays(
    project: GitProject, method: MergeMethod
) -> None:
    merge = await merged(project.repository, project, await change(project), method)
    assert isinstance(merge, Merged)
    project.commit_on_remote({"later": b"later"})
    first = await reverted(project.repository, project, merge.commit, note("Undo"))
    assert isinstance(first, Reverted)
    assert project.on_remote() == first.commit
    assert project.file("main", "app.py").encode() + b"\n" == BASE_FILES["app.py"]
    assert project.file("main", "later") == "later"
    project.commit_on_remote({"even later": b"x"})
    # Another server asks at another time, and makes no second one.
    again = await reverted(project.again(), project, merge.commit, note("Undo", second=9))
    assert again == first
    assert log_of(project).count("Undo") == 1


async def test_what_was_built_on_cannot_be_undone_and_nothing_is_done(project: GitProject) -> None:
    merge = await merged(project.repository, project, await change(project), MergeMethod.MERGE)
    assert isinstance(merge, Merged)
    later = project.commit_on_remote({"app.py": b"built on it\n"})
    outcome = await reverted(project.repository, project, merge.commit, note("Undo"))
    assert outcome == Conflict(paths=("app.py",))
    assert project.on_remote() == later


async def test_there_is_nothing_to_undo_where_the_change_is_not(project: GitProject) -> None:
    head = await change(project)
    outcome = await reverted(project.repository, project, head, note("Undo"))
    assert outcome == NothingToRevert()
    merge = await merged(project.repository, project, head, MergeMethod.MERGE)
    assert isinstance(merge, Merged)
    by_hand = project.commit_on_remote({"app.py": BASE_FILES["app.py"]}, message="By hand")
    outcome = await reverted(project.repository, project, merge.commit, note("Undo"))
    assert outcome == NothingToRevert()
    assert project.on_remote() == by_hand


async def test_the_checkout_of_the_project_is_as_it_was(project: GitProject) -> None:
    (project.checkout / "app.py").write_text("being worked on\n")
    git(project.checkout, "checkout", "-q", "--detach")
    (project.checkout / "staged").write_text("x")
    git(project.checkout, "add", "staged")

    def state() -> list[str]:
        listed = sorted(
            f"{path}:{path.stat().st_mtime_ns}"
            for path in project.checkout.rglob("*")
            if path.is_file()
        )
        status = subprocess.run(
            ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch"],
            cwd=project.checkout, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        return [*listed, status]

    before = state()
    head = await change(project)
    await project.repository.worktree(CYCLE, project.base, None)
    await project.repository.push("att/x", head, expected=None)
    merge = await merged(project.repository, project, head, MergeMethod.MERGE)
    assert isinstance(merge, Merged)
    await reverted(project.repository, project, merge.commit, note("Undo"))
    await project.repository.discard(CYCLE)
    assert state() == before


# What git 2.39 prints where a process of the remote's half is killed.
@pytest.mark.parametrize(
    "said",
    [
        (
            "error: rev-list died of signal 9\n"
            "!\tHEAD:refs/heads/main\t[remote rejected] (missing necessary objects)\n"
        ),
        "!\tHEAD:refs/heads/main\t[remote rejected] (missing necessary objects)\n",
        (
            "error: unpack-objects died of signal 9\n"
            "error: remote unpack failed: unpack-objects abnormal exit\n"
            "!\tHEAD:refs/heads/main\t[remote rejected] (unpacker error)\n"
        ),
    ],
)
def test_a_remote_that_was_killed_at_a_push_is_no_refusal(said: str) -> None:
    assert refused("main", said).failure is RepositoryFailure.INTERRUPTED
