"""REVERT: the base loses what was rolled back, or nobody ships it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from att_server.core.cycles.admission import BASE_CONTAINS_BAD_CHANGE
from att_server.core.cycles.forge import ForgeUnavailable
from att_server.core.cycles.model import CycleStep, StepState
from att_server.core.cycles.step import Done, Failed, Held, Skipped
from att_server.core.failure_class import ExternalCause, FailureClass
from att_server.core.model import ProjectMode
from att_server.core.releases import ReleaseState
from att_server.core.repository import (
    Conflict,
    Merged,
    Moved,
    NothingToRevert,
    RepositoryError,
    RepositoryFailure,
    Reverted,
)
from tests.core.rollback_bench import RollbackBench
from tests.core.step_bench import NEW, OLD, OLDER, PROJECT

REVERT = "f" * 40
BLOCKED = ("safe", BASE_CONTAINS_BAD_CHANGE)


@pytest.fixture
async def bench() -> RollbackBench:
    """A cycle that merged OLD..NEW, and was rolled back to OLD."""
    bench = RollbackBench()
    await bench.failed()
    bench.with_result(
        merged=True,
        rollback_performed=True,
        rollback_succeeded=True,
        rollback_target_release_id=OLD,
    )
    return bench


def undone(bench: RollbackBench) -> list[tuple[str, str]]:
    return [(call.before, call.after) for call in bench.forges.reverts]


async def test_the_merge_of_the_cycle_is_undone_on_the_base(bench: RollbackBench) -> None:
    assert isinstance(await bench.run(bench.revert()), Done)
    (call,) = bench.forges.reverts
    assert (call.branch, call.before, call.after) == ("main", OLD, NEW)
    assert "health_failure" in call.message
    assert (bench.cycle.result.reverted, bench.cycle.result.revert_commit_sha) == (True, REVERT)
    (event,) = bench.events
    assert (event.event_type, event.attributes["reverted_commit"]) == ("git.revert", NEW)
    assert bench.mode == ("normal", "")


async def test_what_is_undone_already_is_not_undone_twice(bench: RollbackBench) -> None:
    bench.forges.ends = [NothingToRevert()]
    assert isinstance(await bench.run(bench.revert()), Done)
    assert (bench.cycle.result.reverted, bench.cycle.result.revert_commit_sha) == (True, "")
    assert bench.events == []


async def test_a_base_that_moves_meanwhile_is_looked_at_again(bench: RollbackBench) -> None:
    bench.forges.ends = [*[Moved(actual=OLDER)] * 4, Reverted(commit=REVERT)]
    assert isinstance(await bench.run(bench.revert()), Done)
    assert len(bench.forges.reverts) == 5


async def test_a_base_that_runs_away_is_waited_for(bench: RollbackBench) -> None:
    bench.forges.ends = [Moved(actual=OLDER)] * 5
    end = await bench.run(bench.revert())
    assert isinstance(end, Held)
    assert (end.reason, end.external_cause) == ("base_keeps_moving", ExternalCause.REMOTE)
    assert isinstance(await bench.run(bench.revert()), Done)


@pytest.mark.parametrize(
    "outage",
    [
        RepositoryError(RepositoryFailure.REMOTE_UNREACHABLE, "no route"),
        RepositoryError(RepositoryFailure.REMOTE_TIMED_OUT, "no answer"),
        RepositoryError(RepositoryFailure.INTERRUPTED, "git was killed"),
        ForgeUnavailable("rate_limited", "too many requests"),
    ],
)
async def test_an_outage_leaves_it_to_the_next_try(bench: RollbackBench, outage: Exception) -> None:
    bench.forges.ends = [outage]
    with pytest.raises(type(outage)):
        await bench.run(bench.revert())
    assert bench.mode == ("normal", "")
    assert isinstance(await bench.run(bench.revert()), Done)


@pytest.mark.parametrize(
    ("end", "cause", "failure_class"),
    [
        (Conflict(paths=("app.py",)), "conflict", FailureClass.MERGE_CONFLICT),
        (
            RepositoryError(RepositoryFailure.REMOTE_REFUSED, "main is protected"),
            "remote_refused",
            FailureClass.MERGE_FAILURE,
        ),
        (
            RepositoryError(RepositoryFailure.NOT_FOUND, "no such commit"),
            "not_found",
            FailureClass.MERGE_FAILURE,
        ),
    ],
)
async def test_what_cannot_be_undone_keeps_everybody_from_shipping_it(
    bench: RollbackBench,
    end: Conflict | Exception,
    cause: str,
    failure_class: FailureClass,
) -> None:
    bench.forges.ends = [end]
    failed = await bench.run(bench.revert())
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.failure_class) == (BASE_CONTAINS_BAD_CHANGE, failure_class)
    assert failed.leaves.evidence["cause"] == cause
    assert bench.mode == BLOCKED
    (event,) = bench.deployments.events
    assert (event.event_type, event.cycle_id) == ("project.mode", bench.cycle.cycle_id)
    assert not bench.cycle.result.reverted


async def test_a_repository_that_is_gone_keeps_everybody_from_shipping(
    bench: RollbackBench,
) -> None:
    bench.history.gone = True
    assert isinstance(await bench.run(bench.revert()), Failed)
    assert bench.mode == BLOCKED


async def test_a_frozen_project_stays_frozen(bench: RollbackBench) -> None:
    await bench.deployments.set_mode(PROJECT, ProjectMode.FROZEN, "an_admin_said_so")
    bench.forges.ends = [Conflict(paths=("app.py",))]
    assert isinstance(await bench.run(bench.revert()), Failed)
    assert bench.mode == ("frozen", "an_admin_said_so")


# Nothing of its own ---------------------------------------------------------


async def test_a_commit_that_somebody_else_merged_is_not_undone(bench: RollbackBench) -> None:
    bench.with_facts(merged_here=False)
    end = await bench.run(bench.revert())
    assert isinstance(end, Failed)
    assert (end.reason, end.leaves.evidence["cause"]) == (
        BASE_CONTAINS_BAD_CHANGE,
        "not_merged_here",
    )
    assert bench.forges.reverts == []
    assert bench.mode == BLOCKED


async def test_an_older_commit_that_was_deployed_again_is_nothing_to_undo(
    bench: RollbackBench,
) -> None:
    bench.with_facts(merged_here=False, merged_commit=OLDER)
    bench.history.ancestors[OLD] = {OLDER}
    end = await bench.run(bench.revert())
    assert isinstance(end, Skipped)
    assert end.reason == "target_contains_it"
    assert bench.mode == ("normal", "")


async def test_a_cycle_that_merged_nothing_has_nothing_to_undo(bench: RollbackBench) -> None:
    bench.with_facts(merged_here=False, merged_commit="")
    end = await bench.run(bench.revert())
    assert isinstance(end, Skipped)
    assert end.reason == "nothing_was_merged"


# A merge that was broken off ------------------------------------------------


def break_off_merge(bench: RollbackBench) -> None:
    bench.with_facts(merged_here=False, merged_commit="", base_commit=OLD, cut_over=False)
    bench.fail(FailureClass.CANCELLED, step=CycleStep.MERGE)
    merge = replace(bench.cycle.step(CycleStep.MERGE), state=StepState.FAILED)
    bench.cycle = bench.cycle.with_step(merge)


async def test_a_merge_that_arrived_though_it_was_broken_off_is_undone(
    bench: RollbackBench,
) -> None:
    break_off_merge(bench)
    bench.history.candidate = Merged(commit=NEW, tree="tree", before=OLD)
    assert isinstance(await bench.run(bench.revert()), Done)
    assert undone(bench) == [(OLD, NEW)]


async def test_a_merge_that_never_arrived_leaves_nothing_to_undo(bench: RollbackBench) -> None:
    break_off_merge(bench)
    bench.history.candidate = Merged(commit=NEW, tree="tree", before=OLD)
    bench.history.head = OLD
    end = await bench.run(bench.revert())
    assert isinstance(end, Skipped)
    assert end.reason == "nothing_was_merged"


async def test_a_change_that_came_to_the_base_by_itself_is_not_undone(
    bench: RollbackBench,
) -> None:
    break_off_merge(bench)
    bench.history.ancestors[NEW] = {bench.cycle.facts.commit}
    assert isinstance(await bench.run(bench.revert()), Failed)
    assert bench.mode == BLOCKED


# A person's rollback --------------------------------------------------------


async def rolled_back_by_person(*, merged_here: bool = True) -> RollbackBench:
    """OLDER, OLD and NEW were merged by a cycle each; NEW is left for OLDER."""
    bench = RollbackBench()
    before = ""
    for release_id in (OLDER, OLD, NEW):
        cycle = replace(bench.cycle, cycle_id=bench.clock.new_id())
        facts = replace(
            cycle.facts,
            base_before=before or "1" * 40,
            merged_commit=release_id,
            merged_here=merged_here,
        )
        # They have ended long since; one of a project goes on at a time.
        await bench.journal.create(replace(cycle, project_id=f"web-{release_id}", facts=facts), b"")
        bench.clock.advance(bench.settings.health_timeout)
        await bench.register(bench.release(release_id, ReleaseState.GOOD, cycle_id=cycle.cycle_id))
        before = release_id
    bench.history.ancestors = {OLD: {OLDER}, NEW: {OLD, OLDER}}
    bench.by_person(OLDER)
    bench.with_facts(release_before=NEW)
    bench.with_result(
        rollback_performed=True, rollback_succeeded=True, rollback_target_release_id=OLDER
    )
    return bench


async def test_the_merges_of_all_releases_in_between_are_undone_newest_first() -> None:
    bench = await rolled_back_by_person()
    bench.forges.ends = [Reverted(commit="1" * 40), Reverted(commit="2" * 40)]
    assert isinstance(await bench.run(bench.revert()), Done)
    assert undone(bench) == [(OLD, NEW), (OLDER, OLD)]
    assert bench.cycle.result.revert_commit_sha == "2" * 40
    assert [event.event_type for event in bench.events] == ["git.revert", "git.revert"]


async def test_a_release_that_no_cycle_merged_blocks_the_base() -> None:
    bench = await rolled_back_by_person(merged_here=False)
    assert isinstance(await bench.run(bench.revert()), Failed)
    assert bench.mode == BLOCKED


async def test_a_rollback_to_a_newer_release_undoes_nothing() -> None:
    bench = await rolled_back_by_person()
    bench.with_facts(release_before=OLDER)
    bench.with_result(rollback_target_release_id=NEW)
    end = await bench.run(bench.revert())
    assert isinstance(end, Skipped)
    assert end.reason == "target_contains_it"
