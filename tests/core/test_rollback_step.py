"""ROLLBACK: it does what the verdict says and nothing else, once, and looks whether it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from att_server.core.cycles.model import CycleState, CycleStep
from att_server.core.cycles.rollback_question import PLANNED
from att_server.core.cycles.settings import BootstrapSettings, ExternalSettings
from att_server.core.cycles.step import Done, Failed, Hooks
from att_server.core.cycles.steps.rollback import ROLLBACK_FAILED, ROLLED_BACK
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import CycleOutcome, ExternalCause, FailureClass
from att_server.core.model import CommandResult, ProjectMode
from att_server.core.releases import DeploymentContext, Release, ReleaseState
from att_server.core.repository import RepositoryError, RepositoryFailure
from att_server.core.rollback_policy import Executor, RollbackSettings, evaluate
from att_server.core.rollback_verdict import VALIDATED, Gate, PolicyStatus
from tests.core.rollback_bench import RollbackBench
from tests.core.step_bench import NEW, OLD, OLDER, PROJECT

SECOND = timedelta(seconds=1)
DEFAULTS = BootstrapSettings()


@pytest.fixture
async def bench() -> RollbackBench:
    return await RollbackBench().failed()


# Allowed --------------------------------------------------------------------


async def test_the_release_before_runs_again_and_is_healthy(bench: RollbackBench) -> None:
    assert isinstance(await bench.run(bench.rollback()), Done)
    result = bench.cycle.result
    assert bench.switches == [OLD]
    assert (result.rollback_performed, result.rollback_succeeded) == (True, True)
    assert result.rollback_policy_status is PolicyStatus.ALLOWED
    assert result.rollback_policy_reason == VALIDATED
    assert (result.rollback_target_release_id, result.rollback_target_valid) == (OLD, True)
    assert result.rollback_failure_class == "health_failure"
    assert result.rollback_verdict is not None
    assert bench.mode == ("normal", "")
    assert bench.told() == [
        "rollback.policy",
        "release.state",
        "rollback.started",
        "rollback.completed",
    ]


async def test_the_switch_follows_the_verdict_at_once(bench: RollbackBench) -> None:
    began = bench.clock.now()
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert bench.clock.now() == began


async def test_the_release_that_failed_is_bad_and_the_one_before_was_deployed_again(
    bench: RollbackBench,
) -> None:
    bench.clock.advance(SECOND)
    await bench.run(bench.rollback())
    releases = await bench.registered()
    assert (releases[NEW].state, releases[NEW].reason) == (ReleaseState.BAD, "health_failure")
    assert releases[OLD].state is ReleaseState.GOOD
    assert releases[OLD].deploy_time == bench.clock.now()


async def test_the_release_before_has_time_to_start(bench: RollbackBench) -> None:
    bench.deployments.answers(OLD, "tcp_refused", "tcp_refused", "http_ok")
    assert isinstance(await bench.run(bench.rollback()), Done)


async def test_it_needs_as_many_successes_as_any_release_and_no_bake_time() -> None:
    settings = BootstrapSettings(health_check_retries=3, bake_time=timedelta(hours=1))
    bench = await RollbackBench(settings).failed()
    began = bench.clock.now()
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert bench.clock.now() - began < 3 * settings.health_check_interval
    assert len(bench.deployments.checked) == 3


async def test_the_target_that_the_request_names_wins(bench: RollbackBench) -> None:
    await bench.register(bench.release(OLDER, ReleaseState.GOOD))
    await bench.built(OLDER)
    bench.deployments.answers(OLDER, "http_ok")
    request = replace(bench.cycle.request, rollback_release_id=OLDER)
    bench.cycle = replace(bench.cycle, request=request)
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert bench.switches == [OLDER]


async def test_what_prepare_found_gives_way_where_it_is_what_was_deployed(
    bench: RollbackBench,
) -> None:
    bench.with_facts(previous_release_id=NEW, previous_release_source="registry")
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert bench.switches == [OLD]


async def test_a_cancelled_cycle_rolls_back_as_a_person_would(bench: RollbackBench) -> None:
    bench.fail(FailureClass.CANCELLED)
    await bench.deployments.set_mode(PROJECT, ProjectMode.SAFE, "an_admin_said_so")
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert bench.switches == [OLD]
    assert (await bench.registered())[NEW].reason == "cancelled"


# Denied ---------------------------------------------------------------------

Change = Callable[[RollbackBench], Awaitable[None]]


async def _no_target(bench: RollbackBench) -> None:
    await bench.register(bench.release(OLD, ReleaseState.GOOD).removed(bench.clock.now()))
    bench.with_facts(previous_release_id="", previous_release_source="")


async def _bad_target(bench: RollbackBench) -> None:
    await bench.register(bench.release(OLD, ReleaseState.BAD))
    bench.with_facts(previous_release_source="runtime_logs")


async def _unproven_target(bench: RollbackBench) -> None:
    await bench.register(bench.release(OLD, ReleaseState.TRYING))
    bench.with_facts(previous_release_source="provider")


async def _unknown_target(bench: RollbackBench) -> None:
    await bench.register(bench.release(OLD, ReleaseState.BAD))
    bench.with_facts(previous_release_id=OLDER, previous_release_source="git")


async def _no_manifest(bench: RollbackBench) -> None:
    await bench.artifacts.discard(PROJECT, OLD)


async def _no_commit(bench: RollbackBench) -> None:
    del bench.history.differing[OLD]


async def _changed_files(bench: RollbackBench) -> None:
    bench.history.differing[OLD] = ("app.py",)


async def _no_repository(bench: RollbackBench) -> None:
    bench.history.gone = True


async def _disabled(bench: RollbackBench) -> None:
    bench.settings = replace(DEFAULTS, rollback=RollbackSettings(on_health_failure=False))


DENIED: list[tuple[Change, str]] = [
    (_no_target, "rollback_target_unspecified"),
    (_bad_target, "rollback_target_marked_bad"),
    (_unproven_target, "rollback_target_not_known_good"),
    (_unknown_target, "rollback_target_unknown"),
    (_no_manifest, "rollback_target_missing_artifact"),
    (_no_commit, "rollback_target_missing_artifact"),
    (_changed_files, "rollback_target_missing_artifact"),
    (_no_repository, "rollback_target_missing_artifact"),
    (_disabled, "rollback_disabled_for_health_failure"),
]


@pytest.mark.parametrize(("change", "reason"), DENIED, ids=[c.__name__ for c, _ in DENIED])
async def test_a_denied_rollback_does_nothing_but_stop_everything_automatic(
    bench: RollbackBench, change: Change, reason: str
) -> None:
    await change(bench)
    run_id = bench.deployments.status(PROJECT).run_id
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == reason
    assert bench.switches == []
    assert bench.deployments.status(PROJECT).run_id == run_id
    assert bench.mode == ("safe", reason)
    assert [event.event_type for event in bench.deployments.events] == ["project.mode"]
    result = bench.cycle.result
    assert result.rollback_policy_status is PolicyStatus.DENIED
    assert result.rollback_policy_reason == reason
    assert (result.rollback_performed, result.rollback_succeeded) == (False, None)
    assert (await bench.registered())[NEW].state is ReleaseState.BAD


async def test_a_disabled_class_leaves_the_old_release_alone_that_still_runs() -> None:
    bench = RollbackBench()
    await bench.register(
        bench.release(OLD, ReleaseState.GOOD), bench.release(NEW, ReleaseState.TRYING)
    )
    await bench.built(OLD)
    bench.with_facts(cut_over=True, run_before=bench.deployments.status(PROJECT).run_id)
    bench.fail(FailureClass.DEPLOY_FAILURE, step=CycleStep.DEPLOY)
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == "rollback_disabled_for_deploy_failure"
    assert bench.mode == ("normal", "")


async def test_an_external_cause_says_nothing_against_the_release(bench: RollbackBench) -> None:
    failure = bench.cycle.failure
    assert failure is not None
    bench.cycle = replace(
        bench.cycle, failure=replace(failure, external_cause=ExternalCause.REMOTE)
    )
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == "external_cause_hold"
    assert bench.switches == []
    assert bench.mode == ("normal", "")
    assert (await bench.registered())[NEW].state is ReleaseState.TRYING


async def test_a_frozen_project_stays_frozen(bench: RollbackBench) -> None:
    await bench.deployments.set_mode(PROJECT, ProjectMode.FROZEN, "an_admin_said_so")
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == "project_frozen"
    assert bench.mode == ("frozen", "an_admin_said_so")


async def test_no_more_automatic_rollbacks_than_the_window_allows() -> None:
    bench = RollbackBench(
        BootstrapSettings(rollback=RollbackSettings(max_attempts=1, window=timedelta(hours=1)))
    )
    await bench.failed()
    ended = replace(
        bench.cycle,
        cycle_id=bench.clock.new_id(),
        state=CycleState.ENDED,
        outcome=CycleOutcome.ROLLED_BACK,
        end_time=bench.clock.now(),
        result=replace(bench.cycle.result, rollback_performed=True, rollback_succeeded=True),
    )
    await bench.journal.create(ended, b"")
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == "rollback_attempts_exhausted"


async def test_git_that_is_killed_while_it_looks_is_asked_again(bench: RollbackBench) -> None:
    killed = RepositoryError(RepositoryFailure.INTERRUPTED, "git was killed")
    bench.history.failures = [killed, killed]
    assert isinstance(await bench.run(bench.rollback()), Done)


async def test_a_look_that_something_outside_prevents_decides_nothing(
    bench: RollbackBench,
) -> None:
    locked = RepositoryError(RepositoryFailure.LOCKED, "somebody holds the lock")
    bench.history.failures = [locked] * 3
    with pytest.raises(RepositoryError):
        await bench.run(bench.rollback())
    assert bench.mode == ("normal", "")
    assert isinstance(await bench.run(bench.rollback()), Done)


# It does not work -----------------------------------------------------------


async def assert_failed_for_good(bench: RollbackBench, reason: str) -> None:
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == reason
    assert bench.cycle.result.rollback_succeeded is False
    assert bench.mode == ("safe", ROLLBACK_FAILED)
    assert set(bench.switches) == {OLD}


async def test_a_target_that_is_not_healthy_ends_in_safe_mode(bench: RollbackBench) -> None:
    bench.deployments.answers(OLD, "http_status")
    bench.deployments.lines[PROJECT] = [b"the database is gone"]
    await assert_failed_for_good(bench, "http_status")
    assert bench.cycle.step(CycleStep.ROLLBACK).log_tail == b"the database is gone\n"
    assert bench.switches == [OLD]


async def test_a_target_that_exits_ends_in_safe_mode_at_once(bench: RollbackBench) -> None:
    bench.deployments.answers(OLD, "tcp_refused")
    bench.deployments.exits(OLD, after=SECOND)
    began = bench.clock.now()
    await assert_failed_for_good(bench, "process_exited")
    assert bench.clock.now() - began < 2 * SECOND


async def test_a_target_that_cannot_be_started_ends_in_safe_mode(bench: RollbackBench) -> None:
    bench.deployments.refuses(OLD)
    await assert_failed_for_good(bench, "command_not_found")


async def test_a_target_whose_health_nobody_can_tell_is_not_taken_for_healthy(
    bench: RollbackBench,
) -> None:
    bench.deployments.answers(OLD, "port_owned_by_other_process")
    began = bench.clock.now()
    await assert_failed_for_good(bench, "port_owned_by_other_process")
    assert bench.clock.now() - began >= DEFAULTS.health_timeout


async def test_a_supervisor_that_cannot_be_had_is_waited_for(bench: RollbackBench) -> None:
    bench.deployments.refuses(OLD, AttError(Reason.SUPERVISOR_UNREACHABLE, "It does not answer."))
    with pytest.raises(AttError):
        await bench.run(bench.rollback())
    assert bench.mode == ("normal", "")


async def test_a_run_of_the_target_that_was_lost_is_begun_again(bench: RollbackBench) -> None:
    bench.deployments.answers(OLD, "tcp_refused", "tcp_refused", "tcp_refused", "http_ok")
    bench.deployments.loses(OLD, after=SECOND / 10, times=1)
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert bench.switches == [OLD, OLD]


async def test_a_target_that_takes_its_supervisor_down_each_time_ends_in_safe_mode(
    bench: RollbackBench,
) -> None:
    bench.deployments.answers(OLD, "tcp_refused")
    bench.deployments.loses(OLD, after=SECOND)
    await assert_failed_for_good(bench, "supervisor_lost")
    assert bench.switches == [OLD] * 3


async def test_a_person_may_bound_how_long_it_takes() -> None:
    bench = await by_person()
    bench.deployments.answers(OLD, "http_status")
    request = replace(bench.cycle.request, timeout=10 * SECOND)
    bench.cycle = replace(bench.cycle, request=request)
    began = bench.clock.now()
    assert isinstance(await bench.run(bench.rollback()), Failed)
    assert bench.clock.now() - began < DEFAULTS.health_timeout / 2


# Killed ---------------------------------------------------------------------


@pytest.mark.parametrize("note", [0, 1])
async def test_killed_at_any_note_it_switches_once(bench: RollbackBench, note: int) -> None:
    await bench.run_killed(bench.rollback(), note)
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert bench.switches == [OLD]
    assert bench.told().count("rollback.started") == 1


async def test_killed_while_it_waits_for_the_target_it_goes_on_waiting(
    bench: RollbackBench,
) -> None:
    bench.deployments.answers(OLD, "tcp_refused")
    running = asyncio.ensure_future(bench.run(bench.rollback()))
    while bench.switches != [OLD] or not bench.deployments.checked:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    bench.deployments.answers(OLD, "http_ok")
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert bench.switches == [OLD]


async def test_a_rollback_that_has_begun_is_not_judged_again(bench: RollbackBench) -> None:
    await bench.run_killed(bench.rollback(), 1)
    await bench.deployments.set_mode(PROJECT, ProjectMode.SAFE, "meanwhile")
    await bench.artifacts.discard(PROJECT, OLD)
    assert isinstance(await bench.run(bench.rollback()), Done)


# A person asks --------------------------------------------------------------


async def by_person(target: str = "") -> RollbackBench:
    bench = RollbackBench()
    await bench.register(
        bench.release(OLD, ReleaseState.GOOD), bench.release(NEW, ReleaseState.GOOD)
    )
    for each in (OLD, NEW):
        await bench.built(each)
        bench.deployments.answers(each, "http_ok")
    await bench.deploy()
    bench.by_person(target)
    return bench


@pytest.mark.parametrize("target", ["", OLD])
async def test_a_person_goes_back_and_what_is_left_is_bad(target: str) -> None:
    bench = await by_person(target)
    await bench.deployments.set_mode(PROJECT, ProjectMode.SAFE, "an_admin_said_so")
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert bench.switches == [OLD]
    assert bench.cycle.facts.release_before == NEW
    assert bench.cycle.result.rollback_failure_class == ""
    source = "request" if target else "registry"
    assert bench.cycle.result.release_metadata_source["previous_release_id"] == source
    new = (await bench.registered())[NEW]
    assert (new.state, new.reason) == (ReleaseState.BAD, ROLLED_BACK)


async def test_a_person_who_may_not_go_back_changes_nothing() -> None:
    bench = await by_person(OLDER)
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == "rollback_target_unknown"
    assert bench.mode == ("normal", "")
    assert (await bench.registered())[NEW].state is ReleaseState.GOOD


async def test_a_person_is_not_bound_by_the_attempts() -> None:
    bench = await by_person()
    bench.settings = BootstrapSettings(rollback=RollbackSettings(max_attempts=0))
    assert isinstance(await bench.run(bench.rollback()), Done)


# External contexts ----------------------------------------------------------


async def external(
    *, hooks: Hooks | None = None, command: tuple[str, ...] = (), arguments: int = 3, code: int = 0
) -> RollbackBench:
    settings = BootstrapSettings(
        external=ExternalSettings(rollback_command=command, rollback_arguments=arguments)
    )
    bench = RollbackBench(
        settings, hooks=hooks, result=lambda _: CommandResult(exit_code=code, output=b"said so")
    )
    await bench.failed()
    request = replace(
        bench.cycle.request,
        deployment_context=DeploymentContext.EXTERNAL,
        deploy_target="eu-1",
        rollback_release_id=OLD,
    )
    bench.cycle = replace(bench.cycle, request=request)
    return bench


@pytest.mark.parametrize("arguments", [2, 3])
async def test_a_configured_command_rolls_an_external_context_back(arguments: int) -> None:
    bench = await external(command=("roll", "back"), arguments=arguments)
    assert isinstance(await bench.run(bench.rollback()), Done)
    (ran,) = bench.runner.ran
    assert ran.command == ("roll", "back", PROJECT, "eu-1", OLD)[: 2 + arguments]
    assert ran.env["ATT_CYCLE_ID"] == bench.cycle.cycle_id
    assert bench.switches == []
    assert bench.cycle.result.rollback_succeeded is True
    assert bench.cycle.result.rollback_deployment_context is DeploymentContext.EXTERNAL


async def test_a_command_that_fails_ends_in_safe_mode_with_what_it_said() -> None:
    bench = await external(command=("roll",), code=3)
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert (end.reason, end.leaves.log_tail) == ("executor_exit_code", b"said so")
    assert bench.mode == ("safe", ROLLBACK_FAILED)


async def test_a_command_that_somebody_kills_is_run_again() -> None:
    bench = await external(command=("roll",))
    ends = [CommandResult(signal=9), CommandResult(exit_code=0)]
    bench.runner.result = lambda _: ends.pop(0)
    assert isinstance(await bench.run(bench.rollback()), Done)
    assert len(bench.runner.ran) == 2


async def test_an_unproven_target_that_is_allowed_has_had_its_try() -> None:
    bench = await RollbackBench(
        BootstrapSettings(rollback=RollbackSettings(allow_unproven_target=True))
    ).failed()
    await bench.register(bench.release(OLD, ReleaseState.STAGED))
    bench.with_facts(previous_release_source="runtime_logs")
    assert isinstance(await bench.run(bench.rollback()), Done)
    old = (await bench.registered())[OLD]
    assert (old.state, old.tries_left) == (ReleaseState.TRYING, 0)


async def test_callables_of_both_arities_plain_or_not_are_called() -> None:
    called: list[tuple[str, ...]] = []

    def plain_three(project: str, target: str, release: str) -> None:
        called.append((project, target, release))

    def plain_two(project: str, target: str) -> None:
        called.append((project, target))

    async def async_three(project: str, target: str, release: str) -> None:
        called.append((project, target, release))

    async def async_two(project: str, target: str) -> None:
        called.append((project, target))

    for function in (plain_three, plain_two, async_three, async_two):
        called.clear()
        bench = await external(hooks=Hooks(rollback_executor=function), command=("unused",))
        assert isinstance(await bench.run(bench.rollback()), Done)
        assert called == [(PROJECT, "eu-1", OLD)[: 3 if "three" in function.__name__ else 2]]
        assert bench.runner.ran == []
        assert bench.switches == []


async def test_a_callable_that_raises_ends_in_safe_mode() -> None:
    def refuse(project: str, target: str) -> None:
        raise RuntimeError("the cluster is gone")

    bench = await external(hooks=Hooks(rollback_executor=refuse))
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == "executor_raised"
    assert "the cluster is gone" in end.leaves.evidence["error"]
    assert bench.mode == ("safe", ROLLBACK_FAILED)


@pytest.mark.parametrize("function", [lambda: None, lambda a, b, c, d: None, lambda a: None])
def test_a_callable_of_another_arity_is_refused_before_the_server_starts(
    function: Callable[..., object],
) -> None:
    with pytest.raises(ValueError, match="deploy target"):
        RollbackBench(hooks=Hooks(rollback_executor=function))


async def test_an_external_context_is_never_executed_by_the_runtime() -> None:
    bench = await external()
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == "rollback_executor_missing"
    assert bench.switches == []
    with pytest.raises(ValueError, match="runtime"):
        await bench.executors.execute(Executor.RUNTIME, None)  # type: ignore[arg-type] # refused first


async def test_an_external_context_has_to_name_its_target() -> None:
    bench = await external(command=("roll",))
    bench.cycle = replace(bench.cycle, request=replace(bench.cycle.request, rollback_release_id=""))
    end = await bench.run(bench.rollback())
    assert isinstance(end, Failed)
    assert end.reason == "rollback_target_required_for_external_context"
    assert bench.runner.ran == []


# Asked about only -----------------------------------------------------------


async def test_a_dry_run_says_what_a_run_does() -> None:
    for change, reason in [*DENIED, (_nothing, VALIDATED)]:
        if change in (_unproven_target, _unknown_target, _bad_target):
            continue  # A cycle remembers what it was told; nobody has told the project.
        bench = await RollbackBench().failed()
        await change(bench)
        dry = evaluate(
            await bench.questions.of_project(
                bench.deployments.project(PROJECT),
                bench.settings,
                context=DeploymentContext.SELF_HOSTED,
                failure_class=FailureClass.HEALTH_FAILURE,
            )
        )
        assert dry.reason == reason
        assert bench.switches == []
        assert bench.mode == ("normal", "")
        await bench.run(bench.rollback())
        assert bench.cycle.result.rollback_verdict == dry


async def _nothing(bench: RollbackBench) -> None:
    """Leaves all as it is."""


async def test_a_plan_says_whether_its_release_could_be_rolled_back() -> None:
    bench = RollbackBench()
    await bench.register(bench.release(OLD, ReleaseState.GOOD))
    await bench.built(OLD)
    project = bench.deployments.project(PROJECT)
    question = await bench.questions.of_plan(project, bench.cycle.request, bench.settings)
    verdict = evaluate(question)
    assert (verdict.allowed, question.deployed_release_id) == (True, PLANNED)
    assert verdict.target is not None
    assert verdict.target.release_id == OLD


async def test_the_first_release_of_a_project_has_nothing_to_go_back_to() -> None:
    bench = RollbackBench()
    question = await bench.questions.of_plan(
        bench.deployments.project(PROJECT), bench.cycle.request, bench.settings, base_commit=OLDER
    )
    assert evaluate(question).denied_by(Gate.TARGET_KNOWN)


async def test_nothing_was_deployed_to_a_project_that_runs_from_its_directory() -> None:
    bench = RollbackBench()
    project = replace(bench.deployments.project(PROJECT), release_id="")
    question = await bench.questions.of_project(
        project, bench.settings, context=DeploymentContext.SELF_HOSTED
    )
    assert evaluate(question).reason == "nothing_was_deployed"


async def test_what_an_external_context_runs_is_what_was_switched_to_last() -> None:
    bench = RollbackBench()
    old = bench.release(OLD, ReleaseState.GOOD)
    bench.clock.advance(SECOND)
    await bench.register(old, bench.release(NEW, ReleaseState.GOOD))
    found = await bench.questions.deployed(
        bench.deployments.project(PROJECT), DeploymentContext.EXTERNAL
    )
    assert found == NEW


# Whatever there is ----------------------------------------------------------

IDS = [NEW, OLD, OLDER, "0" * 39 + "9", "not-a-commit"]
STATES = st.sampled_from(
    [ReleaseState.STAGED, ReleaseState.TRYING, ReleaseState.GOOD, ReleaseState.BAD]
)
REGISTRIES = st.dictionaries(
    st.sampled_from(IDS), st.tuples(STATES, st.sampled_from(["one", "two", "three", ""]))
)


@settings(max_examples=150)
@given(
    known=REGISTRIES,
    built=st.sets(st.sampled_from(IDS)),
    changed=st.sets(st.sampled_from(IDS)),
    requested=st.sampled_from(["", *IDS]),
    remembered=st.sampled_from(["", *IDS]),
    source=st.sampled_from(["request", "registry", "runtime_logs", "provider", "git", ""]),
    failure_class=st.sampled_from([None, *FailureClass]),
    context=st.sampled_from(DeploymentContext),
    mode=st.sampled_from(ProjectMode),
    unproven=st.booleans(),
    command=st.booleans(),
)
def test_only_what_the_policy_allows_is_executed_and_never_on_a_release_that_is_not_good(
    known: dict[str, tuple[ReleaseState, str]],
    built: set[str],
    changed: set[str],
    requested: str,
    remembered: str,
    source: str,
    failure_class: FailureClass | None,
    context: DeploymentContext,
    mode: ProjectMode,
    unproven: bool,
    command: bool,
) -> None:
    async def check() -> None:
        rules = RollbackSettings(on_deploy_failure=True, allow_unproven_target=unproven)
        external = ExternalSettings(rollback_command=("roll",) if command else ())
        bench = RollbackBench(BootstrapSettings(rollback=rules, external=external))
        releases: dict[str, Release] = {
            release_id: bench.release(release_id, state, tree=tree)
            for release_id, (state, tree) in known.items()
        }
        await bench.register(*releases.values())
        for release_id in built:
            await bench.built(release_id)
        for release_id in changed & built:
            bench.history.differing[release_id] = ("app.py",)
        await bench.deploy()
        await bench.deployments.set_mode(PROJECT, mode, "")
        bench.with_facts(previous_release_id=remembered, previous_release_source=source)
        if failure_class is None:
            bench.by_person(requested)
        else:
            bench.fail(failure_class)
        request = replace(
            bench.cycle.request, rollback_release_id=requested, deployment_context=context
        )
        bench.cycle = replace(bench.cycle, request=request)
        deployed = NEW
        if failure_class is None:
            project = bench.deployments.project(PROJECT)
            deployed = await bench.questions.deployed(project, context)

        await bench.run(bench.rollback())

        commands = [ran.command[-1] for ran in bench.runner.ran]
        executed = [*bench.switches, *commands]
        verdict = bench.cycle.result.rollback_verdict
        assert verdict is not None
        if not verdict.allowed:
            assert executed == []
            assert not bench.cycle.result.rollback_performed
            return
        (target,) = executed
        assert bench.switches == [] or context is DeploymentContext.SELF_HOSTED
        assert target == bench.cycle.result.rollback_target_release_id
        assert target != deployed
        found = releases[target]
        left = releases.get(deployed)
        assert not (left is not None and left.same_tree(found))
        assert found.state is not ReleaseState.BAD
        assert not any(
            each.state is ReleaseState.BAD and each.same_tree(found) for each in releases.values()
        )
        assert found.state is ReleaseState.GOOD or unproven
        if context is DeploymentContext.SELF_HOSTED:
            assert target in built - changed

    asyncio.run(check())
