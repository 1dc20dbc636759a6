"""Cycles through GitHub up to their merge: what is waited for, what is refused, and what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.core.cycles.forge import ForgeError
from att_server.core.cycles.model import CiStatus, Cycle, CycleState, CycleStep
from att_server.core.failure_class import CycleOutcome, ExternalCause
from att_server.core.repository import WriteFile
from tests.contract.git_projects import git
from tests.github.fake import DIES_AFTER, DIES_BEFORE, TOKEN, Fault, Run
from tests.github.hub import BASE, Hub, make_hub, write_server_settings

NOT_MERGEABLE = {"message": "Pull Request is not mergeable"}
MODIFIED = {"message": "Base branch was modified. Review and try the merge again."}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with make_hub(tmp_path) as made:
        yield made


def failure_of(cycle: Cycle) -> tuple[str, str]:
    assert cycle.failure is not None
    return cycle.failure.failure_class, cycle.failure.reason


def looks(*answers: list[Run]) -> Callable[[str], list[Run]]:
    """At each look the next of these, and then the last for good."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def assert_merged_once(hub: Hub, cycle: Cycle) -> None:
    assert cycle.outcome is CycleOutcome.SUCCEEDED, hub.bench.story(cycle)
    assert hub.merges() == [cycle.facts.commit]
    assert cycle.facts.merged_here
    assert cycle.result.merge_commit_sha == hub.bench.git.on_remote()
    assert len(hub.fake.pulls) == 1
    assert hub.pull.merged == cycle.facts.merged_commit
    assert hub.bench.refs() == ["main"]


def assert_left_alone(hub: Hub, base: str | None) -> None:
    assert hub.bench.git.on_remote() == base
    assert hub.bench.refs() == ["main"]
    assert hub.bench.left() == []


# The way ---------------------------------------------------------------------------


async def test_a_change_goes_through_a_pull_request_and_its_checks(hub: Hub) -> None:
    cycle = await hub.cycle(commit_message="Better\n\nMuch better.")
    assert_merged_once(hub, cycle)
    assert cycle.result.ci_status is CiStatus.SUCCESS
    assert cycle.result.pr_url == f"{hub.fake.url}/octo/app/pull/1"
    assert cycle.step(CycleStep.CI).evidence["checks"] == "test: success"
    assert (hub.pull.title, hub.pull.base) == ("Better", "main")
    assert "Much better." in hub.pull.body
    assert cycle.cycle_id in hub.pull.body
    told = [event.event_type for event in await hub.bench.events()]
    for once in ("git.push", "git.pr.created", "git.pr.merged"):
        assert told.count(once) == 1
    kept = git(hub.bench.git.remote, "log", "--format=%B", "main")
    assert TOKEN not in kept


async def test_the_token_is_in_nothing_that_is_kept(hub: Hub) -> None:
    cycle = await hub.cycle()
    assert TOKEN not in repr(cycle)
    assert TOKEN not in repr(await hub.bench.events())
    for path in hub.bench.state.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


async def test_without_a_pull_request_git_merges_what_github_has_checked(hub: Hub) -> None:
    cycle = await hub.cycle(create_pr=False)
    assert cycle.result.merged, hub.bench.story(cycle)
    assert cycle.result.ci_status is CiStatus.SUCCESS
    assert hub.fake.pulls == {}


# Checks -----------------------------------------------------------------------------


async def test_checks_that_come_late_are_waited_for(hub: Hub) -> None:
    pending, done = [Run(conclusion=None)], [Run()]
    hub.fake.runs = looks([], [], pending, pending, done)
    assert_merged_once(hub, await hub.cycle())


async def test_one_that_comes_after_the_first_has_passed_counts_too(hub: Hub) -> None:
    base = hub.bench.git.on_remote()
    first, failed = [Run()], [Run(), Run(name="lint", conclusion="failure", summary="3 errors")]
    hub.fake.runs = looks(first, failed)
    cycle = await hub.cycle()
    assert failure_of(cycle) == ("ci_failure", "check_failed")
    assert cycle.step(CycleStep.CI).evidence["failed"] == "lint"
    assert b"3 errors" in cycle.step(CycleStep.CI).log_tail
    assert_left_alone(hub, base)
    assert hub.pull.state == "closed"
    assert hub.pull.merged == ""
    (comment,) = hub.fake.comments[1]
    assert "ended without merging" in comment


