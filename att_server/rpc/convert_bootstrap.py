"""Cycles, releases and verdicts from the core's objects, and requests into them: pure and total.

Requests are taken as validated (`validate_bootstrap.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from att.v1 import bootstrap_pb2 as pb
from att_server.core.cycles.model import (
    ApprovalRequest,
    CiStatus,
    Cycle,
    CycleKind,
    CycleRequest,
    CycleResult,
    CycleState,
    CycleStep,
    HealthStatus,
    StepState,
    StepStatus,
    WatchdogStatus,
)
from att_server.core.failure_class import CycleOutcome
from att_server.core.releases import DeploymentContext, Release, ReleaseState
from att_server.core.repository import Change, DeleteFile, FileEdit, Patch, SetMode, WriteFile
from att_server.core.rollback_verdict import GateStatus, PolicyStatus, Verdict
from att_server.core.settings import READINESS_THRESHOLD
from att_server.rpc.convert_settings import probe, to_probe
from att_server.rpc.convert_text import text, texts
from att_server.rpc.convert_time import (
    duration,
    optional_duration,
    optional_timestamp,
    timestamp,
    to_timedelta,
)

STEPS: Mapping[CycleStep, pb.CycleStep.ValueType] = {
    step: pb.CycleStep.Value(f"CYCLE_STEP_{step.name}") for step in CycleStep
}
STATES: Mapping[CycleState, pb.CycleState.ValueType] = {
    state: pb.CycleState.Value(f"CYCLE_STATE_{state.name}") for state in CycleState
}
KINDS: Mapping[CycleKind, pb.CycleKind.ValueType] = {
    kind: pb.CycleKind.Value(f"CYCLE_KIND_{kind.name}") for kind in CycleKind
}
OUTCOMES: Mapping[CycleOutcome, pb.CycleOutcome.ValueType] = {
    outcome: pb.CycleOutcome.Value(f"CYCLE_OUTCOME_{outcome.name}") for outcome in CycleOutcome
}
STEP_STATES: Mapping[StepState, pb.CycleStepState.ValueType] = {
    state: pb.CycleStepState.Value(f"CYCLE_STEP_STATE_{state.name}") for state in StepState
}
CONTEXTS: Mapping[DeploymentContext, pb.DeploymentContext.ValueType] = {
    context: pb.DeploymentContext.Value(f"DEPLOYMENT_CONTEXT_{context.name}")
    for context in DeploymentContext
}
CI_STATUSES: Mapping[CiStatus, pb.CiStatus.ValueType] = {
    status: pb.CiStatus.Value(f"CI_STATUS_{status.name}") for status in CiStatus
}
WATCHDOG_STATUSES: Mapping[WatchdogStatus, pb.RestartWatchdogStatus.ValueType] = {
    status: pb.RestartWatchdogStatus.Value(f"RESTART_WATCHDOG_STATUS_{status.name}")
    for status in WatchdogStatus
}
HEALTH_STATUSES: Mapping[HealthStatus, pb.HealthStatus.ValueType] = {
    status: pb.HealthStatus.Value(f"HEALTH_STATUS_{status.name}") for status in HealthStatus
}
POLICY_STATUSES: Mapping[PolicyStatus, pb.RollbackPolicyStatus.ValueType] = {
    status: pb.RollbackPolicyStatus.Value(f"ROLLBACK_POLICY_STATUS_{status.name}")
    for status in PolicyStatus
}
GATE_STATUSES: Mapping[GateStatus, pb.RollbackGateStatus.ValueType] = {
    status: pb.RollbackGateStatus.Value(f"ROLLBACK_GATE_STATUS_{status.name}")
    for status in GateStatus
}
RELEASE_STATES: Mapping[ReleaseState, pb.ReleaseState.ValueType] = {
    state: pb.ReleaseState.Value(f"RELEASE_STATE_{state.name}") for state in ReleaseState
}
_STEP_OF = {value: step for step, value in STEPS.items()}
_CONTEXT_OF = {value: context for context, value in CONTEXTS.items()}

# The fields of a request that differ between the two sides in more than their form.
_OWN = frozenset(
    {"project_id", "edits", "patch", "deployment_context", "until", "health_check_target"}
)
_MOST = 2**31 - 1
"""What a number of a message holds."""

_MOST_PATH_BYTES = 256 * 1024
"""Of the paths of edits that a cycle is shown with, so that it fits into a message."""

# What is asked for -----------------------------------------------------------


def to_cycle_request(message: pb.CycleRequest) -> CycleRequest:
    """What is asked for, without the contents of the change."""
    given: dict[str, Any] = {
        field.name: to_timedelta(value) if isinstance(value, Duration) else value
        for field, value in message.ListFields()
        if field.name not in _OWN
    }
    if message.HasField("health_check_target"):
        given["health_check_target"] = to_probe(
            message.health_check_target, default_threshold=READINESS_THRESHOLD
        )
    return CycleRequest(
        edited_paths=tuple(edit.path for edit in message.edits),
        has_patch=bool(message.patch),
        deployment_context=to_context(message.deployment_context),
        until=_STEP_OF.get(message.until, CycleStep.FINALIZE),
        **given,
    )


def to_change(message: pb.CycleRequest) -> Change | None:
    """The change itself; None: there is none but an existing commit."""
    if message.patch:
        return Patch(diff=message.patch)
    return [_to_edit(edit) for edit in message.edits] or None


def to_context(value: pb.DeploymentContext.ValueType) -> DeploymentContext:
    """Unset is SELF_HOSTED."""
    return _CONTEXT_OF.get(value, DeploymentContext.SELF_HOSTED)


def _to_edit(message: pb.FileEdit) -> FileEdit:
    executable = message.executable if message.HasField("executable") else None
    match message.WhichOneof("edit"):
        case "content":
            return WriteFile(path=message.path, content=message.content, executable=executable)
        case "delete_file":
            return DeleteFile(path=message.path)
        case _:
            return SetMode(path=message.path, executable=bool(executable))


def cycle_request(asked: CycleRequest, project_id: str) -> pb.CycleRequest:
    """What was asked for, less the contents of edits; the last of very many paths are left out."""
    return pb.CycleRequest(
        project_id=project_id,
        edits=_edits(asked.edited_paths),
        commit=asked.commit,
        commit_message=text(asked.commit_message),
        branch_name=text(asked.branch_name),
        base_branch=text(asked.base_branch),
        create_pr=asked.create_pr,
        auto_merge_on_ci_success=asked.auto_merge_on_ci_success,
        ci_timeout=optional_duration(asked.ci_timeout),
        ci_initial_poll=optional_duration(asked.ci_initial_poll),
        ci_max_poll=optional_duration(asked.ci_max_poll),
        deploy_target=text(asked.deploy_target),
        requested_release_id=text(asked.requested_release_id),
        previous_release_id=text(asked.previous_release_id),
        rollback_release_id=text(asked.rollback_release_id),
        rollback_on_deploy_failure=asked.rollback_on_deploy_failure,
        rollback_on_restart_watchdog_failure=asked.rollback_on_restart_watchdog_failure,
        rollback_on_health_failure=asked.rollback_on_health_failure,
        restart_watchdog_retries=asked.restart_watchdog_retries,
        restart_watchdog_interval=optional_duration(asked.restart_watchdog_interval),
        health_check_retries=asked.health_check_retries,
        health_check_interval=optional_duration(asked.health_check_interval),
        bake_time=optional_duration(asked.bake_time),
        require_approval=asked.require_approval,
        keep_worktree=asked.keep_worktree,
        override_bad=asked.override_bad,
        health_check_target=None
        if asked.health_check_target is None
        else probe(asked.health_check_target),
        deployment_context=CONTEXTS[asked.deployment_context],
        until=STEPS[asked.until],
    )


def _edits(paths: tuple[str, ...]) -> list[pb.FileEdit]:
    shown: list[pb.FileEdit] = []
    size = 0
    for path in paths:
        size += len(path)
        if size > _MOST_PATH_BYTES:
            break
        shown.append(pb.FileEdit(path=text(path)))
    return shown


# Where it stands -------------------------------------------------------------


def cycle(kept: Cycle, *, log_tails: bool = True) -> pb.Cycle:
    """A cycle as it is now. Fits into a message. log_tails: with what its steps printed."""
    return pb.Cycle(
        cycle_id=kept.cycle_id,
        project_id=kept.project_id,
        kind=KINDS[kept.kind],
        request=cycle_request(kept.request, kept.project_id),
        requested_by=text(kept.requested_by),
        state=STATES[kept.state],
        outcome=OUTCOMES[kept.outcome] if kept.outcome else pb.CYCLE_OUTCOME_UNSPECIFIED,
        outcome_reason=text(kept.outcome_reason),
        current_step=STEPS[kept.current_step],
        steps=[step_status(each, log_tail=log_tails) for each in kept.steps],
        result=cycle_result(kept.result),
        revision=kept.revision,
        create_time=timestamp(kept.create_time),
        end_time=optional_timestamp(kept.end_time),
        approval=None if kept.approval is None else _approval(kept.approval),
        next_try_time=optional_timestamp(kept.wake_time if kept.state is CycleState.HELD else None),
        deadline_time=optional_timestamp(kept.deadline_time),
        cancelled_by="" if kept.cancellation is None else text(kept.cancellation.principal),
    )


def step_status(status: StepStatus, *, log_tail: bool = True) -> pb.CycleStepStatus:
    """How a step stands. log_tail: with what it printed."""
    return pb.CycleStepStatus(
        step=STEPS[status.step],
        state=STEP_STATES[status.state],
        attempt=status.attempt,
        start_time=optional_timestamp(status.start_time),
        end_time=optional_timestamp(status.end_time),
        waiting_duration=duration(status.waiting) if status.waiting else None,
        reason=text(status.reason),
        evidence=texts(status.evidence),
        log_tail=status.log_tail if log_tail else b"",
    )


def cycle_result(result: CycleResult) -> pb.CycleResult:
    """What came of a cycle so far."""
    context = result.rollback_deployment_context
    return pb.CycleResult(
        branch_name=text(result.branch_name),
        commit_sha=result.commit_sha,
        committed=result.committed,
        pushed=result.pushed,
        ci_status=CI_STATUSES[result.ci_status],
        pr_url=text(result.pr_url),
        merged=result.merged,
        merge_commit_sha=result.merge_commit_sha,
        deployed_release_id=text(result.deployed_release_id),
        restart_watchdog_status=WATCHDOG_STATUSES[result.restart_watchdog_status],
        restart_watchdog_reason=text(result.restart_watchdog_reason),
        health_status=HEALTH_STATUSES[result.health_status],
        rollback_performed=result.rollback_performed,
        rollback_succeeded=result.rollback_succeeded,
        rollback_target_release_id=text(result.rollback_target_release_id),
        rollback_policy_status=POLICY_STATUSES[result.rollback_policy_status],
        rollback_policy_reason=text(result.rollback_policy_reason),
        rollback_target_valid=result.rollback_target_valid,
        rollback_failure_class=text(result.rollback_failure_class),
        rollback_deployment_context=CONTEXTS[context]
        if context
        else pb.DEPLOYMENT_CONTEXT_UNSPECIFIED,
        release_metadata_source=texts(result.release_metadata_source),
        reverted=result.reverted,
        revert_commit_sha=result.revert_commit_sha,
        test_report_cycle_id=result.test_report_cycle_id,
        rollback_verdict=None
        if result.rollback_verdict is None
        else rollback_verdict(result.rollback_verdict),
    )


def _approval(asked: ApprovalRequest) -> pb.ApprovalRequest:
    return pb.ApprovalRequest(
        commit_sha=asked.commit_sha,
        plan_digest=asked.plan_digest,
        expire_time=timestamp(asked.expire_time),
        reason=text(asked.reason),
    )


# Releases --------------------------------------------------------------------


def release(kept: Release, *, current_release_id: str) -> pb.Release:
    """A release as it is now."""
    return pb.Release(
        release_id=text(kept.release_id),
        project_id=kept.project_id,
        state=RELEASE_STATES[kept.state],
        reason=text(kept.reason),
        tries_left=kept.tries_left,
        current=kept.release_id == current_release_id,
        tree_sha=kept.tree_sha,
        cycle_id=kept.cycle_id,
        create_time=timestamp(kept.create_time),
        deploy_time=optional_timestamp(kept.deploy_time),
        data_version=min(kept.data_version, _MOST),
        min_data_version=min(kept.min_data_version, _MOST),
        remove_time=optional_timestamp(kept.removed_time),
    )


def rollback_verdict(verdict: Verdict) -> pb.RollbackVerdict:
    """The verdict of the policy. The target is named also where it is denied."""
    candidate = verdict.candidate
    return pb.RollbackVerdict(
        status=POLICY_STATUSES[verdict.status],
        reason=text(verdict.reason),
        target_release_id="" if candidate is None else text(candidate.release_id),
        target_source="" if candidate is None else candidate.source,
        gates=[
            pb.RollbackGate(
                gate=each.gate,
                allowed=each.status is not GateStatus.DENIED,
                reason=text(each.reason),
                facts=texts(each.facts),
                status=GATE_STATUSES[each.status],
            )
            for each in verdict.gates
        ],
    )
