"""Clients go on with the token that their file holds now: a real server, and real tokens."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import att_client
from att_client import Config
from att_client.mcp.callers import Callers
from tests.server_process import PATIENCE, ServerProcess


class Tokens:
    """The commands that make and end tokens, on the state directory of a server that runs."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.file = server.state_dir.parent / "ci.token"
        self.do("create", "--name", "ci", "--role", "operator", "--output", str(self.file))

    def do(self, *words: str) -> None:
        where = ("--state-dir", str(self.server.state_dir))
        subprocess.run(
            [sys.executable, "-m", "att_server", "token", *words, *where],
            check=True,
            capture_output=True,
        )

    @property
    def config(self) -> Config:
        environ = {"ATT_TOKEN_FILE": str(self.file), "ATT_TIMEOUT": str(PATIENCE)}
        return Config.from_env(environ, target=self.server.target)

    async def rotate(self) -> None:
        """Replaces the token, and returns when the server has ended what the old one opened."""
        old = Config(target=self.server.target, token=self.file.read_text().strip())
        async with att_client.connect(config=old) as att:
            events = aiter(att.events.watch(cursor=0))
            await anext(events)
            words = ("rotate", "ci", "--overlap", "0m", "--output", str(self.file))
            await asyncio.to_thread(self.do, *words)
            with pytest.raises(att_client.UnauthenticatedError):
                _ = [event async for event in events]
            with pytest.raises(att_client.UnauthenticatedError):
                await att.server.info()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "s") as server:
        yield server


@pytest.fixture
def tokens(server: ServerProcess) -> Tokens:
    return Tokens(server)


async def test_the_next_call_is_made_with_the_new_token(tokens: Tokens) -> None:
    async with att_client.connect(config=tokens.config) as att:
        assert (await att.server.info()).principal == "token:ci"
        await tokens.rotate()
        assert (await att.server.info()).principal == "token:ci"


async def test_a_watch_goes_on_when_the_token_that_opened_it_ends(
    tokens: Tokens, server: ServerProcess
) -> None:
    async with (
        att_client.connect(config=tokens.config) as att,
        att_client.connect(server.target) as local,
        asyncio.timeout(PATIENCE),
    ):
        events = aiter(att.events.watch(cursor=0))
        while (await anext(events)).event_type != "token.created":
            pass
        await tokens.rotate()
        waits = asyncio.ensure_future(anext(events))
        await local.projects.create("web", path=server.state_dir.parent)
        while (await waits).event_type != "project.created":
            waits = asyncio.ensure_future(anext(events))


async def test_a_watch_whose_token_ends_for_good_says_so(tokens: Tokens) -> None:
    async with att_client.connect(config=tokens.config) as att, asyncio.timeout(PATIENCE):
        events = aiter(att.events.watch(cursor=0))
        await anext(events)
        await asyncio.to_thread(tokens.do, "revoke", "ci")
        with pytest.raises(att_client.UnauthenticatedError):
            _ = [event async for event in events]
        with pytest.raises(att_client.UnauthenticatedError):
            await att.server.info()


async def test_a_file_that_holds_no_token_leaves_the_one_before(tokens: Tokens) -> None:
    async with att_client.connect(config=tokens.config) as att:
        held = tokens.file.read_text()
        for content in ("", "two words", "x" * 5000):
            tokens.file.write_text(content)
            assert (await att.server.info()).principal == "token:ci"
        tokens.file.unlink()
        assert (await att.server.info()).principal == "token:ci"
        tokens.file.write_text("att_nobodys")
        tokens.file.chmod(0o644)  # as everybody's it is not taken
        assert (await att.server.info()).principal == "token:ci"
        tokens.file.chmod(0o600)
        with pytest.raises(att_client.UnauthenticatedError):
            await att.server.info()
        tokens.file.write_text(held)
        assert (await att.server.info()).principal == "token:ci"


async def test_a_bridge_goes_on_as_its_own_caller_and_no_other_takes_the_file(
    tokens: Tokens,
) -> None:
    callers = Callers(tokens.config)
    try:
        async with callers.connection() as att:
            assert (await att.server.info()).principal == "token:ci"
            await tokens.rotate()
            assert (await att.server.info()).principal == "token:ci"
        async with callers.connection("att_nobodys") as other:
            with pytest.raises(att_client.UnauthenticatedError):
                await other.server.info()
    finally:
        await callers.aclose()
