"""Whether a release may be rolled back: every gate asked, in a fixed order; the first deny decides.

Asking changes nothing: a dry run is the same question.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from att_server.core.failure_class import Failure, FailureClass
from att_server.core.model import ProjectMode
from att_server.core.release_metadata import MetadataSource, NamedRelease
from att_server.core.releases import DeploymentContext, Release, ReleaseState, bad_twin
from att_server.core.rollback_verdict import DENY_REASONS, Gate, GateStatus, GateVerdict, Verdict


class Trigger(StrEnum):
    """Who wants a rollback."""

    AUTOMATIC = "automatic"
    PERSON = "person"


class Executor(StrEnum):
    """What can carry a rollback out."""

    RUNTIME = "runtime"
    COMMAND = "command"
    CALLABLE = "callable"


# An external context is never executed by the runtime.
_EXECUTORS = {
    DeploymentContext.SELF_HOSTED: (Executor.RUNTIME, Executor.CALLABLE),
    DeploymentContext.EXTERNAL: (Executor.CALLABLE, Executor.COMMAND),
}


class ArtifactState(StrEnum):
    """What a look at the directory and the commit of a release found."""

    NOT_CHECKED = "not_checked"
    VERIFIED = "verified"
    DIRECTORY_MISSING = "directory_missing"
    COMMIT_MISSING = "commit_missing"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackSettings:
    """What a project lets be rolled back.

    max_attempts: automatic rollbacks within `window`.
    """

    on_deploy_failure: bool = False
    on_restart_watchdog_failure: bool = True
    on_health_failure: bool = True
    allow_unproven_target: bool = False
    max_attempts: int = 3
    window: timedelta = timedelta(days=1)

    def enabled_for(self, failure_class: FailureClass) -> bool:
        """Whether a failure of this class is to be rolled back; most never are."""
        return {
            FailureClass.DEPLOY_FAILURE: self.on_deploy_failure,
            FailureClass.RESTART_WATCHDOG_FAILURE: self.on_restart_watchdog_failure,
            FailureClass.HEALTH_FAILURE: self.on_health_failure,
        }.get(failure_class, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything that the policy looks at.

    failure: what the rollback is wanted for; None: a person asks.
    deployed_release_id: what was switched to and is to be left; empty: nothing was.
    old_release_runs: the app of the release before still runs.
    releases: those of the project that the registry knows.
    artifacts: what a look at releases found, by id; at least at the target.
    incident_attempts, window_attempts: automatic rollbacks before this one.
    """

    project_id: str
    mode: ProjectMode = ProjectMode.NORMAL
    context: DeploymentContext = DeploymentContext.SELF_HOSTED
    settings: RollbackSettings = field(default_factory=RollbackSettings)
    failure: Failure | None = None
    deployed_release_id: str = ""
    old_release_runs: bool = False
    target: NamedRelease | None = None
    releases: Collection[Release] = ()
    artifacts: Mapping[str, ArtifactState] = field(default_factory=dict)
    executors: Collection[Executor] = ()
    incident_attempts: int = 0
    window_attempts: int = 0

    @property
    def trigger(self) -> Trigger:
        """Who asks: to cancel a cycle is a person's wish too."""
        if self.failure is None or self.failure.failure_class is FailureClass.CANCELLED:
            return Trigger.PERSON
        return Trigger.AUTOMATIC

    @property
    def executor(self) -> Executor | None:
        """What would carry the rollback out."""
        return next((each for each in _EXECUTORS[self.context] if each in self.executors), None)

    def release(self, release_id: str) -> Release | None:
        """The release of the project with this id, if the registry knows it."""
        for release in self.releases:
            if release.release_id == release_id and release.project_id == self.project_id:
                return release
        return None


def evaluate(question: Question) -> Verdict:
    """Asks every gate."""
    return Verdict(
        candidate=question.target,
        gates=tuple(_ask(gate, question) for gate in Gate),
    )


def enters_safe_mode(question: Question, verdict: Verdict) -> bool:
    """Whether this verdict puts the project into safe mode.

    So does a denied automatic rollback that was wanted after something was
    switched to: what runs is not proven, and nothing will be done about it. Not
    where the cause lies outside, for that is waited for; nor where the class is
    disabled and the old release still runs, for all is as it was meant to be.
    A project that is frozen stays so: safe mode would let more happen.

    verdict: the answer to `question`.
    """
    if verdict.allowed or question.trigger is Trigger.PERSON:
        return False
    if question.mode is not ProjectMode.NORMAL:
        return False
    if verdict.denied_by(Gate.CUT_OVER) or verdict.denied_by(Gate.OWN_CAUSE):
        return False
    return not (verdict.denied_by(Gate.CLASS_ENABLED) and question.old_release_runs)


# The gates ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    status: GateStatus
    reason: str = ""
    facts: Mapping[str, str]


def _ask(gate: Gate, question: Question) -> GateVerdict:
    finding = _CHECKS[gate](question)
    reason = finding.reason
    if finding.status is GateStatus.DENIED:
        failure = question.failure
        reason = DENY_REASONS[gate].replace("<class>", failure.failure_class if failure else "")
    return GateVerdict(gate=gate, status=finding.status, reason=reason, facts=finding.facts)


def _passes(passed: bool, **facts: object) -> _Finding:
    status = GateStatus.PASSED if passed else GateStatus.DENIED
    return _Finding(status=status, facts=_texts(facts))


def _not_applicable(reason: str, **facts: object) -> _Finding:
    return _Finding(status=GateStatus.NOT_APPLICABLE, reason=reason, facts=_texts(facts))


def _texts(facts: Mapping[str, object]) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in facts.items()
    }


def _not_frozen(question: Question) -> _Finding:
    return _passes(question.mode is not ProjectMode.FROZEN, mode=question.mode)


