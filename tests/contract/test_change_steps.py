"""A change comes into the base: judged, by compare-and-swap, once, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.core.bell import Bell
from att_server.core.cycles.model import (
    Cancellation,
    CiStatus,
    Cycle,
    CycleState,
    CycleStep,
    StepState,
)
from att_server.core.failure_class import CycleOutcome, ExternalCause, FailureClass
from att_server.core.repository import DeleteFile, WriteFile
from tests.contract.change_cycle import GOOD, PROJECT, ChangeBench, make_bench
from tests.contract.git_projects import git
from tests.server_process import PATIENCE

TESTED = """
[bootstrap.test]
command = ["sh", "-c", "grep -q better docs/guide.md && echo tested"]
[bootstrap.ci]
command = ["sh", "-c", "git log -1 --format=%H; test -z \\"$(git status --porcelain)\\""]
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChangeBench]:
    made = await make_bench(tmp_path)
    yield made
    await made.zygote.aclose()


def failure(cycle: Cycle) -> tuple[str, str]:
    """Class and reason of the failure."""
    assert cycle.failure is not None, cycle.steps
    return cycle.failure.failure_class, cycle.failure.reason


def as_it_was(bench: ChangeBench, base: str) -> None:
    """The remote has what it had, and nothing of the cycle is left."""
    assert bench.refs() == ["main"]
    assert bench.git.on_remote() == base
    assert bench.left() == []


# The way that goes well -------------------------------------------------------


async def test_a_change_is_tested_committed_reviewed_checked_and_merged(
    bench: ChangeBench,
) -> None:
    base = bench.base_settings(TESTED)
    cycle = await bench.cycle(commit_message="Improve the guide")

    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    result = cycle.result
    assert (result.committed, result.pushed, result.merged) == (True, True, True)
    assert result.ci_status is CiStatus.SUCCESS
    assert result.pr_url == "att://web/pulls/1"
    assert result.merge_commit_sha == bench.git.on_remote() != base
    assert bench.git.file("main", "docs/guide.md") == "better"
    said = git(bench.git.remote, "log", "-1", "--format=%an %s%n%b", result.commit_sha)
    assert said.splitlines()[0] == "ATT Improve the guide"
    assert f"Att-Cycle: {cycle.cycle_id}" in said
    assert "Requested-by: token:agent" in said
    assert cycle.step(CycleStep.APPROVAL).reason == "not_required"
    assert bench.refs() == ["main"]
    assert bench.left() == []
    types = [event.event_type for event in await bench.events()]
    assert types == [
        "code.changed", "test.run", "test.passed", "git.commit", "git.push", "git.pr.created",
        "git.pr.merged", "cycle.ended",
    ]  # fmt: skip
    assert await bench.journal.change(cycle.cycle_id) == b""
    report = await bench.journal.test_report(PROJECT, cycle.cycle_id)
    assert report is not None
    assert (report.exit_code, report.output_tail, report.tree) == (0, b"tested\n", cycle.facts.tree)


async def test_what_is_not_configured_is_skipped_and_never_passed(bench: ChangeBench) -> None:
    cycle = await bench.cycle(create_pr=False)
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    for step, reason in (
        (CycleStep.TEST, "not_configured"),
        (CycleStep.PULL_REQUEST, "create_pr_disabled"),
        (CycleStep.CI, "not_configured"),
        (CycleStep.APPROVAL, "not_required"),
    ):
        assert (cycle.step(step).state, cycle.step(step).reason) == (StepState.SKIPPED, reason)
    assert cycle.result.ci_status is CiStatus.NOT_RUN


async def test_a_test_command_that_the_change_brings_is_none_yet(bench: ChangeBench) -> None:
    settings = WriteFile(path="att.toml", content=b'[bootstrap.test]\ncommand = ["false"]\n')
    cycle = await bench.start([*GOOD, settings])
    async with bench.working(cycle):
        waiting = await bench.until_awaiting(cycle)
    assert waiting.step(CycleStep.TEST).reason == "not_configured"


async def test_what_tests_leave_behind_is_not_in_the_commit(bench: ChangeBench) -> None:
    bench.base_settings(
        '[bootstrap.test]\ncommand = ["sh", "-c", "echo x > new; echo x > app.py; git add -A"]\n'
    )
    cycle = await bench.cycle()
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    shown = git(bench.git.remote, "show", "--format=", "--name-only", cycle.result.commit_sha)
    assert shown == "docs/guide.md"


