"""One suite for every forge: pull requests, merges and reverts, all of which may be repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from att_server.core.cycles.commit_note import commit_note
from att_server.core.cycles.forge import Forge
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.settings import BootstrapSettings, ForgeKind, GitHubSettings
from att_server.core.repository import (
    CommitNote,
    Conflict,
    Merged,
    MergeMethod,
    Moved,
    NothingToRevert,
    Repository,
    Reverted,
    WriteFile,
)
from tests.contract.change_cycle import ChangeBench, make_bench
from tests.contract.git_projects import git
from tests.github.fake import NAME, TOKEN, FakeGitHub

CHANGE = [WriteFile(path="new", content=b"new\n")]


@dataclass(kw_only=True)
class Open:
    """A cycle whose change is a pull request at a forge."""

    bench: ChangeBench
    cycle: Cycle
    repository: Repository

    async def forge(self) -> Forge:
        return await self.bench.forges.of(self.bench.project, self.cycle)

    async def pull_request(self) -> str:
        forge = await self.forge()
        found = await forge.open_pull_request(title="New", body="More of it")
        facts = replace(self.cycle.facts, pull_request=found.url)
        self.cycle = replace(self.cycle, facts=facts)
        return found.url

    async def merge(self, expected: str | None = None) -> Merged | Moved | Conflict:
        forge = await self.forge()
        return await forge.merge(
            self.cycle.facts.commit, expected=expected or self.bench.git.base, note=self._note
        )

    async def found(self) -> Merged | None:
        forge = await self.forge()
        return await forge.find_merge(
            self.cycle.facts.commit, expected=self.bench.git.base, note=self._note
        )

    async def revert(self, merged: Merged) -> Reverted | NothingToRevert | Moved | Conflict:
        forge = await self.forge()
        return await forge.revert(
            branch="main",
            before=merged.before,
            after=merged.commit,
            note=commit_note(self.cycle, "Undo it"),
        )

    @property
    def _note(self) -> CommitNote:
        return commit_note(self.cycle, "Merge it\n\nAs it was asked for")


@pytest.fixture(params=["local", "github"])
def forge_kind(request: pytest.FixtureRequest) -> ForgeKind:
    return ForgeKind(request.param)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChangeBench]:
    made = await make_bench(tmp_path, environ={"GITHUB_TOKEN": TOKEN})
    yield made
    await made.forges.aclose()
    await made.zygote.aclose()


@pytest.fixture
def settings(bench: ChangeBench, forge_kind: ForgeKind) -> Iterator[BootstrapSettings]:
    if forge_kind is ForgeKind.LOCAL:
        yield BootstrapSettings()
        return
    with FakeGitHub(bench.git.remote) as fake:
        github = GitHubSettings(api_url=fake.url, repository=NAME)
        yield BootstrapSettings(forge=ForgeKind.GITHUB, github=github)
        assert fake.wrong == []


@pytest.fixture
async def opened(bench: ChangeBench, settings: BootstrapSettings) -> Open:
    """The change is committed and pushed; there is no pull request yet."""
    cycle = await bench.start(CHANGE)
    repository = await bench.repositories.of(bench.project)
    await repository.fetch("main")
    applied = await repository.apply(cycle.cycle_id, bench.git.base, CHANGE)
    commit = await repository.commit(
        cycle.cycle_id, applied.tree, bench.git.base, commit_note(cycle, "New")
    )
    await repository.push("att/x", commit, expected=None)
    facts = replace(
        cycle.facts, branch="att/x", base_branch="main", commit=commit, settings=settings
    )
    return Open(bench=bench, cycle=replace(cycle, facts=facts), repository=repository)


async def test_a_cycle_may_use_the_forge(opened: Open) -> None:
    await opened.bench.forges.examine(opened.bench.project, opened.cycle.settings)


async def test_a_pull_request_is_opened_once(opened: Open) -> None:
    url = await opened.pull_request()
    assert url
    assert await opened.pull_request() == url


async def test_one_that_is_not_there_can_be_closed_and_one_that_is_closed_again(
    opened: Open,
) -> None:
    await (await opened.forge()).close(comment="there is none")
    url = await opened.pull_request()
    for _ in range(2):
        await (await opened.forge()).close(comment="not wanted")
    assert await opened.pull_request() == url


@pytest.mark.parametrize("method", [MergeMethod.MERGE, MergeMethod.SQUASH])
async def test_a_change_is_merged_once_and_undone_once(opened: Open, method: MergeMethod) -> None:
    settings = replace(opened.cycle.settings, merge_method=method)
    facts = replace(opened.cycle.facts, settings=settings)
    opened.cycle = replace(opened.cycle, facts=facts)
    project = opened.bench.git
    await opened.pull_request()
    assert await opened.found() is None
    merged = await opened.merge()
    assert isinstance(merged, Merged)
    assert (merged.before, merged.ours) == (project.base, True)
    assert merged.commit == project.on_remote()
    assert await opened.merge() == merged
    assert await opened.found() == merged
    told = git(project.remote, "log", "-1", "--format=%B%n%P", "main")
    assert told.startswith("Merge it\n\nAs it was asked for\n")
    assert f"Att-Cycle: {opened.cycle.cycle_id}" in told
    parents = told.splitlines()[-1].split()
    assert len(parents) == (1 if method is MergeMethod.SQUASH else 2)

    reverted = await opened.revert(merged)
    assert isinstance(reverted, Reverted)
    assert await opened.revert(merged) == reverted
    assert git(project.remote, "diff", "--stat", project.base, "main") == ""
    assert await opened.repository.contains(str(project.on_remote()), reverted.commit)
    branches = git(project.remote, "for-each-ref", "--format=%(refname:short)").split()
    assert sorted(branches) == ["att/x", "main"]


async def test_a_base_that_moved_is_left_alone(opened: Open) -> None:
    await opened.pull_request()
    moved = opened.bench.git.commit_on_remote({"other": b"x"})
    assert await opened.merge() == Moved(actual=moved)
    assert opened.bench.git.on_remote() == moved


async def test_a_conflict_names_its_paths_and_merges_nothing(opened: Open) -> None:
    await opened.pull_request()
    moved = opened.bench.git.commit_on_remote({"new": b"other\n"})
    assert await opened.repository.fetch("main") == moved
    assert await opened.merge(expected=moved) == Conflict(paths=("new",))
    assert opened.bench.git.on_remote() == moved


async def test_a_revert_of_what_the_base_has_changed_since_is_a_conflict(opened: Open) -> None:
    await opened.pull_request()
    merged = await opened.merge()
    assert isinstance(merged, Merged)
    changed = opened.bench.git.commit_on_remote({"new": b"newer\n"})
    assert await opened.revert(merged) == Conflict(paths=("new",))
    assert opened.bench.git.on_remote() == changed


async def test_what_others_have_pushed_since_stays_when_a_merge_is_undone(opened: Open) -> None:
    await opened.pull_request()
    merged = await opened.merge()
    assert isinstance(merged, Merged)
    opened.bench.git.commit_on_remote({"other": b"x"})
    assert isinstance(await opened.revert(merged), Reverted)
    tree = git(opened.bench.git.remote, "ls-tree", "--name-only", "main").split()
    assert "other" in tree
    assert "new" not in tree


async def test_what_somebody_else_brought_to_the_base_is_told_from_our_merge(
    opened: Open,
) -> None:
    await opened.pull_request()
    git(opened.bench.git.remote, "update-ref", "refs/heads/main", opened.cycle.facts.commit)
    found = await opened.found()
    assert found is not None
    assert not found.ours
