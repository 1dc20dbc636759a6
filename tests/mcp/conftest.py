"""A real server, and a bridge to it in the test's own process."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client

import att_client
from att_client.mcp.bridge import Bridge
from att_client.mcp.callers import Callers
from att_client.mcp.options import Options
from tests.server_process import PATIENCE, ServerProcess

Mode = Literal["auto", "legacy"]
ERAS: tuple[Mode, ...] = ("auto", "legacy")
"""How a client opens: with `server/discover`, and with `initialize`."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent's client, and what it asks."""

    client: Client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """What the tool returns; AssertionError where it returns an error."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, text(result)
        assert isinstance(result.structured_content, dict)
        return result.structured_content

    async def refused(self, tool: str, **arguments: Any) -> str:
        """The text of the error that the tool returns."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error
        return text(result)


def text(result: Any) -> str:
    (block,) = result.content
    assert isinstance(block.text, str)
    return block.text


Joined = Callable[..., AbstractAsyncContextManager[Agent]]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    # Not below pytest's directories: a socket path is short.
    directory = Path(tempfile.mkdtemp(prefix="att-mcp-"))
    try:
        with ServerProcess(directory / "s") as process:
            yield process
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def att(server: ServerProcess) -> AsyncIterator[att_client.Client]:
    async with att_client.connect(server.target) as client:
        yield client


@asynccontextmanager
async def joined(
    target: str,
    mode: Mode = "auto",
    *,
    message_handler: Any = None,
    elicitation_callback: Any = None,
    **options: Any,
) -> AsyncIterator[Agent]:
    """An agent at a bridge in this process, by the SDK's own client."""
    callers = Callers(att_client.Config(target=target))
    bridge = Bridge(callers, Options(**options))
    try:
        async with Client(
            bridge.server,
            mode=mode,
            message_handler=message_handler,
            elicitation_callback=elicitation_callback,
        ) as client:
            yield Agent(client)
    finally:
        await bridge.aclose()
        await callers.aclose()


async def printing(att: att_client.Client, project_id: str, path: Path, code: str) -> None:
    """Creates a project whose app is a Python program, and runs it to its end."""
    await att.projects.create(project_id, path=path, command=[sys.executable, "-c", code])
    await att.runtimes.start(project_id)
    async for _ in att.logs.follow(project_id, until_exit=True):
        pass


__all__ = ["ERAS", "PATIENCE", "Agent", "Mode", "joined", "printing", "text"]
