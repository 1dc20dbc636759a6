"""Cycles as an agent meets them, against a scripted server: waits, questions, odd answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import mcp_types as types
import pytest
from mcp import MCPError

import att_client
from att.v1 import bootstrap_pb2, bootstrap_service_pb2, server_service_pb2
from att_client import CycleOutcome, CycleState, bootstrap
from tests.cli.sample_cycles import CYCLE, NEW, OLD, awaiting, cycle, ended
from tests.client.stub_server import StubServer, answer, failure, stream
from tests.mcp.conftest import ERAS, PATIENCE, Agent, Mode, joined

APPROVE = types.ElicitResult(action="accept", content={"decision": "approve"})
ASK = "att.bootstrap.approval"


@pytest.fixture
async def stub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StubServer]:
    directory = tmp_path_factory.mktemp("s")
    async with StubServer(directory / "a.sock") as server:
        who = server_service_pb2.GetServerInfoResponse(principal="token:anna")
        server.script("GetServerInfo", answer(who))
        stands(server, awaiting())
        yield server


def wire(shown: att_client.Cycle, revision: int = 1) -> bootstrap_pb2.Cycle:
    message = bootstrap_pb2.Cycle.FromString(bytes(shown))
    message.revision = revision
    return message


def stands(stub: StubServer, shown: att_client.Cycle) -> None:
    """Scripts how the cycle stands, and what is made of a decision."""
    stub.script("GetCycle", answer(bootstrap_service_pb2.GetCycleResponse(cycle=wire(shown))))
    decided = wire(cycle(state=CycleState.RUNNING), 2)
    stub.script("DecideCycle", answer(bootstrap_service_pb2.DecideCycleResponse(cycle=decided)))


async def never_asked(context: Any, params: Any) -> types.ElicitResult:
    raise AssertionError("the question is answered by hand here")


async def asked(agent: Agent, *, state: str | None = None, answers: Any = None) -> Any:
    """What one round of asking comes to."""
    return await agent.client.session.call_tool(
        ASK,
        {"cycle": CYCLE},
        request_state=state,
        input_responses=answers,
        allow_input_required=True,
    )


async def test_a_question_that_is_answered_twice_decides_once(stub: StubServer) -> None:
    async with joined(stub.target, elicitation_callback=never_asked) as agent:
        question = await asked(agent)
        assert isinstance(question, types.InputRequiredResult)
        for _ in range(2):
            done = await asked(agent, state=question.request_state, answers={"answer": APPROVE})
            assert done.structured_content["decided"] == "approve, by token:anna"
    decisions = stub.requests["DecideCycle"]
    assert len({decision.request_id for decision in decisions}) == 1
    assert {(d.commit_sha, d.plan_digest) for d in decisions} == {(NEW, "digest")}


async def test_an_answer_to_another_question_is_none(stub: StubServer) -> None:
    async with joined(stub.target, elicitation_callback=never_asked) as agent:
        question = await asked(agent)
        waiting = awaiting()
        assert waiting.approval is not None
        stands(stub, replace(waiting, approval=replace(waiting.approval, commit_sha=OLD)))
        again = await asked(agent, state=question.request_state, answers={"answer": APPROVE})
        assert isinstance(again, types.InputRequiredResult)
        assert again.request_state != question.request_state
        # Neither without the question, nor with one that was made up.
        unasked = await asked(agent, answers={"answer": APPROVE})
        assert isinstance(unasked, types.InputRequiredResult)
        with pytest.raises(MCPError):
            await asked(agent, state="made up", answers={"answer": APPROVE})
        changed = f"{question.request_state[:-4]}AAAA"
        with pytest.raises(MCPError):
            await asked(agent, state=changed, answers={"answer": APPROVE})
    assert "DecideCycle" not in stub.requests


@pytest.mark.parametrize("mode", ERAS)
async def test_a_decision_that_came_too_late_is_told(stub: StubServer, mode: Mode) -> None:
    async def accept(context: Any, params: Any) -> types.ElicitResult:
        return APPROVE

    code = grpc.StatusCode.FAILED_PRECONDITION
    stub.script("DecideCycle", failure(code, "APPROVAL_STALE", cycle_id=CYCLE, commit_sha=NEW))
    async with joined(stub.target, mode, elicitation_callback=accept) as agent:
        told = await agent.refused(ASK, cycle=CYCLE)
    assert "APPROVAL_STALE" in told
    assert told.endswith(f"Next: call att.bootstrap.status with cycle={CYCLE}.")


@pytest.mark.parametrize("mode", ERAS)
async def test_a_cycle_that_is_cancelled_ends_the_wait(stub: StubServer, mode: Mode) -> None:
    waiting, cancelled = asyncio.Event(), asyncio.Event()
    states = [cycle(state=CycleState.RUNNING), cycle(state=CycleState.CANCELLING)]
    over = ended(CycleOutcome.CANCELLED, outcome_reason="cancelled", cancelled_by="token:bob")
    stands(stub, states[0])
    messages = [
        bootstrap_service_pb2.WatchCycleResponse(cycle=wire(state, number))
        for number, state in enumerate([*states, over], 2)
    ]

    async def until_cancelled() -> None:
        waiting.set()
        await cancelled.wait()

    stub.script("WatchCycle", stream(messages[0], until_cancelled, *messages[1:]))
    told: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with joined(stub.target, mode) as agent, asyncio.timeout(PATIENCE):
        task = asyncio.create_task(
            agent.client.call_tool(
                "att.bootstrap.status",
                {"cycle": CYCLE, "wait_seconds": 45},
                progress_callback=on_progress,
            )
        )
        await waiting.wait()
        cancelled.set()
        status = (await task).structured_content
    assert isinstance(status, dict)
    assert (status["state"], status["outcome"]) == ("ended", "cancelled")
    assert any(message and message.startswith("cancelling") for message in told)


async def test_a_wait_is_bounded_and_ends_with_how_the_cycle_stands(stub: StubServer) -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    stands(stub, cycle(state=CycleState.RUNNING))
    running = bootstrap_service_pb2.WatchCycleResponse(cycle=wire(cycle(), 2))
    stub.script("WatchCycle", stream(running, forever))
    async with joined(stub.target) as agent:
        status = await agent.call("att.bootstrap.status", cycle=CYCLE, wait_seconds=1)
        assert status["state"] == "running"
        assert status["next"].endswith(f"with cycle={CYCLE}, wait_seconds=45.")
        assert "`wait_seconds`" in await agent.refused(
            "att.bootstrap.status", cycle=CYCLE, wait_seconds=46
        )


async def test_a_bridge_of_one_project_knows_no_cycle_of_another(stub: StubServer) -> None:
    async with joined(stub.target, projects=["other"]) as agent:
        for tool in ("att.bootstrap.status", "att.bootstrap.cancel", ASK):
            assert "serves other" in await agent.refused(tool, cycle=CYCLE)
        assert "serves other" in await agent.refused("att.events.list", cycle=CYCLE)
    assert "CancelCycle" not in stub.requests


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"patch": "x", "commit": NEW},
        {"edits": [{"path": "a", "content": "1"}, {"path": "a", "content": "2"}]},
        {"edits": [{"path": "a", "mode": "0777"}]},
        {"edits": {"a": "1"}},
        {"commit": NEW, "until": "approval"},
        {"commit": NEW, "approve": True},
    ],
    ids=str,
)
async def test_a_change_that_is_none_is_refused_before_it_is_sent(
    stub: StubServer, change: dict[str, Any]
) -> None:
    async with joined(stub.target) as agent:
        for tool in ("att.bootstrap.plan", "att.bootstrap.start"):
            assert "Next: " in await agent.refused(tool, project="web", **change)
    assert not {"PlanCycle", "StartCycle"} & stub.requests.keys()


async def test_what_nobody_foresaw_is_told_without_its_text(
    stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(bootstrap.Bootstrap, "get", broken)
    async with joined(stub.target) as agent:
        told = await agent.refused("att.bootstrap.status", cycle=CYCLE)
        assert "(INTERNAL). Next: " in told
        assert "secret" not in told
        # A lone surrogate is text that no request can carry.
        assert "FIELD_INVALID" in await agent.refused("att.runtime.status", project="\ud800")
