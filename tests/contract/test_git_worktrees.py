"""Directories of cycles and releases hold exactly a tree, whatever was there before."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from att_server.core.repository import RepositoryError, RepositoryFailure, WriteFile
from tests.contract.git_projects import (
    BASE_FILES,
    CYCLE,
    OTHER_CYCLE,
    GitProject,
    git,
    make_project,
    note,
)


@pytest.fixture
async def project(tmp_path: Path) -> GitProject:
    return await make_project(tmp_path)


def files(directory: Path) -> dict[str, bytes]:
    found = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path.is_file() and not name.startswith(".git/") and name != ".git":
            found[name] = path.read_bytes()
    return found


# Worktrees --------------------------------------------------------------------


async def test_a_worktree_has_the_files_of_the_tree_on_its_commit(project: GitProject) -> None:
    edits = [WriteFile(path="app.py", content=b"new\n")]
    applied = await project.repository.apply(CYCLE, project.base, edits)
    empty = await project.repository.worktree(CYCLE, project.base)
    assert files(empty) == {}
    top = await project.repository.worktree(CYCLE, project.base, applied.tree)
    assert top == empty
    assert files(top) == {**BASE_FILES, "app.py": b"new\n"}
    assert git(top, "rev-parse", "HEAD") == project.base
    assert git(top, "status", "--porcelain") == "M  app.py"
    assert os.access(top / "bin/run", os.X_OK)


async def test_what_tests_left_behind_is_gone(project: GitProject) -> None:
    base = project.base
    top = await project.repository.worktree(CYCLE, base, await tree_of(project, base))
    (top / "app.py").write_text("spoiled\n")
    (top / "docs" / "guide.md").unlink()
    (top / "docs" / "guide.md").symlink_to("/etc/passwd")
    (top / ".gitignore").write_text("*\n")
    (top / "cache" / "deep").mkdir(parents=True)
    (top / "cache" / "deep" / "file").write_text("x")
    (top / "cache").chmod(0o500)
    git(top, "init", "-q", "nested")
    again = await project.repository.worktree(CYCLE, base, await tree_of(project, base))
    assert files(again) == BASE_FILES
    assert git(again, "status", "--porcelain") == ""


async def tree_of(project: GitProject, commit: str) -> str:
    return (await project.repository.fetch_commit(commit)).tree


@pytest.mark.parametrize("damage", ["file", "link", "empty", "no admin", "locked", "index lock"])
async def test_whatever_stands_in_its_place_a_worktree_is_made(
    project: GitProject, damage: str, tmp_path: Path
) -> None:
    tree = await tree_of(project, project.base)
    top = await project.repository.worktree(CYCLE, project.base, tree)
    admin = project.state / "repository.git" / "worktrees" / CYCLE
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    if damage == "locked":
        (admin / "locked").write_text("initializing")
        (admin / "HEAD").unlink()
    elif damage == "index lock":
        (admin / "index.lock").touch()
    elif damage == "no admin":
        admin.rename(tmp_path / "moved")
    else:
        top.rename(tmp_path / "moved")
        if damage == "file":
            top.write_text("x")
        elif damage == "link":
            top.symlink_to(tmp_path / "elsewhere")
        else:
            top.mkdir()
    assert files(await project.again().worktree(CYCLE, project.base, tree)) == BASE_FILES
    assert not top.is_symlink()
    assert (tmp_path / "elsewhere" / "precious").exists()


async def test_cycles_at_once_each_get_their_worktree(project: GitProject) -> None:
    tree = await tree_of(project, project.base)
    cycles = [f"C{number:02}" for number in range(8)]
    repositories = [project.repository, project.again(), project.again()]

    async def whole(number: int, cycle: str) -> None:
        repository = repositories[number % len(repositories)]
        edits = [WriteFile(path="app.py", content=cycle.encode())]
        applied = await repository.apply(cycle, project.base, edits)
        top = await repository.worktree(cycle, project.base, tree)
        top = await repository.worktree(cycle, project.base, applied.tree)
        assert files(top) == {**BASE_FILES, "app.py": cycle.encode()}
        await repository.commit(cycle, applied.tree, project.base, note())
        if number % 2:
            await repository.discard(cycle)

    await asyncio.gather(*(whole(number, cycle) for number, cycle in enumerate(cycles)))
    listed = git(project.state / "repository.git", "worktree", "list", "--porcelain")
    assert sum(line.startswith("worktree ") for line in listed.splitlines()) == 5
    assert list(await project.repository.discard_others(["C00"])) == cycles[2::2]
    assert {entry.split("/")[-2] for entry in project.left_in_state() if "/" in entry} == {"C00"}


async def test_nothing_of_a_discarded_cycle_is_left(project: GitProject) -> None:
    applied = await project.repository.apply(
        CYCLE, project.base, [WriteFile(path="x", content=b"")]
    )
    await project.repository.worktree(CYCLE, project.base, applied.tree)
    commit = await project.repository.commit(CYCLE, applied.tree, project.base, note())
    await project.repository.clone(CYCLE, commit)
    scratch = project.state / "work" / f".{CYCLE}.left.scratch"
    scratch.mkdir()
    await project.repository.worktree(OTHER_CYCLE, project.base)
    await project.again().discard(CYCLE)
    await project.again().discard(CYCLE)
    assert project.left_in_state() == [OTHER_CYCLE, OTHER_CYCLE]


async def test_no_hook_or_filter_of_the_kept_repository_is_run(
    project: GitProject, tmp_path: Path
) -> None:
    proof = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {proof}\ncat\n")
    program.chmod(0o755)
    base = project.commit_on_remote({".gitattributes": b"* filter=x merge=x diff=x\n"})
    await project.repository.fetch("main")
    kept = project.state / "repository.git"
    (kept / "hooks").mkdir(exist_ok=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-push"):
        (kept / "hooks" / name).symlink_to(program)
    for key in (
        "core.fsmonitor", "filter.x.smudge", "filter.x.clean", "merge.x.driver",
        "remote.att.uploadpack", "remote.att.receivepack", "remote.att.pushurl", "remote.att.url",
        "url.ext.insteadOf",
    ):  # fmt: skip
        git(kept, "config", key, str(program))
    edits = [WriteFile(path="app.py", content=b"new\n")]
    applied = await project.repository.apply(CYCLE, base, edits)
    await project.repository.worktree(CYCLE, base, applied.tree)
    commit = await project.repository.commit(CYCLE, applied.tree, base, note())
    await project.repository.clone(CYCLE, commit)
    await project.repository.push("att/x", commit, expected=None)
    await project.repository.export(commit, tmp_path / "release")
    await project.repository.discard(CYCLE)
    assert not proof.exists()


# Clones -----------------------------------------------------------------------


async def test_a_clone_is_a_clean_repository_that_shares_nothing(project: GitProject) -> None:
    first = await project.repository.clone(CYCLE, project.base)
    assert files(first) == BASE_FILES
    assert git(first, "rev-parse", "HEAD") == project.base
    assert git(first, "remote") == ""
    assert not (first / ".git" / "hooks").exists()
    assert not (first / ".git" / "objects" / "info" / "alternates").exists()
    objects = [path for path in (first / ".git" / "objects").rglob("*") if path.is_file()]
    assert objects
    assert all(path.stat().st_nlink == 1 for path in objects)
    (first / "left").write_text("x")
    assert files(await project.again().clone(CYCLE, project.base)) == BASE_FILES


# Exports ----------------------------------------------------------------------


async def test_an_export_holds_the_files_and_nothing_else(
    project: GitProject, tmp_path: Path
) -> None:
    attributes = b"docs export-ignore\napp.py export-subst\n*.txt eol=crlf\n"
    text = b"$Format:%H$\n"
    commit = project.commit_on_remote(
        {".gitattributes": attributes, "app.py": text, "a.txt": b"a\n"}
    )
    await project.repository.fetch("main")
    release = tmp_path / "release"
    await project.repository.export(commit, release)
    expected = {".gitattributes": attributes, "app.py": text, "a.txt": b"a\n"}
    assert files(release) == {**BASE_FILES, **expected}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release", "remote.git", "state"]


async def test_an_export_that_is_there_is_left_alone(project: GitProject, tmp_path: Path) -> None:
    release = tmp_path / "release"
    await project.repository.export(project.base, release)
    (release / "built").write_text("x")
    before = (release / "app.py").stat().st_mtime_ns
    await project.again().export(project.base, release)
    assert (release / "built").exists()
    assert (release / "app.py").stat().st_mtime_ns == before


async def test_an_export_that_was_changed_is_found_and_not_replaced(
    project: GitProject, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    await project.repository.export(project.base, release)
    stat = (release / "app.py").stat()
    text = (release / "app.py").read_bytes()
    (release / "app.py").write_bytes(text.replace(b"line 3", b"LINE 3"))
    os.utime(release / "app.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (release / "bin" / "run").chmod(0o644)
    (release / "docs" / "guide.md").unlink()
    (release / "docs" / ".gitattributes").write_text("* text eol=crlf filter=x\n")
    differing = ["app.py", "bin/run", "docs/guide.md"]
    assert list(await project.repository.verify_export(project.base, release)) == differing
    with pytest.raises(RepositoryError) as failed:
        await project.repository.export(project.base, release)
    assert failed.value.failure is RepositoryFailure.CHANGED
    assert (release / "app.py").read_bytes() != text


async def test_of_an_export_that_is_gone_everything_is_missing(
    project: GitProject, tmp_path: Path
) -> None:
    missing = await project.repository.verify_export(project.base, tmp_path / "gone")
    assert list(missing) == sorted(BASE_FILES)


async def test_what_a_kill_left_of_an_export_does_not_matter(
    project: GitProject, tmp_path: Path
) -> None:
    draft = project.state / "work" / ".export.left.scratch"
    (draft / "files" / "app.py").mkdir(parents=True)
    (draft / "left").write_text("x")
    await project.repository.export(project.base, tmp_path / "releases" / "one")
    assert files(tmp_path / "releases" / "one") == BASE_FILES
    assert project.left_in_state() == []


# Pins -------------------------------------------------------------------------


async def test_a_pinned_commit_outlives_its_branch(project: GitProject, tmp_path: Path) -> None:
    commit = project.commit_on_remote({"x": b"x"}, branch="short-lived")
    assert await project.repository.fetch("short-lived") == commit
    for _ in range(2):
        await project.repository.pin(commit)
    kept = project.state / "repository.git"
    for ref in git(kept, "for-each-ref", "--format=%(refname)", "refs/att/fetched").split():
        git(kept, "update-ref", "-d", ref)
    git(kept, "gc", "-q", "--prune=now")
    assert await project.again().pinned() == {commit}
    assert (await project.repository.fetch_commit(commit)).sha == commit
    for _ in range(2):
        await project.repository.unpin(commit)
    assert await project.repository.pinned() == frozenset()


async def test_a_ref_whose_writer_was_killed_can_be_set(project: GitProject) -> None:
    refs = project.state / "repository.git" / "refs" / "att" / "releases"
    refs.mkdir()
    (refs / f"{project.base}.lock").touch()
    (project.state / "repository.git" / "packed-refs.lock").touch()
    await project.repository.pin(project.base)
    await project.repository.unpin(project.base)


async def test_what_a_killed_writer_of_refs_left_goes_with_the_next_server(
    project: GitProject,
) -> None:
    kept = project.state / "repository.git"
    await project.repository.pin(project.base)
    other = kept / "refs" / "att" / "releases" / f"{'f' * 40}.lock"
    other.touch()
    await project.again().discard_others(())
    assert not list(kept.rglob("*.lock"))
    assert await project.repository.pinned() == {project.base}


async def test_a_ref_that_cannot_be_set_leaves_no_lock(project: GitProject) -> None:
    kept = project.state / "repository.git"
    # A file where the ref needs a directory, and a lock of a git that died at it.
    in_the_way = kept / "refs" / "att" / "releases"
    in_the_way.touch()
    (kept / "packed-refs.lock").touch()
    with pytest.raises(RepositoryError):
        await project.repository.pin(project.base)
    assert not list(kept.rglob("*.lock"))
    in_the_way.unlink()
    await project.repository.pin(project.base)


async def test_tidying_keeps_what_is_kept(project: GitProject) -> None:
    applied = await project.repository.apply(
        CYCLE, project.base, [WriteFile(path="x", content=b"")]
    )
    top = await project.repository.worktree(CYCLE, project.base, applied.tree)
    await project.repository.tidy()
    await project.repository.tidy()
    assert git(top, "status", "--porcelain") == "A  x"
    assert files(await project.again().worktree(CYCLE, project.base, applied.tree))["x"] == b""


async def test_a_disk_that_cannot_be_written_is_told_in_the_words_of_the_port(
    project: GitProject,
) -> None:
    work = project.state / "work"
    shutil.rmtree(work)
    work.write_text("no directory")
    with pytest.raises(RepositoryError):
        await project.again().worktree(CYCLE, project.base)


# Reading ----------------------------------------------------------------------


async def test_a_file_is_read_as_of_a_commit(project: GitProject) -> None:
    later = project.commit_on_remote({"app.py": b"later\n"})
    await project.repository.fetch("main")
    read = project.repository.read_file
    assert await read(later, "app.py", max_bytes=100) == b"later\n"
    assert await read(project.base, "docs/guide.md", max_bytes=6) == b"guide\n"
    assert await read(project.base, "docs", max_bytes=100) is None
    assert await read(project.base, "att.toml", max_bytes=100) is None
    with pytest.raises(RepositoryError) as failed:
        await read(project.base, "docs/guide.md", max_bytes=5)
    assert failed.value.failure is RepositoryFailure.OUTPUT_TOO_LARGE


async def test_a_repository_of_long_ids_works_the_same(tmp_path: Path) -> None:
    project = await make_project(tmp_path, object_format="sha256")
    assert len(project.base) == 64
    edits = [WriteFile(path="x", content=b"x")]
    applied = await project.repository.apply(CYCLE, project.base, edits)
    commit = await project.repository.commit(CYCLE, applied.tree, project.base, note())
    assert files(await project.repository.clone(CYCLE, commit))["x"] == b"x"
    await project.repository.push("att/x", commit, expected=None)
    assert project.on_remote("att/x") == commit
