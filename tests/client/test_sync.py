"""The blocking client: waits that end, in whatever thread and however they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import pytest

import att_client
import att_client.sync
from att.v1 import (
    bootstrap_pb2,
    bootstrap_service_pb2,
    event_pb2,
    event_service_pb2,
    project_pb2,
    project_service_pb2,
    runtime_pb2,
    runtime_service_pb2,
)
from att_client import LogGap, LogLine, RunMarker
from att_client.sync.background_loop import BackgroundLoop
from tests.client.stub_server import (
    Context,
    StubServer,
    answer,
    batch,
    chunk,
    ended,
    failure,
    gap,
    started,
    stream,
    unavailable,
)
from tests.server_process import PATIENCE

T = TypeVar("T")


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


async def blocking(stub: StubServer, use: Callable[[att_client.sync.Client], T]) -> T:
    """What `use` returns, in a thread: the stub lives in this one's loop."""

    def connected() -> T:
        with att_client.sync.connect(stub.target) as att:
            return use(att)

    async with asyncio.timeout(PATIENCE):
        return await asyncio.to_thread(connected)


async def program(stub: StubServer, code: str) -> asyncio.subprocess.Process:
    """Runs `code` in a process of its own, with the client `att` open in its main thread."""
    head = f"import att_client, att_client.sync\natt = att_client.sync.connect({stub.target!r})\n"
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", head + code),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_items_and_batches_are_those_of_the_other_client(stub: StubServer) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(4, started(0), chunk(1, b"one", b"two"), ended(3))),
        stream(batch(9, gap(4, 4), chunk(8, b"three"))),
        stream(batch(9), batch(11, chunk(9, b"four", b"five"))),
    )

    def use(att: att_client.sync.Client) -> None:
        items = list(att.logs.follow("web", markers=True))
        assert [type(item) for item in items] == [RunMarker, LogLine, LogLine, RunMarker]
        follow = att.logs.follow("web", cursor=4)
        assert [type(item) for item in follow] == [LogGap, LogLine]
        assert follow.cursor == 9
        batches = list(follow.batches())
        assert [b.cursor for b in batches] == [9, 11]
        assert [b.text() for b in batches] == ["", "four\nfive\n"]
        assert follow.cursor == 11

    await blocking(stub, use)


async def test_leaving_a_loop_closes_the_call_and_a_later_one_goes_on_behind(
    stub: StubServer,
) -> None:
    left = asyncio.Event()

    async def watched(request: Any, context: Context) -> Any:
        yield batch(3, chunk(0, b"a", b"b", b"c"))
        try:
            await _forever()
        finally:
            left.set()

    stub.script("FollowLogs", watched, stream(batch(3, chunk(2, b"c"))))

    def use(att: att_client.sync.Client) -> list[str]:
        follow = att.logs.follow("web")
        for item in follow:
            if item == "b":
                break
        asyncio.run_coroutine_threadsafe(left.wait(), loop).result(PATIENCE)
        return [str(item) for item in follow]

    loop = asyncio.get_running_loop()
    assert await blocking(stub, use) == ["c"]
    assert stub.requests["FollowLogs"][1].start.cursor == 2


async def test_an_outage_is_waited_for(stub: StubServer) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(1, chunk(0, b"a")), then=unavailable()),
        stream(batch(2, chunk(1, b"b"))),
    )
    assert await blocking(stub, lambda att: [*att.logs.follow("web")]) == ["a", "b"]


