"""Connecting tells at once whether there is a server, and where it looked."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

import att_client
from att_client import client as client_module
from tests.client.stub_server import Context, StubServer, failure


async def test_a_server_that_is_there_answers(att: att_client.Client, stub: StubServer) -> None:
    info = await att.server.info()
    assert info.version == "1.2.3"
    assert att.target == stub.target


async def test_no_server_is_an_error_that_names_target_and_source(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATT_STATE_DIR", str(directory))
    with pytest.raises(att_client.NotReachableError) as caught:
        async with att_client.connect():
            pass
    target = f"unix:{directory}/att.sock"
    assert caught.value.metadata == {"target": target, "source": "ATT_STATE_DIR"}
    assert target in caught.value.message
    assert "ATT_STATE_DIR" in caught.value.message


@pytest.mark.parametrize("was_killed", [False, True])
async def test_where_no_server_ever_answered_that_is_said_without_a_call(
    directory: Path, was_killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_call(*arguments: Any) -> None:
        raise AssertionError("a call was made")

    monkeypatch.setattr("grpc.aio._channel.Channel.unary_unary", no_call)
    path = directory / "att.sock"
    if was_killed:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    target = f"unix:{path}"
    with pytest.raises(att_client.NotReachableError):
        async with att_client.connect(target):
            pass
    async with att_client.connect(target, lazy=True) as att:
        with pytest.raises(att_client.UnavailableError, match="cannot be reached"):
            await att.projects.get("web")


async def test_a_server_that_does_not_answer_in_time_is_not_reachable(
    stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(request: Any, context: Context) -> Any:
        await asyncio.get_running_loop().create_future()

    stub.script("GetServerInfo", never)
    monkeypatch.setattr(client_module, "_CONNECT_TIMEOUT", client_module._CONNECT_TIMEOUT / 100)
    with pytest.raises(att_client.NotReachableError):
        async with att_client.connect(stub.target):
            pass


async def test_a_server_that_refuses_is_reachable(stub: StubServer) -> None:
    stub.script("GetServerInfo", failure(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"))
    with pytest.raises(att_client.PermissionDeniedError):
        async with att_client.connect(stub.target):
            pass


async def test_a_lazy_client_asks_nothing_until_it_is_used(directory: Path) -> None:
    async with (
        att_client.connect(f"unix:{directory}/att.sock", lazy=True) as att,
        StubServer(directory / "att.sock"),
    ):
        assert (await att.server.info()).version == "1.2.3"


async def test_a_client_that_is_not_open_says_so(stub: StubServer) -> None:
    att = att_client.connect(stub.target)
    with pytest.raises(att_client.ClosedError):
        await att.server.info()
    async with att:
        await att.server.info()
    with pytest.raises(att_client.ClosedError):
        await att.server.info()
    with pytest.raises(att_client.ClosedError):
        await anext(aiter(att.logs.follow("web")))
    # And it opens anew.
    async with att:
        await att.server.info()


async def test_closing_during_a_call_raises_there(stub: StubServer) -> None:
    async def never(request: Any, context: Context) -> Any:
        await asyncio.get_running_loop().create_future()

    stub.script("GetProject", never)
    att = att_client.connect(stub.target)
    async with att:
        call = asyncio.ensure_future(att.projects.get("web"))
        while "GetProject" not in stub.requests:
            await asyncio.sleep(0)
    with pytest.raises(att_client.ClosedError):
        await call


@pytest.mark.parametrize("name", ["a b", "a%20b", "ä", "a:b?c#d"])
async def test_any_path_is_a_target(directory: Path, name: str) -> None:
    (directory / name).mkdir()
    (directory / name / "att.sock").symlink_to(directory / "att.sock")
    async with (
        StubServer(directory / "att.sock"),
        att_client.connect(f"unix:{directory}/{name}/att.sock") as att,
    ):
        assert (await att.server.info()).version == "1.2.3"
