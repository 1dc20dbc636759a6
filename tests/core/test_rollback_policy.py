"""Every gate of the rollback policy, alone and all together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att.v1 import bootstrap_pb2
from att_server.core.failure_class import ExternalCause, Failure, FailureClass
from att_server.core.model import ProjectMode
from att_server.core.release_metadata import MetadataSource, NamedRelease
from att_server.core.releases import DeploymentContext, Release, ReleaseState
from att_server.core.rollback_policy import (
    ArtifactState,
    Executor,
    Question,
    RollbackSettings,
    Trigger,
    enters_safe_mode,
    evaluate,
)
from att_server.core.rollback_verdict import (
    DENY_REASONS,
    VALIDATED,
    Gate,
    GateStatus,
    GateVerdict,
    PolicyStatus,
    Verdict,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PASSED, DENIED, NOT_APPLICABLE = GateStatus.PASSED, GateStatus.DENIED, GateStatus.NOT_APPLICABLE


def release(release_id: str, state: ReleaseState, *, tree: str = "", data: int = 1) -> Release:
    return Release(
        release_id=release_id,
        project_id="web",
        state=state,
        state_time=NOW,
        create_time=NOW,
        tree_sha=tree or f"tree-of-{release_id}",
        reason="health_failure" if state is ReleaseState.BAD else "",
        data_version=data,
        min_data_version=data,
    )


def named(release_id: str, source: MetadataSource = MetadataSource.REGISTRY) -> NamedRelease:
    return NamedRelease(release_id=release_id, source=source)


def failed(failure_class: FailureClass, cause: ExternalCause | None = None) -> Failure:
    return Failure(failure_class=failure_class, external_cause=cause)


NEW = release("new", ReleaseState.TRYING)
OLD = release("old", ReleaseState.GOOD)
UNHEALTHY = failed(FailureClass.HEALTH_FAILURE)

ALLOWED = Question(
    project_id="web",
    failure=UNHEALTHY,
    deployed_release_id="new",
    target=named("old"),
    releases=[NEW, OLD],
    artifacts={"old": ArtifactState.VERIFIED},
    executors=[Executor.RUNTIME],
)
BY_PERSON = replace(ALLOWED, failure=None)
EXTERNAL = replace(
    ALLOWED,
    context=DeploymentContext.EXTERNAL,
    target=named("old", MetadataSource.REQUEST),
    executors=[Executor.COMMAND],
)


def with_target(target: Release) -> Question:
    return replace(ALLOWED, releases=[NEW, target])


def test_a_rollback_that_every_gate_lets_pass_is_allowed() -> None:
    for question in (ALLOWED, BY_PERSON, EXTERNAL):
        verdict = evaluate(question)
        assert (verdict.status, verdict.reason) == (PolicyStatus.ALLOWED, VALIDATED)
        assert verdict.target == question.target
        assert verdict.target_valid


# One gate at a time ---------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A question in which everything but one gate lets pass."""

    gate: Gate
    question: Question
    status: GateStatus
    reason: str = ""


def passes(gate: Gate, question: Question) -> Case:
    return Case(gate=gate, question=question, status=PASSED)


def denies(gate: Gate, question: Question, reason: str = "") -> Case:
    return Case(gate=gate, question=question, status=DENIED, reason=reason or DENY_REASONS[gate])


def skips(gate: Gate, question: Question, reason: str) -> Case:
    return Case(gate=gate, question=question, status=NOT_APPLICABLE, reason=reason)


def for_class(failure_class: FailureClass, **switches: bool) -> Question:
    settings = RollbackSettings(**switches)  # type: ignore[arg-type] # switches are the bools
    return replace(ALLOWED, failure=failed(failure_class), settings=settings)


DEPLOY = FailureClass.DEPLOY_FAILURE
WATCHDOG = FailureClass.RESTART_WATCHDOG_FAILURE
HEALTH = FailureClass.HEALTH_FAILURE
NO_SETTING = [
    each
    for each in FailureClass
    if not each.triggers_rollback
    and each not in (FailureClass.CANCELLED, FailureClass.EXTERNAL_FAILURE)
]

