"""Planner: what a cycle would do, found out without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from att_server.core.cycles.commit_note import IDENTITY
from att_server.core.cycles.course import AUTO_MERGE_DISABLED
from att_server.core.cycles.forge import Forges
from att_server.core.cycles.gates import approval_reasons, plan_digest
from att_server.core.cycles.model import (
    FORWARD,
    CycleKind,
    CycleRequest,
    CycleStep,
    StepState,
    StepStatus,
)
from att_server.core.cycles.rollback_question import RollbackQuestions
from att_server.core.cycles.settings import BootstrapSettingsReader
from att_server.core.cycles.starting_point import (
    COMMIT_IS_ON_BASE,
    NoStart,
    StartingPoint,
    find_start,
)
from att_server.core.cycles.step import Asked, Step
from att_server.core.errors import AttError, Reason, field_invalid
from att_server.core.model import Project
from att_server.core.ports import Clock
from att_server.core.repository import Change, CommitNote, Conflict, Repositories, Repository
from att_server.core.rollback_policy import evaluate
from att_server.core.rollback_verdict import Verdict

_ON_BASE = frozenset(
    {
        CycleStep.BRANCH,
        CycleStep.EDIT,
        CycleStep.COMMIT,
        CycleStep.PUSH,
        CycleStep.PULL_REQUEST,
        CycleStep.MERGE,
    }
)
"""What a commit needs no more that is on the base."""

_AT_FORGE = frozenset({CycleStep.PULL_REQUEST, CycleStep.CI, CycleStep.MERGE})

_NOTE = CommitNote(message="plan", identity=IDENTITY, time=datetime(2000, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a cycle would do.

    steps: those of the way forward, PENDING, or SKIPPED with the reason. rollback:
    what the policy would say if the release were not healthy; None where nothing
    would be deployed. approval_reason: empty: nobody would have to decide.
    """

    steps: tuple[StepStatus, ...]
    rollback: Verdict | None
    base_commit: str
    plan_digest: str
    approval_reason: str = ""


class Planner:
    """Makes plans. What it needs in the repository meanwhile is discarded."""

    def __init__(
        self,
        *,
        repositories: Repositories,
        settings: BootstrapSettingsReader,
        steps: Sequence[Step],
        forges: Forges,
        questions: RollbackQuestions,
        clock: Clock,
    ) -> None:
        """steps: those of the engine, asked whether they would be skipped."""
        self._repositories = repositories
        self._settings = settings
        self._steps = {step.step: step for step in steps}
        self._forges = forges
        self._questions = questions
        self._clock = clock

    async def plan(self, project: Project, request: CycleRequest, change: Change | None) -> Plan:
        """The plan as of now. change: the edits or the patch, None with a commit.

        Raises what would keep the cycle from beginning or from having a change:
        FIELD_INVALID, EDIT_PATH_INVALID, PATCH_DOES_NOT_APPLY, REVISION_NOT_FOUND,
        SETTINGS_INVALID, PROJECT_NOT_REPOSITORY_ROOT, PROJECT_HAS_NO_REMOTE,
        RepositoryError, ForgeUnavailable, ForgeRefused.
        """
        repository = await self._repositories.of(project)
        try:
            start = await find_start(repository, self._settings, project.project_id, request)
        except NoStart as error:
            raise _refused(project, request, error) from error
        plan_id = f"plan-{self._clock.new_id()}"
        try:
            tree, changed = await _changed(repository, start, change, plan_id)
        finally:
            await repository.discard(plan_id)
        reasons = approval_reasons(start.settings, request, changed, other_base=start.other_base)
        steps = self._steps_of(start, request, approved=not reasons)
        pending = {each.step for each in steps if each.state is StepState.PENDING}
        if pending & _AT_FORGE:
            await self._forges.examine(project, start.settings)
        question = None
        if CycleStep.DEPLOY in pending:
            question = await self._questions.of_plan(
                project, request, start.settings, base_commit=start.base_commit
            )
        return Plan(
            steps=steps,
            rollback=None if question is None else evaluate(question),
            base_commit=start.base_commit,
            plan_digest=plan_digest(
                start.settings, request, base_commit=start.base_commit, tree=tree
            ),
            approval_reason=str(reasons[0]) if reasons else "",
        )

    def _steps_of(
        self, start: StartingPoint, request: CycleRequest, *, approved: bool
    ) -> tuple[StepStatus, ...]:
        last, beyond = FORWARD.index(request.until), "not_asked_for"
        if not start.settings.auto_merge_on_ci_success and request.until not in FORWARD[:9]:
            last, beyond = FORWARD.index(CycleStep.APPROVAL), AUTO_MERGE_DISABLED
        asked = Asked(kind=CycleKind.CHANGE, request=request, settings=start.settings)
        found = []
        for number, step in enumerate(FORWARD):
            reason = self._steps[step].skip_reason(asked)
            if number > last:
                reason = beyond
            elif start.on_base and step in _ON_BASE:
                reason = COMMIT_IS_ON_BASE
            elif start.commit is not None and step is CycleStep.EDIT:
                reason = "commit_given"
            elif step is CycleStep.APPROVAL and approved:
                reason = "not_required"
            state = StepState.SKIPPED if reason else StepState.PENDING
            found.append(StepStatus(step=step, state=state, reason=reason))
        return tuple(found)


async def _changed(
    repository: Repository, start: StartingPoint, change: Change | None, plan_id: str
) -> tuple[str, Sequence[str]]:
    """The tree of the change, and the paths of the base that it changes."""
    base, commit = start.base_commit, start.commit
    if commit is None:
        if change is None:
            raise field_invalid("cycle", "needs exactly one of edits, patch and commit")
        applied = await repository.apply(plan_id, base, change)
        if not applied.paths:
            raise field_invalid("cycle.edits", "change nothing: the base holds all of it already")
        return applied.tree, [each.path for each in applied.paths]
    if start.on_base:
        return commit.tree, ()
    merged = await repository.merge_candidate(
        plan_id, base, commit.sha, start.settings.merge_method, _NOTE
    )
    if isinstance(merged, Conflict):
        raise field_invalid("cycle.commit", "conflicts with the base: " + ", ".join(merged.paths))
    return commit.tree, [each.path for each in await repository.changed_paths(base, merged.tree)]


def _refused(project: Project, request: CycleRequest, error: NoStart) -> AttError:
    if error.reason == "commit_not_found":
        return AttError(
            Reason.REVISION_NOT_FOUND,
            error.message,
            project_id=project.project_id,
            revision=request.commit,
        )
    return field_invalid("cycle.base_branch", error.message)
