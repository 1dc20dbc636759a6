"""DryRuns: what a cycle would do and what the rollback policy would say, without effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from att_server.core.cycles.admission import (
    check_change,
    forge_unavailable,
    repository_unavailable,
)
from att_server.core.cycles.forge import ForgeError
from att_server.core.cycles.going_back import GoingBack
from att_server.core.cycles.model import CycleRequest
from att_server.core.cycles.plan import Plan, Planner
from att_server.core.cycles.rollback_question import RollbackQuestions
from att_server.core.errors import field_invalid
from att_server.core.failure_class import FailureClass
from att_server.core.identity import Caller
from att_server.core.model import Project
from att_server.core.releases import DeploymentContext
from att_server.core.repository import Change, RepositoryError
from att_server.core.rollback_policy import evaluate
from att_server.core.rollback_verdict import Verdict


class DryRuns:
    """Finds out what would be, as of now. Nothing is stored."""

    def __init__(
        self,
        *,
        find_project: Callable[[str], Project],
        check_user: Callable[[Project], Awaitable[None]],
        planner: Planner,
        questions: RollbackQuestions,
        going_back: GoingBack,
    ) -> None:
        """find_project: raises PROJECT_NOT_FOUND. check_user: raises RUN_AS_NOT_POSSIBLE where
        the project has no cycles for the user that its app runs as."""
        self._find_project = find_project
        self._check_user = check_user
        self._planner = planner
        self._questions = questions
        self._going_back = going_back

    async def plan(
        self, project_id: str, request: CycleRequest, change: Change | None, caller: Caller
    ) -> Plan:
        """What the cycle would do, and what the policy would say.

        Raises what `BootstrapManager.start` refuses for the change, and
        REPOSITORY_UNAVAILABLE.
        """
        project = self._find_project(project_id)
        await self._check_user(project)
        check_change(request, change, caller)
        try:
            return await self._planner.plan(project, request, change)
        except RepositoryError as error:
            raise repository_unavailable(project_id, error) from error
        except ForgeError as error:
            raise forge_unavailable(project_id, error) from error

    async def evaluate(
        self,
        project_id: str,
        target_release_id: str,
        failure_class: str,
        context: DeploymentContext,
    ) -> Verdict:
        """What the policy says of a rollback. failure_class: empty: a person asks.

        Raises FIELD_INVALID, PROJECT_NOT_FOUND, REPOSITORY_UNAVAILABLE.
        """
        try:
            failure = FailureClass(failure_class) if failure_class else None
        except ValueError:
            raise field_invalid("failure_class", "names no class of failures") from None
        project = self._find_project(project_id)
        request = CycleRequest(rollback_release_id=target_release_id, deployment_context=context)
        try:
            start = await self._going_back.find(project, request)
            question = await self._questions.of_project(
                project,
                start.settings,
                context=context,
                target_release_id=target_release_id,
                failure_class=failure,
            )
        except RepositoryError as error:
            raise repository_unavailable(project_id, error) from error
        return evaluate(question)
