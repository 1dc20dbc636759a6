"""A plan says what the cycle would do, and nothing of it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from att_server.core.cycles.model import CycleRequest, CycleStep, StepState
from att_server.core.cycles.plan import Plan
from att_server.core.errors import AttError, Reason
from att_server.core.repository import (
    Change,
    Patch,
    RepositoryError,
    RepositoryFailure,
    WriteFile,
)
from att_server.core.rollback_verdict import PolicyStatus
from tests.contract.change_cycle import GOOD, PROJECT, ChangeBench, make_bench
from tests.contract.git_projects import git

SETTINGS = """
[bootstrap.test]
command = ["true"]
[bootstrap.ci]
command = ["sh", "ci.sh"]
[bootstrap.approval]
protected_paths = ["infra/**"]
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChangeBench]:
    made = await make_bench(tmp_path)
    yield made
    await made.zygote.aclose()


async def planned(bench: ChangeBench, change: Change | None = GOOD, **request: object) -> Plan:
    return await bench.planner.plan(
        bench.project,
        CycleRequest(**request),  # type: ignore[arg-type]  # its own fields
        change,
    )


def skipped(plan: Plan) -> dict[str, str]:
    return {each.step.value: each.reason for each in plan.steps if each.state is StepState.SKIPPED}


async def test_the_plan_is_the_one_of_the_cycle_and_leaves_nothing(bench: ChangeBench) -> None:
    base = bench.base_settings(SETTINGS, ci_sh=b"true\n")
    before = git(bench.git.remote, "for-each-ref"), await bench.events()
    plan = await planned(bench, until=CycleStep.MERGE, require_approval=True)
    assert plan.base_commit == base
    assert plan.approval_reason == "required_by_request"
    assert skipped(plan) == dict.fromkeys(
        ("stage", "deploy", "watchdog", "health", "finalize"), "not_asked_for"
    )
    assert plan.rollback is None
    assert (git(bench.git.remote, "for-each-ref"), await bench.events()) == before
    assert bench.left() == []
    assert await bench.journal.cycles(limit=10) == []

    cycle = await bench.start(GOOD, require_approval=True)
    async with bench.working(cycle):
        waiting = await bench.until_awaiting(cycle)
    assert waiting.approval is not None
    assert waiting.approval.plan_digest == plan.plan_digest


async def test_what_would_be_skipped_says_why(bench: ChangeBench) -> None:
    plan = await planned(bench, create_pr=False)
    assert skipped(plan) == {
        "test": "not_configured",
        "pull_request": "create_pr_disabled",
        "ci": "not_configured",
        "approval": "not_required",
    }
    assert plan.rollback is not None
    assert plan.rollback.status is PolicyStatus.DENIED
    # Git alone names one, and proves nothing of it.
    assert plan.rollback.reason == "rollback_target_unknown"


async def test_where_a_person_merges_nothing_follows(bench: ChangeBench) -> None:
    plan = await planned(bench, auto_merge_on_ci_success=False)
    assert {step for step, reason in skipped(plan).items() if reason == "auto_merge_disabled"} == {
        "merge", "stage", "deploy", "watchdog", "health", "finalize",
    }  # fmt: skip
    assert plan.rollback is None


async def test_what_a_change_touches_decides_on_approval(bench: ChangeBench) -> None:
    bench.base_settings(SETTINGS, ci_sh=b"true\n")
    for path, reason in (
        ("att.toml", "touches_att_toml"),
        ("ci.sh", "touches_ci_script"),
        ("infra/x", "touches_protected_path"),
        ("app.py", ""),
    ):
        plan = await planned(bench, [WriteFile(path=path, content=b"other\n")])
        assert plan.approval_reason == reason


async def test_a_commit_is_planned_as_what_it_is_to_the_base(bench: ChangeBench) -> None:
    git(bench.git.remote, "branch", "topic", bench.git.base)
    topic = bench.git.commit_on_remote({"ci.sh": b"x\n"}, branch="topic")
    base = bench.base_settings(SETTINGS)
    off = await planned(bench, None, commit=topic)
    assert off.approval_reason == "touches_ci_script"
    assert skipped(off) == {"edit": "commit_given", "commit": "commit_given"}
    on = await planned(bench, None, commit=base)
    assert skipped(on) == {
        **dict.fromkeys(
            ("branch", "edit", "commit", "push", "pull_request", "merge"), "commit_is_on_base"
        ),
        "approval": "not_required",
    }
    assert bench.left() == []


async def test_what_would_keep_the_cycle_from_its_change_is_told(bench: ChangeBench) -> None:
    async def refused(change: Change | None = GOOD, **request: object) -> Reason:
        with pytest.raises(AttError) as error:
            await planned(bench, change, **request)
        assert bench.left() == []
        return error.value.reason

    assert await refused([WriteFile(path="../x", content=b"")]) is Reason.EDIT_PATH_INVALID
    assert await refused(Patch(diff=b"nothing")) is Reason.PATCH_DOES_NOT_APPLY
    assert await refused([WriteFile(path="docs/guide.md", content=b"guide\n")]) is (
        Reason.FIELD_INVALID
    )
    assert await refused(base_branch="none") is Reason.FIELD_INVALID
    assert await refused(None, commit="1" * 40) is Reason.REVISION_NOT_FOUND
    git(bench.git.remote, "branch", "rival", bench.git.base)
    rival = bench.git.commit_on_remote({"app.py": b"mine\n"}, branch="rival")
    bench.git.commit_on_remote({"app.py": b"theirs\n"})
    assert await refused(None, commit=rival) is Reason.FIELD_INVALID


async def test_a_remote_that_is_gone_is_told_as_such(bench: ChangeBench) -> None:
    bench.git.remote.rename(bench.git.remote.with_name("away"))
    with pytest.raises(RepositoryError) as error:
        await planned(bench)
    assert error.value.failure is RepositoryFailure.REMOTE_NOT_FOUND


async def test_planning_leaves_a_cycle_that_runs_alone(bench: ChangeBench) -> None:
    cycle = await bench.start(GOOD, require_approval=True)
    async with bench.working(cycle):
        waiting = await bench.until_awaiting(cycle)
        left = bench.left()
        assert left
        await planned(bench, [WriteFile(path="app.py", content=b"x")])
        assert bench.left() == left
    assert replace(waiting, revision=0) == replace(await bench.stored(cycle), revision=0)
    assert waiting.project_id == PROJECT
