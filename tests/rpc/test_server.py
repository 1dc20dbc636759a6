"""The whole wire over fakes: each rpc does what the contract says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no types
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # no types
    reflection_pb2,
    reflection_pb2_grpc,
)

from att.v1 import (
    event_service_pb2,
    log_pb2,
    log_service_pb2,
    project_pb2,
    project_service_pb2,
    runtime_pb2,
    runtime_service_pb2,
)
from att_server.app import serving
from att_server.core.errors import Reason, RefusalReason, StartRefused
from att_server.core.identity import Role
from att_server.core.model import Event, EventFilter, LogStream
from att_server.core.tokens import TokenManager
from att_server.rpc.auth import required_role
from att_server.rpc.boundary import Boundary
from att_server.rpc.capabilities import capability
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.log_store import MemoryLogStore
from att_server.testing.server import fake_adapters, serve_in_process
from att_server.testing.state_store import MemoryStateStore
from tests.rpc.conftest import METHODS, Wire, bearer, connect, refusal

BOUND = 10.0
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server over fakes, and a way to end it early."""

    wire: Wire
    logs: MemoryLogStore
    driver: FakeRuntimeDriver
    store: MemoryStateStore
    tokens: TokenManager
    directory: Path
    server: AsyncExitStack

    async def token(self, role: Role) -> str:
        """The text of a new token, which is named after its role."""
        _, secret = await self.tokens.create(role, role, principal="")
        return secret.reveal()

    async def create(self, project_id: str = "web", **fields: Any) -> project_pb2.Project:
        request = project_service_pb2.CreateProjectRequest(
            **{"project_id": project_id, "path": str(self.directory), **fields}
        )
        response = await self.wire.unary("CreateProject", request)
        project: project_pb2.Project = response.project
        return project


@pytest.fixture
async def served(directory: Path) -> AsyncIterator[Served]:
    logs, driver, store = MemoryLogStore(), FakeRuntimeDriver(), MemoryStateStore()
    adapters = fake_adapters(logs=logs, driver=driver, store=store)
    async with AsyncExitStack() as server:
        await server.enter_async_context(
            serving(
                adapters,
                socket_path=directory / "att.sock",
                state_dir=directory,
                epoch=3,
                instance_id="instance-1",
                environ={"PATH": "/bin"},
            )
        )
        boundary = Boundary(new_error_id=str)  # only to fill the place
        async with connect(f"unix:{directory}/att.sock", boundary) as wire:
            yield Served(
                wire=wire,
                logs=logs,
                driver=driver,
                store=store,
                tokens=TokenManager(tokens=adapters.tokens, events=store, clock=adapters.clock),
                directory=directory,
                server=server,
            )


def start(**fields: Any) -> runtime_service_pb2.StartRuntimeRequest:
    settings = project_pb2.RuntimeSettings(command=["app"])
    return runtime_service_pb2.StartRuntimeRequest(
        **{"project_id": "web", "runtime": settings, **fields}
    )


def follow(**fields: Any) -> log_service_pb2.FollowLogsRequest:
    return log_service_pb2.FollowLogsRequest(**{"project_id": "web", **fields})


async def last(messages: AsyncIterator[Any]) -> Any:
    message = None
    async for item in messages:
        message = item
    return message


# Server ---------------------------------------------------------------------


async def test_the_server_says_who_it_is_and_who_calls(served: Served) -> None:
    info = await served.wire.unary("GetServerInfo")
    assert (info.instance_id, info.epoch) == ("instance-1", 3)
    assert info.state_dir == str(served.directory)
    assert info.principal.startswith("local:")


async def test_the_server_lists_exactly_what_it_can_do(served: Served) -> None:
    tokens = {role: await served.token(role) for role in Role}
    listed = set((await served.wire.unary("GetServerInfo")).capabilities)
    for rpc, method in METHODS.items():
        try:
            await served.wire.call(
                rpc, timeout=BOUND, metadata=bearer(tokens[required_role(method)])
            )
            reason = ""
        except grpc.aio.AioRpcError as error:
            reason = dict(error.trailing_metadata())["att-reason"]
        assert (reason != Reason.NOT_IMPLEMENTED) == (capability(method) in listed), rpc


