"""Cycles and releases on the wire: each rpc does what the contract says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from att.v1 import bootstrap_pb2, project_service_pb2
from att.v1 import bootstrap_service_pb2 as pb
from att_server.core.cycles.model import (
    Cycle,
    CycleFacts,
    CycleRequest,
    CycleState,
    CycleStep,
    StepState,
    StepStatus,
)
from att_server.core.errors import Reason
from att_server.core.failure_class import CycleOutcome
from att_server.core.releases import Release, ReleaseState
from att_server.core.rollback_verdict import Gate
from att_server.rpc.pages import MAX_MESSAGE_BYTES
from tests.contract.git_projects import git
from tests.rpc.conftest import refusal
from tests.rpc.git_server import (
    BOUND,
    GitServer,
    git_server,
    name_of,
    outcome_of,
    start_request,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MIB = 1 << 20


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[GitServer]:
    async with git_server(tmp_path) as server:
        yield server


def get(cycle_id: str) -> pb.GetCycleRequest:
    return pb.GetCycleRequest(cycle_id=cycle_id)


def decision(cycle: bootstrap_pb2.Cycle, *, approve: bool = True) -> pb.DecideCycleRequest:
    return pb.DecideCycleRequest(
        cycle_id=cycle.cycle_id,
        decision=pb.CYCLE_DECISION_APPROVE if approve else pb.CYCLE_DECISION_REJECT,
        commit_sha=cycle.approval.commit_sha,
        plan_digest=cycle.approval.plan_digest,
    )


def ended_cycle(number: int, *, paths: Sequence[str] = (), log_tail: bytes = b"") -> Cycle:
    return Cycle(
        cycle_id=f"01J{number:023}",
        project_id="web",
        request=CycleRequest(edited_paths=tuple(paths)),
        requested_by="token:bob",
        create_time=NOW,
        end_time=NOW,
        state=CycleState.ENDED,
        outcome=CycleOutcome.FAILED,
        outcome_reason="test_failure",
        facts=CycleFacts(),
        steps=tuple(
            StepStatus(step=step, state=StepState.FAILED, log_tail=log_tail) for step in CycleStep
        ),
    )


async def keep(served: GitServer, *cycles: Cycle) -> None:
    """Stores cycles that have ended, as engines of old did."""
    journal = served.adapters.journal
    for cycle in cycles:
        await journal.create(replace(cycle, state=CycleState.RUNNING, outcome=None), b"")
        taken = await journal.take(cycle.cycle_id, "old", lease=timedelta(1), force=True)
        assert taken is not None
        await journal.commit(replace(cycle, lease_epoch=taken.lease_epoch))


# From start to end -----------------------------------------------------------


async def test_a_cycle_waits_for_its_approval_and_is_merged_by_it(served: GitServer) -> None:
    started = await served.start(require_approval=True, commit_message="Print it")
    assert name_of(started) == "RUNNING"
    assert started.requested_by.startswith("local:")
    assert [edit.path for edit in started.request.edits] == ["app.py"]
    assert started.request.edits[0].content == b""

    waiting = await served.until(started.cycle_id, "AWAITING_APPROVAL")
    assert name_of(waiting) == "AWAITING_APPROVAL"
    assert waiting.approval.reason == "required_by_request"
    assert waiting.approval.commit_sha == waiting.result.commit_sha
    assert served.project.on_remote() == served.project.base

    await served.as_approver("DecideCycle", decision(waiting))
    ended = await served.until(started.cycle_id)
    assert outcome_of(ended) == "SUCCEEDED"
    assert ended.result.merged
    assert served.project.on_remote() == ended.result.merge_commit_sha
    assert git(served.project.remote, "show", "main:app.py") == "print('new')"


async def test_a_rejected_cycle_leaves_the_base_as_it_was(served: GitServer) -> None:
    waiting = await served.until(
        (await served.start(require_approval=True)).cycle_id, "AWAITING_APPROVAL"
    )
    await served.as_approver("DecideCycle", decision(waiting, approve=False))
    ended = await served.until(waiting.cycle_id)
    assert (outcome_of(ended), ended.outcome_reason) == ("REJECTED", "approval_rejected")
    assert served.project.on_remote() == served.project.base


async def test_a_decision_on_something_else_is_stale(served: GitServer) -> None:
    waiting = await served.until(
        (await served.start(require_approval=True)).cycle_id, "AWAITING_APPROVAL"
    )
    for field in ("commit_sha", "plan_digest"):
        other = decision(waiting)
        setattr(other, field, "1" * 40)
        refused = await refusal(served.as_approver("DecideCycle", other))
        assert refused.reason == Reason.APPROVAL_STALE
    assert name_of((await served.wire.unary("GetCycle", get(waiting.cycle_id))).cycle) == (
        "AWAITING_APPROVAL"
    )


async def test_who_is_no_approver_cannot_decide(served: GitServer) -> None:
    waiting = await served.until(
        (await served.start(require_approval=True)).cycle_id, "AWAITING_APPROVAL"
    )
    refused = await refusal(served.wire.unary("DecideCycle", decision(waiting)))
    assert refused.reason == Reason.PERMISSION_DENIED
    assert refused.metadata["required_role"] == "approver"


async def test_what_waits_for_no_decision_gets_none(served: GitServer) -> None:
    await keep(served, cycle := ended_cycle(1))
    shown = (await served.wire.unary("GetCycle", get(cycle.cycle_id))).cycle
    shown.approval.commit_sha, shown.approval.plan_digest = "1" * 40, "d"
    refused = await refusal(served.as_approver("DecideCycle", decision(shown)))
    assert refused.reason == Reason.CYCLE_NOT_AWAITING_DECISION


async def test_a_cycle_is_cancelled_and_cleaned_up(served: GitServer) -> None:
    waiting = await served.until(
        (await served.start(require_approval=True)).cycle_id, "AWAITING_APPROVAL"
    )
    request = pb.CancelCycleRequest(cycle_id=waiting.cycle_id, reason="not needed")
    await served.wire.unary("CancelCycle", request)
    ended = await served.until(waiting.cycle_id)
    assert outcome_of(ended) == "CANCELLED"
    assert ended.cancelled_by == waiting.requested_by
    assert git(served.project.remote, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    again = (await served.wire.unary("CancelCycle", request)).cycle
    assert again == ended


async def test_one_cycle_of_a_project_is_active(served: GitServer) -> None:
    first = await served.start(require_approval=True)
    refused = await refusal(served.wire.unary("StartCycle", start_request()))
    assert refused.reason == Reason.CYCLE_ALREADY_RUNNING
    assert refused.metadata == {"project_id": "web", "cycle_id": first.cycle_id}


async def test_a_repeated_call_gets_the_first_outcome_and_another_is_refused(
    served: GitServer,
) -> None:
    first = await served.start(request_id="r1", require_approval=True)
    again = await served.start(request_id="r1", require_approval=True)
    assert again.cycle_id == first.cycle_id
    for other in (
        start_request(request_id="r1"),
        start_request(
            request_id="r1",
            require_approval=True,
            edits=[bootstrap_pb2.FileEdit(path="app.py", content=b"other")],
        ),
    ):
        refused = await refusal(served.wire.unary("StartCycle", other))
        assert refused.reason == Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize("path", ["../x", "/etc/x", ".git/config", "git~1/x", "a\0b", "n" * 300])
async def test_an_edit_that_no_tree_takes_begins_nothing(served: GitServer, path: str) -> None:
    request = start_request(edits=[bootstrap_pb2.FileEdit(path=path, content=b"x")])
    for rpc, asked in (
        ("StartCycle", request),
        ("PlanCycle", pb.PlanCycleRequest(cycle=request.cycle)),
    ):
        refused = await refusal(served.wire.unary(rpc, asked))
        assert refused.reason == Reason.EDIT_PATH_INVALID
        assert refused.metadata["path"]
    assert not (await served.wire.unary("ListCycles", pb.ListCyclesRequest())).cycles


async def test_overriding_a_verdict_needs_an_admin(served: GitServer) -> None:
    refused = await refusal(served.wire.unary("StartCycle", start_request(override_bad=True)))
    assert refused.reason == Reason.PERMISSION_DENIED
    assert refused.metadata["required_role"] == "admin"


async def test_a_project_that_is_no_repository_has_no_cycles(
    served: GitServer, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    create = project_service_pb2.CreateProjectRequest(
        project_id="plain", path=str(tmp_path / "plain")
    )
    await served.wire.unary("CreateProject", create)
    refused = await refusal(served.wire.unary("StartCycle", start_request(project_id="plain")))
    assert refused.reason == Reason.PROJECT_NOT_REPOSITORY_ROOT
    refused = await refusal(served.wire.unary("StartCycle", start_request(project_id="none")))
    assert refused.reason == Reason.PROJECT_NOT_FOUND


# Plans -----------------------------------------------------------------------


async def test_a_plan_says_what_would_be_done_and_does_nothing(served: GitServer) -> None:
    asked = pb.PlanCycleRequest(cycle=start_request(require_approval=True).cycle)
    plan = await served.wire.unary("PlanCycle", asked)
    assert plan.base_commit_sha == served.project.base
    assert plan.approval_reason == "required_by_request"
    assert plan.plan_digest
    steps = {
        bootstrap_pb2.CycleStep.Name(step.step): (
            bootstrap_pb2.CycleStepState.Name(step.state),
            step.reason,
        )
        for step in plan.steps
    }
    assert steps["CYCLE_STEP_EDIT"] == ("CYCLE_STEP_STATE_PENDING", "")
    assert steps["CYCLE_STEP_TEST"] == ("CYCLE_STEP_STATE_SKIPPED", "not_configured")
    assert steps["CYCLE_STEP_DEPLOY"] == ("CYCLE_STEP_STATE_SKIPPED", "not_asked_for")
    assert served.project.on_remote() == served.project.base
    assert not (await served.wire.unary("ListCycles", pb.ListCyclesRequest())).cycles
    # What it says an approver would decide on is what a cycle then asks for.
    waiting = await served.until(
        (await served.start(require_approval=True)).cycle_id, "AWAITING_APPROVAL"
    )
    assert waiting.approval.plan_digest == plan.plan_digest


async def test_a_plan_whose_remote_is_gone_is_told(served: GitServer) -> None:
    served.project.remote.rename(served.project.remote.with_name("elsewhere"))
    asked = pb.PlanCycleRequest(cycle=start_request().cycle)
    refused = await refusal(served.wire.unary("PlanCycle", asked))
    assert refused.reason == Reason.REPOSITORY_UNAVAILABLE
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert refused.metadata == {"project_id": "web", "failure": "remote_not_found"}


# Watching and listing --------------------------------------------------------


async def test_a_watch_shows_the_state_at_once_then_changes_and_ends_with_the_cycle(
    served: GitServer,
) -> None:
    started = await served.start()
    revisions = []
    async with asyncio.timeout(BOUND):
        async for message in served.wire.stream(
            "WatchCycle", pb.WatchCycleRequest(cycle_id=started.cycle_id)
        ):
            revisions.append(message.cycle.revision)
            last = message.cycle
    assert revisions == sorted(set(revisions))
    assert name_of(last) == "ENDED"
    assert last == (await served.wire.unary("GetCycle", get(started.cycle_id))).cycle


async def test_an_idle_watch_reports_progress(served: GitServer) -> None:
    waiting = await served.until(
        (await served.start(require_approval=True)).cycle_id, "AWAITING_APPROVAL"
    )
    request = pb.WatchCycleRequest(
        cycle_id=waiting.cycle_id,
        after_revision=waiting.revision,
        progress_interval=Duration(seconds=1),
    )
    async with asyncio.timeout(BOUND):
        message = await served.wire.call("WatchCycle", request)
    assert not message.HasField("cycle")


async def test_an_unknown_cycle_is_told_by_every_rpc(served: GitServer) -> None:
    unknown: dict[str, Any] = {"cycle_id": "01J0"}
    decided: dict[str, Any] = {"decision": 1, "commit_sha": "1" * 40, "plan_digest": "d"}
    for call in (
        served.wire.call("GetCycle", pb.GetCycleRequest(**unknown)),
        served.wire.call("WatchCycle", pb.WatchCycleRequest(**unknown)),
        served.wire.call("CancelCycle", pb.CancelCycleRequest(**unknown)),
        served.as_approver("DecideCycle", pb.DecideCycleRequest(**unknown, **decided)),
    ):
        refused = await refusal(call)
        assert (refused.reason, dict(refused.metadata)) == (Reason.CYCLE_NOT_FOUND, unknown)


async def test_pages_hold_every_cycle_once_the_newest_first(served: GitServer) -> None:
    await keep(served, *(ended_cycle(number) for number in range(7)))
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListCyclesRequest(project_id="web", page_size=3, page_token=token)
        page = await served.wire.unary("ListCycles", request)
        assert len(page.cycles) <= 3
        seen += [cycle.cycle_id for cycle in page.cycles]
        token = page.next_page_token
        if not token:
            break
    assert seen == [ended_cycle(number).cycle_id for number in reversed(range(7))]
    active = pb.ListCyclesRequest(project_id="web", active_only=True)
    assert not (await served.wire.unary("ListCycles", active)).cycles


async def test_a_page_that_no_page_gave_is_refused(served: GitServer) -> None:
    for rpc, request in (
        ("ListCycles", pb.ListCyclesRequest(page_token="!\0")),
        ("ListReleases", pb.ListReleasesRequest(project_id="web", page_token="!")),
    ):
        refused = await refusal(served.wire.unary(rpc, request))
        assert (refused.reason, refused.fields) == (Reason.FIELD_INVALID, ("page_token",))


async def test_a_list_leaves_out_what_steps_printed_and_get_shows_it(served: GitServer) -> None:
    tail = b"\xff\0" * (32 * 1024)
    await keep(served, cycle := ended_cycle(1, log_tail=tail))
    (listed,) = (await served.wire.unary("ListCycles", pb.ListCyclesRequest())).cycles
    assert {step.log_tail for step in listed.steps} == {b""}
    shown = (await served.wire.unary("GetCycle", get(cycle.cycle_id))).cycle
    assert {step.log_tail for step in shown.steps} == {tail}


async def test_cycles_of_any_size_fit_into_messages(served: GitServer) -> None:
    paths = [f"{number:04}" + "/x" * 2000 for number in range(1500)]
    await keep(served, ended_cycle(60, paths=paths, log_tail=b"x" * 65536))
    await keep(served, *(ended_cycle(n, paths=paths[:50]) for n in range(60)))
    shown = await served.wire.unary("GetCycle", get(ended_cycle(60).cycle_id))
    assert shown.ByteSize() <= MAX_MESSAGE_BYTES
    assert shown.cycle.request.edits[0].path == paths[0]
    seen: list[str] = []
    token = ""
    while True:
        page = await served.wire.unary(
            "ListCycles", pb.ListCyclesRequest(page_size=1000, page_token=token)
        )
        seen += [cycle.cycle_id for cycle in page.cycles]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == 61


# Releases --------------------------------------------------------------------


def release(number: int, **changes: object) -> Release:
    fields = {
        "release_id": f"{number:040x}",
        "project_id": "web",
        "state_time": NOW + timedelta(days=number),
        "create_time": NOW + timedelta(days=number),
        **changes,
    }
    return Release(**fields)  # type: ignore[arg-type]  # the release's own fields


async def test_releases_are_listed_and_shown(served: GitServer) -> None:
    good = release(1, state=ReleaseState.GOOD, tree_sha="a" * 40, cycle_id="c1", data_version=3)
    bad = release(2, state=ReleaseState.BAD, reason="health_failure", removed_time=NOW)
    tried = release(3, state=ReleaseState.TRYING, tries_left=2, deploy_time=NOW)
    await served.adapters.journal.put_releases(good, bad, tried)
    listed = await served.wire.unary("ListReleases", pb.ListReleasesRequest(project_id="web"))
    told = [
        (item.release_id, bootstrap_pb2.ReleaseState.Name(item.state)) for item in listed.releases
    ]
    assert told == [
        (tried.release_id, "RELEASE_STATE_TRYING"),
        (bad.release_id, "RELEASE_STATE_BAD"),
        (good.release_id, "RELEASE_STATE_GOOD"),
    ]
    request = pb.GetReleaseRequest(project_id="web", release_id=bad.release_id)
    shown = (await served.wire.unary("GetRelease", request)).release
    assert shown == listed.releases[1]
    assert (shown.reason, shown.HasField("remove_time"), shown.current) == (
        "health_failure", True, False,
    )  # fmt: skip
    assert (listed.releases[0].tries_left, listed.releases[2].data_version) == (2, 3)


async def test_an_unknown_release_is_told(served: GitServer) -> None:
    request = pb.GetReleaseRequest(project_id="web", release_id="1" * 40)
    refused = await refusal(served.wire.unary("GetRelease", request))
    assert refused.reason == Reason.RELEASE_NOT_FOUND
    assert refused.metadata == {"project_id": "web", "release_id": "1" * 40}


async def test_an_evaluation_shows_every_gate_in_order(served: GitServer) -> None:
    request = pb.EvaluateRollbackRequest(project_id="web", failure_class="health_failure")
    verdict = (await served.wire.unary("EvaluateRollback", request)).verdict
    assert verdict.status == bootstrap_pb2.ROLLBACK_POLICY_STATUS_DENIED
    assert verdict.reason == "nothing_was_deployed"
    assert [gate.gate for gate in verdict.gates] == list(Gate)
    denied = [gate for gate in verdict.gates if not gate.allowed]
    assert denied[0].reason == "nothing_was_deployed"
    assert {gate.status for gate in denied} == {bootstrap_pb2.ROLLBACK_GATE_STATUS_DENIED}


async def test_a_rollback_that_the_policy_denies_begins_nothing(served: GitServer) -> None:
    request = pb.RollbackReleaseRequest(project_id="web", request_id="r1")
    refused = await refusal(served.wire.unary("RollbackRelease", request))
    assert refused.reason == Reason.ROLLBACK_DENIED
    assert refused.metadata["policy_reason"] == "nothing_was_deployed"
    assert not (await served.wire.unary("ListCycles", pb.ListCyclesRequest())).cycles


# Sizes -----------------------------------------------------------------------


def edits(*sizes: int) -> list[bootstrap_pb2.FileEdit]:
    return [
        bootstrap_pb2.FileEdit(path=f"{number}.bin", content=b"x" * size)
        for number, size in enumerate(sizes)
    ]


async def test_a_large_change_is_carried_whole(served: GitServer) -> None:
    started = await served.start(edits=edits(8 * MIB, 8 * MIB, 8 * MIB))
    ended = await served.until(started.cycle_id)
    assert outcome_of(ended) == "SUCCEEDED"
    for number in range(3):
        size = git(served.project.remote, "cat-file", "-s", f"main:{number}.bin")
        assert int(size) == 8 * MIB


async def test_a_change_that_is_too_large_is_refused_and_the_server_goes_on(
    served: GitServer,
) -> None:
    too_large = start_request(edits=edits(*[5 * MIB] * 20))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.wire.unary("StartCycle", too_large)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not (await served.wire.unary("ListCycles", pb.ListCyclesRequest())).cycles


async def test_other_requests_stay_small(served: GitServer) -> None:
    create = project_service_pb2.CreateProjectRequest(project_id="large", path="/" * (5 * MIB))
    refused = await refusal(served.wire.unary("CreateProject", create))
    assert (refused.reason, refused.fields) == (Reason.FIELD_INVALID, ("request",))


async def test_large_changes_are_worked_on_few_at_a_time(served: GitServer) -> None:
    request = start_request(edits=edits(*[7 * MIB] * 4), require_approval=True)
    plan = pb.PlanCycleRequest(cycle=request.cycle)
    calls = [served.wire.unary("PlanCycle", plan) for _ in range(6)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(errors) < 6
    for error in errors:
        assert dict(error.trailing_metadata())["att-reason"] == Reason.RATE_LIMITED
    # Room is there again as soon as they are done.
    await served.wire.unary("PlanCycle", plan)
