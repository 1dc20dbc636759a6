"""The bridge over HTTP: who gets in, as whom, and what is left of who goes."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

import att_client
from att_client.mcp.callers import Callers
from att_client.mcp.http import Listener
from att_client.mcp.names import OptionInvalid
from att_server import tokens as server_tokens
from tests.cli.att import ATT, environment
from tests.mcp.conftest import ERAS, Mode, printing
from tests.mcp.transports import http_client, new_token, over_http
from tests.server_process import PATIENCE, ServerProcess

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def token(server: ServerProcess) -> str:
    return new_token(server, "agent", "operator")


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="att-mcp-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


async def posted(url: str, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
        return await http.post(url, content=json.dumps(LIST), headers=ACCEPT | headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example:8765"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Host": "localhost:1"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer att_nonsense"}, 401),
        ({"Authorization": "Bearer att_one two"}, 401),
        ({"Authorization": "Bearer " + "x" * 2000}, 401),
        ({"Authorization": "Basic YTpi"}, 401),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_who_has_no_business_here_is_refused(
    server: ServerProcess, token: str, headers: dict[str, str], status: int
) -> None:
    async with over_http(server.target) as served:
        sent = {"Authorization": f"Bearer {token}"} | headers
        refused = await posted(served.url, **sent)
        assert refused.status_code == status
        if status == 401:
            assert refused.headers["www-authenticate"].startswith("Bearer ")
        port = served.url.split(":")[2].split("/")[0]
        let_in = await posted(
            served.url,
            Authorization=f"Bearer {token}",
            Origin=f"http://localhost:{port}",
            Host=f"localhost:{port}",
        )
        assert let_in.status_code not in (401, 403, 421)


async def test_a_request_that_is_too_large_is_refused(server: ServerProcess, token: str) -> None:
    async with over_http(server.target) as served, http_client(token) as http:
        refused = await http.post(served.url, content=b" " * (5 << 20), headers=ACCEPT)
        assert refused.status_code == 413


@pytest.mark.parametrize("mode", ERAS)
async def test_each_caller_is_itself(
    server: ServerProcess, att: att_client.Client, tmp_path: Path, mode: Mode, token: str
) -> None:
    name = f"whose-{mode}"
    viewer = await asyncio.to_thread(new_token, server, f"vera-{mode}", "viewer")
    await att.projects.create(name, path=tmp_path, command=["sleep", "600"])
    async with (
        over_http(server.target) as served,
        served.agent(mode, token) as agent,
        served.agent(mode, viewer) as other,
    ):
        told = await other.refused("att.runtime.start", project=name)
        assert "PERMISSION_DENIED" in told
        assert "role operator" in told
        await agent.call("att.runtime.start", project=name)
        assert "PERMISSION_DENIED" in await other.refused("att.runtime.stop", project=name)
        await agent.call("att.runtime.stop", project=name, grace_seconds=1)
        events = await other.call("att.events.list", project=name)
        assert any(" runtime.start" in e and "by token:agent" in e for e in events["events"])
        assert not any("vera" in event for event in events["events"])
        # Revoked means worthless, in a session that is open too.
        await asyncio.to_thread(server_tokens.revoke, server.state_dir, f"vera-{mode}")
        async with asyncio.timeout(PATIENCE):
            while (await posted(served.url, Authorization=f"Bearer {viewer}")).status_code != 401:
                pass


async def opened_session(http: httpx2.AsyncClient, url: str) -> str:
    """The id of a new session of the earlier era."""
    client = {"name": "test", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
    opened = await http.post(
        url,
        json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params},
        headers=ACCEPT,
    )
    return str(opened.headers["mcp-session-id"])


async def test_a_session_is_of_who_began_it(server: ServerProcess, token: str) -> None:
    other = await asyncio.to_thread(new_token, server, "other", "admin")
    async with over_http(server.target) as served, http_client(token) as http:
        session = await opened_session(http, served.url)
        stolen = await posted(
            served.url, **{"Authorization": f"Bearer {other}", "Mcp-Session-Id": session}
        )
        assert stolen.status_code == 404


async def until_as_before(before: set[asyncio.Task[Any]]) -> None:
    """Returns when there are no tasks but those."""
    async with asyncio.timeout(PATIENCE):
        while [task for task in asyncio.all_tasks() - before if not task.done()]:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("mode", ERAS)
async def test_who_cancels_or_disconnects_leaves_nothing_behind(
    server: ServerProcess, att: att_client.Client, tmp_path: Path, mode: Mode, token: str
) -> None:
    name = f"left-{mode}"
    await printing(att, name, tmp_path, "print('one')")
    async with over_http(server.target) as served:
        async with served.agent(mode, token) as agent:  # the caller's connection is made
            await agent.call("att.runtime.logs", project=name)
        before = asyncio.all_tasks()
        async with served.agent(mode, token) as agent:
            asked = asyncio.Event()

            async def on_progress(
                progress: float, total: float | None, message: str | None
            ) -> None:
                asked.set()

            waiting = asyncio.create_task(
                agent.client.call_tool(
                    "att.runtime.logs",
                    {"project": name, "cursor": 3, "wait_seconds": 45},
                    progress_callback=on_progress,
                )
            )
            async with asyncio.timeout(PATIENCE):
                await asked.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await until_as_before(before)


async def test_a_connection_that_breaks_ends_what_waits_for_it(
    server: ServerProcess, att: att_client.Client, tmp_path: Path, token: str
) -> None:
    await printing(att, "cut", tmp_path, "print('one')")
    asked: dict[str, Any] = {
        "name": "att.runtime.logs",
        "arguments": {"project": "cut", "cursor": 3, "wait_seconds": 45},
        "_meta": {"progressToken": 1},
    }
    async with over_http(server.target) as served, http_client(token) as http:
        session = await opened_session(http, served.url)
        headers = ACCEPT | {"Mcp-Session-Id": session}
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await http.post(served.url, json=done, headers=headers)
        before = asyncio.all_tasks()
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked}
        async with http.stream("POST", served.url, json=call, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if "notifications/progress" in line:
                    break
        await until_as_before(before)


async def test_without_a_server_everybody_is_told_how_to_start_it(place: Path) -> None:
    with ServerProcess(place / "s") as server:
        token = await asyncio.to_thread(new_token, server, "agent", "operator")
        async with over_http(server.target) as served:
            for mode in ERAS:
                async with served.agent(mode, token) as agent:
                    await agent.call("att.project.list")
                    server.kill()
                    assert "`att serve`" in await agent.refused("att.project.list")
                    uris = (await agent.client.list_resources(cache_mode="bypass")).resources
                    assert [resource.uri for resource in uris] == ["att://projects"]
                    server.start()
                    assert await agent.call("att.project.list") == {
                        "projects": [],
                        "has_more": False,
                    }


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0:80", "[::]:80", "192.168.0.1:80", "example.com:80", "localhost.evil.example:80"),
        *("127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", ":80", ""),
    ],
)
def test_it_listens_on_loopback_only(text: str) -> None:
    with pytest.raises(OptionInvalid):
        Listener.parse(text)


async def test_a_request_that_names_nobody_is_nobodys(server: ServerProcess) -> None:
    callers = Callers(att_client.Config(target=server.target), named=True)
    with pytest.raises(att_client.UnauthenticatedError):
        async with callers.connection(None):
            pass


def test_it_listens_where_it_is_told() -> None:
    assert Listener.parse("localhost:0") == Listener(host="127.0.0.1", port=0)
    assert Listener.parse("[::1]:8765") == Listener(host="::1", port=8765)


async def test_the_command_serves_until_it_is_told_to_end(
    server: ServerProcess, token: str
) -> None:
    process = await serving(server, "127.0.0.1:0", "--toolsets", "project")
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[-1]
        async with (
            http_client(token) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
            client.listen(resource_subscriptions=["att://projects"]),
        ):
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert names == {"att.project.list", "att.project.status"}
            second = await serving(server, url.split("/")[2])
            assert second.stderr is not None
            assert b"ADDRESS_NOT_AVAILABLE" in await second.stderr.read()
            assert await second.wait() == 1
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def serving(server: ServerProcess, where: str, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(*ATT, "mcp", "serve", "--http", where, *options),
        env=environment(server.target),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