@pytest.mark.parametrize("runs", [[], [Run(conclusion="skipped")]])
async def test_no_check_at_all_is_no_success(hub: Hub, runs: list[Run]) -> None:
    base = hub.bench.git.on_remote()
    hub.fake.runs = lambda _: runs
    cycle = await hub.cycle(ci_timeout=timedelta(minutes=2))
    assert failure_of(cycle) == ("ci_timeout", "no_checks")
    assert_left_alone(hub, base)


async def test_a_required_check_that_is_never_reported_ends_at_the_deadline(hub: Hub) -> None:
    base = hub.bench.git.on_remote()
    hub.fake.required = ["test", "expected"]
    cycle = await hub.cycle(ci_timeout=timedelta(minutes=2))
    assert failure_of(cycle) == ("ci_timeout", "timed_out")
    assert cycle.step(CycleStep.CI).evidence["missing"] == "expected"
    assert_left_alone(hub, base)


async def test_settings_may_require_more_than_github_does(tmp_path: Path) -> None:
    async with make_hub(tmp_path, f'{BASE}required_checks = ["own"]\n') as hub:
        hub.fake.required = ["test"]
        hub.fake.statuses = lambda _: [("own", "failure")]
        cycle = await hub.cycle()
        assert failure_of(cycle) == ("ci_failure", "check_failed")
        assert cycle.step(CycleStep.CI).evidence["failed"] == "own"


async def test_what_is_required_is_enough(hub: Hub) -> None:
    hub.fake.required = ["test"]
    hub.fake.runs = lambda _: [Run(), Run(name="nightly", conclusion="failure")]
    assert_merged_once(hub, await hub.cycle())


async def test_a_change_of_a_workflow_waits_for_a_person(hub: Hub) -> None:
    change = [WriteFile(path=".github/workflows/ci.yml", content=b"on: push\n")]
    cycle = await hub.start(change)
    async with hub.bench.working(cycle) as working:
        await hub.passing(working.task, until=lambda c: c.state is CycleState.AWAITING_APPROVAL)
        awaiting = await hub.bench.stored(cycle)
        assert awaiting.approval is not None
        assert awaiting.approval.reason == "touches_ci_script"
        await hub.bench.decide(awaiting)
        working.worker.ask()
        await hub.passing(working.task)
    assert_merged_once(hub, await hub.bench.stored(cycle))


# Bases that move --------------------------------------------------------------------


async def test_a_base_that_moved_is_merged_into_the_branch_and_checked_again(hub: Hub) -> None:
    checked: list[str] = []

    def runs(sha: str) -> list[Run]:
        checked.append(sha)
        if len(checked) == 2:
            hub.bench.git.commit_on_remote({"other": b"x"})
        return [Run()]

    hub.fake.runs = runs
    cycle = await hub.cycle()
    assert_merged_once(hub, cycle)
    assert cycle.facts.retests == 1
    assert list(dict.fromkeys(checked)) == [cycle.facts.commit, hub.pull.sha]
    tree = git(hub.bench.git.remote, "rev-parse", "main^{tree}", f"{hub.pull.sha}^{{tree}}")
    assert len(set(tree.split())) == 1


async def test_a_base_that_moves_under_the_merge_has_what_came_of_it_checked(hub: Hub) -> None:
    checked: list[str] = []

    def runs(sha: str) -> list[Run]:
        checked.append(sha)
        return [Run()]

    hub.fake.runs = runs
    moves = Fault(
        status=200,
        body={"sha": "0" * 40, "merged": True, "message": "merged"},
        acts=True,
        then=lambda: hub.bench.git.commit_on_remote({"other": b"x"}),
    )
    hub.fake.fails("PUT", "/merge", moves)
    cycle = await hub.cycle()
    assert_merged_once(hub, cycle)
    assert cycle.facts.retests == 1
    assert checked[-1] == hub.pull.merged
    assert hub.fake.count("PUT", "/merge") == 1


