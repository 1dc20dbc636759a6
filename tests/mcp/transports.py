"""Ways to the bridge: a process with pipes, and HTTP with a token."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

import att_client
from att_client.mcp.bridge import Bridge
from att_client.mcp.callers import Callers
from att_client.mcp.http import Listener, app, serving
from att_client.mcp.options import Options
from att_server import tokens
from att_server.core.identity import Role
from tests.mcp.conftest import Agent, Mode
from tests.server_process import PATIENCE, ServerProcess


def new_token(server: ServerProcess, name: str, role: str) -> str:
    """A token of that name and role, made beside the running server. Not in an event loop."""
    made: list[str] = []
    tokens.create(
        server.state_dir,
        name,
        Role(role),
        timedelta(days=1),
        lambda minted: made.extend(one.secret.reveal() for one in minted),
    )
    return made[0]


@asynccontextmanager
async def over_stdio(
    target: str, mode: Mode, *options: str, token: str = "", **client: Any
) -> AsyncIterator[Agent]:
    """An agent whose client started `att mcp serve`."""
    process = StdioServerParameters(
        command=sys.executable,
        args=["-m", "att_client.cli", "mcp", "serve", *options],
        env={"ATT_TARGET": target, "ATT_TOKEN": token},
    )
    async with Client(stdio_client(process), mode=mode, **client) as agent:
        yield Agent(agent)


@dataclass(frozen=True, slots=True)
class Served:
    """A bridge over HTTP."""

    url: str

    @asynccontextmanager
    async def agent(self, mode: Mode, token: str, **client: Any) -> AsyncIterator[Agent]:
        """An agent at the bridge, with a token."""
        async with (
            http_client(token) as http,
            Client(
                streamable_http_client(self.url, http_client=http), mode=mode, **client
            ) as agent,
        ):
            yield Agent(agent)


def http_client(token: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE, trust_env=False
    )


@asynccontextmanager
async def over_http(target: str, **options: Any) -> AsyncIterator[Served]:
    """A bridge in this process, on a real socket."""
    callers = Callers(att_client.Config(target=target), named=True)
    bridge = Bridge(callers, Options(**options))
    try:
        listener = Listener(host="127.0.0.1", port=0)
        async with serving(listener, partial(app, bridge=bridge, callers=callers)) as url:
            yield Served(url)
            await bridge.aclose()
    finally:
        await callers.aclose()
