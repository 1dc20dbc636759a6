"""Why a cycle failed: one class for every way, with what follows from each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CycleOutcome(StrEnum):
    """How a cycle ended (`CycleOutcome` in `bootstrap.proto`)."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class FailureClass(StrEnum):
    """The class of a failure; its value is what `outcome_reason` and events say.

    The last three are failures of a release that was switched to. The others
    come before that, as a rule.
    """

    PREPARE_FAILURE = "prepare_failure"
    EDIT_FAILURE = "edit_failure"
    TEST_FAILURE = "test_failure"
    COMMIT_FAILURE = "commit_failure"
    PUSH_FAILURE = "push_failure"
    PR_FAILURE = "pr_failure"
    CI_FAILURE = "ci_failure"
    CI_TIMEOUT = "ci_timeout"
    APPROVAL_REJECTED = "approval_rejected"
    APPROVAL_EXPIRED = "approval_expired"
    MERGE_CONFLICT = "merge_conflict"
    MERGE_FAILURE = "merge_failure"
    STAGE_FAILURE = "stage_failure"
    EXTERNAL_FAILURE = "external_failure"
    CANCELLED = "cancelled"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL = "internal"

    DEPLOY_FAILURE = "deploy_failure"
    RESTART_WATCHDOG_FAILURE = "restart_watchdog_failure"
    HEALTH_FAILURE = "health_failure"

    @property
    def triggers_rollback(self) -> bool:
        """Whether it says something against the release that was switched to.

        Settings may still keep the rollback from happening.
        """
        return self in _AGAINST_THE_RELEASE

    @property
    def outcome(self) -> CycleOutcome:
        """How a cycle ends that fails so and rolls nothing back."""
        return _OUTCOMES.get(self, CycleOutcome.FAILED)


_AGAINST_THE_RELEASE = frozenset(
    {
        FailureClass.DEPLOY_FAILURE,
        FailureClass.RESTART_WATCHDOG_FAILURE,
        FailureClass.HEALTH_FAILURE,
    }
)
_OUTCOMES = {
    FailureClass.CANCELLED: CycleOutcome.CANCELLED,
    FailureClass.APPROVAL_REJECTED: CycleOutcome.REJECTED,
}


class ExternalCause(StrEnum):
    """What outside of ATT and of the app did not work."""

    REGISTRY = "registry"
    FORGE = "forge"
    REMOTE = "remote"
    NETWORK = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What failed, and what outside was the cause, if anything was."""

    failure_class: FailureClass
    external_cause: ExternalCause | None = None

    @property
    def external(self) -> bool:
        """Whether the cause lies outside: it is waited for, and nothing is rolled back."""
        return (
            self.external_cause is not None or self.failure_class is FailureClass.EXTERNAL_FAILURE
        )