async def test_a_cycle_ends_where_it_was_to_and_leaves_the_branch(bench: ChangeBench) -> None:
    base = bench.git.base
    cycle = await bench.cycle(until=CycleStep.PUSH, branch_name="feature/guide")
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    assert cycle.step(CycleStep.CI).reason == "not_asked_for"
    assert bench.git.on_remote("feature/guide") == cycle.result.commit_sha
    assert bench.git.on_remote() == base
    assert bench.left() == []


async def test_where_a_person_merges_the_cycle_succeeds_after_its_checks(
    bench: ChangeBench,
) -> None:
    cycle = await bench.cycle(until=CycleStep.FINALIZE, auto_merge_on_ci_success=False)
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    assert cycle.step(CycleStep.MERGE).reason == "auto_merge_disabled"
    assert bench.git.on_remote() == bench.git.base
    assert bench.git.on_remote(cycle.result.branch_name) == cycle.result.commit_sha
    opened = await bench.journal.pull_request(PROJECT, cycle.cycle_id)
    assert opened is not None
    assert opened.state == "open"


# Gates ------------------------------------------------------------------------


async def test_a_change_that_sets_the_test_command_is_judged_by_the_old_one_and_approved(
    bench: ChangeBench,
) -> None:
    base = bench.base_settings(TESTED)
    easy = WriteFile(path="att.toml", content=b'[bootstrap.test]\ncommand = ["true"]\n')

    bad = await bench.cycle([easy])
    assert failure(bad) == ("test_failure", "exit_code")
    as_it_was(bench, base)

    good = await bench.start([easy, *GOOD])
    async with bench.working(good) as working:
        waiting = await bench.until_awaiting(good)
        assert waiting.approval is not None
        assert waiting.approval.reason == "touches_att_toml"
        assert waiting.step(CycleStep.TEST).log_tail == b"tested\n"
        assert waiting.step(CycleStep.CI).state is StepState.SUCCEEDED
        assert bench.git.on_remote() == base
        await bench.decide(waiting)
        working.worker.ask()
        async with asyncio.timeout(PATIENCE):
            await working.task
    ended = await bench.stored(good)
    assert ended.outcome is CycleOutcome.SUCCEEDED, bench.story(ended)
    assert ended.step(CycleStep.APPROVAL).evidence["decided_by"] == "token:person"


SCRIPT = b"grep -q better docs/guide.md && echo old gate\n"


@pytest.mark.parametrize("table", ["test", "ci"])
async def test_a_change_of_the_script_is_judged_by_the_script_as_it_was(
    bench: ChangeBench, table: str
) -> None:
    base = bench.base_settings(f'[bootstrap.{table}]\ncommand = ["sh", "ci.sh"]\n', ci_sh=SCRIPT)
    easy = WriteFile(path="ci.sh", content=b"echo new gate\n")
    step = CycleStep(table)

    bad = await bench.cycle([easy])
    assert failure(bad) == (f"{table}_failure", "exit_code")
    assert bad.step(step).evidence["gates_of_base"] == "failed"
    as_it_was(bench, base)

    without = await bench.cycle([DeleteFile(path="ci.sh"), *GOOD])
    assert failure(without) == (f"{table}_failure", "exit_code")  # the command finds no script
    assert without.step(step).evidence["gates_of_base"] == "passed"

    good = await bench.start([easy, *GOOD])
    async with bench.working(good):
        waiting = await bench.until_awaiting(good)
        assert waiting.approval is not None
        assert waiting.approval.reason == "touches_ci_script"
        assert waiting.step(step).evidence["gates_of_base"] == "passed"
        # Then as the change has it, so that nobody merges gates that do not work.
        assert waiting.step(step).log_tail == b"new gate\n"
    await bench.journal.cancel(
        good.cycle_id, Cancellation(principal="token:agent", time=bench.clock.now())
    )
    ended = await bench.run(await bench.taken(good.cycle_id))
    assert ended.outcome is CycleOutcome.CANCELLED
    as_it_was(bench, base)