CASES = [
    passes(Gate.NOT_FROZEN, ALLOWED),
    denies(Gate.NOT_FROZEN, replace(ALLOWED, mode=ProjectMode.FROZEN)),
    denies(Gate.NOT_FROZEN, replace(BY_PERSON, mode=ProjectMode.FROZEN)),
    passes(Gate.NOT_IN_SAFE_MODE, ALLOWED),
    passes(Gate.NOT_IN_SAFE_MODE, replace(BY_PERSON, mode=ProjectMode.SAFE)),
    denies(Gate.NOT_IN_SAFE_MODE, replace(ALLOWED, mode=ProjectMode.SAFE)),
    passes(Gate.CLASS_ENABLED, for_class(DEPLOY, on_deploy_failure=True)),
    passes(Gate.CLASS_ENABLED, for_class(WATCHDOG)),
    passes(Gate.CLASS_ENABLED, for_class(HEALTH)),
    denies(Gate.CLASS_ENABLED, for_class(DEPLOY), "rollback_disabled_for_deploy_failure"),
    denies(
        Gate.CLASS_ENABLED,
        for_class(WATCHDOG, on_restart_watchdog_failure=False),
        "rollback_disabled_for_restart_watchdog_failure",
    ),
    denies(
        Gate.CLASS_ENABLED,
        for_class(HEALTH, on_health_failure=False),
        "rollback_disabled_for_health_failure",
    ),
    *(
        denies(Gate.CLASS_ENABLED, for_class(each), f"rollback_disabled_for_{each}")
        for each in NO_SETTING
    ),
    skips(Gate.CLASS_ENABLED, BY_PERSON, "asked_for_by_a_person"),
    skips(Gate.CLASS_ENABLED, for_class(FailureClass.CANCELLED), "asked_for_by_a_person"),
    passes(Gate.CUT_OVER, ALLOWED),
    denies(Gate.CUT_OVER, replace(ALLOWED, deployed_release_id="")),
    denies(Gate.CUT_OVER, replace(BY_PERSON, deployed_release_id="")),
    passes(Gate.OWN_CAUSE, ALLOWED),
    *(
        denies(Gate.OWN_CAUSE, replace(ALLOWED, failure=failed(HEALTH, cause)))
        for cause in ExternalCause
    ),
    denies(Gate.OWN_CAUSE, for_class(FailureClass.EXTERNAL_FAILURE)),
    skips(Gate.OWN_CAUSE, BY_PERSON, "asked_for_by_a_person"),
    passes(Gate.EXECUTOR, ALLOWED),
    passes(Gate.EXECUTOR, replace(ALLOWED, executors=[Executor.CALLABLE])),
    denies(Gate.EXECUTOR, replace(ALLOWED, executors=[])),
    denies(Gate.EXECUTOR, replace(ALLOWED, executors=[Executor.COMMAND])),
    passes(Gate.EXECUTOR, EXTERNAL),
    passes(Gate.EXECUTOR, replace(EXTERNAL, executors=[Executor.CALLABLE])),
    denies(Gate.EXECUTOR, replace(EXTERNAL, executors=[Executor.RUNTIME])),
    skips(Gate.EXTERNAL_TARGET_NAMED, ALLOWED, "self_hosted"),
    passes(Gate.EXTERNAL_TARGET_NAMED, EXTERNAL),
    *(
        denies(Gate.EXTERNAL_TARGET_NAMED, replace(EXTERNAL, target=named("old", source)))
        for source in MetadataSource
        if source is not MetadataSource.REQUEST
    ),
    passes(Gate.TARGET_FOUND, ALLOWED),
    denies(Gate.TARGET_FOUND, replace(ALLOWED, target=None)),
    passes(Gate.TARGET_DIFFERS, ALLOWED),
    denies(Gate.TARGET_DIFFERS, replace(ALLOWED, deployed_release_id="old")),
    denies(Gate.TARGET_DIFFERS, with_target(replace(OLD, tree_sha=NEW.tree_sha))),
    passes(Gate.TARGET_KNOWN, ALLOWED),
    denies(Gate.TARGET_KNOWN, replace(ALLOWED, releases=[NEW])),
    denies(Gate.TARGET_KNOWN, with_target(replace(OLD, project_id="other"))),
    passes(Gate.TARGET_NOT_BAD, ALLOWED),
    denies(
        Gate.TARGET_NOT_BAD,
        replace(ALLOWED, releases=[NEW, OLD, release("twin", ReleaseState.BAD, tree=OLD.tree_sha)]),
    ),
    denies(
        Gate.TARGET_NOT_BAD,
        replace(
            with_target(release("old", ReleaseState.BAD)),
            settings=RollbackSettings(allow_unproven_target=True),
        ),
    ),
    passes(Gate.TARGET_PROVEN, ALLOWED),
    denies(Gate.TARGET_PROVEN, with_target(release("old", ReleaseState.STAGED))),
    denies(Gate.TARGET_PROVEN, with_target(release("old", ReleaseState.TRYING))),
    passes(
        Gate.TARGET_PROVEN,
        replace(
            with_target(release("old", ReleaseState.STAGED)),
            settings=RollbackSettings(allow_unproven_target=True),
        ),
    ),
    passes(Gate.TARGET_COMPATIBLE, ALLOWED),
    passes(Gate.TARGET_COMPATIBLE, with_target(replace(OLD, min_data_version=0, data_version=2))),
    denies(Gate.TARGET_COMPATIBLE, with_target(release("old", ReleaseState.GOOD, data=0))),
    denies(Gate.TARGET_COMPATIBLE, with_target(release("old", ReleaseState.GOOD, data=2))),
    skips(Gate.TARGET_COMPATIBLE, replace(ALLOWED, releases=[OLD]), "deployed_release_not_known"),
    passes(Gate.TARGET_ARTIFACT, ALLOWED),
    *(
        denies(Gate.TARGET_ARTIFACT, replace(ALLOWED, artifacts={"old": found}))
        for found in ArtifactState
        if found is not ArtifactState.VERIFIED
    ),
    denies(Gate.TARGET_ARTIFACT, replace(ALLOWED, artifacts={"new": ArtifactState.VERIFIED})),
    skips(Gate.TARGET_ARTIFACT, EXTERNAL, "external_context"),
    passes(Gate.ATTEMPTS_LEFT, replace(ALLOWED, window_attempts=2)),
    denies(Gate.ATTEMPTS_LEFT, replace(ALLOWED, window_attempts=3)),
    denies(Gate.ATTEMPTS_LEFT, replace(ALLOWED, incident_attempts=1)),
    denies(Gate.ATTEMPTS_LEFT, replace(ALLOWED, settings=RollbackSettings(max_attempts=0))),
    skips(
        Gate.ATTEMPTS_LEFT,
        replace(BY_PERSON, incident_attempts=9, window_attempts=9),
        "asked_for_by_a_person",
    ),
]


