"""StepErrors: what it means for a cycle that one of its steps raises."""

from __future__ import annotations

import logging
from collections import Counter

from att_server.core.cycles.forge import ForgeRefused, ForgeUnavailable
from att_server.core.cycles.model import CycleStep
from att_server.core.cycles.step import Failed, Held, Leaves, Step, StepEnd
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import ExternalCause, FailureClass
from att_server.core.repository import RepositoryError, RepositoryFailure

UNCLEAR_TRIES = 3
"""How often a step is tried whose repository fails in a way that says nothing of the change."""

_UNCLEAR = {RepositoryFailure.OTHER, RepositoryFailure.DAMAGED}
_HOLDING = {Reason.STORAGE_FULL, Reason.SUPERVISOR_UNREACHABLE}
_REMOTE = {
    RepositoryFailure.REMOTE_UNREACHABLE,
    RepositoryFailure.REMOTE_AUTHENTICATION,
    RepositoryFailure.REMOTE_NOT_FOUND,
    RepositoryFailure.REMOTE_TIMED_OUT,
}

log = logging.getLogger(__name__)


class StepErrors:
    """Of one cycle. What lies outside of the change holds it, all else is a failure."""

    def __init__(self, cycle_id: str) -> None:
        self._cycle_id = cycle_id
        self._unclear: Counter[CycleStep] = Counter()

    def end(self, step: Step, error: Exception) -> StepEnd:
        """How the step ended that has just raised `error`. See `Step`."""
        failure_class = step.failure_class
        match error:
            case RepositoryError():
                return self._of_repository(step, error)
            case ForgeUnavailable():
                return Held(
                    reason=error.reason,
                    external_cause=ExternalCause.FORGE,
                    leaves=_said(error.message),
                )
            case AttError() if error.reason in _HOLDING:
                return Held(reason=error.reason.lower(), leaves=_said(error.message))
            case AttError() | ForgeRefused():
                reason, message = error.reason.lower(), error.message
            case _:
                log.error("defect in %s of cycle %s", step.step, self._cycle_id, exc_info=error)
                failure_class, reason = FailureClass.INTERNAL, "defect"
                message = f"{type(error).__name__}: {error}"
        return Failed(failure_class=failure_class, reason=reason, leaves=_said(message))

    def _of_repository(self, step: Step, error: RepositoryError) -> StepEnd:
        reason, leaves = str(error.failure), _said(error.message)
        if error.failure.external:
            cause = ExternalCause.REMOTE if error.failure in _REMOTE else None
            return Held(reason=reason, external_cause=cause, leaves=leaves)
        if error.failure in _UNCLEAR:
            self._unclear[step.step] += 1
            if self._unclear[step.step] < UNCLEAR_TRIES:
                return Held(reason=reason, leaves=leaves)
        return Failed(failure_class=step.failure_class, reason=reason, leaves=leaves)


def _said(message: str) -> Leaves:
    return Leaves(evidence={"error": message})