async def test_protected_paths_and_another_base_need_approval(bench: ChangeBench) -> None:
    bench.base_settings('[bootstrap.approval]\nprotected_paths = ["docs/**"]\n')
    cycle = await bench.start(GOOD)
    async with bench.working(cycle):
        waiting = await bench.until_awaiting(cycle)
    assert waiting.approval is not None
    assert waiting.approval.reason == "touches_protected_path"
    await bench.journal.cancel(
        cycle.cycle_id, Cancellation(principal="token:agent", time=bench.clock.now())
    )
    await bench.run(await bench.taken(cycle.cycle_id))

    # Its settings are without gates, which the change alone could not have reached.
    bench.git.commit_on_remote({"app.py": b"other\n"}, branch="loose")
    other = await bench.start(GOOD, base_branch="loose")
    async with bench.working(other):
        waiting = await bench.until_awaiting(other)
    assert waiting.approval is not None
    assert waiting.approval.reason == "other_base_branch"


async def test_a_rejected_change_is_not_merged(bench: ChangeBench) -> None:
    cycle = await bench.start(GOOD, require_approval=True)
    async with bench.working(cycle) as working:
        waiting = await bench.until_awaiting(cycle)
        await bench.decide(waiting, approved=False)
        working.worker.ask()
        async with asyncio.timeout(PATIENCE):
            await working.task
    ended = await bench.stored(cycle)
    assert ended.outcome is CycleOutcome.REJECTED
    assert failure(ended) == ("approval_rejected", "approval_rejected")
    as_it_was(bench, bench.git.base)
    opened = await bench.journal.pull_request(PROJECT, cycle.cycle_id)
    assert opened is not None
    assert opened.state == "closed"


async def test_an_approval_expires_also_over_a_restart(bench: ChangeBench) -> None:
    cycle = await bench.start(GOOD, require_approval=True)
    async with bench.working(cycle):
        waiting = await bench.until_awaiting(cycle)
    assert waiting.approval is not None
    bench.clock.advance(timedelta(days=1))
    ended = await bench.run(await bench.taken(cycle.cycle_id))
    assert failure(ended) == ("approval_expired", "approval_expired")
    as_it_was(bench, bench.git.base)


async def test_a_decision_on_another_commit_or_plan_decides_nothing(bench: ChangeBench) -> None:
    cycle = await bench.start(GOOD, require_approval=True)
    async with bench.working(cycle) as working:
        waiting = await bench.until_awaiting(cycle)
        assert waiting.approval is not None
        for stale in (
            replace(waiting.approval, commit_sha="0" * 40),
            replace(waiting.approval, plan_digest="0" * 64),
        ):
            await bench.decide(replace(waiting, approval=stale))
            working.worker.ask()
        await bench.decide(waiting)
        working.worker.ask()
        async with asyncio.timeout(PATIENCE):
            await working.task
    ended = await bench.stored(cycle)
    assert ended.outcome is CycleOutcome.SUCCEEDED, bench.story(ended)


# A base that moves --------------------------------------------------------------


async def test_a_moved_base_is_merged_and_tested_again_before_it_is_pushed(
    bench: ChangeBench,
) -> None:
    bench.base_settings(
        '[bootstrap.test]\ncommand = ["sh", "-c", "cat app.py; grep -q better docs/guide.md"]\n'
        "[bootstrap.approval]\nrequired = true\n"
    )
    cycle = await bench.start(GOOD)
    async with bench.working(cycle) as working:
        waiting = await bench.until_awaiting(cycle)
        moved = bench.git.commit_on_remote({"app.py": b"of somebody else\n"})
        await bench.decide(waiting)
        working.worker.ask()
        async with asyncio.timeout(PATIENCE):
            await working.task
    ended = await bench.stored(cycle)
    assert ended.outcome is CycleOutcome.SUCCEEDED, bench.story(ended)
    assert ended.facts.retests == 1
    assert ended.step(CycleStep.TEST).attempt == 2
    assert ended.step(CycleStep.TEST).log_tail == b"of somebody else\n"
    assert ended.facts.tested_tree == ended.facts.merged_tree
    assert git(bench.git.remote, "rev-parse", "main^1", "main^2").split() == [
        moved,
        ended.result.commit_sha,
    ]
    commits = [each.event_type for each in await bench.events()]
    assert commits.count("git.commit") == commits.count("git.push") == 1


async def test_a_base_that_moves_without_end_ends_the_cycle(bench: ChangeBench) -> None:
    mover = (
        'cd "$REMOTE" && new=$(date +%N | git hash-object -w --stdin) && '
        "tree=$(printf '100644 blob %s\\tmoved\\n' $new | git mktree) && "
        "git update-ref refs/heads/main $(git -c user.name=P -c user.email=p@example.com "
        "commit-tree $tree -p main -m moved)"
    )
    bench.base_settings(
        f"[bootstrap.test]\ncommand = ['''sh''', '''-c''', '''{mover}''']\n"
        f"env = {{REMOTE = '{bench.git.remote}'}}\n"
    )
    change = [WriteFile(path="extra", content=b"x")]
    cycle = await bench.cycle(change)
    assert failure(cycle) == ("merge_failure", "base_keeps_moving"), bench.story(cycle)
    assert cycle.facts.retests == 3
    assert cycle.step(CycleStep.TEST).attempt == 4
    assert bench.refs() == ["main"]
    assert bench.left() == []