def case_name(case: Case) -> str:
    return f"{case.gate}-{case.status}"


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_a_gate_decides_alone_when_all_others_let_pass(case: Case) -> None:
    verdict = evaluate(case.question)
    by_gate = {each.gate: each for each in verdict.gates}
    assert (by_gate[case.gate].status, by_gate[case.gate].reason) == (case.status, case.reason)
    denying = [each.gate for each in verdict.gates if each.status is DENIED]
    assert denying == ([case.gate] if case.status is DENIED else [])
    assert verdict.reason == (case.reason if case.status is DENIED else VALIDATED)
    assert verdict.target == (None if case.status is DENIED else case.question.target)
    assert verdict.candidate == case.question.target


@pytest.mark.parametrize("gate", Gate)
def test_the_table_asks_every_gate_for_a_pass_and_a_deny(gate: Gate) -> None:
    asked = {case.status for case in CASES if case.gate is gate}
    lets_pass = {NOT_APPLICABLE} if gate is Gate.EXTERNAL_TARGET_NAMED else {PASSED}
    assert {DENIED} | lets_pass <= asked


def test_the_first_gate_that_denies_gives_the_reason_and_the_others_are_still_asked() -> None:
    verdict = evaluate(
        replace(ALLOWED, mode=ProjectMode.FROZEN, deployed_release_id="", executors=[], target=None)
    )
    assert verdict.reason == "project_frozen"
    denying = [each.reason for each in verdict.gates if each.status is DENIED]
    assert denying == [
        "project_frozen",
        "nothing_was_deployed",
        "rollback_executor_missing",
        "rollback_target_unspecified",
    ]


