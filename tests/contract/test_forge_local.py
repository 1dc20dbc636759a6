"""The local forge: pull requests by number, checks in a clean clone, merges by the repository."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.core.cycles.commit_note import commit_note
from att_server.core.cycles.forge import Checks, CheckState
from att_server.core.cycles.journal import PullRequest
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.settings import BootstrapSettings, CiSettings
from att_server.core.repository import Merged, Reverted, WriteFile
from tests.contract.change_cycle import PROJECT, ChangeBench, make_bench
from tests.contract.git_projects import git

CHANGE = [WriteFile(path="new", content=b"new\n")]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChangeBench]:
    made = await make_bench(tmp_path)
    yield made
    await made.zygote.aclose()


async def committed(bench: ChangeBench) -> Cycle:
    """A cycle whose change is a commit."""
    cycle = await bench.start(CHANGE)
    repository = await bench.repositories.of(bench.project)
    await repository.fetch("main")
    applied = await repository.apply(cycle.cycle_id, bench.git.base, CHANGE)
    commit = await repository.commit(
        cycle.cycle_id, applied.tree, bench.git.base, commit_note(cycle, "New")
    )
    facts = replace(cycle.facts, branch="att/x", base_branch="main", commit=commit)
    return replace(cycle, facts=facts)


async def checks(bench: ChangeBench, cycle: Cycle, *command: str, **given: object) -> Checks:
    ci = CiSettings(command=command, **given)  # type: ignore[arg-type]  # its own fields
    facts = replace(cycle.facts, settings=BootstrapSettings(ci=ci))
    forge = await bench.forges.of(bench.project, replace(cycle, facts=facts))
    return await forge.checks(facts.commit)


async def kept(bench: ChangeBench, cycle: Cycle) -> PullRequest:
    found = await bench.journal.pull_request(PROJECT, cycle.cycle_id)
    assert found is not None
    return found


# Pull requests ------------------------------------------------------------------


async def test_a_pull_request_is_opened_once_and_numbered_by_project(bench: ChangeBench) -> None:
    cycle = await committed(bench)
    forge = await bench.forges.of(bench.project, cycle)
    first = await forge.open_pull_request(title="New", body="")
    assert await forge.open_pull_request(title="N", body="") == first
    other = replace(cycle, cycle_id=bench.clock.new_id())
    others = await bench.forges.of(bench.project, other)
    second = await others.open_pull_request(title="Other", body="")
    assert (first.number, first.url) == (1, "att://web/pulls/1")
    assert (second.number, second.url) == (2, "att://web/pulls/2")
    assert await kept(bench, cycle) == PullRequest(
        project_id=PROJECT,
        number=1,
        cycle_id=cycle.cycle_id,
        branch="att/x",
        base="main",
        head=cycle.facts.commit,
        title="New",
    )


async def test_one_that_is_closed_stays_closed_and_none_can_be_closed(bench: ChangeBench) -> None:
    cycle = await committed(bench)
    forge = await bench.forges.of(bench.project, cycle)
    await forge.close(comment="there is none")
    await forge.open_pull_request(title="New", body="")
    await forge.close(comment="not wanted")
    await forge.close(comment="again")
    assert (await kept(bench, cycle)).state == "closed"


# Checks --------------------------------------------------------------------------


async def test_checks_run_in_a_clean_clone_of_the_very_commit(bench: ChangeBench) -> None:
    cycle = await committed(bench)
    script = "git rev-parse HEAD; git status --porcelain; git remote; cat new; echo x > app.py"
    for _ in range(2):  # what the first left is not there
        found = await checks(bench, cycle, "sh", "-c", script)
        assert found.state is CheckState.SUCCESS
        assert found.log_tail.decode() == f"{cycle.facts.commit}\nnew\n"


async def test_checks_are_told_where_they_are_and_nothing_of_the_server(tmp_path: Path) -> None:
    bench = await make_bench(tmp_path, environ={"LANG": "C"})
    cycle = await committed(bench)
    found = await checks(bench, cycle, "env", env={"OWN": "given"})
    names = {line.partition("=")[0] for line in found.log_tail.decode().splitlines()}
    assert {"CI", "OWN", "LANG", "PATH", "ATT_PROJECT_ID", "ATT_CYCLE_ID"} <= names
    assert names <= {
        "CI", "OWN", "LANG", "PATH", "ATT_PROJECT_ID", "ATT_CYCLE_ID", "PYTHONUNBUFFERED",
        "GIT_TERMINAL_PROMPT", "PWD",
    }  # fmt: skip
    await bench.zygote.aclose()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("sh", "-c", "exit 3"), "exit_code"),
        (("sh", "-c", "kill -SEGV $$"), "signal"),
        (("sleep", "600"), "timed_out"),
        (("no-such-command",), "command_not_found"),
        (("./app.py",), "command_not_started"),
    ],
)
async def test_checks_that_fail_say_why(
    bench: ChangeBench, command: tuple[str, ...], reason: str
) -> None:
    cycle = await committed(bench)
    found = await checks(bench, cycle, *command, timeout=timedelta(seconds=1))
    assert (found.state, found.reason) == (CheckState.FAILURE, reason)


async def test_where_there_are_no_checks_none_has_passed(bench: ChangeBench) -> None:
    cycle = await committed(bench)
    assert (await checks(bench, cycle)).state is CheckState.NONE


# Merges --------------------------------------------------------------------------


async def test_a_merge_is_noted_once_and_reverted_once(bench: ChangeBench) -> None:
    cycle = await committed(bench)
    forge = await bench.forges.of(bench.project, cycle)
    await forge.open_pull_request(title="New", body="")
    repository = await bench.repositories.of(bench.project)
    await repository.push("att/x", cycle.facts.commit, expected=None)

    async def merge(expected: str) -> object:
        return await forge.merge(
            cycle.facts.commit, expected=expected, note=commit_note(cycle, "Merge")
        )

    merged = await merge(bench.git.base)
    assert isinstance(merged, Merged)
    assert await merge(bench.git.base) == merged
    assert bench.git.on_remote() == merged.commit
    assert (await kept(bench, cycle)).state == "merged"
    assert (await kept(bench, cycle)).merge_commit == merged.commit
    await forge.close(comment="too late")
    assert (await kept(bench, cycle)).state == "merged"

    async def revert() -> object:
        return await forge.revert(
            branch="main",
            before=bench.git.base,
            after=merged.commit,
            note=commit_note(cycle, "Undo"),
        )

    reverted = await revert()
    assert isinstance(reverted, Reverted)
    assert await revert() == reverted
    assert git(bench.git.remote, "diff", "--stat", bench.git.base, "main") == ""