async def test_a_change_that_conflicts_with_the_moved_base_ends_the_cycle(
    bench: ChangeBench,
) -> None:
    cycle = await bench.start(GOOD, require_approval=True)
    async with bench.working(cycle) as working:
        waiting = await bench.until_awaiting(cycle)
        moved = bench.git.commit_on_remote({"docs/guide.md": b"of somebody else\n"})
        await bench.decide(waiting)
        working.worker.ask()
        async with asyncio.timeout(PATIENCE):
            await working.task
    ended = await bench.stored(cycle)
    assert failure(ended) == ("merge_conflict", "merge_conflict")
    assert ended.step(CycleStep.MERGE).evidence["paths"] == "docs/guide.md"
    as_it_was(bench, moved)


async def test_a_change_that_somebody_else_merged_is_found_there(bench: ChangeBench) -> None:
    cycle = await bench.start(GOOD, require_approval=True)
    async with bench.working(cycle) as working:
        waiting = await bench.until_awaiting(cycle)
        git(bench.git.remote, "update-ref", "refs/heads/main", waiting.facts.commit)
        await bench.decide(waiting)
        working.worker.ask()
        async with asyncio.timeout(PATIENCE):
            await working.task
    ended = await bench.stored(cycle)
    assert ended.outcome is CycleOutcome.SUCCEEDED, bench.story(ended)
    assert ended.facts.merged_commit == ended.facts.commit == bench.git.on_remote()
    assert ended.facts.base_before == bench.git.base
    assert not ended.facts.merged_here


# Commits that exist ---------------------------------------------------------------


async def test_a_commit_on_the_base_is_tested_and_nothing_is_merged(bench: ChangeBench) -> None:
    bench.git.commit_on_remote({"docs/guide.md": b"better\n"})
    base = bench.base_settings(TESTED)
    older = git(bench.git.remote, "rev-parse", "main~1")
    cycle = await bench.cycle(None, commit=older)
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    assert cycle.facts.merged_commit == older
    assert not cycle.facts.merged_here
    for step in (CycleStep.BRANCH, CycleStep.EDIT, CycleStep.PUSH, CycleStep.MERGE):
        assert cycle.step(step).reason == "commit_is_on_base"
    assert cycle.step(CycleStep.TEST).log_tail == b"tested\n"
    assert cycle.step(CycleStep.CI).state is StepState.SUCCEEDED
    as_it_was(bench, base)


async def test_a_commit_of_another_branch_is_merged_and_the_branch_stays(
    bench: ChangeBench,
) -> None:
    git(bench.git.remote, "branch", "other", bench.git.base)
    commit = bench.git.commit_on_remote({"docs/guide.md": b"better\n"}, branch="other")
    bench.base_settings(TESTED)  # the base went on
    cycle = await bench.cycle(None, commit=commit, branch_name="other")
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    assert cycle.facts.retests == 0  # the merge itself was tested at once
    assert cycle.facts.tested_tree == cycle.facts.merged_tree
    assert bench.git.on_remote("other") == commit
    assert bench.git.file("main", "att.toml")


async def test_commits_that_cannot_be_merged_end_the_cycle(bench: ChangeBench) -> None:
    stranger = bench.git.commit_on_remote({"docs/guide.md": b"better\n"}, branch="stranger")
    git(bench.git.remote, "branch", "other", bench.git.base)
    rival = bench.git.commit_on_remote({"app.py": b"mine\n"}, branch="other")
    same = git(bench.git.remote, "commit-tree", "-p", "main", "-m", "same", "main^{tree}")
    git(bench.git.remote, "update-ref", "refs/heads/same", same)
    base = bench.git.commit_on_remote({"app.py": b"theirs\n"})

    unrelated = await bench.cycle(None, commit=stranger)
    assert failure(unrelated) == ("edit_failure", "unrelated_histories")
    assert "unrelated histories" in unrelated.step(CycleStep.EDIT).evidence["error"]
    conflicting = await bench.cycle(None, commit=rival)
    assert failure(conflicting) == ("merge_conflict", "merge_conflict")
    assert conflicting.step(CycleStep.EDIT).evidence["paths"] == "app.py"
    unknown = await bench.cycle(None, commit="1" * 40)
    assert failure(unknown) == ("prepare_failure", "commit_not_found")
    nothing = await bench.cycle(None, commit=same)
    assert failure(nothing) == ("edit_failure", "no_change")
    assert bench.git.on_remote() == base
    assert bench.refs() == ["main", "other", "same", "stranger"]
    assert bench.left() == []