def _not_in_safe_mode(question: Question) -> _Finding:
    passed = question.mode is not ProjectMode.SAFE or question.trigger is Trigger.PERSON
    return _passes(passed, mode=question.mode, trigger=question.trigger)


def _class_enabled(question: Question) -> _Finding:
    failure = question.failure
    if failure is None or question.trigger is Trigger.PERSON:
        return _not_applicable("asked_for_by_a_person")
    if failure.failure_class is FailureClass.EXTERNAL_FAILURE:
        # No setting is about it; the gate of the cause denies.
        return _not_applicable("external_failure")
    return _passes(
        question.settings.enabled_for(failure.failure_class), failure_class=failure.failure_class
    )


def _cut_over(question: Question) -> _Finding:
    return _passes(
        bool(question.deployed_release_id), deployed_release_id=question.deployed_release_id
    )


def _own_cause(question: Question) -> _Finding:
    failure = question.failure
    if failure is None or question.trigger is Trigger.PERSON:
        return _not_applicable("asked_for_by_a_person")
    return _passes(
        not failure.external,
        failure_class=failure.failure_class,
        external_cause=failure.external_cause or "",
    )


def _executor(question: Question) -> _Finding:
    return _passes(
        question.executor is not None, context=question.context, executor=question.executor or ""
    )


def _external_target_named(question: Question) -> _Finding:
    if question.context is not DeploymentContext.EXTERNAL:
        return _not_applicable("self_hosted")
    source = question.target.source if question.target is not None else ""
    return _passes(source == MetadataSource.REQUEST, target_source=source)


def _target_found(question: Question) -> _Finding:
    target = question.target
    if target is None:
        return _passes(False)
    return _passes(True, target_release_id=target.release_id, target_source=target.source)


def _target_differs(question: Question) -> _Finding:
    if question.target is None:
        return _not_applicable("no_target")
    target_id, deployed_id = question.target.release_id, question.deployed_release_id
    target, deployed = question.release(target_id), question.release(deployed_id)
    same_tree = target is not None and deployed is not None and target.same_tree(deployed)
    return _passes(
        target_id != deployed_id and not same_tree,
        target_release_id=target_id,
        deployed_release_id=deployed_id,
        same_tree=same_tree,
    )


def _target_known(question: Question) -> _Finding:
    if question.target is None:
        return _not_applicable("no_target")
    release = question.release(question.target.release_id)
    return _passes(
        release is not None,
        project_id=question.project_id,
        target_release_id=question.target.release_id,
    )


def _target_not_bad(question: Question) -> _Finding:
    release = _target_release(question)
    if release is None:
        return _no_release(question)
    twin = bad_twin(release, question.releases)
    if twin is None:
        return _passes(True, state=release.state)
    return _passes(
        False, state=release.state, bad_release_id=twin.release_id, bad_reason=twin.reason
    )


def _target_proven(question: Question) -> _Finding:
    release = _target_release(question)
    if release is None:
        return _no_release(question)
    unproven_allowed = question.settings.allow_unproven_target
    return _passes(
        release.state is ReleaseState.GOOD or unproven_allowed,
        state=release.state,
        allow_unproven_target=unproven_allowed,
    )


def _target_compatible(question: Question) -> _Finding:
    release = _target_release(question)
    if release is None:
        return _no_release(question)
    deployed = question.release(question.deployed_release_id)
    if deployed is None:
        return _not_applicable("deployed_release_not_known")
    return _passes(
        release.min_data_version <= deployed.data_version <= release.data_version,
        deployed_data_version=deployed.data_version,
        target_min_data_version=release.min_data_version,
        target_data_version=release.data_version,
    )


def _target_artifact(question: Question) -> _Finding:
    if question.target is None:
        return _not_applicable("no_target")
    if question.context is DeploymentContext.EXTERNAL:
        # What it runs lies where only its executor can look.
        return _not_applicable("external_context")
    found = question.artifacts.get(question.target.release_id, ArtifactState.NOT_CHECKED)
    return _passes(found is ArtifactState.VERIFIED, artifact=found)


def _attempts_left(question: Question) -> _Finding:
    if question.trigger is Trigger.PERSON:
        return _not_applicable("asked_for_by_a_person")
    settings = question.settings
    return _passes(
        question.incident_attempts < 1 and question.window_attempts < settings.max_attempts,
        incident_attempts=question.incident_attempts,
        window_attempts=question.window_attempts,
        max_attempts=settings.max_attempts,
        window_seconds=f"{settings.window.total_seconds():g}",
    )


def _target_release(question: Question) -> Release | None:
    return question.release(question.target.release_id) if question.target is not None else None


def _no_release(question: Question) -> _Finding:
    return _not_applicable("no_target" if question.target is None else "target_not_known")


_CHECKS: Mapping[Gate, Callable[[Question], _Finding]] = {
    Gate.NOT_FROZEN: _not_frozen,
    Gate.NOT_IN_SAFE_MODE: _not_in_safe_mode,
    Gate.CLASS_ENABLED: _class_enabled,
    Gate.CUT_OVER: _cut_over,
    Gate.OWN_CAUSE: _own_cause,
    Gate.EXECUTOR: _executor,
    Gate.EXTERNAL_TARGET_NAMED: _external_target_named,
    Gate.TARGET_FOUND: _target_found,
    Gate.TARGET_DIFFERS: _target_differs,
    Gate.TARGET_KNOWN: _target_known,
    Gate.TARGET_NOT_BAD: _target_not_bad,
    Gate.TARGET_PROVEN: _target_proven,
    Gate.TARGET_COMPATIBLE: _target_compatible,
    Gate.TARGET_ARTIFACT: _target_artifact,
    Gate.ATTEMPTS_LEFT: _attempts_left,
}
