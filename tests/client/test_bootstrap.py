"""Cycles and releases through the client: what is sent, and what is made of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any

import grpc
import pytest

import att_client
from att.v1 import bootstrap_pb2, bootstrap_service_pb2
from att_client import Client, CycleOutcome, CycleState, CycleStep, FileEdit
from att_client.cycle_change import MAX_CHANGE_BYTES
from tests.client.stub_server import (
    Context,
    StubServer,
    answer,
    fail,
    failure,
    stream,
    unavailable,
)

CYCLE = "01CYCLE00000000000000000AA"


def cycle(
    revision: int, state: str = "RUNNING", outcome: str = "UNSPECIFIED"
) -> bootstrap_pb2.Cycle:
    return bootstrap_pb2.Cycle(
        cycle_id=CYCLE,
        project_id="web",
        revision=revision,
        state=bootstrap_pb2.CycleState.Value(f"CYCLE_STATE_{state}"),
        outcome=bootstrap_pb2.CycleOutcome.Value(f"CYCLE_OUTCOME_{outcome}"),
    )


def state(
    revision: int, state: str = "RUNNING", outcome: str = "UNSPECIFIED"
) -> bootstrap_service_pb2.WatchCycleResponse:
    return bootstrap_service_pb2.WatchCycleResponse(cycle=cycle(revision, state, outcome))


ENDED = state(9, "ENDED", "ROLLED_BACK")


def scripted(stub: StubServer) -> None:
    """Answers every unary rpc with the cycle, or whatever it holds."""
    stub.script("StartCycle", answer(bootstrap_service_pb2.StartCycleResponse(cycle=cycle(1))))
    stub.script(
        "RollbackRelease", answer(bootstrap_service_pb2.RollbackReleaseResponse(cycle=cycle(1)))
    )
    stub.script("GetCycle", answer(bootstrap_service_pb2.GetCycleResponse(cycle=cycle(1))))
    stub.script("CancelCycle", answer(bootstrap_service_pb2.CancelCycleResponse(cycle=cycle(2))))
    stub.script("DecideCycle", answer(bootstrap_service_pb2.DecideCycleResponse(cycle=cycle(2))))
    stub.script("PlanCycle", answer(bootstrap_service_pb2.PlanCycleResponse(plan_digest="d")))


async def test_a_change_of_files_is_sent_as_edits(att: Client, stub: StubServer) -> None:
    scripted(stub)
    started = await att.bootstrap.start(
        "web",
        edits={
            "app.py": b"\xff\n",
            "README.md": "für alle\n",
            "old.py": None,
            "run.sh": FileEdit(content=b"#!/bin/sh\n", executable=True),
        },
        message="Do better",
    )
    assert started.cycle_id == CYCLE
    (request,) = stub.requests["StartCycle"]
    assert request.cycle.commit_message == "Do better"
    assert not request.cycle.patch
    edits = {edit.path: edit for edit in request.cycle.edits}
    assert edits["app.py"].content == b"\xff\n"
    assert edits["README.md"].content == "für alle\n".encode()
    assert edits["old.py"].delete_file
    assert not edits["old.py"].HasField("content")
    assert edits["run.sh"].executable
    assert not edits["app.py"].HasField("executable")


async def test_a_patch_and_a_commit_are_sent_as_such(att: Client, stub: StubServer) -> None:
    scripted(stub)
    await att.bootstrap.start("web", patch="--- a\n+++ b\n")
    await att.bootstrap.plan("web", commit="a" * 40)
    assert stub.requests["StartCycle"][0].cycle.patch == b"--- a\n+++ b\n"
    assert stub.requests["PlanCycle"][0].cycle.commit == "a" * 40


async def test_what_is_not_given_is_not_sent(att: Client, stub: StubServer) -> None:
    scripted(stub)
    await att.bootstrap.start("web", commit="a" * 40)
    sent = {field.name for field, _ in stub.requests["StartCycle"][0].cycle.ListFields()}
    assert sent == {"project_id", "commit"}


async def test_options_are_sent_as_they_are(att: Client, stub: StubServer) -> None:
    scripted(stub)
    await att.bootstrap.start(
        "web",
        commit="a" * 40,
        until=CycleStep.MERGE,
        create_pr=False,
        bake_time=timedelta(seconds=1.5),
        health_check_retries=3,
    )
    sent = stub.requests["StartCycle"][0].cycle
    assert sent.until == bootstrap_pb2.CYCLE_STEP_MERGE
    assert sent.HasField("create_pr")
    assert not sent.create_pr
    assert sent.bake_time.ToTimedelta() == timedelta(seconds=1.5)
    assert sent.health_check_retries == 3


def test_every_field_of_the_contract_is_an_option() -> None:
    own = {"project_id", "edits", "patch", "commit", "commit_message"}
    contract = {field.name for field in fields(att_client.CycleRequest)}
    assert set(att_client.CycleOptions.__annotations__) == contract - own


@pytest.mark.parametrize(
    "given",
    [{}, {"edits": {"a": "b"}, "commit": "c"}, {"patch": b"p", "commit": "c"}, {"nonsense": 1}],
)
async def test_a_change_that_is_none_or_two_is_a_mistake_of_the_program(
    att: Client, stub: StubServer, given: dict[str, object]
) -> None:
    with pytest.raises(TypeError):
        await att.bootstrap.start("web", **given)  # type: ignore[arg-type]  # that is the mistake
    assert "StartCycle" not in stub.requests


@pytest.mark.parametrize("edit", [7, FileEdit(path="other.py", content=b"")])
async def test_an_edit_that_says_nothing_or_two_things_is_a_mistake_of_the_program(
    att: Client, edit: object
) -> None:
    with pytest.raises(TypeError):
        await att.bootstrap.start("web", edits={"app.py": edit})  # type: ignore[dict-item]  # that is the mistake


LARGE = bytes(MAX_CHANGE_BYTES + 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"patch": LARGE}, "cycle.patch"), ({"edits": {"large.bin": LARGE}}, "cycle.edits")],
    ids=["patch", "edits"],
)
async def test_a_change_too_large_for_a_request_is_refused_before_it_is_sent(
    att: Client, stub: StubServer, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(att_client.FieldInvalidError) as caught:
        await att.bootstrap.start("web", **change)
    error = caught.value
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", field)
    assert [violation.field for violation in error.violations] == [field]
    assert "StartCycle" not in stub.requests


async def test_every_call_that_acts_has_a_request_id_of_its_own(
    att: Client, stub: StubServer
) -> None:
    scripted(stub)
    bootstrap = att.bootstrap
    decided = {"commit_sha": "a" * 40, "plan_digest": "d"}
    calls: dict[str, list[Callable[[], Awaitable[object]]]] = {
        "StartCycle": [lambda: bootstrap.start("web", commit="a" * 40)] * 2,
        "RollbackRelease": [lambda: bootstrap.rollback("web")] * 2,
        "CancelCycle": [lambda: bootstrap.cancel(CYCLE)] * 2,
        "DecideCycle": [
            lambda: bootstrap.approve(CYCLE, **decided),
            lambda: bootstrap.reject(CYCLE, **decided),
        ],
    }
    for rpc, twice in calls.items():
        for call in twice:
            await call()
        ids = [request.request_id for request in stub.requests[rpc]]
        assert all(ids)
        assert len(set(ids)) == 2
    await bootstrap.start("web", commit="a" * 40, request_id="mine")
    assert stub.requests["StartCycle"][-1].request_id == "mine"


async def test_a_start_that_the_server_did_not_hear_is_repeated_under_the_same_id(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "StartCycle",
        failure(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
        answer(bootstrap_service_pb2.StartCycleResponse(cycle=cycle(1))),
    )
    await att.bootstrap.start("web", commit="a" * 40)
    first, second = stub.requests["StartCycle"]
    assert first == second


async def test_a_decision_names_what_was_looked_at(att: Client, stub: StubServer) -> None:
    scripted(stub)
    await att.bootstrap.approve(CYCLE, commit_sha="a" * 40, plan_digest="d", reason="fine")
    await att.bootstrap.reject(CYCLE, commit_sha="b" * 40, plan_digest="e")
    approved, rejected = stub.requests["DecideCycle"]
    assert approved.decision == bootstrap_service_pb2.CYCLE_DECISION_APPROVE
    assert (approved.commit_sha, approved.plan_digest) == ("a" * 40, "d")
    assert approved.reason == "fine"
    assert rejected.decision == bootstrap_service_pb2.CYCLE_DECISION_REJECT


async def test_a_refusal_arrives_as_the_exception_of_its_reason(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "RollbackRelease",
        failure(
            grpc.StatusCode.FAILED_PRECONDITION,
            "ROLLBACK_DENIED",
            policy_reason="rollback_target_unspecified",
        ),
    )
    with pytest.raises(att_client.RollbackDeniedError) as caught:
        await att.bootstrap.rollback("web")
    assert caught.value.metadata["policy_reason"] == "rollback_target_unspecified"


async def test_lists_come_in_pages(att: Client, stub: StubServer) -> None:
    stub.script(
        "ListCycles",
        answer(bootstrap_service_pb2.ListCyclesResponse(cycles=[cycle(1)], next_page_token="more")),
        answer(bootstrap_service_pb2.ListCyclesResponse(cycles=[cycle(2)])),
    )
    stub.script(
        "ListReleases",
        answer(
            bootstrap_service_pb2.ListReleasesResponse(
                releases=[bootstrap_pb2.Release(release_id="a" * 40)]
            )
        ),
    )
    found = [c.revision async for c in att.bootstrap.list("web", active_only=True, page_size=1)]
    assert found == [1, 2]
    assert [r.page_token for r in stub.requests["ListCycles"]] == ["", "more"]
    assert all(r.active_only and r.page_size == 1 for r in stub.requests["ListCycles"])
    assert [r.release_id async for r in att.bootstrap.releases("web")] == ["a" * 40]


# Watching ---------------------------------------------------------------------


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_watch_that_broke_off_goes_on_behind_the_last_state(
    att: Client, stub: StubServer
) -> None:
    progress = bootstrap_service_pb2.WatchCycleResponse()
    stub.script(
        "WatchCycle",
        stream(state(1), progress, state(4, "HELD"), then=unavailable()),
        stream(state(4, "HELD"), progress, state(7, "ROLLING_BACK"), ENDED),
    )
    watch = att.bootstrap.watch(CYCLE)
    seen = [(c.revision, c.state) async for c in watch]
    assert seen == [
        (1, CycleState.RUNNING),
        (4, CycleState.HELD),
        (7, CycleState.ROLLING_BACK),
        (9, CycleState.ENDED),
    ]
    first, second = stub.requests["WatchCycle"]
    assert (first.cycle_id, first.after_revision) == (CYCLE, 0)
    assert (second.cycle_id, second.after_revision) == (CYCLE, 4)
    assert watch.revision == 9


async def test_a_watch_whose_end_was_lost_does_not_ask_again(att: Client, stub: StubServer) -> None:
    stub.script("WatchCycle", stream(ENDED, then=unavailable()))
    assert [c.outcome async for c in att.bootstrap.watch(CYCLE)] == [CycleOutcome.ROLLED_BACK]
    assert len(stub.requests["WatchCycle"]) == 1


async def test_waiting_gives_the_ended_cycle_over_an_outage(att: Client, stub: StubServer) -> None:
    scripted(stub)
    stub.script("WatchCycle", stream(state(1), then=unavailable()), stream(state(2), ENDED))
    started = await att.bootstrap.start("web", commit="a" * 40)
    ended = await started.wait()
    assert ended.outcome is CycleOutcome.ROLLED_BACK
    assert (await att.bootstrap.wait(CYCLE)).revision == 9


async def test_waiting_for_a_cycle_that_is_unknown_fails(att: Client, stub: StubServer) -> None:
    async def unknown(context: Context) -> None:
        await fail(context, grpc.StatusCode.NOT_FOUND, "CYCLE_NOT_FOUND")

    stub.script("WatchCycle", stream(then=unknown))
    with pytest.raises(att_client.CycleNotFoundError):
        await att.bootstrap.wait(CYCLE)


async def test_a_watch_that_ends_without_a_state_is_no_answer(
    att: Client, stub: StubServer
) -> None:
    stub.script("WatchCycle", stream())
    with pytest.raises(att_client.ProtocolError):
        await att.bootstrap.wait(CYCLE)


async def test_a_revision_that_falls_is_an_error(att: Client, stub: StubServer) -> None:
    stub.script("WatchCycle", stream(state(5), state(4), forever))
    with pytest.raises(att_client.ProtocolError):
        await att.bootstrap.wait(CYCLE)


async def test_leaving_a_watch_leaves_the_cycle_alone(att: Client, stub: StubServer) -> None:
    scripted(stub)
    stub.script("WatchCycle", stream(state(1), forever))
    started = await att.bootstrap.start("web", commit="a" * 40)
    async for seen in started.watch():
        assert seen.revision == 1
        break
    assert "CancelCycle" not in stub.requests
    assert (await started.cancel(reason="enough")).revision == 2
    assert stub.requests["CancelCycle"][0].reason == "enough"


async def test_a_closed_watch_says_so(att: Client, stub: StubServer) -> None:
    stub.script("WatchCycle", stream(state(1), forever))
    watch = att.bootstrap.watch(CYCLE)
    states = aiter(watch)
    assert (await anext(states)).revision == 1
    waiting = asyncio.ensure_future(anext(states))
    await asyncio.sleep(0)
    await watch.aclose()
    with pytest.raises(att_client.ClosedError):
        await waiting
    with pytest.raises(att_client.ClosedError):
        aiter(watch)
