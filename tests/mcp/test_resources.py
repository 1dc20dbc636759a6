"""Resources: read at their addresses, completed, and watched in both eras."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp import MCPError

import att_client
from tests.mcp.conftest import ERAS, PATIENCE, Agent, Mode, joined, printing
from tests.mcp.transports import new_token, over_http
from tests.server_process import ServerProcess

STEPWISE = """
import os, sys, time
step = 0
while True:
    if os.path.exists(f"{sys.argv[1]}-{step}"):
        print("step", step, flush=True)
        step += 1
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def token(server: ServerProcess) -> str:
    return new_token(server, "agent", "operator")


async def contents(agent: Agent, uri: str) -> Any:
    (content,) = (await agent.client.read_resource(uri, cache_mode="bypass")).contents
    assert isinstance(content, types.TextResourceContents)
    assert content.mime_type == "application/json"
    return json.loads(content.text)


@pytest.mark.parametrize("mode", ERAS)
async def test_resources_hold_what_tools_return(
    server: ServerProcess, att: att_client.Client, tmp_path: Path, mode: Mode
) -> None:
    name = f"read-{mode}"
    await printing(att, name, tmp_path, "for i in range(5): print('line', i)")
    async with joined(server.target, mode) as agent:
        listed = {str(r.uri) for r in (await agent.client.list_resources()).resources}
        assert {"att://projects", f"att://project/{name}/logs"} <= listed
        templates = (await agent.client.list_resource_templates()).resource_templates
        assert "att://project/{id}/logs{?cursor,limit}" in {t.uri_template for t in templates}
        for uri in listed:
            await contents(agent, uri)
        page = await contents(agent, f"att://project/{name}/logs?limit=2&cursor=2")
        assert page["lines"] == ["line 1", "line 2"]
        runtime = await contents(agent, f"att://project/{name}/runtime")
        assert runtime["state"] == "exited"
        assert (await contents(agent, f"att://project/{name}/releases"))["releases"] == []


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize(
    "uri",
    [
        "att://nonsense",
        "att://project/no-such/runtime",
        "att://project/..%2F..%2Fetc/logs",
        "att://project/web/logs?cursor=x",
        "att://cycle/nonsense",
        "file:///etc/passwd",
        "att://project/" + "x" * 100_000 + "/logs",
    ],
    ids=lambda uri: uri[:40],
)
async def test_what_is_not_there_is_an_invalid_parameter(
    server: ServerProcess, mode: Mode, uri: str
) -> None:
    async with joined(server.target, mode) as agent:
        with pytest.raises(MCPError) as refused:
            await agent.client.read_resource(uri)
    assert refused.value.error.code == types.INVALID_PARAMS
    assert "Next: " in refused.value.error.message
    assert len(refused.value.error.message) < 4_000


async def test_ids_are_completed(
    server: ServerProcess, att: att_client.Client, tmp_path: Path
) -> None:
    for name in ("complete-a", "complete-b"):
        await att.projects.create(name, path=tmp_path, command=["true"])

    async def values(agent: Agent, template: str, begin: str) -> list[str]:
        ref = types.ResourceTemplateReference(uri=template)
        found = await agent.client.complete(ref, {"name": "id", "value": begin})
        return found.completion.values

    async with joined(server.target) as agent:
        logs = "att://project/{id}/logs{?cursor,limit}"
        assert await values(agent, logs, "complete-") == ["complete-a", "complete-b"]
        assert await values(agent, logs, "nobody") == []
        assert await values(agent, "att://cycle/{id}", "0") == []
    async with joined(server.target, projects=["complete-b"]) as agent:
        assert await values(agent, logs, "complete-") == ["complete-b"]


class Told:
    """What a client of the earlier era was told."""

    def __init__(self) -> None:
        self.uris: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.uris.put_nowait(str(message.params.uri))


@asynccontextmanager
async def watched(agent: Agent, told: Told, mode: Mode, *uris: str) -> AsyncIterator[None]:
    """Has `told` told of changes, in the way of the era."""
    if mode == "legacy":
        for uri in uris:
            await agent.client.subscribe_resource(uri)
        yield
        return
    async with agent.client.listen(resource_subscriptions=uris) as changes:

        async def pass_on() -> None:
            async for change in changes:
                told.uris.put_nowait(change.uri)  # type: ignore[union-attr]  # only these were asked for

        task = asyncio.create_task(pass_on())
        try:
            yield
        finally:
            task.cancel()


async def stepwise(att: att_client.Client, name: str, gate: Path) -> None:
    await att.projects.create(
        name, path=gate.parent, command=[sys.executable, "-S", "-c", STEPWISE, str(gate)]
    )
    await att.runtimes.start(name)


async def check_told(
    att: att_client.Client, agent: Agent, told: Told, mode: Mode, name: str, gate: Path
) -> None:
    logs, runtime = f"att://project/{name}/logs", f"att://project/{name}/runtime"
    before = asyncio.all_tasks()
    async with (
        watched(agent, told, mode, logs, runtime, "att://project/no-such/logs"),
        asyncio.timeout(PATIENCE),
    ):
        # Whoever is told that it is watched misses nothing from then on.
        gate.with_name(f"{gate.name}-0").touch()
        while await told.uris.get() != logs:
            pass
        await att.runtimes.stop(name)
        while await told.uris.get() != runtime:
            pass
        if mode == "legacy":
            for uri in (logs, runtime, "att://project/no-such/logs"):
                await agent.client.unsubscribe_resource(uri)
    async with asyncio.timeout(PATIENCE):
        while any(t.get_name() == "watch of a resource" for t in asyncio.all_tasks() - before):
            await asyncio.sleep(0.01)


# What the earlier era has, the SDK's client warns of.
@pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")
@pytest.mark.parametrize("mode", ERAS)
async def test_changes_are_told_on_a_pipe(
    server: ServerProcess, att: att_client.Client, tmp_path: Path, mode: Mode
) -> None:
    name, told = f"told-{mode}", Told()
    await stepwise(att, name, tmp_path / "gate")
    async with joined(server.target, mode, message_handler=told) as agent:
        await check_told(att, agent, told, mode, name, tmp_path / "gate")


# What the earlier era has, the SDK's client warns of.
@pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")
@pytest.mark.parametrize("mode", ERAS)
async def test_changes_are_told_over_http(
    server: ServerProcess, att: att_client.Client, tmp_path: Path, mode: Mode, token: str
) -> None:
    name, told = f"told-http-{mode}", Told()
    await stepwise(att, name, tmp_path / "gate")
    async with (
        over_http(server.target) as served,
        served.agent(mode, token, message_handler=told) as agent,
    ):
        await check_told(att, agent, told, mode, name, tmp_path / "gate")


async def test_a_new_project_changes_the_list(
    server: ServerProcess, att: att_client.Client, tmp_path: Path
) -> None:
    async with (
        joined(server.target) as agent,
        agent.client.listen(resources_list_changed=True) as changes,
        asyncio.timeout(PATIENCE),
    ):
        await att.projects.create("new-in-list", path=tmp_path, command=["true"])
        async for change in changes:
            assert type(change).__name__ == "ResourcesListChanged"
            break
        listed = (await agent.client.list_resources(cache_mode="bypass")).resources
        assert "att://project/new-in-list/logs" in {resource.uri for resource in listed}


async def test_too_many_resources_are_not_watched(server: ServerProcess) -> None:
    uris = [f"att://project/p{number}/logs" for number in range(101)]
    async with joined(server.target) as agent:
        with pytest.raises(MCPError, match="100"):
            async with agent.client.listen(resource_subscriptions=uris):
                pass