def test_gates_that_need_a_target_do_not_apply_without_one() -> None:
    verdict = evaluate(replace(ALLOWED, target=None))
    skipped = [each.gate for each in verdict.gates if each.reason == "no_target"]
    assert skipped == [
        Gate.TARGET_DIFFERS,
        Gate.TARGET_KNOWN,
        Gate.TARGET_NOT_BAD,
        Gate.TARGET_PROVEN,
        Gate.TARGET_COMPATIBLE,
        Gate.TARGET_ARTIFACT,
    ]
    assert verdict.target_valid is None


def test_a_target_can_be_valid_where_the_rollback_is_denied_for_another_reason() -> None:
    assert evaluate(replace(ALLOWED, mode=ProjectMode.FROZEN)).target_valid is True
    assert evaluate(replace(ALLOWED, releases=[NEW])).target_valid is False


def test_the_facts_say_what_a_gate_looked_at() -> None:
    facts = {each.gate: each.facts for each in evaluate(ALLOWED).gates}
    assert facts[Gate.TARGET_FOUND] == {"target_release_id": "old", "target_source": "registry"}
    assert facts[Gate.TARGET_PROVEN] == {"state": "good", "allow_unproven_target": "false"}
    assert facts[Gate.ATTEMPTS_LEFT] == {
        "incident_attempts": "0",
        "window_attempts": "0",
        "max_attempts": "3",
        "window_seconds": "86400",
    }


def test_a_callable_goes_before_a_command_and_the_runtime_before_a_callable() -> None:
    every = list(Executor)
    assert replace(ALLOWED, executors=every).executor is Executor.RUNTIME
    assert replace(EXTERNAL, executors=every).executor is Executor.CALLABLE


def test_a_verdict_cannot_be_made_without_asking_every_gate() -> None:
    gates = evaluate(ALLOWED).gates
    for wrong in ((), gates[1:], gates[::-1]):
        with pytest.raises(ValueError, match="every gate, in order"):
            Verdict(candidate=named("old"), gates=wrong)


def test_statuses_are_those_of_the_contract() -> None:
    names = {f"ROLLBACK_POLICY_STATUS_{each.name}" for each in PolicyStatus}
    assert names | {"ROLLBACK_POLICY_STATUS_UNSPECIFIED"} == set(
        bootstrap_pb2.RollbackPolicyStatus.keys()
    )


def test_the_order_of_the_gates_is_that_of_the_contract() -> None:
    assert list(DENY_REASONS.values()) == [
        "project_frozen",
        "project_in_safe_mode",
        "rollback_disabled_for_<class>",
        "nothing_was_deployed",
        "external_cause_hold",
        "rollback_executor_missing",
        "rollback_target_required_for_external_context",
        "rollback_target_unspecified",
        "rollback_target_same_as_deployed",
        "rollback_target_unknown",
        "rollback_target_marked_bad",
        "rollback_target_not_known_good",
        "rollback_target_incompatible",
        "rollback_target_missing_artifact",
        "rollback_attempts_exhausted",
    ]
    assert list(DENY_REASONS) == list(Gate)


