"""Carries changes to running and healthy, or back; keeps the releases."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import TypedDict, Unpack

from att_client._proto.att.v1 import (
    CancelCycleRequest,
    CancelCycleResponse,
    Cycle,
    CycleDecision,
    CycleRequest,
    CycleStep,
    DecideCycleRequest,
    DecideCycleResponse,
    DeploymentContext,
    EvaluateRollbackRequest,
    EvaluateRollbackResponse,
    GetCycleRequest,
    GetCycleResponse,
    GetReleaseRequest,
    GetReleaseResponse,
    ListCyclesRequest,
    ListCyclesResponse,
    ListReleasesRequest,
    ListReleasesResponse,
    PlanCycleRequest,
    PlanCycleResponse,
    Probe,
    Release,
    RollbackReleaseRequest,
    RollbackReleaseResponse,
    RollbackVerdict,
    StartCycleRequest,
    StartCycleResponse,
    WatchCycleRequest,
)
from att_client.cycle_change import Edit, with_change
from att_client.cycle_watch import CycleWatch
from att_client.errors import ProtocolError
from att_client.paging import Pager
from att_client.transport import Service, Transport, present


class CycleOptions(TypedDict, total=False):
    """How a change is carried out: the fields of `CycleRequest` beside the change itself.

    One that is not given is as the project's settings say, as of the base commit.
    """

    branch_name: str
    base_branch: str
    create_pr: bool
    auto_merge_on_ci_success: bool
    ci_timeout: timedelta
    ci_initial_poll: timedelta
    ci_max_poll: timedelta
    deploy_target: str
    deployment_context: DeploymentContext
    requested_release_id: str
    previous_release_id: str
    rollback_release_id: str
    rollback_on_deploy_failure: bool
    rollback_on_restart_watchdog_failure: bool
    rollback_on_health_failure: bool
    restart_watchdog_retries: int
    restart_watchdog_interval: timedelta
    health_check_target: Probe
    health_check_retries: int
    health_check_interval: timedelta
    bake_time: timedelta
    require_approval: bool
    until: CycleStep
    keep_worktree: bool
    override_bad: bool


class Bootstrap:
    """Release cycles and releases. A cycle goes on when its caller leaves."""

    def __init__(self, transport: Transport, timeout: timedelta) -> None:
        self._transport = transport
        self._service = Service(transport, "BootstrapService", timeout)

    async def plan(
        self,
        project_id: str,
        *,
        edits: Mapping[str, Edit] | None = None,
        patch: bytes | str | None = None,
        commit: str | None = None,
        message: str = "",
        **options: Unpack[CycleOptions],
    ) -> PlanCycleResponse:
        """The steps, gates and rollback verdict that `start` would have; does nothing.

        Arguments and errors are those of `start`.
        """
        request = CycleRequest(project_id=project_id, commit_message=message, **options)
        return await self._service.call(
            PlanCycleRequest(cycle=with_change(request, edits=edits, patch=patch, commit=commit)),
            PlanCycleResponse,
        )

    async def start(
        self,
        project_id: str,
        *,
        edits: Mapping[str, Edit] | None = None,
        patch: bytes | str | None = None,
        commit: str | None = None,
        message: str = "",
        request_id: str | None = None,
        **options: Unpack[CycleOptions],
    ) -> CycleHandle:
        """Starts a cycle and returns at once; `wait` or `watch` it.

        edits: by path against the top of the tree: the file's whole new content,
            None to remove it, or a `FileEdit`.
        patch: a unified diff, of at most 8 MiB.
        commit: the full sha of an existing commit.
        message: of the commit; at most 64 KiB.
        request_id: makes a repetition by the caller safe; None is a new one.
        options: see `CycleOptions`.
        Raises TypeError unless exactly one of edits, patch and commit is given;
        CycleAlreadyRunningError, ProjectInSafeModeError, ProjectFrozenError,
        BaseContainsBadChangeError, EditPathInvalidError, FieldInvalidError,
        ProjectNotRepositoryRootError, ProjectHasNoRemoteError, ReleaseMarkedBadError,
        and other AttErrors.
        """
        request = CycleRequest(project_id=project_id, commit_message=message, **options)
        response = await self._service.call(
            StartCycleRequest(
                cycle=with_change(request, edits=edits, patch=patch, commit=commit),
                request_id=request_id or uuid.uuid4().hex,
            ),
            StartCycleResponse,
        )
        return CycleHandle(self, present(response.cycle))

    async def get(self, cycle_id: str) -> Cycle:
        """The cycle as it is now. Raises CycleNotFoundError."""
        response = await self._service.call(GetCycleRequest(cycle_id=cycle_id), GetCycleResponse)
        return present(response.cycle)

    def list(
        self, project_id: str = "", *, active_only: bool = False, page_size: int = 0
    ) -> Pager[ListCyclesResponse, Cycle]:
        """The cycles of the project, empty for all, the newest first.

        active_only: those that have not ended. page_size: 1 to 1,000, 0 is 50.
        """

        async def fetch(page_token: str) -> ListCyclesResponse:
            return await self._service.call(
                ListCyclesRequest(
                    project_id=project_id,
                    active_only=active_only,
                    page_size=page_size,
                    page_token=page_token,
                ),
                ListCyclesResponse,
            )

        return Pager(fetch, lambda page: page.cycles)

    def watch(
        self,
        cycle_id: str,
        *,
        after_revision: int = 0,
        progress_interval: timedelta | None = None,
        max_elapsed: timedelta | None = None,
    ) -> CycleWatch:
        """The state of the cycle, and every change that comes, until it has ended.

        after_revision: what is known already, the `revision` of a state.
        progress_interval, max_elapsed: as for `Logs.follow`. The loop raises
        CycleNotFoundError, and what else AttError names.
        """
        asked = WatchCycleRequest(
            cycle_id=cycle_id,
            after_revision=after_revision,
            progress_interval=progress_interval,
        )
        return CycleWatch(self._transport, asked, max_elapsed)

    async def wait(self, cycle_id: str, *, max_elapsed: timedelta | None = None) -> Cycle:
        """The cycle once it has ended, over every outage of the server.

        Its `outcome` says how; one that failed is an answer and no error. It waits
        as long as the cycle does, for a decision too: bound it with `asyncio.timeout`.
        """
        cycle = None
        async for state in self.watch(cycle_id, max_elapsed=max_elapsed):
            cycle = state
        if cycle is None:
            raise ProtocolError(f"The server ended the watch of cycle {cycle_id} without a state.")
        return cycle

    async def cancel(
        self, cycle_id: str, *, reason: str = "", request_id: str | None = None
    ) -> Cycle:
        """Asks for the cycle's end and returns at once; `wait` for it.

        Before MERGE it cleans up, after DEPLOY it is a rollback under policy; one
        that has ended is returned as it is.
        Raises CycleNotFoundError, PermissionDeniedError for another's cycle.
        """
        response = await self._service.call(
            CancelCycleRequest(
                cycle_id=cycle_id, reason=reason, request_id=request_id or uuid.uuid4().hex
            ),
            CancelCycleResponse,
        )
        return present(response.cycle)

    async def approve(
        self,
        cycle_id: str,
        *,
        commit_sha: str,
        plan_digest: str,
        reason: str = "",
        request_id: str | None = None,
    ) -> Cycle:
        """Lets a cycle go on that waits for a decision.

        commit_sha, plan_digest: what was looked at, from the cycle's `approval`.
        Raises CycleNotAwaitingDecisionError, ApprovalStaleError where that has
        changed, DecidedByRequesterError, PermissionDeniedError, CycleNotFoundError.
        """
        return await self._decide(
            CycleDecision.APPROVE, cycle_id, commit_sha, plan_digest, reason, request_id
        )

    async def reject(
        self,
        cycle_id: str,
        *,
        commit_sha: str,
        plan_digest: str,
        reason: str = "",
        request_id: str | None = None,
    ) -> Cycle:
        """Ends a cycle that waits for a decision, as REJECTED. As `approve`."""
        return await self._decide(
            CycleDecision.REJECT, cycle_id, commit_sha, plan_digest, reason, request_id
        )

    async def _decide(
        self,
        decision: CycleDecision,
        cycle_id: str,
        commit_sha: str,
        plan_digest: str,
        reason: str,
        request_id: str | None,
    ) -> Cycle:
        response = await self._service.call(
            DecideCycleRequest(
                cycle_id=cycle_id,
                decision=decision,
                commit_sha=commit_sha,
                plan_digest=plan_digest,
                reason=reason,
                request_id=request_id or uuid.uuid4().hex,
            ),
            DecideCycleResponse,
        )
        return present(response.cycle)

    def releases(
        self, project_id: str, *, page_size: int = 0
    ) -> Pager[ListReleasesResponse, Release]:
        """The releases of the project, the newest first; page_size: 1 to 1,000, 0 is 50."""

        async def fetch(page_token: str) -> ListReleasesResponse:
            return await self._service.call(
                ListReleasesRequest(
                    project_id=project_id, page_size=page_size, page_token=page_token
                ),
                ListReleasesResponse,
            )

        return Pager(fetch, lambda page: page.releases)

    async def release(self, project_id: str, release_id: str) -> Release:
        """The release as it is now. Raises ReleaseNotFoundError, ProjectNotFoundError."""
        response = await self._service.call(
            GetReleaseRequest(project_id=project_id, release_id=release_id), GetReleaseResponse
        )
        return present(response.release)

    async def evaluate_rollback(
        self,
        project_id: str,
        *,
        target_release_id: str = "",
        failure_class: str = "",
        deployment_context: DeploymentContext = DeploymentContext.UNSPECIFIED,
    ) -> RollbackVerdict:
        """The verdict that a rollback would have, with every gate; does nothing.

        target_release_id: empty: found as a rollback would.
        failure_class: such as `health_failure`, what an automatic rollback would be
            for; empty: a person asks.
        """
        response = await self._service.call(
            EvaluateRollbackRequest(
                project_id=project_id,
                target_release_id=target_release_id,
                failure_class=failure_class,
                deployment_context=deployment_context,
            ),
            EvaluateRollbackResponse,
        )
        return present(response.verdict)

    async def rollback(
        self,
        project_id: str,
        *,
        target_release_id: str = "",
        reason: str = "",
        timeout: timedelta | None = None,
        deployment_context: DeploymentContext = DeploymentContext.UNSPECIFIED,
        deploy_target: str = "",
        request_id: str | None = None,
    ) -> CycleHandle:
        """Returns to an earlier release, as a cycle of its own; returns at once.

        target_release_id: empty: the last good one before.
        timeout: bounds the whole; None is as the settings say.
        Raises RollbackDeniedError (`policy_reason` in its metadata says why),
        ReleaseNotFoundError, CycleAlreadyRunningError, ProjectFrozenError.
        """
        response = await self._service.call(
            RollbackReleaseRequest(
                project_id=project_id,
                target_release_id=target_release_id,
                reason=reason,
                timeout=timeout,
                request_id=request_id or uuid.uuid4().hex,
                deployment_context=deployment_context,
                deploy_target=deploy_target,
            ),
            RollbackReleaseResponse,
        )
        return CycleHandle(self, present(response.cycle))


class CycleHandle:
    """A cycle that was started: its id, and what one does with it next.

    `started` is how it stood when the call returned; later states come from `watch`
    and `wait`. A cycle of an earlier call is reached by its id, with `att.bootstrap`.
    """

    def __init__(self, bootstrap: Bootstrap, started: Cycle) -> None:
        self._bootstrap = bootstrap
        self.started = started

    @property
    def cycle_id(self) -> str:
        """The cycle's id."""
        return self.started.cycle_id

    def watch(self, *, max_elapsed: timedelta | None = None) -> CycleWatch:
        """Its states until it has ended; see `Bootstrap.watch`."""
        return self._bootstrap.watch(self.cycle_id, max_elapsed=max_elapsed)

    async def wait(self, *, max_elapsed: timedelta | None = None) -> Cycle:
        """The cycle once it has ended; see `Bootstrap.wait`."""
        return await self._bootstrap.wait(self.cycle_id, max_elapsed=max_elapsed)

    async def cancel(self, *, reason: str = "") -> Cycle:
        """Asks for its end; see `Bootstrap.cancel`."""
        return await self._bootstrap.cancel(self.cycle_id, reason=reason)