async def test_errors_are_raised_where_the_call_stands(stub: StubServer) -> None:
    stub.script("GetProject", failure(grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND"))
    stub.script("FollowLogs", stream(batch(3, gap(0, 2), chunk(2, b"a"))))

    def use(att: att_client.sync.Client) -> None:
        with pytest.raises(att_client.ProjectNotFoundError):
            att.projects.get("web")
        with pytest.raises(TypeError):
            att.projects.get()  # type: ignore[call-arg]  # that is what is refused
        follow = att.logs.follow("web", on_gap="raise")
        with pytest.raises(att_client.LogGapError):
            next(iter(follow))
        assert follow.cursor == 2

    await blocking(stub, use)


async def test_lists_and_watches_end_as_their_originals_do(stub: StubServer) -> None:
    projects = [project_pb2.Project(project_id=name) for name in ("a", "b")]
    stub.script(
        "ListProjects",
        answer(
            project_service_pb2.ListProjectsResponse(projects=projects[:1], next_page_token="t")
        ),
        answer(project_service_pb2.ListProjectsResponse(projects=projects[1:])),
    )
    runtime = runtime_pb2.Runtime(project_id="a", revision=5)
    stub.script(
        "WatchRuntimes",
        stream(
            runtime_service_pb2.WatchRuntimesResponse(runtimes=[runtime], revision=5, complete=True)
        ),
    )
    over = bootstrap_pb2.Cycle(cycle_id="C", state=bootstrap_pb2.CYCLE_STATE_ENDED, revision=4)
    stub.script("WatchCycle", stream(bootstrap_service_pb2.WatchCycleResponse(cycle=over)))
    event = event_pb2.Event(sequence=7)
    stub.script(
        "WatchEvents", stream(event_service_pb2.WatchEventsResponse(events=[event], cursor=8))
    )

    def use(att: att_client.sync.Client) -> None:
        assert [project.project_id for project in att.projects.list()] == ["a", "b"]
        watch = att.runtimes.watch()
        assert [change.revision for change in watch] == [5]
        assert watch.revision == 5
        assert [cycle.revision for cycle in att.bootstrap.watch("C")] == [4]
        assert att.bootstrap.wait("C").revision == 4
        events = att.events.watch(cursor=7)
        assert [event.sequence for event in events] == [7]
        assert events.cursor == 8

    await blocking(stub, use)


async def test_merged_logs_are_those_of_the_other_client(stub: StubServer) -> None:
    async def same(request: Any, context: Context) -> Any:
        assert request.filter.pattern == "line"
        name = request.project_id.encode()
        yield batch(2, chunk(0, b"line %b" % name, time=1), chunk(1, name, time=2 + len(name)))

    stub.script("FollowLogs", same)

    def use(att: att_client.sync.Client) -> None:
        merge = att.logs.merge(["bb", "a"], pattern="line")
        assert [str(item) for _, item in merge] == ["line bb", "line a", "a", "bb"]
        assert merge.cursors == {"a": 2, "bb": 2}
        assert [name for name, _ in att.logs.merge(["a"], pattern="line").batches()] == ["a"]
        merge.close()
        with pytest.raises(att_client.ClosedError):
            next(iter(merge))

    await blocking(stub, use)


async def test_many_threads_share_a_client_and_get_each_their_own_answer(
    stub: StubServer,
) -> None:
    async def same(request: Any, context: Context) -> Any:
        return project_service_pb2.GetProjectResponse(
            project=project_pb2.Project(project_id=request.project_id)
        )

    stub.script("GetProject", same)

    def use(att: att_client.sync.Client) -> None:
        names = [f"p{number}" for number in range(200)]
        with ThreadPoolExecutor(8) as threads:
            found = threads.map(lambda name: att.projects.get(name).project_id, names)
            assert list(found) == names

    await blocking(stub, use)


@pytest.mark.parametrize("closed", ["follow", "client"])
async def test_closing_ends_a_wait_in_another_thread(stub: StubServer, closed: str) -> None:
    stub.script("FollowLogs", stream(batch(1, chunk(0, b"a")), _forever))

    def use(att: att_client.sync.Client) -> None:
        follow = att.logs.follow("web")
        reached = threading.Event()

        def read() -> str:
            for _ in follow:
                reached.set()
            return "it ended as if it were complete"

        with ThreadPoolExecutor(1) as threads:
            reader = threads.submit(read)
            assert reached.wait(PATIENCE)
            (follow if closed == "follow" else att).close()
            with pytest.raises(att_client.ClosedError):
                reader.result(PATIENCE)
        with pytest.raises(att_client.ClosedError):
            next(iter(follow))
        follow.close()

    await blocking(stub, use)


async def test_a_client_that_is_not_open_says_so(stub: StubServer) -> None:
    def use() -> None:
        att = att_client.sync.connect(stub.target)
        with pytest.raises(att_client.ClosedError):
            att.server.info()
        att.close()
        for _ in range(2):  # it may be opened again
            with att:
                assert att.server.info().version == "1.2.3"
                with pytest.raises(RuntimeError):
                    att.__enter__()
        with pytest.raises(att_client.ClosedError):
            att.server.info()
        with pytest.raises(att_client.ClosedError):
            list(att.projects.list())
        assert "att_client.sync" not in {thread.name for thread in threading.enumerate()}

    await asyncio.to_thread(use)


async def test_a_server_that_is_not_there_is_named_and_leaves_no_thread(
    stub: StubServer,
) -> None:
    await stub.stop()

    def use() -> None:
        with pytest.raises(att_client.NotReachableError) as caught:
            att_client.sync.connect(stub.target).__enter__()
        assert caught.value.metadata["target"] == stub.target
        assert "att_client.sync" not in {thread.name for thread in threading.enumerate()}

    await asyncio.to_thread(use)


async def test_ctrl_c_ends_the_wait_and_takes_nothing_from_the_follow(stub: StubServer) -> None:
    stub.script(
        "FollowLogs",
        stream(batch(2, chunk(0, b"a", b"b")), _forever),
        stream(batch(3, chunk(2, b"c"))),
    )
    process = await program(
        stub,
        "with att:\n"
        "    follow = att.logs.follow('web')\n"
        "    try:\n"
        "        for line in follow: print(line, flush=True)\n"
        "    except KeyboardInterrupt:\n"
        "        print('at', follow.cursor, flush=True)\n"
        "    for line in follow: print(line, flush=True)\n",
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == b"a\n"
        assert await process.stdout.readline() == b"b\n"
        process.send_signal(signal.SIGINT)
        rest, errors = await process.communicate()
    assert (rest, errors, process.returncode) == (b"at 2\nc\n", b"", 0)


class _Interrupting:
    """A watch whose next item arrives while Ctrl-C ends the wait for it."""

    cursor = revision = 3

    def __aiter__(self) -> _Interrupting:
        return self

    async def __anext__(self) -> att_client.Event:
        os.kill(os.getpid(), signal.SIGINT)
        with contextlib.suppress(asyncio.CancelledError):
            await _forever()
        self.cursor = self.revision = 4
        return att_client.Event(sequence=3)


@pytest.mark.parametrize("kind", [att_client.sync.EventWatch, att_client.sync.CycleWatch])
def test_what_comes_with_ctrl_c_is_not_passed_over(kind: Any) -> None:
    loop, original = BackgroundLoop(), _Interrupting()
    loop.start()
    try:
        watch = kind(loop, original)
        with pytest.raises(KeyboardInterrupt):
            next(iter(watch))
        assert original.cursor == 3 or original.revision == 3
    finally:
        loop.stop(lambda: asyncio.sleep(0))


async def test_a_gap_that_comes_with_ctrl_c_is_told_by_the_next_loop(stub: StubServer) -> None:
    missing = batch(7, chunk(0, b"a", b"b"), gap(2, 5))
    stub.script("FollowLogs", stream(missing, _forever), stream(batch(7, gap(2, 5)), _forever))
    process = await program(
        stub,
        "import os, signal\n"
        "from att_client.log_reader import PageReader\n"
        "raise_gap, interrupts = PageReader._raise_gap, [signal.SIGINT]\n"
        "def interrupted(reader, gap):\n"
        "    while interrupts: os.kill(os.getpid(), interrupts.pop())\n"
        "    raise_gap(reader, gap)\n"
        "PageReader._raise_gap = interrupted\n"
        "with att:\n"
        "    follow = att.logs.follow('web', on_gap='raise')\n"
        "    try:\n"
        "        for line in follow: pass\n"
        "    except KeyboardInterrupt: print('at', follow.cursor)\n"
        "    try:\n"
        "        for line in follow: pass\n"
        "    except att_client.LogGapError as error: print(error.gap.count, follow.cursor)\n",
    )
    async with asyncio.timeout(PATIENCE):
        printed, errors = await process.communicate()
    assert (printed, errors, process.returncode) == (b"at 2\n5 7\n", b"", 0)


async def test_a_program_that_never_closes_its_client_ends_quietly(stub: StubServer) -> None:
    stub.script("FollowLogs", stream(batch(1, chunk(0, b"a")), _forever))
    process = await program(
        stub, "att.__enter__()\nprint(next(iter(att.logs.follow('web'))))\nraise SystemExit(5)\n"
    )
    async with asyncio.timeout(PATIENCE):
        printed, errors = await process.communicate()
    assert (printed, errors, process.returncode) == (b"a\n", b"", 5)


async def test_a_forked_child_is_told_to_connect_anew(stub: StubServer) -> None:
    process = await program(
        stub,
        "import os, sys\n"
        "with att:\n"
        "    att.server.info()\n"
        "    if not (child := os.fork()):\n"
        "        try:\n"
        "            att.server.info()\n"
        "        except att_client.ClosedError:\n"
        "            att.close()\n"
        "            os._exit(7)\n"
        "        os._exit(1)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    att.server.info()\n",
    )
    async with asyncio.timeout(PATIENCE):
        printed, _ = await process.communicate()
    assert (printed, process.returncode) == (b"7\n", 0)