# Safe mode ------------------------------------------------------------------


def safe_mode(question: Question) -> bool:
    return enters_safe_mode(question, evaluate(question))


@pytest.mark.parametrize(
    "question",
    [
        replace(ALLOWED, target=None),
        replace(ALLOWED, executors=[]),
        replace(ALLOWED, incident_attempts=1),
        with_target(release("old", ReleaseState.BAD)),
        for_class(HEALTH, on_health_failure=False),
        for_class(FailureClass.INTERNAL),
        replace(ALLOWED, target=None, old_release_runs=True),
    ],
)
def test_a_denied_automatic_rollback_puts_the_project_into_safe_mode(question: Question) -> None:
    assert safe_mode(question)


@pytest.mark.parametrize(
    "question",
    [
        ALLOWED,
        replace(BY_PERSON, target=None),
        replace(ALLOWED, failure=failed(FailureClass.CANCELLED), target=None),
        replace(ALLOWED, deployed_release_id=""),
        replace(ALLOWED, failure=failed(HEALTH, ExternalCause.NETWORK)),
        replace(ALLOWED, failure=failed(HEALTH, ExternalCause.NETWORK), target=None),
        replace(for_class(DEPLOY), failure=failed(DEPLOY, ExternalCause.REGISTRY)),
        for_class(FailureClass.EXTERNAL_FAILURE),
        replace(for_class(DEPLOY), old_release_runs=True),
        replace(for_class(DEPLOY), deployed_release_id=""),
        replace(ALLOWED, mode=ProjectMode.FROZEN),
        replace(ALLOWED, mode=ProjectMode.SAFE),
    ],
)
def test_nothing_else_puts_the_project_into_safe_mode(question: Question) -> None:
    assert not safe_mode(question)


# Any combination ------------------------------------------------------------

release_ids = st.sampled_from(["new", "old", "r1", "r2"])
registered = st.builds(
    lambda release_id, state, tree, project_id, low, high: replace(
        release(release_id, state),
        tree_sha=tree,
        project_id=project_id,
        min_data_version=low,
        data_version=high,
    ),
    release_ids,
    st.sampled_from(ReleaseState),
    st.sampled_from(["", "t1", "t2", "t3", "t4"]),
    st.sampled_from(["web", "web", "web", "other"]),
    st.integers(min_value=0, max_value=2),
    st.integers(min_value=0, max_value=2),
)
settings = st.builds(
    RollbackSettings,
    on_deploy_failure=st.booleans(),
    on_restart_watchdog_failure=st.booleans(),
    on_health_failure=st.booleans(),
    allow_unproven_target=st.booleans(),
    max_attempts=st.integers(min_value=-1, max_value=3),
    window=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30)),
)
attempts = st.integers(min_value=0, max_value=3)
any_question = st.builds(
    Question,
    project_id=st.just("web"),
    mode=st.sampled_from(ProjectMode),
    context=st.sampled_from(DeploymentContext),
    settings=settings,
    failure=st.none()
    | st.builds(
        Failure,
        failure_class=st.sampled_from(FailureClass),
        external_cause=st.none() | st.sampled_from(ExternalCause),
    ),
    deployed_release_id=st.sampled_from(["", "new", "old", "r1", "nowhere"]),
    old_release_runs=st.booleans(),
    target=st.none()
    | st.builds(NamedRelease, release_id=release_ids, source=st.sampled_from(MetadataSource)),
    releases=st.lists(registered, max_size=4, unique_by=lambda each: each.release_id),
    artifacts=st.dictionaries(release_ids, st.sampled_from(ArtifactState)),
    executors=st.sets(st.sampled_from(Executor)),
    incident_attempts=attempts,
    window_attempts=attempts,
)
trees = st.sampled_from(["", "t1", "t2", "t3"])


