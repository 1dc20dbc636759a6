"""An agent's day: from a line in the log to a release that runs, or to one that was undone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mcp_types as types
import pytest

import att_client
from tests.mcp.conftest import ERAS, Agent, Mode
from tests.mcp.repositories import APP, released
from tests.mcp.transports import new_token, over_http, over_stdio
from tests.server_process import ServerProcess

Transport = Literal["stdio", "http"]
WAYS = [(transport, mode) for transport in ("stdio", "http") for mode in ERAS]


@dataclass(frozen=True, slots=True)
class Tokens:
    operator: str
    approver: str
    viewer: str


@pytest.fixture(scope="module")
def tokens(server: ServerProcess) -> Tokens:
    return Tokens(
        operator=new_token(server, "agent", "operator"),
        approver=new_token(server, "anna", "approver"),
        viewer=new_token(server, "vera", "viewer"),
    )


@asynccontextmanager
async def agent_at(
    server: ServerProcess, transport: Transport, mode: Mode, token: str, **client: Any
) -> AsyncIterator[Agent]:
    if transport == "stdio":
        async with over_stdio(server.target, mode, token=token, **client) as agent:
            yield agent
    else:
        async with (
            over_http(server.target) as served,
            served.agent(mode, token, **client) as agent,
        ):
            yield agent


async def ended(agent: Agent, cycle: str) -> dict[str, Any]:
    """How the cycle stands once nothing more happens by itself, by bounded waits."""
    while True:
        status = await agent.call("att.bootstrap.status", cycle=cycle, wait_seconds=45)
        if status["state"] in ("ended", "awaiting_approval"):
            return status


async def line_with(agent: Agent, project: str, text: str, cursor: int) -> int:
    """The cursor behind the first page with such a line."""
    while True:
        page = await agent.call(
            "att.runtime.logs", project=project, cursor=cursor, limit=50, wait_seconds=30
        )
        cursor = page["cursor"]
        if any(text in line for line in page["lines"]):
            return cursor


@pytest.mark.parametrize(("transport", "mode"), WAYS)
async def test_a_fault_is_found_fixed_and_seen_live(
    server: ServerProcess,
    att: att_client.Client,
    tmp_path: Path,
    tokens: Tokens,
    transport: Transport,
    mode: Mode,
) -> None:
    project = f"{transport}-{mode}"
    first = await released(att, project, tmp_path / "web")
    async with agent_at(server, transport, mode, tokens.operator) as agent:
        status = await agent.call("att_project_status", project=project)
        assert status["state"] == "ready"
        cursor = await line_with(agent, project, "ERROR no price: division by zero", 0)
        found = await agent.call("att.code.search", project=project, pattern="def price")
        assert found["matches"] == ["app.py:4: def price(parts):"]
        code = await agent.call("att.code.read", project=project, path="app.py")
        assert (code["text"], code["commit_sha"]) == (APP, status["release_id"])
        fix = APP.replace("return 100 / parts", "return 100 / max(parts, 1)")
        change = {"project": project, "edits": [{"path": "app.py", "content": fix}]}
        plan = await agent.call("att.bootstrap.plan", **change)
        assert plan["base_commit_sha"] == first.result.merge_commit_sha  # type: ignore[union-attr]  # it has ended
        started = await agent.call("att.bootstrap.start", **change, message="Mend the price")
        assert started["cycle"] in started["next"]
        status = await ended(agent, started["cycle"])
        assert status["outcome"] == "succeeded", status
        assert any(step.startswith("test succeeded") for step in status["steps"])
        live = await agent.call("att.runtime.status", project=project)
        assert live["release_id"] == status["deployed_release_id"]
        await line_with(agent, project, "price 100.0", cursor)
        releases = await agent.call("att.release.list", project=project)
        assert [r["state"] for r in releases["releases"]] == ["good", "good"]
        diff = await agent.call("att.code.diff", project=project, base=code["commit_sha"])
        assert "+    return 100 / max(parts, 1)" in diff["diff"]
        # A bad fix is undone, and the result says why.
        bad = {"path": "app.py", "content": "raise SystemExit(3)\n"}
        started = await agent.call("att.bootstrap.start", project=project, edits=[bad])
        status = await ended(agent, started["cycle"])
        assert status["outcome"] == "rolled_back", status
        # Who sees first that it ended is a matter of how fast it starts.
        assert status["outcome_reason"] in ("restart_watchdog_failure", "health_failure")
        assert status["rollback"].endswith(f"succeeded: {status['outcome_reason']}")
        assert status["reverted"] is True
        assert "att.runtime.logs" in status["next"]
        assert (await agent.call("att.runtime.status", project=project))["release_id"] == (
            live["release_id"]
        )
        events = await agent.call("att.events.list", cycle=started["cycle"])
        assert any(" by token:agent" in line for line in events["events"])
    await att.runtimes.stop(project)


async def test_failing_tests_are_named(
    server: ServerProcess, att: att_client.Client, tmp_path: Path, tokens: Tokens
) -> None:
    await released(att, "broken", tmp_path / "web")
    async with over_stdio(server.target, "auto", token=tokens.operator) as agent:
        started = await agent.call(
            "att.bootstrap.start",
            project="broken",
            edits=[{"path": "app.py", "content": "def broken(:\n"}],
        )
        status = await ended(agent, started["cycle"])
        assert (status["outcome"], status["outcome_reason"]) == ("failed", "test_failure")
        assert "SyntaxError" in status["failed_output"]
        assert "att.test.results" in status["next"]
        results = await agent.call("att.test.results", project="broken", cycle=started["cycle"])
        assert results["exit_code"] == 1
        assert "SyntaxError" in results["output_tail"]
    await att.runtimes.stop("broken")


class Person:
    """Who sits at a client and answers what it is asked."""

    def __init__(self, *answers: types.ElicitResult) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, context: Any, params: Any) -> types.ElicitResult:
        self.asked.append(params.message)
        return self.answers.pop(0)


APPROVE = types.ElicitResult(action="accept", content={"decision": "approve", "reason": "fine"})
DECLINE = types.ElicitResult(action="decline")
CANCEL = types.ElicitResult(action="cancel")
EMPTY = types.ElicitResult(action="accept", content={})


@pytest.mark.parametrize(("transport", "mode"), WAYS)
async def test_a_person_decides_and_the_server_judges(
    server: ServerProcess,
    att: att_client.Client,
    tmp_path: Path,
    tokens: Tokens,
    transport: Transport,
    mode: Mode,
) -> None:
    project = f"asked-{transport}-{mode}"
    await released(att, project, tmp_path / "web")
    async with agent_at(server, transport, mode, tokens.operator) as agent:
        started = await agent.call(
            "att.bootstrap.start",
            project=project,
            edits=[{"path": "README.md", "content": "Decided.\n"}],
            require_approval=True,
        )
        cycle = started["cycle"]
        status = await ended(agent, cycle)
        assert status["state"] == "awaiting_approval"
        command = status["approval"]["command"]
        assert f"att cycle approve {cycle} --commit {status['commit_sha']}" in command
        # Who asked for it cannot decide, whatever a person at the client says.
        told = await agent.refused("att.bootstrap.approval", cycle=cycle)
        assert "DECIDED_BY_REQUESTER" in told
        assert command in told
    async with over_http(server.target) as served:
        async with served.agent(mode, tokens.approver) as mute:
            assert command in await mute.refused("att.bootstrap.approval", cycle=cycle)
        fooled = Person(APPROVE)
        async with served.agent(mode, tokens.viewer, elicitation_callback=fooled) as viewer:
            told = await viewer.refused("att.bootstrap.approval", cycle=cycle)
            assert "PERMISSION_DENIED" in told
            assert fooled.asked
    person = Person(DECLINE, CANCEL, EMPTY, APPROVE)
    async with agent_at(
        server, transport, mode, tokens.approver, elicitation_callback=person
    ) as agent:
        for _ in range(3):
            none = await agent.call("att.bootstrap.approval", cycle=cycle)
            assert none["decided"].startswith("nothing")
            assert none["state"] == "awaiting_approval"
            assert command in none["next"]
        done = await agent.call("att.bootstrap.approval", cycle=cycle)
        assert done["decided"] == "approve, by token:anna"
        status = await ended(agent, cycle)
        assert status["outcome"] == "succeeded", status
        late = await agent.refused("att.bootstrap.approval", cycle=cycle)
        assert "waits for no decision" in late
    assert all(cycle in message for message in person.asked)
    await att.runtimes.stop(project)