# What outside does not work ---------------------------------------------------------


@pytest.mark.parametrize("step", [CycleStep.PREPARE, CycleStep.PUSH, CycleStep.MERGE])
async def test_a_remote_that_is_gone_is_waited_for(bench: ChangeBench, step: CycleStep) -> None:
    away = bench.git.remote.with_name("away.git")
    cycle = await bench.start(GOOD, require_approval=step is CycleStep.MERGE)
    async with bench.working(cycle) as working:
        if step is CycleStep.MERGE:
            waiting = await bench.until_awaiting(cycle)
            await bench.decide(waiting)
        elif step is CycleStep.PUSH:
            await bench.until(cycle, lambda c: c.step(CycleStep.EDIT).state.over)
        bench.git.remote.rename(away)
        working.worker.ask()
        held = await bench.until(cycle, lambda c: c.state is CycleState.HELD)
        assert held.failure is None
        assert held.current_step is step
        assert held.step(step).reason == "remote_not_found"
        away.rename(bench.git.remote)
        async with asyncio.timeout(PATIENCE):
            while not working.task.done():
                bench.clock.advance(timedelta(seconds=1))
                await asyncio.sleep(0.02)
    ended = await bench.stored(cycle)
    assert ended.outcome is CycleOutcome.SUCCEEDED, bench.story(ended)


async def test_a_remote_that_stays_away_ends_the_cycle_with_its_cause(bench: ChangeBench) -> None:
    bench.base_settings("[bootstrap]\nhold_timeout = '90s'\n")
    cycle = await bench.start(GOOD)
    async with bench.working(cycle) as working:
        await bench.until(cycle, lambda c: c.step(CycleStep.EDIT).state.over)
        away = bench.git.remote.rename(bench.git.remote.with_name("away.git"))
        async with asyncio.timeout(PATIENCE):
            while not working.task.done():
                bench.clock.advance(timedelta(seconds=5))
                await asyncio.sleep(0.02)
    ended = await bench.stored(cycle)
    assert ended.failure is not None
    assert ended.failure.failure_class is FailureClass.DEADLINE_EXCEEDED
    assert ended.failure.external_cause is ExternalCause.REMOTE
    assert away.is_dir()


# Kills ------------------------------------------------------------------------------


async def test_wherever_it_is_killed_the_change_comes_into_the_base_once(
    tmp_path: Path,
) -> None:
    for kill_after in range(1, 40):
        directory = tmp_path / str(kill_after)
        bench = await make_bench(directory)
        bench.base_settings(TESTED)
        cycle = await bench.start(GOOD)
        lives = 0
        while not (ended := await bench.stored(cycle)).ended:
            # The first life is this long, the second as well, the third as it needs.
            lives += 1
            await worked(bench, cycle, writes=kill_after if lives < 3 else 1000)
            if not (await bench.stored(cycle)).ended:
                cycle = await bench.taken(cycle.cycle_id)
        assert ended.outcome is CycleOutcome.SUCCEEDED, bench.story(ended)
        trailers = git(bench.git.remote, "log", "--format=%(trailers:key=Att-Cycle,valueonly)")
        assert trailers.split() == [cycle.cycle_id] * 2  # the commit and its merge
        assert bench.refs() == ["main"]
        assert bench.left() == []
        await bench.zygote.aclose()
        shutil.rmtree(directory)
        if lives == 1:
            break
    assert lives == 1
    assert kill_after > 10


async def worked(bench: ChangeBench, cycle: Cycle, *, writes: int) -> None:
    """Works on the cycle until it has ended or so much was stored, and is killed there."""
    bench.changed = Bell()
    async with bench.working(cycle) as working:
        while bench.changed.count < writes and not working.task.done():
            ringing = asyncio.create_task(bench.changed.wait(bench.changed.count))
            await asyncio.wait([ringing, working.task], return_when=asyncio.FIRST_COMPLETED)
            ringing.cancel()
