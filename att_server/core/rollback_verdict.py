"""The verdict of the rollback policy, gate by gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from att_server.core.release_metadata import NamedRelease

VALIDATED = "rollback_target_validated"
"""The reason of a verdict that allows."""


class Gate(StrEnum):
    """The gates, in their order. The value is the name that clients see."""

    NOT_FROZEN = "not_frozen"
    NOT_IN_SAFE_MODE = "not_in_safe_mode"
    CLASS_ENABLED = "class_enabled"
    CUT_OVER = "cut_over"
    OWN_CAUSE = "own_cause"
    EXECUTOR = "executor"
    EXTERNAL_TARGET_NAMED = "external_target_named"
    TARGET_FOUND = "target_found"
    TARGET_DIFFERS = "target_differs"
    TARGET_KNOWN = "target_known"
    TARGET_NOT_BAD = "target_not_bad"
    TARGET_PROVEN = "target_proven"
    TARGET_COMPATIBLE = "target_compatible"
    TARGET_ARTIFACT = "target_artifact"
    ATTEMPTS_LEFT = "attempts_left"


DENY_REASONS: Mapping[Gate, str] = {
    Gate.NOT_FROZEN: "project_frozen",
    Gate.NOT_IN_SAFE_MODE: "project_in_safe_mode",
    Gate.CLASS_ENABLED: "rollback_disabled_for_<class>",
    Gate.CUT_OVER: "nothing_was_deployed",
    Gate.OWN_CAUSE: "external_cause_hold",
    Gate.EXECUTOR: "rollback_executor_missing",
    Gate.EXTERNAL_TARGET_NAMED: "rollback_target_required_for_external_context",
    Gate.TARGET_FOUND: "rollback_target_unspecified",
    Gate.TARGET_DIFFERS: "rollback_target_same_as_deployed",
    Gate.TARGET_KNOWN: "rollback_target_unknown",
    Gate.TARGET_NOT_BAD: "rollback_target_marked_bad",
    Gate.TARGET_PROVEN: "rollback_target_not_known_good",
    Gate.TARGET_COMPATIBLE: "rollback_target_incompatible",
    Gate.TARGET_ARTIFACT: "rollback_target_missing_artifact",
    Gate.ATTEMPTS_LEFT: "rollback_attempts_exhausted",
}
_TARGET_GATES = frozenset(gate for gate in Gate if gate.startswith("target_"))


class GateStatus(StrEnum):
    """What a gate says. One that is not applicable lets pass."""

    PASSED = "passed"
    DENIED = "denied"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """What one gate says: why it denies or does not apply, and the facts it looked at."""

    gate: Gate
    status: GateStatus
    reason: str
    facts: Mapping[str, str]


class PolicyStatus(StrEnum):
    """The verdict as a whole (`RollbackPolicyStatus` in `bootstrap.proto`)."""

    NOT_EVALUATED = "not_evaluated"
    ALLOWED = "allowed"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the policy says; all of it follows from the gates.

    candidate: the release that was looked at, also where it was denied.
    gates: every gate, in order; ValueError for others, as a gate that was not
    asked must not let pass.
    """

    candidate: NamedRelease | None
    gates: tuple[GateVerdict, ...]

    def __post_init__(self) -> None:
        if tuple(each.gate for each in self.gates) != tuple(Gate):
            raise ValueError("a verdict holds every gate, in order")

    @property
    def allowed(self) -> bool:
        """Whether no gate denies."""
        return self._first_deny is None

    @property
    def status(self) -> PolicyStatus:
        """ALLOWED or DENIED."""
        return PolicyStatus.ALLOWED if self.allowed else PolicyStatus.DENIED

    @property
    def reason(self) -> str:
        """The reason of the first gate that denies, else `VALIDATED`."""
        return VALIDATED if self._first_deny is None else self._first_deny.reason

    @property
    def target(self) -> NamedRelease | None:
        """The release to return to, for whoever executes: None unless it is allowed."""
        return self.candidate if self.allowed else None

    @property
    def target_valid(self) -> bool | None:
        """Whether the candidate passes every gate about it; None: there is none."""
        if self.candidate is None:
            return None
        return not any(self.denied_by(gate) for gate in _TARGET_GATES)

    def denied_by(self, gate: Gate) -> bool:
        """Whether this gate denies, be it the first to do so or not."""
        return any(each.gate is gate and each.status is GateStatus.DENIED for each in self.gates)

    @property
    def _first_deny(self) -> GateVerdict | None:
        return next((each for each in self.gates if each.status is GateStatus.DENIED), None)
