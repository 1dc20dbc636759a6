"""Merges undone by pull request: blocked, broken off, meddled with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from att_server.core.cycles.commit_note import commit_note
from att_server.core.cycles.forge import ForgeRefused, ForgeUnavailable
from att_server.core.cycles.model import Cycle
from att_server.core.repository import Conflict, Moved, NothingToRevert, Reverted
from tests.contract.git_projects import git
from tests.github.fake import DIES_AFTER, Pull
from tests.github.hub import Hub, make_hub


@dataclass(kw_only=True)
class Merged:
    """A cycle that has merged its change, which is to be undone."""

    hub: Hub
    cycle: Cycle
    base: str

    @property
    def undoing(self) -> Pull:
        """The pull request of the revert."""
        return self.hub.fake.pulls[2]

    async def revert(self) -> Reverted | NothingToRevert | Moved | Conflict:
        bench, facts = self.hub.bench, self.cycle.facts
        forge = await bench.forges.of(bench.project, self.cycle)
        return await forge.revert(
            branch="main",
            before=facts.base_before,
            after=facts.merged_commit,
            note=commit_note(self.cycle, f"Revert {facts.merged_commit}\n\nIt was not healthy."),
        )

    async def refusal(self) -> str:
        with pytest.raises((ForgeRefused, ForgeUnavailable)) as caught:
            await self.revert()
        return caught.value.reason

    def assert_undone_once(self) -> None:
        told = git(
            self.hub.bench.git.remote, "log", "--first-parent", "main",
            "--format=%(trailers:key=Att-Reverts,valueonly,separator=%x2C)",
        )  # fmt: skip
        assert told.split() == [self.cycle.facts.merged_commit]
        changed = git(self.hub.bench.git.remote, "diff", "--name-only", self.base, "main").split()
        assert "docs/guide.md" not in changed
        assert self.hub.bench.refs() == ["main"]


@pytest.fixture
async def merged(tmp_path: Path) -> AsyncIterator[Merged]:
    async with make_hub(tmp_path) as hub:
        base = hub.bench.git.on_remote()
        assert base is not None
        yield Merged(hub=hub, cycle=await hub.cycle(), base=base)


async def test_one_that_waits_for_what_the_base_requires_goes_on_when_it_is_given(
    merged: Merged,
) -> None:
    merged.hub.fake.blocked = 'Required status check "test" is expected.'
    for _ in range(2):
        assert await merged.refusal() == "merge_blocked"
    assert merged.undoing.title == f"Revert {merged.cycle.facts.branch}"
    assert "It was not healthy." in merged.undoing.body
    assert merged.cycle.facts.pull_request in merged.undoing.body
    merged.hub.fake.blocked = ""
    assert isinstance(await merged.revert(), Reverted)
    merged.assert_undone_once()
    assert len(merged.hub.fake.pulls) == 2


@pytest.mark.parametrize(("method", "path"), [("POST", "/pulls"), ("PUT", "/pulls/2/merge")])
async def test_one_that_was_broken_off_is_not_done_twice(
    merged: Merged, method: str, path: str
) -> None:
    merged.hub.fake.fails(method, path, DIES_AFTER)
    assert await merged.refusal() == "forge_unreachable"
    assert isinstance(await merged.revert(), Reverted)
    merged.assert_undone_once()
    assert len(merged.hub.fake.pulls) == 2


async def test_what_others_push_meanwhile_stays(merged: Merged) -> None:
    merged.hub.fake.blocked = "Not yet."
    assert await merged.refusal() == "merge_blocked"
    merged.hub.bench.git.commit_on_remote({"other": b"x"})
    merged.hub.fake.blocked = ""
    assert isinstance(await merged.revert(), Reverted)
    merged.assert_undone_once()
    assert "other" in git(merged.hub.bench.git.remote, "ls-tree", "--name-only", "main").split()


async def test_one_that_conflicts_with_what_the_base_holds_now_is_told(merged: Merged) -> None:
    merged.hub.fake.blocked = "Not yet."
    assert await merged.refusal() == "merge_blocked"
    changed = merged.hub.bench.git.commit_on_remote({"docs/guide.md": b"better\nand more\n"})
    merged.hub.fake.blocked = ""
    assert await merged.revert() == Conflict(paths=("docs/guide.md",))
    assert merged.hub.bench.git.on_remote() == changed


async def test_a_person_who_closes_it_has_decided(merged: Merged) -> None:
    merged.hub.fake.blocked = "Not yet."
    assert await merged.refusal() == "merge_blocked"
    fake = merged.hub.fake
    fake.pulls = {**fake.pulls, 2: replace(merged.undoing, state="closed")}
    fake.blocked = ""
    assert await merged.refusal() == "pull_request_closed"


async def test_a_person_who_merges_it_has_done_it(merged: Merged) -> None:
    merged.hub.fake.blocked = "Not yet."
    assert await merged.refusal() == "merge_blocked"
    merged.hub.fake.person_merges(2)
    assert isinstance(await merged.revert(), Reverted)
    assert merged.hub.bench.refs() == ["main"]


async def test_what_a_person_pushes_to_its_branch_is_not_merged(merged: Merged) -> None:
    merged.hub.fake.blocked = "Not yet."
    assert await merged.refusal() == "merge_blocked"
    merged.hub.bench.git.commit_on_remote({"sneaked": b"in"}, branch=merged.undoing.head)
    merged.hub.fake.blocked = ""
    assert await merged.refusal() == "head_moved"
    assert merged.undoing.merged == ""