# Merges that are answered badly -----------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        DIES_AFTER,
        Fault(status=502, acts=True),
        Fault(status=405, body=NOT_MERGEABLE, acts=True),
        Fault(status=200, body=["odd"], acts=True),
        DIES_BEFORE,
        Fault(status=405, body=MODIFIED),
        Fault(status=409, body=MODIFIED),
    ],
)
async def test_whatever_a_merge_is_answered_it_is_looked_at_and_done_once(
    hub: Hub, fault: Fault
) -> None:
    hub.fake.fails("PUT", "/merge", fault)
    assert_merged_once(hub, await hub.cycle())


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/pulls"), ("POST", "/comments"), ("PATCH", "/pulls/1")],
)
async def test_what_died_with_its_answer_is_not_done_twice(
    hub: Hub, method: str, path: str
) -> None:
    base = hub.bench.git.on_remote()
    hub.fake.runs = lambda _: [Run(conclusion="failure")]
    hub.fake.fails(method, path, DIES_AFTER)
    cycle = await hub.cycle()
    assert failure_of(cycle) == ("ci_failure", "check_failed")
    assert_left_alone(hub, base)
    assert hub.pull.state == "closed"
    assert len(hub.fake.comments[1]) == 1


async def test_a_merge_that_waits_for_a_review_goes_on_when_it_is_given(hub: Hub) -> None:
    hub.fake.blocked = "At least 1 approving review is required by reviewers with write access."
    cycle = await hub.start()
    async with hub.bench.working(cycle) as working:
        await hub.passing(
            working.task, until=lambda c: c.step(CycleStep.MERGE).reason == "merge_blocked"
        )
        held = await hub.bench.stored(cycle)
        assert held.state is CycleState.HELD
        assert "approving review" in held.step(CycleStep.MERGE).evidence["error"]
        hub.fake.blocked = ""
        await hub.passing(working.task)
    assert_merged_once(hub, await hub.bench.stored(cycle))


# What is refused ----------------------------------------------------------------------


async def test_a_person_who_pushes_to_the_branch_ends_the_cycle(hub: Hub) -> None:
    base = hub.bench.git.on_remote()

    checked: list[str] = []

    def runs(sha: str) -> list[Run]:
        checked.append(sha)
        if len(checked) == 2:  # the look that settles it
            hub.bench.git.commit_on_remote({"sneaked": b"in"}, branch=hub.pull.head)
        return [Run()]

    hub.fake.runs = runs
    cycle = await hub.cycle()
    assert failure_of(cycle) == ("merge_failure", "head_moved")
    assert hub.bench.git.on_remote() == base
    assert hub.fake.count("PUT", "/merge") == 0
    # The branch is a person's now, and so is what it holds.
    assert hub.bench.refs() == [hub.pull.head, "main"]


async def test_a_person_who_closes_the_pull_request_ends_the_cycle(hub: Hub) -> None:
    base = hub.bench.git.on_remote()

    def runs(_: str) -> list[Run]:
        hub.fake.pulls = {n: replace(p, state="closed") for n, p in hub.fake.pulls.items()}
        return [Run()]

    hub.fake.runs = runs
    cycle = await hub.cycle()
    assert failure_of(cycle) == ("merge_failure", "pull_request_closed")
    assert_left_alone(hub, base)


async def test_a_person_who_merges_it_is_not_taken_for_the_cycle(hub: Hub) -> None:
    merged: list[str] = []

    def runs(_: str) -> list[Run]:
        if not merged:
            merged.append(hub.fake.person_merges(1))
        return [Run()]

    hub.fake.runs = runs
    cycle = await hub.cycle()
    assert cycle.outcome is CycleOutcome.SUCCEEDED, hub.bench.story(cycle)
    assert cycle.facts.merged_commit == merged[0] == hub.bench.git.on_remote()
    assert not cycle.facts.merged_here
    assert hub.fake.count("PUT", "/merge") == 0


@pytest.mark.parametrize(
    ("message", "allowed", "reason"),
    [
        ("Merge commits are not allowed on this repository.", False, "merge_method_not_allowed"),
        ("Changes must be made through the merge queue", True, "merge_queue_required"),
    ],
)
async def test_a_merge_that_github_will_never_make_ends_the_cycle(
    hub: Hub, message: str, allowed: bool, reason: str
) -> None:
    base = hub.bench.git.on_remote()
    hub.fake.blocked = message
    hub.fake.allows["merge"] = allowed
    cycle = await hub.cycle()
    assert failure_of(cycle) == ("merge_failure", reason)
    assert_left_alone(hub, base)


