"""BootstrapManager: cycles, as calls ask for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

from att_server.core.bell import Bell
from att_server.core.cycles.admission import (
    check_change,
    check_decision,
    refuse_bad_commit,
    refuse_by_mode,
    repository_unavailable,
)
from att_server.core.cycles.change import encode_change
from att_server.core.cycles.engine import CycleEngine
from att_server.core.cycles.journal import CycleJournal, already_running
from att_server.core.cycles.model import (
    Cancellation,
    Cycle,
    CycleKind,
    CycleRequest,
    CycleStep,
    Decision,
    StepStatus,
)
from att_server.core.dry_runs import DryRuns
from att_server.core.errors import AttError, Reason, field_invalid
from att_server.core.identity import Caller, Role
from att_server.core.model import Event, Project
from att_server.core.ports import Clock, StateStore
from att_server.core.releases import DeploymentContext
from att_server.core.repository import Change, Repositories, RepositoryError
from att_server.core.request_claim import RequestClaim
from att_server.core.requests import same_request

_TO_ROLL_BACK = (CycleStep.PREPARE, CycleStep.ROLLBACK, CycleStep.REVERT)


class BootstrapManager:
    """Stores what is asked for, and has the engine do it; a call waits for no cycle."""

    def __init__(
        self,
        *,
        journal: CycleJournal,
        store: StateStore,
        engine: CycleEngine,
        find_project: Callable[[str], Project],
        check_user: Callable[[Project], Awaitable[None]],
        repositories: Repositories,
        dry_runs: DryRuns,
        clock: Clock,
        stored: Bell,
    ) -> None:
        """find_project: raises PROJECT_NOT_FOUND. check_user: raises RUN_AS_NOT_POSSIBLE where
        the project has no cycles for the user that its app runs as. stored: rung for events."""
        self._journal = journal
        self._store = store
        self._engine = engine
        self._find_project = find_project
        self._check_user = check_user
        self._repositories = repositories
        self._dry_runs = dry_runs
        self._clock = clock
        self._stored = stored
        # A cycle is not stored for a project that is being deleted, nor the other way round.
        self._admission = asyncio.Lock()

    # Cycles -----------------------------------------------------------------

    async def start(
        self,
        project_id: str,
        request: CycleRequest,
        change: Change | None,
        *,
        request_id: str,
        digest: str,
        caller: Caller,
    ) -> Cycle:
        """Stores a cycle for the change, has it begun, and returns it as it is now.

        digest: equal for equal requests. Raises PROJECT_NOT_FOUND, PROJECT_FROZEN,
        PROJECT_IN_SAFE_MODE, RUN_AS_NOT_POSSIBLE, BASE_CONTAINS_BAD_CHANGE, FIELD_INVALID,
        EDIT_PATH_INVALID, PERMISSION_DENIED, PROJECT_NOT_REPOSITORY_ROOT,
        PROJECT_HAS_NO_REMOTE, REPOSITORY_UNAVAILABLE, RELEASE_MARKED_BAD,
        CYCLE_ALREADY_RUNNING, REQUEST_ID_REUSED.
        """
        claim = self._claim(request_id, "StartCycle", digest, project_id)
        if (known := await self._known(claim, caller)) is not None:
            return known
        project = self._find_project(project_id)
        refuse_by_mode(project, automatic=True)
        await self._check_user(project)
        check_change(request, change, caller)
        try:
            await self._repositories.of(project)
        except RepositoryError as error:
            raise repository_unavailable(project_id, error) from error
        if request.commit and not request.override_bad:
            refuse_bad_commit(project_id, request.commit, await self._journal.releases(project_id))
        content = b"" if change is None else await asyncio.to_thread(encode_change, change)
        cycle = self._new(project_id, CycleKind.CHANGE, request, tuple(CycleStep), caller)
        return await self._begin(cycle, content, claim, caller)

    async def rollback(
        self,
        project_id: str,
        target_release_id: str,
        reason: str,
        timeout: timedelta | None,
        context: DeploymentContext,
        deploy_target: str,
        *,
        request_id: str,
        digest: str,
        caller: Caller,
    ) -> Cycle:
        """Stores a cycle that rolls back, has it begun, and returns it as it is now.

        Raises as `start`, and ROLLBACK_DENIED with the policy's reason.
        """
        claim = self._claim(request_id, "RollbackRelease", digest, project_id)
        if (known := await self._known(claim, caller)) is not None:
            return known
        project = self._find_project(project_id)
        refuse_by_mode(project, automatic=False)
        await self._check_user(project)
        verdict = await self._dry_runs.evaluate(project_id, target_release_id, "", context)
        if not verdict.allowed:
            raise AttError(
                Reason.ROLLBACK_DENIED,
                f"The rollback of {project_id} is denied: {verdict.reason}. See every gate with "
                f"`att rollback {project_id} --dry-run`.",
                project_id=project_id,
                policy_reason=verdict.reason,
            )
        request = CycleRequest(
            rollback_release_id=target_release_id,
            reason=reason,
            timeout=timeout,
            deployment_context=context,
            deploy_target=deploy_target,
        )
        cycle = self._new(project_id, CycleKind.ROLLBACK, request, _TO_ROLL_BACK, caller)
        return await self._begin(cycle, b"", claim, caller)

    async def get(self, cycle_id: str, caller: Caller) -> Cycle:
        """The cycle. Raises CYCLE_NOT_FOUND, also for one that the caller does not see."""
        cycle = await self._journal.cycle(cycle_id)
        if cycle is None or not caller.sees(cycle.project_id):
            raise _cycle_not_found(cycle_id)
        return cycle

    async def list(
        self,
        project_id: str,
        active_only: bool,
        page_size: int,
        page_token: str,
        *,
        within: frozenset[str] | None = None,
    ) -> tuple[Sequence[Cycle], str]:
        """Up to `page_size` cycles, the newest first, and the next page's token.

        project_id: empty: of all. within: only of these projects; None: of all.
        Raises PROJECT_NOT_FOUND, FIELD_INVALID.
        """
        if project_id:
            self._find_project(project_id)
        if page_token and not (page_token.isascii() and page_token.isalnum()):
            raise field_invalid("page_token", "is not a token that a page gave")
        cycles = await self._journal.cycles(
            project_id=project_id,
            within=within,
            active_only=active_only,
            limit=page_size + 1,
            before=page_token,
        )
        page = cycles[:page_size]
        return page, page[-1].cycle_id if len(cycles) > page_size else ""

    async def watch(
        self, cycle_id: str, after_revision: int, progress_interval: timedelta, caller: Caller
    ) -> AsyncGenerator[Cycle | None, None]:
        """The cycle whenever it differs from the last one seen, up to its end.

        after_revision: of the last one seen; 0: none. None: nothing has happened for
        `progress_interval`. Raises CYCLE_NOT_FOUND.
        """
        bell, revision = self._engine.changed(cycle_id), after_revision
        while True:
            seen = bell.count
            cycle = await self.get(cycle_id, caller)
            if cycle.revision != revision:
                revision = cycle.revision
                yield cycle
            if cycle.ended:
                return
            if not await bell.wait(seen, progress_interval):
                yield None

    async def cancel(self, cycle_id: str, reason: str, caller: Caller) -> Cycle:
        """Has the cycle end; one that has ended is returned as it is.

        Raises CYCLE_NOT_FOUND, and PERMISSION_DENIED for a cycle that somebody else
        asked for, unless an admin calls.
        """
        cycle = await self.get(cycle_id, caller)
        if caller.principal != cycle.requested_by:
            caller.require(Role.ADMIN)
        now = self._clock.now()
        cancelled = await self._journal.cancel(
            cycle_id,
            Cancellation(principal=caller.principal, time=now, reason=reason),
            self._event("cycle.cancelled", cycle, caller, message=reason),
        )
        self._tell(cycle_id)
        return cycle if cancelled is None else cancelled

    async def decide(
        self,
        cycle_id: str,
        approved: bool,
        commit_sha: str,
        plan_digest: str,
        reason: str,
        *,
        request_id: str,
        digest: str,
        caller: Caller,
    ) -> Cycle:
        """Takes down a decision on a commit and a plan, and returns the cycle as it is now.

        Raises CYCLE_NOT_FOUND, DECIDED_BY_REQUESTER, CYCLE_NOT_AWAITING_DECISION,
        APPROVAL_STALE, REQUEST_ID_REUSED.
        """
        cycle = await self.get(cycle_id, caller)
        claim = self._claim(request_id, "DecideCycle", digest, cycle.project_id)
        if (known := await self._known(claim, caller)) is not None:
            return known
        decision = Decision(
            approved=approved,
            principal=caller.principal,
            time=self._clock.now(),
            commit_sha=commit_sha,
            plan_digest=plan_digest,
            reason=reason,
        )
        check_decision(cycle, decision)
        event = self._event(
            "approval.decided",
            cycle,
            caller,
            message=reason,
            reason="approved" if approved else "rejected",
            commit=commit_sha,
            plan_digest=plan_digest,
        )
        kept = await self._journal.decide(cycle_id, decision, event, claim=claim)
        if claim is not None:
            same_request(claim, kept)
        self._tell(cycle_id)
        return await self.get(cycle_id, caller)

    # Projects ---------------------------------------------------------------

    @asynccontextmanager
    async def released(
        self, project_id: str, inner: AbstractAsyncContextManager[None]
    ) -> AsyncIterator[None]:
        """Entered around a deletion, with `inner` within; no cycle begins meanwhile.

        Raises CYCLE_ALREADY_RUNNING while one is active.
        """
        async with self._admission:
            active = await self._journal.cycles(project_id=project_id, active_only=True, limit=1)
            if active:
                raise already_running(project_id, active[0].cycle_id)
            async with inner:
                yield

    # ------------------------------------------------------------------------

    def _new(
        self,
        project_id: str,
        kind: CycleKind,
        request: CycleRequest,
        steps: tuple[CycleStep, ...],
        caller: Caller,
    ) -> Cycle:
        return Cycle(
            cycle_id=self._clock.new_id(),
            project_id=project_id,
            kind=kind,
            request=request,
            requested_by=caller.principal,
            create_time=self._clock.now(),
            steps=tuple(StepStatus(step=step) for step in steps),
        )

    async def _begin(
        self, cycle: Cycle, change: bytes, claim: RequestClaim | None, caller: Caller
    ) -> Cycle:
        event = Event(
            event_type="cycle.started",
            time=cycle.create_time,
            project_id=cycle.project_id,
            cycle_id=cycle.cycle_id,
            principal=cycle.requested_by,
            message=cycle.request.reason,
            attributes={"kind": cycle.kind},
        )
        async with self._admission:
            self._find_project(cycle.project_id)
            kept = await self._journal.create(cycle, change, event, claim=claim)
        if claim is not None and same_request(claim, kept) is not None and kept is not None:
            return await self.get(kept.outcome, caller)
        self._stored.ring()
        await self._engine.begin(cycle.cycle_id)
        return await self.get(cycle.cycle_id, caller)

    def _claim(
        self, request_id: str, method: str, digest: str, project_id: str
    ) -> RequestClaim | None:
        if not request_id:
            return None
        return RequestClaim(
            request_id=request_id,
            method=method,
            digest=digest,
            project_id=project_id,
            time=self._clock.now(),
        )

    async def _known(self, claim: RequestClaim | None, caller: Caller) -> Cycle | None:
        """What an equal call began before. Raises REQUEST_ID_REUSED."""
        if claim is None:
            return None
        known = same_request(claim, await self._store.request(claim.request_id))
        return None if known is None else await self.get(known.outcome, caller)

    def _event(
        self,
        event_type: str,
        cycle: Cycle,
        caller: Caller,
        *,
        message: str,
        reason: str = "",
        **attributes: str,
    ) -> Event:
        return Event(
            event_type=event_type,
            time=self._clock.now(),
            project_id=cycle.project_id,
            cycle_id=cycle.cycle_id,
            principal=caller.principal,
            phase=cycle.current_step,
            reason=reason,
            message=message,
            attributes=attributes,
        )

    def _tell(self, cycle_id: str) -> None:
        self._stored.ring()
        self._engine.ask(cycle_id)


def _cycle_not_found(cycle_id: str) -> AttError:
    return AttError(
        Reason.CYCLE_NOT_FOUND,
        f"There is no cycle {cycle_id!r}. List the cycles of the project.",
        cycle_id=cycle_id,
    )
