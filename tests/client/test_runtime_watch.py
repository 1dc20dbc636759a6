"""A watch gives the latest state of every app, over every interruption."""

from __future__ import annotations

import asyncio

import pytest

import att_client
from att.v1 import runtime_pb2, runtime_service_pb2
from att_client import Client
from tests.client.stub_server import StubServer, answer, stream, unavailable


def _message(
    revision: int, *names: str, deleted: tuple[str, ...] = (), complete: bool = False
) -> runtime_service_pb2.WatchRuntimesResponse:
    return runtime_service_pb2.WatchRuntimesResponse(
        runtimes=[runtime_pb2.Runtime(project_id=name, revision=revision) for name in names],
        deleted_project_ids=deleted,
        revision=revision,
        complete=complete,
    )


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def _told(change: att_client.WatchRuntimesResponse) -> tuple[list[str], list[str]]:
    return [r.project_id for r in change.runtimes], list(change.deleted_project_ids)


async def test_an_interrupted_watch_resumes_at_its_revision(att: Client, stub: StubServer) -> None:
    stub.script(
        "WatchRuntimes",
        stream(_message(5, "a", "b", complete=True), _message(6), then=unavailable()),
        stream(_message(7, "b"), _message(9, deleted=("a",))),
    )
    watch = att.runtimes.watch(project_ids=["a", "b"])
    changes = [_told(change) async for change in watch]
    assert changes == [(["a", "b"], []), (["b"], []), ([], ["a"])]
    first, second = stub.requests["WatchRuntimes"]
    assert (first.after_revision, second.after_revision) == (0, 6)
    assert list(second.project_ids) == ["a", "b"]
    assert watch.revision == 9


async def test_what_another_server_no_longer_has_is_told_as_deleted(
    att: Client, stub: StubServer
) -> None:
    stub.script(
        "WatchRuntimes",
        stream(_message(50, "a", "b", "c", complete=True), then=unavailable()),
        stream(_message(1000, "b", complete=True)),
    )
    changes = [_told(change) async for change in att.runtimes.watch()]
    assert changes == [(["a", "b", "c"], []), (["b"], ["a", "c"])]


async def test_a_first_message_is_given_also_where_there_is_no_app(
    att: Client, stub: StubServer
) -> None:
    stub.script("WatchRuntimes", stream(_message(4, complete=True)))
    assert [_told(change) async for change in att.runtimes.watch()] == [([], [])]


async def test_a_revision_that_falls_is_an_error(att: Client, stub: StubServer) -> None:
    stub.script("WatchRuntimes", stream(_message(5, "a"), _message(4, "a"), _forever))
    with pytest.raises(att_client.ProtocolError):
        async for _ in att.runtimes.watch(after_revision=1):
            pass


async def test_a_closed_watch_says_so(att: Client, stub: StubServer) -> None:
    stub.script("WatchRuntimes", stream(_message(1), _forever))
    watch = att.runtimes.watch()
    changes = aiter(watch)
    waiting = asyncio.ensure_future(anext(changes))
    while "WatchRuntimes" not in stub.requests:
        await asyncio.sleep(0)
    await watch.aclose()
    with pytest.raises(att_client.ClosedError):
        await waiting
    with pytest.raises(att_client.ClosedError):
        aiter(watch)


async def test_a_project_that_is_given_as_text_is_refused(att: Client) -> None:
    with pytest.raises(TypeError):
        att.runtimes.watch(project_ids="web")


async def test_a_check_that_fails_is_an_answer(att: Client, stub: StubServer) -> None:
    stub.script(
        "ProbeHealth",
        answer(
            runtime_service_pb2.ProbeHealthResponse(
                health=runtime_pb2.HealthCheck(health_probe="tcp", health_reason="tcp_refused")
            )
        ),
    )
    probe = att_client.Probe(tcp=att_client.TcpProbe(port=9))
    check = await att.runtimes.probe("web", probe)
    assert (check.healthy, check.health_reason) == (False, "tcp_refused")
    [request] = stub.requests["ProbeHealth"]
    assert request.probe.tcp.port == 9
