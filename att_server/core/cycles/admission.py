"""What a call has to be like before a cycle is stored for it."""

from __future__ import annotations

from collections.abc import Sequence

from att_server.core.branch_names import branch_violation
from att_server.core.cycles.forge import ForgeError
from att_server.core.cycles.model import Cycle, CycleRequest, CycleState, Decision
from att_server.core.edit_paths import check_edits
from att_server.core.errors import AttError, Reason, field_invalid
from att_server.core.identity import Caller, Role
from att_server.core.model import Project, ProjectMode
from att_server.core.releases import Release, ReleaseState
from att_server.core.repository import Change, Patch, RepositoryError

BASE_CONTAINS_BAD_CHANGE = "base_contains_bad_change"
"""Why a project is in safe mode whose base still holds what was rolled back."""


def check_change(request: CycleRequest, change: Change | None, caller: Caller) -> None:
    """Raises FIELD_INVALID, EDIT_PATH_INVALID or PERMISSION_DENIED for what no cycle can do.

    change: the edits or the patch; None with a commit.
    """
    given = [bool(request.edited_paths), request.has_patch, bool(request.commit)]
    if sum(given) != 1 or (change is None) != bool(request.commit):
        raise field_invalid("cycle", "needs exactly one of edits, patch and commit")
    for field in ("branch_name", "base_branch"):
        name = getattr(request, field)
        if name and (violation := branch_violation(name)):
            raise field_invalid(f"cycle.{field}", violation)
    if change is not None and not isinstance(change, Patch):
        check_edits(change)
    if request.override_bad:
        caller.require(Role.ADMIN)


def refuse_by_mode(project: Project, *, automatic: bool) -> None:
    """Raises what the project's mode lets not happen. automatic: not a person's rollback."""
    project_id = project.project_id
    if project.mode is ProjectMode.FROZEN:
        raise AttError(
            Reason.PROJECT_FROZEN,
            f"Project {project_id} is frozen: nothing is released or rolled back. An admin ends "
            f"that with `att project mode {project_id} normal`.",
            project_id=project_id,
        )
    if project.mode is not ProjectMode.SAFE or not automatic:
        return
    if project.mode_reason == BASE_CONTAINS_BAD_CHANGE:
        raise AttError(
            Reason.BASE_CONTAINS_BAD_CHANGE,
            f"The base branch of {project_id} still holds a change that was rolled back; the next "
            "cycle would ship it again. Undo it on the base by hand, then have an admin call "
            f"`att project mode {project_id} normal`.",
            project_id=project_id,
        )
    raise AttError(
        Reason.PROJECT_IN_SAFE_MODE,
        f"Project {project_id} is in safe mode because of {project.mode_reason or 'an admin'}: "
        "nothing automatic happens. Look at the app, roll back by hand if need be, then have an "
        f"admin call `att project mode {project_id} normal`.",
        project_id=project_id,
    )


def refuse_bad_commit(project_id: str, commit: str, releases: Sequence[Release]) -> None:
    """Raises RELEASE_MARKED_BAD for a commit that was found bad as a release."""
    for release in releases:
        if release.release_id == commit and release.state is ReleaseState.BAD:
            raise AttError(
                Reason.RELEASE_MARKED_BAD,
                f"Release {commit} of {project_id} is bad ({release.reason}) and is not deployed "
                "again. Release another commit, or have an admin override that.",
                project_id=project_id,
                release_id=commit,
                release_reason=release.reason,
            )


def check_decision(cycle: Cycle, decision: Decision) -> None:
    """Raises DECIDED_BY_REQUESTER, CYCLE_NOT_AWAITING_DECISION or APPROVAL_STALE."""
    asked = cycle.approval
    if decision.principal == cycle.requested_by:
        raise AttError(
            Reason.DECIDED_BY_REQUESTER,
            f"{decision.principal} asked for cycle {cycle.cycle_id} and cannot decide it. Somebody "
            "else with the role approver has to.",
            cycle_id=cycle.cycle_id,
            principal=decision.principal,
        )
    waiting = cycle.state in (CycleState.AWAITING_APPROVAL, CycleState.HELD)
    if asked is None or not waiting:
        raise AttError(
            Reason.CYCLE_NOT_AWAITING_DECISION,
            f"Cycle {cycle.cycle_id} is {cycle.state} and does not wait for a decision. Look at it "
            "as it is now.",
            cycle_id=cycle.cycle_id,
            state=cycle.state,
        )
    on_this = (decision.commit_sha, decision.plan_digest) == (asked.commit_sha, asked.plan_digest)
    if not on_this or decision.time >= asked.expire_time:
        raise AttError(
            Reason.APPROVAL_STALE,
            f"Cycle {cycle.cycle_id} waits for a decision on commit {asked.commit_sha} and plan "
            f"{asked.plan_digest} until {asked.expire_time.isoformat(timespec='seconds')}. Look at "
            "it as it is now, and decide again.",
            cycle_id=cycle.cycle_id,
            commit_sha=asked.commit_sha,
        )


def forge_unavailable(project_id: str, error: ForgeError) -> AttError:
    """REPOSITORY_UNAVAILABLE too: what keeps a cycle from using the forge."""
    return AttError(
        Reason.REPOSITORY_UNAVAILABLE,
        f"The forge of {project_id} cannot be used: {error.message}",
        project_id=project_id,
        failure=error.reason,
    )


def repository_unavailable(project_id: str, error: RepositoryError) -> AttError:
    """REPOSITORY_UNAVAILABLE, for calls that wait for an answer."""
    return AttError(
        Reason.REPOSITORY_UNAVAILABLE,
        f"The repository of {project_id} cannot be used now: {error.message} Call again.",
        project_id=project_id,
        failure=error.failure,
    )
