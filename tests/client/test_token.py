"""The token of the environment goes with every call, and nowhere else."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from google.protobuf.message import Message
from grpc import StatusCode

import att_client
from att.v1 import (
    event_service_pb2,
    project_pb2,
    project_service_pb2,
)
from att_client import Config, ConfigInvalidError
from tests.client.stub_server import Context, StubServer, answer, stream

TOKEN = "att_01M83VQ8T58WREJEG13RT6PPBC_canary_00000000"


@pytest.fixture
async def client(stub: StubServer) -> AsyncIterator[att_client.Client]:
    config = Config(target=stub.target, token=TOKEN)
    async with att_client.connect(config=config) as client:
        yield client


async def test_every_call_and_every_stream_says_who_calls(
    client: att_client.Client, stub: StubServer
) -> None:
    project = project_pb2.Project(project_id="web", mode=project_pb2.PROJECT_MODE_SAFE)
    stub.script(
        "SetProjectMode", answer(project_service_pb2.SetProjectModeResponse(project=project))
    )
    stub.script("WatchEvents", stream(event_service_pb2.WatchEventsResponse(cursor=1)))
    changed = await client.projects.set_mode("web", att_client.ProjectMode.SAFE, reason="why")
    assert changed.mode is att_client.ProjectMode.SAFE
    assert [event async for event in client.events.watch()] == []
    for rpc in ("GetServerInfo", "SetProjectMode", "WatchEvents"):
        assert stub.metadata[rpc][0]["authorization"] == f"Bearer {TOKEN}"
    (request,) = stub.requests["SetProjectMode"]
    assert (request.project_id, request.mode, request.reason) == (
        "web",
        project_pb2.PROJECT_MODE_SAFE,
        "why",
    )


async def test_without_a_token_nothing_is_said(att: att_client.Client, stub: StubServer) -> None:
    await att.server.info()
    assert all("authorization" not in metadata for metadata in stub.metadata["GetServerInfo"])


async def test_neither_a_log_nor_an_error_nor_the_config_shows_it(
    client: att_client.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(att_client.AttError) as error:
        await client.projects.get("web")
    shown = f"{caplog.text} {error.value!r} {error.value} {error.value.metadata} {client!r}"
    assert "canary" not in shown + repr(Config(target="unix:/a", token=TOKEN))


def test_the_environment_gives_the_token_or_the_file_that_holds_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert Config.from_env({"HOME": "/d"}).token == ""
    assert Config.from_env({"ATT_TOKEN": TOKEN, "ATT_TOKEN_FILE": ""}).token == TOKEN
    assert Config.from_env({"ATT_TOKEN_FILE": str(file)}, target="unix:/a").token_file == file
    file.chmod(0o640)
    assert Config.from_env({"ATT_TOKEN_FILE": str(file)}).token_file == file


async def test_a_call_that_was_refused_meanwhile_is_made_with_the_new_token(
    stub: StubServer, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    file.chmod(0o600)

    async def refuse(_: Any, context: Context) -> NoReturn:
        await context.abort(StatusCode.UNAUTHENTICATED, "revoked")

    async def renew_and_refuse(request: Any, context: Context) -> NoReturn:
        file.write_text("second")
        await refuse(request, context)

    info = stub.scripts["GetServerInfo"]
    stub.script("GetServerInfo", renew_and_refuse, *info, refuse)
    async with att_client.connect(config=Config(target=stub.target, token_file=file)) as client:
        with pytest.raises(att_client.UnauthenticatedError):
            await client.server.info()
    sent = [metadata["authorization"] for metadata in stub.metadata["GetServerInfo"]]
    assert sent == ["Bearer first", "Bearer second", "Bearer second"]


async def test_a_stream_whose_token_was_renewed_goes_on_where_it_was(
    stub: StubServer, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    file.chmod(0o600)

    async def renew_and_end(_: Any, context: Context) -> AsyncIterator[Message]:
        yield event_service_pb2.WatchEventsResponse(cursor=7)
        file.write_text("second")
        await context.abort(StatusCode.UNAUTHENTICATED, "revoked")

    stub.script(
        "WatchEvents", renew_and_end, stream(event_service_pb2.WatchEventsResponse(cursor=9))
    )
    async with att_client.connect(config=Config(target=stub.target, token_file=file)) as client:
        assert [event async for event in client.events.watch(cursor=1)] == []
    sent = [metadata["authorization"] for metadata in stub.metadata["WatchEvents"]]
    assert sent == ["Bearer first", "Bearer second"]
    assert [request.cursor for request in stub.requests["WatchEvents"]] == [1, 7]


def test_a_token_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ConfigInvalidError, match="both set"):
        Config.from_env({"ATT_TOKEN": TOKEN, "ATT_TOKEN_FILE": "/x"})
    with pytest.raises(ConfigInvalidError, match="both given"):
        Config(target="unix:/a", token=TOKEN, token_file=Path("/x"))


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä", "x" * 1025, "\x00"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigInvalidError) as error:
        Config.from_env({"ATT_TOKEN": token})
    assert token not in error.value.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "one token and nothing else"),
        (b" \n", "one token and nothing else"),
        (b"canary\ncanary\n", "not one word"),
        (b"canary \xff", "not one word"),
        (b"canary" * 1000, "one token and nothing else"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_and_not_shown(
    tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigInvalidError, match=words) as error:
        Config.from_env({"ATT_TOKEN_FILE": str(file)})
    assert "canary" not in error.value.message


def test_a_file_that_is_not_there_or_everybodys_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(ConfigInvalidError, match="No such file"):
        Config.from_env({"ATT_TOKEN_FILE": str(file)})
    file.write_text(TOKEN)
    file.chmod(0o604)
    with pytest.raises(ConfigInvalidError, match="chmod 600"):
        Config.from_env({"ATT_TOKEN_FILE": str(file)})
    with pytest.raises(ConfigInvalidError, match="no path"):
        Config.from_env({"ATT_TOKEN_FILE": "a\0b"})
    with pytest.raises(ConfigInvalidError, match="directory"):
        Config.from_env({"ATT_TOKEN_FILE": os.fspath(tmp_path)})
