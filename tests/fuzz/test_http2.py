"""Peers that abuse HTTP/2: others are served all the while, and nothing stays of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

import att_client
from att.v1 import event_pb2, event_service_pb2
from att_server.rpc.call import Answer, Call
from att_server.rpc.hang_up import hang_up
from att_server.rpc.limits import Limits
from att_server.testing import fake_adapters, serve_in_process
from tests.fuzz.http2 import PREFACE, Peer
from tests.rpc import conftest
from tests.rpc.conftest import Serve, read_refusal
from tests.server_process import PATIENCE, ServerProcess

INFO = "/att.v1.ServerService/GetServerInfo"
WATCH = "/att.v1.EventService/WatchEvents"
MOST_MEMORY = 48 << 20
RESETS = 20_000


directory = conftest.directory
serve = conftest.serve


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    place = Path(tempfile.mkdtemp(prefix="att-h2-"))
    options = ("--listen", "127.0.0.1:0", "--insecure-loopback-no-auth", "--allow-root")
    with ServerProcess(place / "s", *options) as process:
        yield process
    shutil.rmtree(place, ignore_errors=True)


def clear_text(server: ServerProcess) -> str:
    """The target of its port, as strangers reach it."""
    return server.ready.split(", ")[1]


def address(server: ServerProcess) -> tuple[str, int]:
    _, host, port = clear_text(server).split(":")
    return host, int(port)


def rss(server: ServerProcess) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


async def probed(server: ServerProcess, attack: Callable[[threading.Event], None]) -> int:
    """Calls it by socket and port while it is attacked, all with success; returns how often."""
    stop = threading.Event()
    attacking = asyncio.create_task(asyncio.to_thread(attack, stop))
    calls = 0
    try:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(att_client.connect(target))
                for target in (server.target, clear_text(server))
            ]
            while not attacking.done() or calls < 10:
                for att in clients:
                    await asyncio.wait_for(att.server.info(), PATIENCE)
                    calls += 1
    finally:
        stop.set()
        await attacking
    return calls


async def test_a_flood_of_resets_leaves_the_calls_of_others_alone(server: ServerProcess) -> None:
    before = rss(server)

    def attack(stop: threading.Event) -> None:
        with Peer(address(server)) as peer:
            peer.greet()
            with suppress(OSError):  # it is hung up on
                for _ in range(RESETS // 250):
                    peer.reset(INFO, 250)
        for _ in range(RESETS // 1000):
            with Peer(address(server)) as peer, suppress(OSError):
                peer.greet()
                peer.reset(INFO, 1000)

    assert await probed(server, attack) >= 10
    assert rss(server) < before + MOST_MEMORY


async def test_floods_of_pings_and_settings_leave_others_alone(server: ServerProcess) -> None:
    def attack(stop: threading.Event) -> None:
        for flood in (Peer.ping, Peer.settings):
            with Peer(address(server)) as peer:
                peer.greet()
                try:
                    for _ in range(50):
                        flood(peer, 200)
                except OSError:
                    continue

    assert await probed(server, attack) >= 10


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"\0" * 4096,
        PREFACE + b"\xff\xff\xff\x01\x04\x00\x00\x00\x01",
        PREFACE + b"\x00\x00\x00\x09\x00\x00\x00\x00\x01" * 100,
    ],
)
async def test_what_is_not_http2_is_hung_up_on(server: ServerProcess, words: bytes) -> None:
    with Peer(address(server)) as peer:
        peer.send_raw(words)
        assert await asyncio.to_thread(peer.closed_within, PATIENCE)
    async with att_client.connect(server.target) as att:
        assert await att.server.info()


async def test_who_connects_and_says_nothing_is_hung_up_on(server: ServerProcess) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(Peer(address(server))) for _ in range(100)]
        async with att_client.connect(server.target) as att:
            assert await att.server.info()
        for peer in silent:
            assert await asyncio.to_thread(peer.closed_within, PATIENCE)


@pytest.mark.parametrize("size", [8193, 20_000, 1_000_000])
async def test_metadata_above_the_limit_is_refused_each_time(
    server: ServerProcess, size: int
) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        call = channel.unary_unary(INFO, request_serializer=bytes, response_deserializer=bytes)
        for _ in range(5):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", metadata=(("x-filler", "a" * size),))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(b"", metadata=(("x-filler", "a" * 4096),))


async def test_a_message_that_is_unpacked_to_more_than_may_be_costs_no_memory(
    server: ServerProcess,
) -> None:
    before = rss(server)
    async with grpc.aio.insecure_channel(server.target) as channel:
        call = channel.unary_unary(INFO, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(bytes(64 << 20), compression=grpc.Compression.Gzip)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert rss(server) < before + MOST_MEMORY


async def test_headers_without_an_end_cost_one_connection_and_no_call_of_others(
    server: ServerProcess,
) -> None:
    """What no option stops: see docs/security.md. Others are served meanwhile and after."""

    def attack(stop: threading.Event) -> None:
        with Peer(address(server)) as peer:
            peer.greet()
            try:
                for _ in range(50):
                    peer.endless_headers(INFO, 20)
            except OSError:
                return

    assert await probed(server, attack) >= 10
    async with att_client.connect(server.target) as att:
        assert await att.server.info()


async def test_readers_that_take_nothing_are_gone_with_their_connections(serve: Serve) -> None:
    message = event_service_pb2.WatchEventsResponse(
        events=[event_pb2.Event(message="y" * 60_000) for _ in range(8)]
    )

    async def watch(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        while True:
            yield message

    soon = timedelta(milliseconds=300)
    wire = await serve(WatchEvents=watch, write_within=soon, abort_within=soon, anonymous=True)
    before = len(asyncio.all_tasks())
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(("127.0.0.1", wire.port), window=0)) for _ in range(10)]
        for peer in peers:
            peer.greet()
            for _ in range(20):
                peer.call(WATCH)
        # They answer pings and settings as a live peer does, and take nothing else.
        are_open = await asyncio.gather(
            *(asyncio.to_thread(peer.acknowledge, seconds=PATIENCE) for peer in peers)
        )
        assert are_open == [False] * len(peers)
    async with asyncio.timeout(PATIENCE):
        while len(asyncio.all_tasks()) > before + 5:
            await asyncio.sleep(0.05)


async def test_readers_on_the_socket_that_take_nothing_are_gone_and_others_go_on() -> None:
    soon = timedelta(milliseconds=300)
    limits = Limits(write_within=soon, abort_within=soon, abandoned=50)
    request = event_service_pb2.WatchEventsRequest().SerializeToString()
    seen = []
    async with (
        serve_in_process(fake_adapters(), limits=limits) as target,
        att_client.connect(target) as att,
    ):
        path = target.removeprefix("unix:")

        async def follow() -> None:
            async for event in att.events.watch(cursor=0):
                seen.append(event.event_type)

        following = asyncio.create_task(follow())
        before = len(asyncio.all_tasks())
        for project_id in ("one", "two"):
            await att.projects.create(project_id, path="/tmp")
            with ExitStack() as stack:
                peers = [stack.enter_context(Peer(path, window=0)) for _ in range(5)]
                for peer in peers:
                    peer.greet()
                    for _ in range(20):
                        peer.call(WATCH, request)
                are_open = await asyncio.gather(
                    *(asyncio.to_thread(peer.acknowledge, seconds=PATIENCE) for peer in peers)
                )
                assert are_open == [False] * len(peers)
            async with asyncio.timeout(PATIENCE):
                while seen.count("project.created") < (1 if project_id == "one" else 2):
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            while len(asyncio.all_tasks()) > before + 5:
                await asyncio.sleep(0.05)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert seen.count("project.created") == 2
    assert not os.path.exists(path)


@pytest.mark.parametrize("kind", ["socket", "port"])
async def test_every_stream_above_the_limit_of_its_caller_is_told_so(
    server: ServerProcess, kind: str
) -> None:
    """On one connection of a stock client, which asks for far more than the limit at once."""
    limit, many = Limits().streams, 4000
    target = server.target if kind == "socket" else clear_text(server).removeprefix("tcp:")
    ends: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(target) as channel:
        watch = channel.unary_stream(WATCH, request_serializer=bytes, response_deserializer=bytes)

        async def follow() -> None:
            try:
                async for _ in watch(b""):
                    ends["open"] += 1
            except grpc.aio.AioRpcError as error:
                has_reason = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                ends[read_refusal(error).reason if has_reason else str(error)] += 1

        followers = [asyncio.create_task(follow()) for _ in range(many)]
        if kind == "socket":
            async with asyncio.timeout(2 * PATIENCE):
                while ends["RATE_LIMITED"] < many - limit:
                    await asyncio.sleep(0.05)
        else:
            # What is above the connection's own number waits in the client.
            async with asyncio.timeout(PATIENCE):
                while ends["open"] < 100:
                    await asyncio.sleep(0.05)
        async with att_client.connect(server.target) as att:
            assert await att.server.info()
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
    assert set(ends) <= {"open", "RATE_LIMITED"}


def test_nothing_but_the_socket_that_is_meant_is_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = socket.create_connection(listener.getsockname())
        second = socket.create_connection(listener.getsockname())
        with first, second:
            accepted = [listener.accept()[0] for _ in range(2)]
            host, port = first.getsockname()
            assert hang_up(f"ipv4:{host}:{port}")
            assert first.recv(1) == b""
            second.sendall(b"x")
            assert accepted[1].recv(1) == b"x"
            for each in accepted:
                each.close()
    for nobody in ("unix:", "", "ipv4:127.0.0.1:1", "ipv6:%5B::1%5D:1", "garbage:x:y"):
        assert not hang_up(nobody)
