"""BootstrapService on the wire."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from att.v1 import bootstrap_service_pb2 as pb
from att_server.core.bootstrap import BootstrapManager
from att_server.core.code_reader import LETS_GO_WITHIN
from att_server.core.dry_runs import DryRuns
from att_server.core.errors import AttError, Reason
from att_server.core.release_list import ReleaseList
from att_server.rpc import convert_bootstrap as convert
from att_server.rpc import convert_time
from att_server.rpc import validate_bootstrap as validate
from att_server.rpc.call import Answer, Call, Streaming, Unary
from att_server.rpc.pages import fitting_page
from att_server.rpc.request_sizes import LargeRequests

DEFAULT_PROGRESS_INTERVAL = timedelta(seconds=15)
PLAN_TIMEOUT = timedelta(minutes=2)
"""Bounds a plan, for which the base is fetched from the project's remote."""


class BootstrapService:
    """Plans, starts and shows cycles, and shows releases."""

    def __init__(
        self,
        bootstrap: BootstrapManager,
        dry_runs: DryRuns,
        releases: ReleaseList,
        probe_hosts: frozenset[str],
    ) -> None:
        """probe_hosts: what probes may ask, beside this host."""
        self._bootstrap = bootstrap
        self._dry_runs = dry_runs
        self._release_list = releases
        self._probe_hosts = probe_hosts
        self._large = LargeRequests()

    @property
    def descriptor(self) -> ServiceDescriptor:
        return pb.DESCRIPTOR.services_by_name["BootstrapService"]

    def methods(self) -> Mapping[str, Unary | Streaming]:
        return {
            "PlanCycle": self._plan,
            "StartCycle": self._start,
            "GetCycle": self._get,
            "ListCycles": self._list,
            "WatchCycle": self._watch,
            "CancelCycle": self._cancel,
            "DecideCycle": self._decide,
            "ListReleases": self._releases,
            "GetRelease": self._release,
            "EvaluateRollback": self._evaluate,
            "RollbackRelease": self._rollback,
        }

    # Cycles -----------------------------------------------------------------

    async def _plan(self, request: pb.PlanCycleRequest, call: Call) -> Answer:
        with self._large.admit(request.ByteSize()):
            validate.plan_cycle(request, self._probe_hosts)
            asked = request.cycle
            async with _in_time(call.bound(PLAN_TIMEOUT, ending=LETS_GO_WITHIN), asked.project_id):
                plan = await self._dry_runs.plan(
                    asked.project_id,
                    convert.to_cycle_request(asked),
                    convert.to_change(asked),
                    call.caller,
                )
        return pb.PlanCycleResponse(
            steps=[convert.step_status(step) for step in plan.steps],
            rollback=None if plan.rollback is None else convert.rollback_verdict(plan.rollback),
            base_commit_sha=plan.base_commit,
            plan_digest=plan.plan_digest,
            approval_reason=plan.approval_reason,
        )

    async def _start(self, request: pb.StartCycleRequest, call: Call) -> Answer:
        with self._large.admit(request.ByteSize()):
            validate.start_cycle(request, self._probe_hosts)
            asked = request.cycle
            cycle = await self._bootstrap.start(
                asked.project_id,
                convert.to_cycle_request(asked),
                convert.to_change(asked),
                request_id=request.request_id,
                digest=digest(request),
                caller=call.caller,
            )
        return pb.StartCycleResponse(cycle=convert.cycle(cycle))

    async def _get(self, request: pb.GetCycleRequest, call: Call) -> Answer:
        validate.get_cycle(request)
        cycle = await self._bootstrap.get(request.cycle_id, call.caller)
        return pb.GetCycleResponse(cycle=convert.cycle(cycle))

    async def _list(self, request: pb.ListCyclesRequest, call: Call) -> Answer:
        validate.list_cycles(request)

        async def page(size: int) -> pb.ListCyclesResponse:
            cycles, next_page_token = await self._bootstrap.list(
                request.project_id,
                request.active_only,
                size,
                request.page_token,
                within=call.caller.projects,
            )
            return pb.ListCyclesResponse(
                cycles=[convert.cycle(cycle, log_tails=False) for cycle in cycles],
                next_page_token=next_page_token,
            )

        return await fitting_page(request.page_size, page)

    async def _watch(self, request: pb.WatchCycleRequest, call: Call) -> AsyncIterator[Answer]:
        validate.watch_cycle(request)
        watched = self._bootstrap.watch(
            request.cycle_id,
            request.after_revision,
            convert_time.to_timedelta(request.progress_interval)
            if request.HasField("progress_interval")
            else DEFAULT_PROGRESS_INTERVAL,
            call.caller,
        )
        async with aclosing(watched) as states:
            async for cycle in states:
                yield pb.WatchCycleResponse(cycle=None if cycle is None else convert.cycle(cycle))

    async def _cancel(self, request: pb.CancelCycleRequest, call: Call) -> Answer:
        validate.cancel_cycle(request)
        cycle = await self._bootstrap.cancel(request.cycle_id, request.reason, call.caller)
        return pb.CancelCycleResponse(cycle=convert.cycle(cycle))

    async def _decide(self, request: pb.DecideCycleRequest, call: Call) -> Answer:
        validate.decide_cycle(request)
        cycle = await self._bootstrap.decide(
            request.cycle_id,
            request.decision == pb.CYCLE_DECISION_APPROVE,
            request.commit_sha,
            request.plan_digest,
            request.reason,
            request_id=request.request_id,
            digest=digest(request),
            caller=call.caller,
        )
        return pb.DecideCycleResponse(cycle=convert.cycle(cycle))

    # Releases ---------------------------------------------------------------

    async def _releases(self, request: pb.ListReleasesRequest, _call: Call) -> Answer:
        validate.list_releases(request)

        async def page(size: int) -> pb.ListReleasesResponse:
            releases, current_id, next_page_token = await self._release_list.page(
                request.project_id, size, request.page_token
            )
            return pb.ListReleasesResponse(
                releases=[
                    convert.release(release, current_release_id=current_id) for release in releases
                ],
                next_page_token=next_page_token,
            )

        return await fitting_page(request.page_size, page)

    async def _release(self, request: pb.GetReleaseRequest, _call: Call) -> Answer:
        validate.get_release(request)
        release, current_id = await self._release_list.get(request.project_id, request.release_id)
        return pb.GetReleaseResponse(
            release=convert.release(release, current_release_id=current_id)
        )

    async def _evaluate(self, request: pb.EvaluateRollbackRequest, _call: Call) -> Answer:
        validate.evaluate_rollback(request)
        verdict = await self._dry_runs.evaluate(
            request.project_id,
            request.target_release_id,
            request.failure_class,
            convert.to_context(request.deployment_context),
        )
        return pb.EvaluateRollbackResponse(verdict=convert.rollback_verdict(verdict))

    async def _rollback(self, request: pb.RollbackReleaseRequest, call: Call) -> Answer:
        validate.rollback_release(request)
        cycle = await self._bootstrap.rollback(
            request.project_id,
            request.target_release_id,
            request.reason,
            convert_time.to_timedelta(request.timeout) if request.HasField("timeout") else None,
            convert.to_context(request.deployment_context),
            request.deploy_target,
            request_id=request.request_id,
            digest=digest(request),
            caller=call.caller,
        )
        return pb.RollbackReleaseResponse(cycle=convert.cycle(cycle))


@asynccontextmanager
async def _in_time(bound: timedelta, project_id: str) -> AsyncIterator[None]:
    """Bounds what may wait for a remote. Raises REPOSITORY_UNAVAILABLE."""
    try:
        async with asyncio.timeout(bound.total_seconds()) as scope:
            yield
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise AttError(
            Reason.REPOSITORY_UNAVAILABLE,
            f"The plan was not made within {bound.total_seconds():g} s: the remote of "
            f"{project_id!r} answers slowly, or the change is very large. Call again.",
            project_id=project_id,
            failure="timed_out",
        ) from error


def digest(request: Message) -> str:
    """Equal for requests that ask for the same, under whatever `request_id`."""
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("request_id")
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()