async def test_a_pull_request_that_github_does_not_take_ends_the_cycle(hub: Hub) -> None:
    base = hub.bench.git.on_remote()
    errors = [{"resource": "PullRequest", "code": "custom", "message": "No commits between"}]
    body = {"message": "Validation Failed", "errors": errors}
    hub.fake.fails("POST", "/pulls", Fault(status=422, body=body))
    cycle = await hub.cycle()
    assert failure_of(cycle) == ("pr_failure", "pull_request_refused")
    assert "No commits between" in cycle.step(CycleStep.PULL_REQUEST).evidence["error"]
    assert_left_alone(hub, base)


# What is waited for --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "attribute", "broken", "mended"),
    [
        ("repository_renamed", "moved_to", "octo/new", ""),
        ("token_lacks_permission", "may_write", False, True),
    ],
)
async def test_what_a_person_can_mend_holds_the_cycle(
    hub: Hub, reason: str, attribute: str, broken: object, mended: object
) -> None:
    setattr(hub.fake, attribute, broken)
    cycle = await hub.start()
    async with hub.bench.working(cycle) as working:
        held = await hub.bench.until(
            cycle, lambda c: c.step(CycleStep.PULL_REQUEST).reason == reason
        )
        assert held.state is CycleState.HELD
        setattr(hub.fake, attribute, mended)
        await hub.passing(working.task)
    assert_merged_once(hub, await hub.bench.stored(cycle))


async def test_an_outage_that_lasts_too_long_ends_the_cycle_without_harm(hub: Hub) -> None:
    base = hub.bench.git.on_remote()
    hub.fake.fails("GET", "/check-runs", *[Fault(status=503)] * 1000)
    hub.bench.base_settings(BASE.replace('"github"\n', '"github"\nhold_timeout = "2m"\n'))
    base = hub.bench.git.on_remote()
    cycle = await hub.cycle()
    assert failure_of(cycle) == ("deadline_exceeded", "forge_failed")
    assert cycle.failure is not None
    assert cycle.failure.external_cause is ExternalCause.FORGE
    assert_left_alone(hub, base)


# Plans -----------------------------------------------------------------------------------


GUIDE = WriteFile(path="docs/guide.md", content=b"planned\n")
NO_TOKEN = '[bootstrap.github]\napi_url = "{}"\ntoken_env = "NOT_SET"\n'
QUEUE = {
    "type": "merge_queue",
    "parameters": {
        "check_response_timeout_minutes": 60,
        "grouping_strategy": "ALLGREEN",
        "max_entries_to_build": 5,
        "max_entries_to_merge": 5,
        "merge_method": "MERGE",
        "min_entries_to_merge": 1,
        "min_entries_to_merge_wait_minutes": 5,
    },
}


UNUSABLE: Mapping[str, Callable[[Hub], object]] = {
    "token_lacks_permission": lambda hub: setattr(hub.fake, "may_write", False),
    "repository_archived": lambda hub: setattr(hub.fake, "archived", True),
    "repository_renamed": lambda hub: setattr(hub.fake, "moved_to", "octo/new"),
    "merge_method_not_allowed": lambda hub: hub.fake.allows.update(merge=False),
    "merge_queue_required": lambda hub: hub.fake.rules.append(QUEUE),
    "token_missing": lambda hub: write_server_settings(
        hub.bench.state, NO_TOKEN.format(hub.fake.url)
    ),
    "remote_is_not_github": lambda hub: hub.bench.base_settings('[bootstrap]\nforge = "github"\n'),
}


@pytest.mark.parametrize("reason", UNUSABLE)
async def test_a_plan_says_what_keeps_it_from_github(hub: Hub, reason: str) -> None:
    cycle = await hub.start()
    await hub.bench.planner.plan(hub.bench.project, cycle.request, [GUIDE])
    UNUSABLE[reason](hub)
    with pytest.raises(ForgeError) as caught:
        await hub.bench.planner.plan(hub.bench.project, cycle.request, [GUIDE])
    assert caught.value.reason == reason
    assert {method for method, _, _ in hub.fake.seen} == {"GET"}
