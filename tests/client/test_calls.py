"""Calls carry what makes them safe: a deadline, a request id, a bounded repetition."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

import att_client
from att.v1 import (
    event_pb2,
    event_service_pb2,
    log_service_pb2,
    project_pb2,
    project_service_pb2,
    runtime_pb2,
    runtime_service_pb2,
)
from att_client import Client, LogLine, Probe, RuntimeSettings
from tests.client.stub_server import Context, StubServer, answer, batch, chunk, failure
from tests.server_process import PATIENCE

_RUNTIME = runtime_pb2.Runtime(project_id="web", pid=7)
_PROJECT = project_pb2.Project(project_id="web")


@pytest.fixture(autouse=True)
def scripted(stub: StubServer) -> None:
    runtime, project = runtime_service_pb2, project_service_pb2
    stub.script("StartRuntime", answer(runtime.StartRuntimeResponse(runtime=_RUNTIME)))
    stub.script("StopRuntime", answer(runtime.StopRuntimeResponse(runtime=_RUNTIME)))
    stub.script("RestartRuntime", answer(runtime.RestartRuntimeResponse(runtime=_RUNTIME)))
    stub.script("SignalRuntime", answer(runtime.SignalRuntimeResponse(runtime=_RUNTIME)))
    stub.script("GetRuntime", answer(runtime.GetRuntimeResponse(runtime=_RUNTIME)))
    health = runtime_pb2.HealthCheck()
    stub.script("ProbeHealth", answer(runtime.ProbeHealthResponse(health=health)))
    stub.script("CreateProject", answer(project.CreateProjectResponse(project=_PROJECT)))
    stub.script("GetProject", answer(project.GetProjectResponse(project=_PROJECT)))
    stub.script("UpdateProject", answer(project.UpdateProjectResponse(project=_PROJECT)))
    stub.script("DeleteProject", answer(project.DeleteProjectResponse()))
    stub.script("ListEvents", answer(event_service_pb2.ListEventsResponse()))


def _seconds(**fields: int) -> Any:
    return timedelta(**fields)


@pytest.mark.parametrize(
    ("rpc", "call", "bound"),
    [
        ("GetProject", lambda att: att.projects.get("web"), 30),
        ("ListEvents", lambda att: att.events.list(), 30),
        ("DeleteProject", lambda att: att.projects.delete("web"), 30),
        ("SignalRuntime", lambda att: att.runtimes.signal("web", signal.SIGHUP), 30),
        ("StartRuntime", lambda att: att.runtimes.start("web"), 60),
        ("StartRuntime", lambda att: att.runtimes.start("web", timeout=_seconds(hours=1)), 3630),
        ("StopRuntime", lambda att: att.runtimes.stop("web"), 3630),
        ("StopRuntime", lambda att: att.runtimes.stop("web", grace=_seconds(seconds=5)), 35),
        (
            "RestartRuntime",
            lambda att: att.runtimes.restart(
                "web", grace=_seconds(seconds=5), timeout=_seconds(seconds=7)
            ),
            42,
        ),
        ("ProbeHealth", lambda att: att.runtimes.probe("web"), 60),
        (
            "ProbeHealth",
            lambda att: att.runtimes.probe("web", Probe(timeout=_seconds(milliseconds=50))),
            60,
        ),
        (
            "ProbeHealth",
            lambda att: att.runtimes.probe("web", Probe(timeout=_seconds(minutes=4))),
            300,
        ),
    ],
)
async def test_every_call_has_a_deadline_beyond_what_it_waits_for(
    att: Client, stub: StubServer, rpc: str, call: Callable[[Client], Any], bound: float
) -> None:
    await call(att)
    (remaining,) = stub.deadlines[rpc]
    assert remaining is not None
    # The wire rounds it up, the longer the more.
    assert bound - 10 < remaining < bound * 1.01 + 1


async def test_streams_have_no_deadline(att: Client, stub: StubServer) -> None:
    async def follow(request: Any, context: Context) -> Any:
        yield batch(1, chunk(0, b"a"))

    stub.script("FollowLogs", follow)
    assert [item async for item in att.logs.follow("web")] == ["a"]
    # gRPC tells of an absent deadline as one that is far beyond any date.
    (remaining,) = stub.deadlines["FollowLogs"]
    assert remaining is None or remaining > timedelta(days=365).total_seconds()


async def test_the_configured_timeout_ends_a_call(stub: StubServer) -> None:
    async def never(request: Any, context: Context) -> Any:
        await asyncio.get_running_loop().create_future()

    stub.script("GetProject", never)
    config = att_client.Config(target=stub.target, timeout=timedelta(seconds=0.1))
    async with att_client.connect(config=config) as att:
        with pytest.raises(att_client.DeadlineExceededError) as caught:
            await att.projects.get("web")
    assert "GetProject" in caught.value.message


async def test_acting_calls_carry_a_new_request_id_or_the_caller_s(
    att: Client, stub: StubServer
) -> None:
    for given in (None, None, "mine"):
        await att.runtimes.start("web", request_id=given)
        await att.runtimes.stop("web", request_id=given)
        await att.runtimes.restart("web", request_id=given)
        await att.runtimes.signal("web", 1, request_id=given)
        await att.projects.delete("web", request_id=given)
    calls = ("StartRuntime", "StopRuntime", "RestartRuntime", "SignalRuntime", "DeleteProject")
    ids = [[request.request_id for request in stub.requests[rpc]] for rpc in calls]
    assert all(last == "mine" for *_, last in ids)
    fresh = [request_id for first, second, _ in ids for request_id in (first, second)]
    assert all(fresh)
    assert len(set(fresh)) == len(fresh)


async def test_an_unavailable_server_is_asked_again_with_the_same_request_id(
    att: Client, stub: StubServer
) -> None:
    done = stub.scripts["StartRuntime"][0]
    stub.script(
        "StartRuntime", failure(grpc.StatusCode.UNAVAILABLE, "SUPERVISOR_UNREACHABLE"), done
    )
    runtime = await att.runtimes.start("web")
    assert runtime.pid == 7
    first, second = [request.request_id for request in stub.requests["StartRuntime"]]
    assert first == second


async def test_a_server_that_stays_unavailable_is_reported(att: Client, stub: StubServer) -> None:
    for reason, kind in (
        ("SHUTTING_DOWN", att_client.ShuttingDownError),
        ("SUPERVISOR_UNREACHABLE", att_client.SupervisorUnreachableError),
        ("AUDIT_UNAVAILABLE", att_client.AuditUnavailableError),
    ):
        stub.script("GetRuntime", failure(grpc.StatusCode.UNAVAILABLE, reason))
        with pytest.raises(kind):
            await att.runtimes.get("web")
    assert 3 < len(stub.requests["GetRuntime"]) <= 15


async def test_another_failure_is_not_repeated(att: Client, stub: StubServer) -> None:
    stub.script("GetRuntime", failure(grpc.StatusCode.ABORTED, "PROJECT_BUSY"))
    with pytest.raises(att_client.ProjectBusyError):
        await att.runtimes.get("web")
    assert len(stub.requests["GetRuntime"]) == 1


async def test_requests_say_what_the_arguments_say(att: Client, stub: StubServer) -> None:
    await att.projects.create("web", path="/srv/web", command=["python", "app.py"])
    await att.projects.create(
        "web", path="/srv/web", command=["a"], runtime=RuntimeSettings(env={"A": "b"})
    )
    plain, both = stub.requests["CreateProject"]
    assert (plain.project_id, plain.path) == ("web", "/srv/web")
    assert list(plain.runtime.command) == ["python", "app.py"]
    assert (list(both.runtime.command), dict(both.runtime.env)) == (["a"], {"A": "b"})
    await att.projects.update("web", path="/srv/new")
    (update,) = stub.requests["UpdateProject"]
    assert update.path == "/srv/new"
    assert not update.HasField("runtime")
    await att.runtimes.start("web", wait="ready", timeout=timedelta(seconds=1.5))
    (start,) = stub.requests["StartRuntime"]
    assert start.wait == runtime_service_pb2.START_WAIT_READY
    assert start.timeout.ToTimedelta() == timedelta(seconds=1.5)
    await att.runtimes.stop("web", grace=timedelta(0))
    (stop,) = stub.requests["StopRuntime"]
    # Zero kills at once, and is not the project's own grace.
    assert stop.HasField("grace")
    await att.runtimes.stop("web")
    assert not stub.requests["StopRuntime"][1].HasField("grace")


async def test_arguments_that_cannot_be_meant_are_refused(att: Client) -> None:
    with pytest.raises(TypeError):
        await att.projects.create("web", path="/", command="python app.py")
    settings = RuntimeSettings(command=["b"])
    with pytest.raises(TypeError):
        await att.projects.create("web", path="/", command=["a"], runtime=settings)
    with pytest.raises(ValueError, match="wait"):
        await att.runtimes.start("web", wait="running")  # type: ignore[arg-type]  # it is the point
    with pytest.raises(ValueError, match="on_gap"):
        att.logs.follow("web", on_gap="ignore")  # type: ignore[arg-type]  # it is the point
    with pytest.raises(TypeError):
        await att.events.list(event_types="project.")


async def test_lists_give_items_over_all_pages(att: Client, stub: StubServer) -> None:
    async def list_projects(request: Any, context: Context) -> Any:
        page = int(request.page_token or "0")
        return project_service_pb2.ListProjectsResponse(
            projects=[project_pb2.Project(project_id=f"p{page}{i}") for i in range(2)],
            next_page_token=str(page + 1) if page < 2 else "",
        )

    stub.script("ListProjects", list_projects)
    pager = att.projects.list(page_size=2)
    expected = ["p00", "p01", "p10", "p11", "p20", "p21"]
    assert [project.project_id async for project in pager] == expected
    assert [len(page.projects) async for page in pager.pages()] == [2, 2, 2]
    assert stub.requests["ListProjects"][0].page_size == 2
    assert len(stub.requests["ListProjects"]) == 6
    stub.script("ListRuntimes", answer(runtime_service_pb2.ListRuntimesResponse(revision=9)))
    assert [page.revision async for page in att.runtimes.list().pages()] == [9]


async def test_a_page_of_a_log_is_read_with_all_it_says(att: Client, stub: StubServer) -> None:
    stub.script(
        "ReadLogs",
        answer(
            log_service_pb2.ReadLogsResponse(
                records=[chunk(5, b"a", b"b")],
                cursor=7,
                start_cursor=5,
                end_cursor=9,
                truncated=True,
                skipped=5,
                has_more=True,
            )
        ),
    )
    since = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
    page = await att.logs.read("web", since=since, limit=2, max_bytes=10)
    assert (page.cursor, page.start_cursor, page.end_cursor) == (7, 5, 9)
    assert (page.truncated, page.skipped, page.has_more) == (True, 5, True)
    lines = [item for item in att_client.log_items(page.records) if isinstance(item, LogLine)]
    assert [(line, line.sequence) for line in lines] == [("a", 5), ("b", 6)]
    (request,) = stub.requests["ReadLogs"]
    assert (request.limit, request.max_bytes) == (2, 10)
    assert request.start.since.ToDatetime(UTC) == since


async def test_events_are_listed_by_page(att: Client, stub: StubServer) -> None:
    event = event_pb2.Event(sequence=4, event_type="project.created", attributes={"a": "b"})
    response = event_service_pb2.ListEventsResponse(events=[event], cursor=5, has_more=True)
    stub.script("ListEvents", answer(response))
    page = await att.events.list(
        project_id="web", event_types=["project."], cursor=3, page_size=1, tail=False
    )
    assert [(e.sequence, e.attributes) for e in page.events] == [(4, {"a": "b"})]
    assert (page.cursor, page.has_more) == (5, True)
    (request,) = stub.requests["ListEvents"]
    assert request.filter.project_id == "web"
    assert list(request.filter.event_types) == ["project."]
    assert (request.cursor, request.page_size) == (3, 1)


async def test_a_cancelled_call_is_cancelled_on_the_server(att: Client, stub: StubServer) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def never(request: Any, context: Context) -> Any:
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    stub.script("GetProject", never)
    call = asyncio.ensure_future(att.projects.get("web"))
    async with asyncio.timeout(PATIENCE):
        await began.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await ended.wait()
