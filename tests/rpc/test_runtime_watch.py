"""WatchRuntimes and the usage of apps on the wire, over fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from att.v1 import project_pb2, project_service_pb2, runtime_pb2
from att.v1 import runtime_service_pb2 as pb
from att_server.app import serving
from att_server.core.errors import Reason
from att_server.core.model import Runtime, RuntimeChanges
from att_server.rpc import runtime_service
from att_server.rpc.boundary import Boundary
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.server import fake_adapters
from tests.rpc.conftest import Wire, connect, refusal

BOUND = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server over fakes, and a way to end it early."""

    wire: Wire
    driver: FakeRuntimeDriver
    server: AsyncExitStack

    async def create(self, project_id: str, **settings: Any) -> None:
        request = project_service_pb2.CreateProjectRequest(
            project_id=project_id,
            path="/tmp",
            runtime=project_pb2.RuntimeSettings(command=["app"], **settings),
        )
        await self.wire.unary("CreateProject", request)

    async def start(self, project_id: str) -> runtime_pb2.Runtime:
        response = await self.wire.unary(
            "StartRuntime", pb.StartRuntimeRequest(project_id=project_id)
        )
        runtime: runtime_pb2.Runtime = response.runtime
        return runtime

    def watch(self, *project_ids: str, **fields: Any) -> AsyncIterator[pb.WatchRuntimesResponse]:
        request = pb.WatchRuntimesRequest(project_ids=project_ids, **fields)
        messages: AsyncIterator[pb.WatchRuntimesResponse] = aiter(
            self.wire.stream("WatchRuntimes", request)
        )
        return messages


@pytest.fixture
async def served(directory: Path) -> AsyncIterator[Served]:
    driver = FakeRuntimeDriver()
    async with AsyncExitStack() as server:
        await server.enter_async_context(
            serving(
                fake_adapters(driver=driver),
                socket_path=directory / "att.sock",
                state_dir=directory,
                epoch=3,
                instance_id="instance-1",
                environ={},
            )
        )
        boundary = Boundary(new_error_id=str)  # only to fill the place
        async with connect(f"unix:{directory}/att.sock", boundary) as wire:
            yield Served(wire=wire, driver=driver, server=server)


async def told(messages: AsyncIterator[pb.WatchRuntimesResponse]) -> pb.WatchRuntimesResponse:
    async with asyncio.timeout(BOUND):
        return await anext(messages)


async def test_a_watch_gives_all_states_then_each_change(served: Served) -> None:
    await served.create("web")
    messages = served.watch()
    first = await told(messages)
    assert first.complete
    assert [runtime.project_id for runtime in first.runtimes] == ["web"]
    runtime = await served.start("web")
    while True:
        message = await told(messages)
        assert not message.complete
        if message.runtimes and message.runtimes[0].state == runtime_pb2.RUNTIME_STATE_READY:
            break
    assert message.runtimes[0].run_id == runtime.run_id
    assert message.revision >= message.runtimes[0].revision > first.revision


async def test_a_deleted_project_is_told_by_its_name(served: Served) -> None:
    await served.create("web")
    messages = served.watch("web")
    await told(messages)
    await served.wire.unary(
        "DeleteProject", project_service_pb2.DeleteProjectRequest(project_id="web")
    )
    assert list((await told(messages)).deleted_project_ids) == ["web"]


async def test_an_unknown_project_is_refused(served: Served) -> None:
    assert (await refusal(told(served.watch("nowhere")))).reason == Reason.PROJECT_NOT_FOUND


@pytest.mark.parametrize(
    "fields",
    [
        {"project_ids": ["Web"]},
        {"project_ids": ["web"] * 1001},
        {"after_revision": -1},
        {"progress_interval": timedelta(milliseconds=999)},
        {"progress_interval": timedelta(minutes=6)},
    ],
)
async def test_what_cannot_be_watched_is_refused(served: Served, fields: dict[str, Any]) -> None:
    messages = served.watch(*fields.pop("project_ids", ()), **fields)
    assert (await refusal(told(messages))).reason == Reason.FIELD_INVALID


async def test_the_shutdown_ends_a_watch_as_an_error(served: Served) -> None:
    messages = served.watch()
    await told(messages)
    ending = asyncio.create_task(served.server.aclose())
    assert (await refusal(told(messages))).reason == Reason.SHUTTING_DOWN
    await ending


async def test_states_too_large_for_one_message_come_in_several_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime_service, "MAX_MESSAGE_BYTES", 100)
    runtimes = [
        runtime_pb2.Runtime(project_id=f"p{number}", command=["x" * 60], revision=number)
        for number in range(1, 5)
    ]
    empty: tuple[Runtime, ...] = ()
    change = RuntimeChanges(runtimes=empty, deleted=("old",), revision=9, complete=True)
    messages = list(runtime_service._messages(change, runtimes))
    assert [message.revision for message in messages] == [1, 2, 3, 9]
    assert [message.complete for message in messages] == [True, False, False, False]
    assert list(messages[0].deleted_project_ids) == ["old"]
    assert [r.project_id for m in messages for r in m.runtimes] == ["p1", "p2", "p3", "p4"]


async def test_usage_is_given_by_get_list_and_watch_and_not_for_what_is_down(
    served: Served,
) -> None:
    await served.create("web")
    await served.create("down")
    await served.start("web")
    got = (await served.wire.unary("GetRuntime", pb.GetRuntimeRequest(project_id="web"))).runtime
    assert got.usage.process_count == 1
    listed = (await served.wire.unary("ListRuntimes", pb.ListRuntimesRequest())).runtimes
    watched = (await told(served.watch())).runtimes
    for runtimes in (listed, watched):
        assert {runtime.project_id: runtime.HasField("usage") for runtime in runtimes} == {
            "web": True,
            "down": False,
        }


async def test_an_app_in_backoff_says_when_and_why_it_is_started_again(served: Served) -> None:
    always = project_pb2.RestartPolicy(condition=project_pb2.RestartPolicy.CONDITION_ALWAYS)
    await served.create("web", restart=always)
    await served.start("web")
    served.driver.exit("web", 3)
    got = (await served.wire.unary("GetRuntime", pb.GetRuntimeRequest(project_id="web"))).runtime
    assert got.state == runtime_pb2.RUNTIME_STATE_BACKOFF
    assert got.reason == "exited"
    assert got.exit.exit_code == 3
    assert got.next_restart_time.ToDatetime() > got.exit.exit_time.ToDatetime()


async def test_a_check_on_demand_looks_at_the_process_where_no_probe_is_set(
    served: Served,
) -> None:
    await served.create("web")
    request = pb.ProbeHealthRequest(project_id="web")
    before = (await served.wire.unary("ProbeHealth", request)).health
    assert (before.healthy, before.health_reason) == (False, "process_not_running")
    await served.start("web")
    after = (await served.wire.unary("ProbeHealth", request)).health
    assert (after.healthy, after.health_probe, after.health_reason) == (
        True,
        "process",
        "process_running",
    )
