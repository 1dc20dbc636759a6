"""A cycle: what was asked for, where it stands, and what came of it.

All of it is persisted as it is here, and read by later releases of ATT: fields
are only ever added, each with a default, and unknown ones are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.failure_class import CycleOutcome, ExternalCause, FailureClass
from att_server.core.releases import DeploymentContext
from att_server.core.rollback_verdict import PolicyStatus, Verdict
from att_server.core.settings import Probe


class CycleStep(StrEnum):
    """The steps, in their order (`CycleStep` in `bootstrap.proto`)."""

    PREPARE = "prepare"
    BRANCH = "branch"
    EDIT = "edit"
    TEST = "test"
    COMMIT = "commit"
    PUSH = "push"
    PULL_REQUEST = "pull_request"
    CI = "ci"
    APPROVAL = "approval"
    MERGE = "merge"
    STAGE = "stage"
    DEPLOY = "deploy"
    WATCHDOG = "watchdog"
    HEALTH = "health"
    FINALIZE = "finalize"
    ROLLBACK = "rollback"
    REVERT = "revert"


FORWARD = tuple(CycleStep)[:15]
"""The steps of a change that goes well."""


class CycleKind(StrEnum):
    """What a cycle is for (`CycleKind` in `bootstrap.proto`)."""

    CHANGE = "change"
    ROLLBACK = "rollback"


class CycleState(StrEnum):
    """Where a cycle is in its life (`CycleState` in `bootstrap.proto`)."""

    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    HELD = "held"
    CANCELLING = "cancelling"
    ROLLING_BACK = "rolling_back"
    ENDED = "ended"


class StepState(StrEnum):
    """How a step stands (`CycleStepState` in `bootstrap.proto`)."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self in (StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED)


class CiStatus(StrEnum):
    """The outcome of the checks of a commit (`CiStatus` in `bootstrap.proto`)."""

    NOT_RUN = "not_run"
    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"


class WatchdogStatus(StrEnum):
    """The outcome of watching a new run (`RestartWatchdogStatus` in `bootstrap.proto`)."""

    NOT_RUN = "not_run"
    STABLE = "stable"
    UNSTABLE = "unstable"


class HealthStatus(StrEnum):
    """The outcome of a release's health check (`HealthStatus` in `bootstrap.proto`)."""

    NOT_RUN = "not_run"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    INCONCLUSIVE = "inconclusive"


