"""A project's repository is found anew when its checkout's settings have changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from att_server.adapters.git.projects import GitRepositories
from att_server.core.errors import AttError, Reason
from tests.contract.git_projects import GitProject, git, import_commit, make_project, project_at


@pytest.fixture
async def project(tmp_path: Path) -> GitProject:
    made = await make_project(tmp_path)
    assert made.checkout.is_dir()
    return made


async def test_a_repository_is_found_once_and_works_in_the_state_directory(
    project: GitProject, tmp_path: Path
) -> None:
    repositories = GitRepositories(project.git, tmp_path / "att")
    first = await repositories.of(project_at(project.checkout))
    assert await first.fetch("main") == project.base
    assert (tmp_path / "att" / "projects" / "web" / "repository.git").is_dir()
    assert await repositories.of(project_at(project.checkout)) is first
    # What a person does in it is not about its settings.
    git(project.checkout, "checkout", "-q", "-b", "other")
    assert await repositories.of(project_at(project.checkout)) is first


async def test_another_address_of_the_remote_is_used_from_then_on(
    project: GitProject, tmp_path: Path
) -> None:
    repositories = GitRepositories(project.git, tmp_path / "att")
    await repositories.of(project_at(project.checkout))
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "second.git")
    import_commit(tmp_path / "second.git", {"x": b"x"}, branch="main", message="Second")
    git(project.checkout, "remote", "set-url", "origin", str(tmp_path / "second.git"))
    found = await (await repositories.of(project_at(project.checkout))).fetch("main")
    assert found == git(tmp_path / "second.git", "rev-parse", "main")

    git(project.checkout, "remote", "remove", "origin")
    with pytest.raises(AttError) as refused:
        await repositories.of(project_at(project.checkout))
    assert refused.value.reason is Reason.PROJECT_HAS_NO_REMOTE


async def test_another_directory_of_the_project_is_looked_at(
    project: GitProject, tmp_path: Path
) -> None:
    repositories = GitRepositories(project.git, tmp_path / "att")
    await repositories.of(project_at(project.checkout))
    with pytest.raises(AttError) as refused:
        await repositories.of(project_at(project.checkout / "docs"))
    assert refused.value.reason is Reason.PROJECT_NOT_REPOSITORY_ROOT


async def test_a_worktree_of_another_checkout_is_a_checkout(
    project: GitProject, tmp_path: Path
) -> None:
    git(project.checkout, "worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"))
    repositories = GitRepositories(project.git, tmp_path / "att")
    assert (
        await (await repositories.of(project_at(tmp_path / "linked"))).fetch("main") == project.base
    )
    git(project.checkout, "remote", "remove", "origin")
    with pytest.raises(AttError) as refused:
        await repositories.of(project_at(tmp_path / "linked"))
    assert refused.value.reason is Reason.PROJECT_HAS_NO_REMOTE