@st.composite
def nearly_allowed(draw: st.DrawFn) -> Question:
    """Questions with a few things changed, so that many are allowed."""
    question, other = draw(st.sampled_from([ALLOWED, BY_PERSON, EXTERNAL])), draw(any_question)
    names = draw(st.sets(st.sampled_from(CHANGED), max_size=2))
    changed = replace(question, **{name: getattr(other, name) for name in names})
    return replace(
        changed, releases=[replace(each, tree_sha=draw(trees)) for each in changed.releases]
    )


CHANGED = [
    "mode",
    "settings",
    "failure",
    "deployed_release_id",
    "target",
    "releases",
    "artifacts",
    "executors",
    "incident_attempts",
    "window_attempts",
]
questions = any_question | nearly_allowed()


@given(questions)
def test_every_question_has_an_answer_with_every_gate_in_order(question: Question) -> None:
    verdict = evaluate(question)
    assert [each.gate for each in verdict.gates] == list(Gate)
    for each in verdict.gates:
        assert (each.reason == "") == (each.status is PASSED)
        assert "<" not in each.reason
        assert all(isinstance(value, str) for value in each.facts.values())
    assert verdict.status in (PolicyStatus.ALLOWED, PolicyStatus.DENIED)
    assert evaluate(question) == verdict
    enters_safe_mode(question, verdict)


@given(questions)
def test_a_denied_verdict_has_no_target_to_execute(question: Question) -> None:
    verdict = evaluate(question)
    denying: list[GateVerdict] = [each for each in verdict.gates if each.status is DENIED]
    assert verdict.allowed == (not denying)
    assert (verdict.target is None) == bool(denying)
    assert verdict.reason == (denying[0].reason if denying else VALIDATED)


@given(nearly_allowed())
def test_an_allowed_target_is_a_release_that_may_be_returned_to(question: Question) -> None:
    verdict = evaluate(question)
    if verdict.target is None:
        return
    target_id = verdict.target.release_id
    known = {each.release_id: each for each in question.releases if each.project_id == "web"}
    target, deployed = known[target_id], known.get(question.deployed_release_id)
    assert question.deployed_release_id not in ("", target_id)
    if target.tree_sha:
        assert deployed is None or deployed.tree_sha != target.tree_sha
        assert not any(
            each.state is ReleaseState.BAD and each.tree_sha == target.tree_sha
            for each in known.values()
        )
    assert target.state is not ReleaseState.BAD
    assert target.state is ReleaseState.GOOD or question.settings.allow_unproven_target
    if question.context is DeploymentContext.SELF_HOSTED:
        assert question.artifacts[target_id] is ArtifactState.VERIFIED
    else:
        assert verdict.target.source is MetadataSource.REQUEST
        assert question.executor in (Executor.CALLABLE, Executor.COMMAND)
    assert question.executor is not None
    assert question.mode is not ProjectMode.FROZEN


@given(nearly_allowed())
def test_what_is_automatic_happens_for_a_failure_of_ours_and_once_an_incident(
    question: Question,
) -> None:
    if question.trigger is Trigger.PERSON or not evaluate(question).allowed:
        return
    assert question.failure is not None
    assert question.failure.failure_class.triggers_rollback
    assert not question.failure.external
    assert question.mode is ProjectMode.NORMAL
    assert question.incident_attempts == 0
    assert question.window_attempts < question.settings.max_attempts


@given(questions)
def test_safe_mode_is_entered_exactly_when_a_wanted_automatic_rollback_is_denied(
    question: Question,
) -> None:
    verdict, failure = evaluate(question), question.failure
    wanted = (
        failure is not None
        and question.trigger is Trigger.AUTOMATIC
        and question.deployed_release_id != ""
        and not failure.external
        and (question.settings.enabled_for(failure.failure_class) or not question.old_release_runs)
    )
    assert enters_safe_mode(question, verdict) == (
        wanted and not verdict.allowed and question.mode is ProjectMode.NORMAL
    )