# What is asked for -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRequest:
    """What a cycle is to do, without the contents of its change (`CycleRequest` in the contract).

    edited_paths: of the edits, in their order. has_patch: the change is a diff.
    commit: full sha of an existing commit; empty: there are edits or a patch.
    None and empty: what the settings say, as of the base commit.
    """

    edited_paths: tuple[str, ...] = ()
    has_patch: bool = False
    commit: str = ""
    commit_message: str = ""
    branch_name: str = ""
    base_branch: str = ""
    create_pr: bool | None = None
    auto_merge_on_ci_success: bool | None = None
    ci_timeout: timedelta | None = None
    ci_initial_poll: timedelta | None = None
    ci_max_poll: timedelta | None = None
    deploy_target: str = ""
    deployment_context: DeploymentContext = DeploymentContext.SELF_HOSTED
    requested_release_id: str = ""
    previous_release_id: str = ""
    rollback_release_id: str = ""
    rollback_on_deploy_failure: bool | None = None
    rollback_on_restart_watchdog_failure: bool | None = None
    rollback_on_health_failure: bool | None = None
    restart_watchdog_retries: int | None = None
    restart_watchdog_interval: timedelta | None = None
    health_check_target: Probe | None = None
    health_check_retries: int | None = None
    health_check_interval: timedelta | None = None
    bake_time: timedelta | None = None
    require_approval: bool | None = None
    until: CycleStep = CycleStep.FINALIZE
    keep_worktree: bool = False
    override_bad: bool = False
    reason: str = ""
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """Somebody asked for the end of the cycle."""

    principal: str
    time: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What an approver decided, on which commit and plan."""

    approved: bool
    principal: str
    time: datetime
    commit_sha: str
    plan_digest: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """What an approver decides on: bound to a commit, a plan and an expiry."""

    commit_sha: str
    plan_digest: str
    expire_time: datetime
    reason: str


# Where it stands -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatus:
    """How one step stands (`CycleStepStatus` in the contract).

    attempt: counts from 1; 0: not begun. start_time: of the first attempt.
    waiting: the part of the time that was spent waiting. waiting_since: of the
    wait that goes on. reason: why it failed, waits or was skipped, in snake case.
    evidence: facts for people: shas, urls, exit codes. log_tail: at most 64 KiB.
    """

    step: CycleStep
    state: StepState = StepState.PENDING
    attempt: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    waiting: timedelta = timedelta()
    waiting_since: datetime | None = None
    reason: str = ""
    evidence: Mapping[str, str] = field(default_factory=dict)
    log_tail: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleFacts:
    """What steps leave for later steps; all ids are full shas, empty while not known.

    base_commit: the head of the base that the cycle began from.
    settings: `[bootstrap]` in force, with what the request gives over it.
    tree: of the change. tested_tree: the last one that TEST passed.
    ci_commit: the last one that CI passed. candidate: the merge that is to be
    tested before it is pushed; empty: the change itself is. candidate_base: the
    base that it was made on. retests: how often the base moved under the change.
    approval_reason: why a decision is needed; empty: it is not.
    base_before: the base before the merge. merged_here: the merge is this cycle's.
    release_before: the id the project ran on before DEPLOY; empty: its own
    directory. previous_release_id: as the sources of metadata name it.
    run_before: the run that DEPLOY found (None: it has not looked yet); a run of
    the release with another id is the one that it began, `deploy_run_id`.
    cut_over: DEPLOY may have switched. rollback_run_before, rollback_run_id: the
    same for ROLLBACK.
    lost_runs: how many of the runs that the cycle began were lost with their
    supervisor, or with the host; each was begun anew.
    branch_pushed: the remote branch is this cycle's to remove. branch_head: what
    PUSH left it at.
    """

    base_branch: str = ""
    base_commit: str = ""
    settings: BootstrapSettings | None = None
    plan_digest: str = ""
    branch: str = ""
    tree: str = ""
    tested_tree: str = ""
    commit: str = ""
    branch_pushed: bool = False
    branch_head: str = ""
    pull_request: str = ""
    ci_commit: str = ""
    ci_poll: int = 0
    candidate: str = ""
    candidate_base: str = ""
    candidate_tree: str = ""
    retests: int = 0
    approval_reason: str = ""
    base_before: str = ""
    merged_commit: str = ""
    merged_tree: str = ""
    merged_here: bool = False
    release_before: str = ""
    release_id: str = ""
    previous_release_id: str = ""
    previous_release_source: str = ""
    cut_over: bool = False
    run_before: str | None = None
    deploy_run_id: str = ""
    deploy_time: datetime | None = None
    healthy_since: datetime | None = None
    rollback_run_before: str | None = None
    rollback_run_id: str = ""
    lost_runs: int = 0
    cleaned_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleResult:
    """What came of a cycle so far (`CycleResult` in the contract)."""

    branch_name: str = ""
    commit_sha: str = ""
    committed: bool = False
    pushed: bool = False
    ci_status: CiStatus = CiStatus.NOT_RUN
    pr_url: str = ""
    merged: bool = False
    merge_commit_sha: str = ""
    deployed_release_id: str = ""
    restart_watchdog_status: WatchdogStatus = WatchdogStatus.NOT_RUN
    restart_watchdog_reason: str = ""
    health_status: HealthStatus = HealthStatus.NOT_RUN
    rollback_performed: bool = False
    rollback_succeeded: bool | None = None
    rollback_target_release_id: str = ""
    rollback_policy_status: PolicyStatus = PolicyStatus.NOT_EVALUATED
    rollback_policy_reason: str = ""
    rollback_target_valid: bool | None = None
    rollback_failure_class: str = ""
    rollback_deployment_context: DeploymentContext | None = None
    rollback_verdict: Verdict | None = None
    release_metadata_source: Mapping[str, str] = field(default_factory=dict)
    reverted: bool = False
    revert_commit_sha: str = ""
    test_report_cycle_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleFailure:
    """The first failure of a cycle: what everything after it is about.

    reason: more exactly than the class, in snake case.
    """

    step: CycleStep
    failure_class: FailureClass
    reason: str
    external_cause: ExternalCause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """A cycle as it is stored. Changed only through the journal.

    steps: all that may come, in order. revision: rises at every change.
    lease_epoch: rises whenever an engine takes the cycle; what an engine writes
    under an earlier one is refused. wake_time: a wait's end, in HELD and while a
    step waits. deadline_time: when the present state ends by itself, as a failure.
    cancellation, decision: written by calls, never by the engine.
    """

    cycle_id: str
    project_id: str
    kind: CycleKind = CycleKind.CHANGE
    request: CycleRequest
    requested_by: str
    create_time: datetime
    state: CycleState = CycleState.RUNNING
    outcome: CycleOutcome | None = None
    outcome_reason: str = ""
    steps: tuple[StepStatus, ...]
    facts: CycleFacts = field(default_factory=CycleFacts)
    result: CycleResult = field(default_factory=CycleResult)
    failure: CycleFailure | None = None
    approval: ApprovalRequest | None = None
    cancellation: Cancellation | None = None
    decision: Decision | None = None
    wake_time: datetime | None = None
    deadline_time: datetime | None = None
    end_time: datetime | None = None
    revision: int = 0
    lease_epoch: int = 0

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state is CycleState.ENDED

    @property
    def settings(self) -> BootstrapSettings:
        """`[bootstrap]` in force; before PREPARE: the defaults."""
        return self.facts.settings or BootstrapSettings()

    @property
    def current_step(self) -> CycleStep:
        """The step that is being done, or the last that was."""
        active = [s.step for s in self.steps if s.state in (StepState.RUNNING, StepState.WAITING)]
        begun = active or [s.step for s in self.steps if s.attempt and s.state.over]
        return begun[-1] if begun else self.steps[0].step

    def step(self, step: CycleStep) -> StepStatus:
        """How the step stands; PENDING if it is none of this cycle's."""
        return next((s for s in self.steps if s.step is step), StepStatus(step=step))

    def with_step(self, status: StepStatus) -> Cycle:
        """The cycle with this status in place of the step's."""
        steps = tuple(status if s.step is status.step else s for s in self.steps)
        return replace(self, steps=steps)