async def test_the_socket_is_its_owners_alone(served: Served) -> None:
    assert (served.directory / "att.sock").stat().st_mode & 0o777 == 0o600


async def test_a_socket_path_that_is_taken_by_a_file_is_refused(directory: Path) -> None:
    (directory / "att.sock").write_text("precious")
    with pytest.raises(StartRefused) as refused:
        async with serving(
            fake_adapters(),
            socket_path=directory / "att.sock",
            state_dir=directory,
            epoch=1,
            instance_id="i",
            environ={},
        ):
            raise AssertionError
    assert refused.value.reason is RefusalReason.LISTENER_NOT_ALLOWED
    assert (directory / "att.sock").read_text() == "precious"


async def test_one_connection_carries_a_follow_of_every_project(served: Served) -> None:
    await served.create()
    follows = [aiter(served.wire.stream("FollowLogs", follow())) for _ in range(250)]
    async with asyncio.timeout(BOUND):
        await asyncio.gather(*(anext(messages) for messages in follows))


async def test_health_serves_until_the_shutdown_begins(served: Served) -> None:
    stub = health_pb2_grpc.HealthStub(served.wire.channel)
    for service in ("", "att.v1.LogService"):
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="att.v1.Imagined"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = aiter(stub.Watch(health_pb2.HealthCheckRequest()))
    assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
    await asyncio.wait_for(served.server.aclose(), BOUND)
    assert (await refusal(last(watch))).reason == Reason.SHUTTING_DOWN


async def test_a_malformed_health_check_is_refused_like_any_call(served: Served) -> None:
    call = served.wire.channel.unary_unary(
        "/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes
    )
    assert (await refusal(call(b"\xff"))).reason == Reason.MALFORMED_MESSAGE


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_every_service(served: Served, version: str) -> None:
    reflect = served.wire.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    responses = aiter(
        reflect(
            iter(
                [
                    reflection_pb2.ServerReflectionRequest(list_services=""),
                    reflection_pb2.ServerReflectionRequest(
                        file_containing_symbol="att.v1.LogService"
                    ),
                ]
            )
        )
    )
    names = {service.name for service in (await anext(responses)).list_services_response.service}
    assert {method.containing_service.full_name for method in METHODS.values()} <= names
    assert {"grpc.health.v1.Health", f"grpc.reflection.{version}.ServerReflection"} <= names
    assert (await anext(responses)).file_descriptor_response.file_descriptor_proto


