"""A whole server over fakes, but for git: one project with a real checkout and remote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from att.v1 import bootstrap_pb2, project_service_pb2
from att.v1 import bootstrap_service_pb2 as pb
from att_server.adapters.git import Git
from att_server.adapters.git.projects import GitRepositories
from att_server.app import Adapters
from att_server.core.identity import Role
from att_server.core.tokens import TokenManager
from att_server.rpc.boundary import Boundary
from att_server.testing.server import fake_adapters, serve_in_process
from tests.contract.git_projects import GitProject, make_project, settings
from tests.rpc.conftest import Wire, bearer, connect

BOUND = 30.0
EDIT = bootstrap_pb2.FileEdit(path="app.py", content=b"print('new')\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitServer:
    """The server, its project `web`, and a token of somebody who may approve."""

    wire: Wire
    adapters: Adapters
    project: GitProject
    approver: str

    async def start(self, **fields: Any) -> bootstrap_pb2.Cycle:
        """Starts a cycle that ends with MERGE, unless `fields` say otherwise."""
        response = await self.wire.unary("StartCycle", start_request(**fields))
        cycle: bootstrap_pb2.Cycle = response.cycle
        return cycle

    async def until(self, cycle_id: str, *states: str) -> bootstrap_pb2.Cycle:
        """Watches the cycle up to one of these states, or its end."""
        async with asyncio.timeout(BOUND):
            async for message in self.wire.stream(
                "WatchCycle", pb.WatchCycleRequest(cycle_id=cycle_id)
            ):
                cycle: bootstrap_pb2.Cycle = message.cycle
                if name_of(cycle) in (*states, "ENDED"):
                    return cycle
        raise AssertionError("the stream ended before the cycle")

    async def as_approver(self, rpc: str, request: Any) -> Any:
        return await self.wire.unary(rpc, request, metadata=bearer(self.approver))


def start_request(request_id: str = "", **fields: Any) -> pb.StartCycleRequest:
    given = {"project_id": "web", "edits": [EDIT], "until": "CYCLE_STEP_MERGE", **fields}
    return pb.StartCycleRequest(
        cycle=bootstrap_pb2.CycleRequest(**{k: v for k, v in given.items() if v is not None}),
        request_id=request_id,
    )


def name_of(cycle: bootstrap_pb2.Cycle) -> str:
    """The state without its prefix."""
    return bootstrap_pb2.CycleState.Name(cycle.state).removeprefix("CYCLE_STATE_")


def outcome_of(cycle: bootstrap_pb2.Cycle) -> str:
    """The outcome without its prefix."""
    return bootstrap_pb2.CycleOutcome.Name(cycle.outcome).removeprefix("CYCLE_OUTCOME_")


@asynccontextmanager
async def git_server(directory: Path) -> AsyncIterator[GitServer]:
    """Serves a project below `directory`."""
    project = await make_project(directory)
    adapters = fake_adapters(repositories=GitRepositories(Git(settings()), directory / "server"))
    tokens = TokenManager(tokens=adapters.tokens, events=adapters.store, clock=adapters.clock)
    _, secret = await tokens.create("anna", Role.APPROVER, principal="")
    async with _served(project, adapters, secret.reveal()) as served:
        await served.wire.unary(
            "CreateProject",
            project_service_pb2.CreateProjectRequest(project_id="web", path=str(project.checkout)),
        )
        yield served


@asynccontextmanager
async def next_server(before: GitServer, **changes: object) -> AsyncIterator[GitServer]:
    """A server that comes after another, with these adapters instead."""
    adapters = replace(before.adapters, **changes)  # type: ignore[arg-type]  # the adapters' own fields
    async with _served(before.project, adapters, before.approver) as served:
        yield served


@asynccontextmanager
async def _served(
    project: GitProject, adapters: Adapters, approver: str
) -> AsyncIterator[GitServer]:
    async with (
        serve_in_process(adapters) as target,
        connect(target, Boundary(new_error_id=str)) as wire,
    ):
        yield GitServer(wire=wire, adapters=adapters, project=project, approver=approver)