async def test_an_open_reflection_does_not_hold_up_the_shutdown(served: Served) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(served.wire.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.read()
    await asyncio.wait_for(served.server.aclose(), BOUND)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE


# Projects -------------------------------------------------------------------


async def test_a_project_is_created_once(served: Served) -> None:
    project = await served.create()
    assert project.effective_runtime.stop_grace.seconds == 10
    assert await served.create() == project
    conflict = await refusal(served.create(path="/"))
    assert conflict.reason == Reason.PROJECT_SPEC_CONFLICT


async def test_a_project_is_changed_where_the_request_says_so(served: Served) -> None:
    settings = project_pb2.RuntimeSettings(command=["app"])
    await served.create(runtime=settings)
    update = project_service_pb2.UpdateProjectRequest(project_id="web", path="/")
    changed = (await served.wire.unary("UpdateProject", update)).project
    assert (changed.path, changed.runtime) == ("/", settings)
    update = project_service_pb2.UpdateProjectRequest(
        project_id="web", runtime=project_pb2.RuntimeSettings()
    )
    changed = (await served.wire.unary("UpdateProject", update)).project
    assert (changed.path, list(changed.runtime.command)) == ("/", [])


async def test_projects_are_listed_page_by_page(served: Served) -> None:
    for name in ("cc", "aa", "bb"):
        await served.create(name)
    request = project_service_pb2.ListProjectsRequest(page_size=2)
    page = await served.wire.unary("ListProjects", request)
    assert [project.project_id for project in page.projects] == ["aa", "bb"]
    request.page_token = page.next_page_token
    page = await served.wire.unary("ListProjects", request)
    assert [project.project_id for project in page.projects] == ["cc"]
    assert page.next_page_token == ""
    request.page_token = "\U0001f600"
    refused = await refusal(served.wire.unary("ListProjects", request))
    assert refused.fields == ("page_token",)


@pytest.mark.parametrize(("asked", "gets"), [(0, 50), (1, 1), (2**31 - 1, 60)])
async def test_a_page_has_as_many_projects_as_its_request_gets(
    served: Served, asked: int, gets: int
) -> None:
    for number in range(60):
        await served.create(f"p{number}")
    request = project_service_pb2.ListProjectsRequest(page_size=asked)
    assert len((await served.wire.unary("ListProjects", request)).projects) == gets


async def test_large_projects_come_in_shorter_pages(served: Served) -> None:
    large = project_pb2.RuntimeSettings(command=["x" * 120_000], env={"A": "x" * 120_000})
    for number in range(20):
        await served.create(f"p{number}", runtime=large)
    request = project_service_pb2.ListProjectsRequest()
    seen: list[str] = []
    while True:
        page = await served.wire.unary("ListProjects", request)
        seen += [project.project_id for project in page.projects]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert seen == sorted(f"p{number}" for number in range(20))


async def test_a_deleted_project_is_gone(served: Served) -> None:
    await served.create()
    request = project_service_pb2.DeleteProjectRequest(project_id="web", request_id="r1")
    await served.wire.unary("DeleteProject", request)
    await served.wire.unary("DeleteProject", request)
    get = project_service_pb2.GetProjectRequest(project_id="web")
    gone = await refusal(served.wire.unary("GetProject", get))
    assert (gone.reason, gone.metadata) == (Reason.PROJECT_NOT_FOUND, {"project_id": "web"})


async def test_a_path_that_is_no_directory_is_refused(served: Served) -> None:
    refused = await refusal(served.create(path="relative"))
    assert refused.reason == Reason.PROJECT_PATH_INVALID


# Runtimes -------------------------------------------------------------------


async def test_an_app_is_started_shown_signalled_and_stopped(served: Served) -> None:
    await served.create()
    started = (await served.wire.unary("StartRuntime", start())).runtime
    assert started.state == runtime_pb2.RUNTIME_STATE_READY
    assert started.desired_state == runtime_pb2.DESIRED_STATE_RUNNING
    get = runtime_service_pb2.GetRuntimeRequest(project_id="web")
    shown = (await served.wire.unary("GetRuntime", get)).runtime
    assert (shown.run_id, shown.pid) == (started.run_id, started.pid)
    listed = await served.wire.unary("ListRuntimes")
    assert [runtime.project_id for runtime in listed.runtimes] == ["web"]
    assert listed.revision >= shown.revision
    signal = runtime_service_pb2.SignalRuntimeRequest(project_id="web", signal=10)
    await served.wire.unary("SignalRuntime", signal)
    assert served.driver.signals == [("web", 10)]
    stop = runtime_service_pb2.StopRuntimeRequest(project_id="web")
    stopped = (await served.wire.unary("StopRuntime", stop)).runtime
    assert stopped.state == runtime_pb2.RUNTIME_STATE_STOPPED
    assert stopped.exit.WhichOneof("cause") is not None


async def test_a_restart_is_a_new_run(served: Served) -> None:
    await served.create()
    first = (await served.wire.unary("StartRuntime", start())).runtime
    restart = runtime_service_pb2.RestartRuntimeRequest(project_id="web")
    second = (await served.wire.unary("RestartRuntime", restart)).runtime
    assert second.run_id != first.run_id


async def test_what_cannot_be_started_says_why(served: Served) -> None:
    await served.create()
    missing = project_pb2.RuntimeSettings(command=["no-such-command"])
    refused = await refusal(served.wire.unary("StartRuntime", start(runtime=missing)))
    assert refused.reason in (Reason.COMMAND_NOT_FOUND, Reason.RUNTIME_START_FAILED)
    nothing = project_pb2.RuntimeSettings()
    refused = await refusal(served.wire.unary("StartRuntime", start(runtime=nothing)))
    assert refused.reason == Reason.COMMAND_MISSING


# Logs -----------------------------------------------------------------------


async def test_a_page_of_a_log_has_lines_markers_and_bounds(served: Served) -> None:
    log_id = (await served.create()).log_id
    served.logs.append_started("web", log_id, "run-1")
    served.logs.append_lines("web", log_id, b"one", b"two", run_id="run-1")
    served.logs.append_ended("web", log_id, "run-1", exit_code=0)
    request = log_service_pb2.ReadLogsRequest(project_id="web")
    page = await served.wire.unary("ReadLogs", request)
    assert [record.WhichOneof("record") for record in page.records] == ["run", "chunk", "run"]
    assert page.records[1].chunk.lines == b"one\ntwo\n"
    assert (page.cursor, page.start_cursor, page.end_cursor) == (4, 0, 4)
    assert (page.has_more, page.truncated, page.log_id) == (False, False, log_id)
    request.limit = 1
    request.start.cursor = 2
    page = await served.wire.unary("ReadLogs", request)
    assert page.records[0].chunk.lines == b"two\n"
    assert (page.cursor, page.has_more) == (3, True)


async def test_an_empty_log_has_an_empty_page(served: Served) -> None:
    await served.create()
    page = await served.wire.unary("ReadLogs", log_service_pb2.ReadLogsRequest(project_id="web"))
    assert (len(page.records), page.cursor, page.has_more) == (0, 0, False)


async def test_a_cursor_ahead_is_refused_with_the_end(served: Served) -> None:
    log_id = (await served.create()).log_id
    request = log_service_pb2.ReadLogsRequest(project_id="web", start=log_pb2.LogPosition(cursor=7))
    refused = await refusal(served.wire.unary("ReadLogs", request))
    assert refused.reason == Reason.LOG_CURSOR_AHEAD
    assert refused.metadata == {
        "project_id": "web",
        "cursor": "7",
        "end_cursor": "0",
        "log_id": log_id,
    }


async def test_a_page_of_very_short_lines_fits_into_a_message_and_goes_on(served: Served) -> None:
    log_id = (await served.create()).log_id
    for _ in range(40_000):
        served.logs.append_lines("web", log_id, b"", run_id="0" * 26)
    request = log_service_pb2.ReadLogsRequest(project_id="web", limit=100_000)
    cursor = 0
    while True:
        page = await served.wire.unary("ReadLogs", request)
        assert page.records[0].chunk.first_sequence == cursor
        cursor = page.cursor
        request.start.cursor = cursor
        if not page.has_more:
            break
    assert cursor == 40_000


async def test_a_follow_begins_at_once_and_goes_on_with_what_comes(served: Served) -> None:
    log_id = (await served.create()).log_id
    served.logs.append_lines("web", log_id, b"old")
    messages = aiter(served.wire.stream("FollowLogs", follow()))
    first = await anext(messages)
    assert (first.records[0].chunk.lines, first.cursor) == (b"old\n", 1)
    served.logs.append_lines("web", log_id, b"new")
    served.driver.grow("web")
    second = await asyncio.wait_for(anext(messages), BOUND)
    assert (second.records[0].chunk.lines, second.cursor) == (b"new\n", 2)
    assert (second.end_cursor, second.log_id) == (2, log_id)


async def test_a_follow_of_a_project_that_never_ran_is_told_where_it_stands(
    served: Served,
) -> None:
    await served.create()
    position = log_pb2.LogPosition(anchor=log_pb2.LOG_ANCHOR_END)
    first = await anext(aiter(served.wire.stream("FollowLogs", follow(start=position))))
    assert (len(first.records), first.cursor) == (0, 0)


async def test_a_follow_until_a_run_that_is_over_ends_with_ok(served: Served) -> None:
    log_id = (await served.create()).log_id
    served.logs.append_started("web", log_id, "run-1")
    served.logs.append_lines("web", log_id, b"x", run_id="run-1")
    served.logs.append_ended("web", log_id, "run-1", exit_code=0)
    call = served.wire.stream("FollowLogs", follow(until_run_id="run-1"))
    messages = [message async for message in call]
    assert messages[-1].cursor == 3
    assert messages[-1].bound_run_id == "run-1"
    assert await call.code() is grpc.StatusCode.OK


async def test_followers_of_one_place_get_the_same_bytes(served: Served) -> None:
    log_id = (await served.create()).log_id
    for _ in range(100):
        served.logs.append_lines("web", log_id, b"x" * 5000)
    raw = served.wire.channel.unary_stream(
        "/att.v1.LogService/FollowLogs",
        request_serializer=log_service_pb2.FollowLogsRequest.SerializeToString,
        response_deserializer=bytes,
    )
    firsts = [await anext(aiter(raw(follow()))) for _ in range(5)]
    assert len(set(firsts)) == 1
    assert len(firsts[0]) > 200_000


async def test_the_shutdown_ends_an_open_follow_at_once_as_unavailable(served: Served) -> None:
    await served.create()
    messages = aiter(served.wire.stream("FollowLogs", follow()))
    await anext(messages)
    ended = asyncio.create_task(refusal(last(messages)))
    await asyncio.wait_for(served.server.aclose(), BOUND)
    refused = await asyncio.wait_for(ended, BOUND)
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert refused.reason == Reason.SHUTTING_DOWN


# Events ---------------------------------------------------------------------


async def test_events_are_listed_by_cursor_and_filter(served: Served) -> None:
    await served.create("aa")
    await served.create("bb")
    selected = event_service_pb2.EventFilter(event_types=["project."])
    request = event_service_pb2.ListEventsRequest(filter=selected, page_size=1)
    page = await served.wire.unary("ListEvents", request)
    assert [event.project_id for event in page.events] == ["aa"]
    assert page.has_more
    request.cursor = page.cursor
    page = await served.wire.unary("ListEvents", request)
    assert [(event.project_id, event.event_type) for event in page.events] == [
        ("bb", "project.created")
    ]
    assert page.events[0].principal.startswith("local:")
    assert not page.has_more


async def test_a_watch_of_events_gives_what_comes(served: Served) -> None:
    messages = aiter(served.wire.stream("WatchEvents"))
    assert not (await anext(messages)).events
    await served.create()
    message = await asyncio.wait_for(anext(messages), BOUND)
    assert [event.event_type for event in message.events] == ["project.created"]
    await asyncio.wait_for(served.server.aclose(), BOUND)
    assert (await refusal(last(messages))).reason == Reason.SHUTTING_DOWN


async def test_large_events_come_in_several_messages(served: Served) -> None:
    events = [
        Event(event_type="project.created", time=NOW, message="x" * 500_000) for _ in range(20)
    ]
    await served.store.append_events(*events)
    request = event_service_pb2.WatchEventsRequest(cursor=0)
    cursor, count = 0, 0
    async for message in served.wire.stream("WatchEvents", request):
        assert all(event.sequence >= cursor for event in message.events)
        cursor = message.cursor
        count += len([event for event in message.events if event.message])
        if count == 20:
            break
    page = event_service_pb2.ListEventsRequest(page_size=1000)
    shorter = await served.wire.unary("ListEvents", page)
    assert 0 < len(shorter.events) < 20
    assert shorter.has_more


# Defects --------------------------------------------------------------------


class FailingStore(MemoryStateStore):
    """A store whose disk says more than a client may know."""

    async def list_events(self, selected: EventFilter, **asked: Any) -> Any:
        if selected.audit:
            return await super().list_events(selected, **asked)
        raise OSError("/secret/path is on fire")


async def test_a_defect_below_the_wire_is_told_by_its_id_alone() -> None:
    async with (
        serve_in_process(fake_adapters(store=FailingStore())) as target,
        connect(target, Boundary(new_error_id=str)) as wire,
    ):
        refused = await refusal(wire.unary("ListEvents"))
        assert refused.reason == Reason.INTERNAL
        assert set(refused.metadata) == {"error_id"}
        assert "secret" not in json.dumps([refused.message, dict(refused.metadata)])
        await wire.unary("GetServerInfo", timeout=timedelta(seconds=10).total_seconds())


async def test_a_filter_selects_over_the_wire(served: Served) -> None:
    log_id = (await served.create()).log_id
    served.logs.append_lines("web", log_id, b"INFO: a", b"ERROR: b", b"more", b"INFO: c")
    served.logs.append_lines("web", log_id, b"ERROR: on stderr", stream=LogStream.STDERR)
    errors = log_pb2.LogFilter(
        streams=[log_pb2.LOG_STREAM_STDOUT], min_severity=log_pb2.LOG_SEVERITY_ERROR
    )
    request = log_service_pb2.ReadLogsRequest(project_id="web", filter=errors)
    page = await served.wire.unary("ReadLogs", request)
    assert [record.chunk.lines for record in page.records] == [b"ERROR: b\nmore\n"]
    assert (page.records[0].chunk.first_sequence, page.cursor) == (1, 5)
    request.filter.pattern = r"[ac]$"
    request.filter.ClearField("min_severity")
    page = await served.wire.unary("ReadLogs", request)
    (record,) = page.records
    assert (record.chunk.first_sequence, list(record.chunk.sequence_offsets)) == (0, [0, 3])
    messages = aiter(served.wire.stream("FollowLogs", follow(filter=errors)))
    assert (await anext(messages)).records[0].chunk.lines == b"ERROR: b\nmore\n"


async def test_a_log_is_described_and_trimmed(served: Served) -> None:
    log_id = (await served.create()).log_id
    info = log_service_pb2.GetLogInfoRequest(project_id="web")
    empty = await served.wire.unary("GetLogInfo", info)
    assert (empty.log_id, empty.end_cursor, empty.HasField("first_time")) == (log_id, 0, False)
    for _ in range(3):
        served.logs.append_lines("web", log_id, b"one", b"two")
    trim = log_service_pb2.TrimLogsRequest(project_id="web", before_cursor=5)
    assert (await served.wire.unary("TrimLogs", trim)).start_cursor == 4
    said = await served.wire.unary("GetLogInfo", info)
    assert (said.start_cursor, said.end_cursor, said.segment_count) == (4, 6, 1)
    assert said.size_bytes == 8
    assert said.last_time.seconds > 0
    page = await served.wire.unary(
        "ReadLogs",
        log_service_pb2.ReadLogsRequest(project_id="web", start=log_pb2.LogPosition(cursor=1)),
    )
    assert page.records[0].gap == log_pb2.LogGap(
        first_sequence=1, count=3, reason=log_pb2.LOG_GAP_REASON_TRIMMED
    )
    trim.before_cursor = 7
    assert (await refusal(served.wire.unary("TrimLogs", trim))).reason == Reason.LOG_CURSOR_AHEAD
    trim.before_cursor = -1
    assert (await refusal(served.wire.unary("TrimLogs", trim))).reason == Reason.FIELD_INVALID
