"""The control socket: what is answered, what is pushed, and what a bad peer cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.core.model import RuntimeState
from att_server.supervisor.control import MAX_LINE, MAX_PEERS, Command, ControlServer, Peer
from tests.server_process import PATIENCE
from tests.supervisor.host import Host, until


class Wire:
    """A peer of a supervisor, byte for byte."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._file = connection.makefile("rb")

    def send(self, **command: object) -> None:
        self.connection.sendall(json.dumps({"v": 1, **command}).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._file.readline())
        return message

    def answer(self, number: int) -> dict[str, Any]:
        while (message := self.receive()).get("id") != number:
            pass
        return message

    def ended(self) -> bool:
        try:
            return self._file.read() is not None
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._file.close()
        self.connection.close()


@pytest.fixture
async def running(host: Host, driver: SupervisorDriver) -> SupervisorDriver:
    await driver.start(host.spec("sleep", "60"))
    return driver


@pytest.fixture
def wire(host: Host, running: SupervisorDriver) -> Iterator[Wire]:
    made = Wire(host.connect())
    yield made
    made.close()


async def test_hello_is_answered_with_the_state_on_disk(wire: Wire, host: Host) -> None:
    wire.send(id=7, epoch=1, command="hello", of_a_later_version=True)
    answer = wire.answer(7)
    assert answer["ok"] is True
    assert answer["state"] == host.state().form()


async def test_an_unknown_command_is_answered(wire: Wire) -> None:
    wire.send(id=1, epoch=1, command="dance")
    assert wire.answer(1)["error"] == "unknown_command"


@pytest.mark.parametrize(
    "command",
    [
        {"command": "stop", "grace": -1},
        {"command": "stop", "grace": "soon"},
        {"command": "stop", "grace": float("inf")},
        {"command": "signal", "number": 0},
        {"command": "signal", "number": 4711},
        {"command": "signal"},
        {"command": "stop", "grace": True},
        {"command": "stop", "grace": float("nan")},
        {"command": "stop", "grace": 10**400},
        {"command": "stop", "grace": [1]},
        {"command": "signal", "number": [15]},
        {"command": "signal", "number": 15.0},
        {"command": "signal", "number": True},
        {"command": "signal", "number": 10**1000},
        {"command": "ready", "ready": "yes"},
        {"command": "ready", "ready": None},
        {"command": "fail"},
        {"command": "fail", "reason": {"liveness_failed": 1}},
        {"command": "fail", "reason": "crash_loop"},
        {"command": "hello", "epoch": "first"},
        {"command": "hello", "epoch": True},
        {"command": "hello", "epoch": None},
        {"command": "hello", "epoch": 1.5},
        {"command": "hello", "epoch": float("nan")},
        {"command": "hello", "epoch": 2**63},
        {"command": "stop", "epoch": 10**4000},
    ],
)
async def test_a_command_that_makes_no_sense_has_no_effect(
    command: dict[str, object], wire: Wire, host: Host
) -> None:
    before = host.state()
    wire.send(**{"id": 1, "epoch": 1, **command})
    assert wire.answer(1)["error"] == "invalid_argument"
    assert host.state() == before


@pytest.mark.parametrize("name", [None, 1, [], {}, "", "STOP", ["stop"], {"stop": 1}, "x" * 60_000])
async def test_what_is_no_command_is_answered_briefly(name: object, wire: Wire, host: Host) -> None:
    before = host.state()
    wire.send(id={"any": ["id"]}, epoch=1, command=name)
    while (answer := wire.receive()).get("id") != {"any": ["id"]}:
        pass
    assert answer["error"] == "unknown_command"
    assert len(answer["message"]) < 200
    assert host.state() == before


async def test_an_epoch_below_all_is_refused(wire: Wire, host: Host) -> None:
    wire.send(id=1, epoch=-5, command="stop")
    assert wire.answer(1)["error"] == "stale_epoch"
    assert host.state().state == "ready"


async def test_commands_for_another_run_have_no_effect(wire: Wire, host: Host) -> None:
    before = host.state()
    others: list[object] = [None, "", 5, "01J0000000000000000000000A", [], {}]
    for number, run_id in enumerate(others):
        wire.send(id=number, epoch=1, command="fail", run_id=run_id, reason="liveness_failed")
        assert wire.answer(number)["ok"] is True
        wire.send(id=number, epoch=1, command="ready", run_id=run_id, ready=False)
        assert wire.answer(number)["ok"] is True
    assert host.state() == before


async def test_a_server_that_was_superseded_is_refused(wire: Wire, host: Host) -> None:
    wire.send(id=1, epoch=5, command="hello")
    assert wire.answer(1)["ok"] is True
    wire.send(id=2, epoch=4, command="stop", grace=0)
    assert wire.answer(2)["error"] == "stale_epoch"
    assert host.state().state == "ready"
    assert host.state().epoch == 5


BAD_LINES = [
    b"not json\n",
    b"[]\n",
    b"7\n",
    b"null\n",
    b'"hello"\n',
    b"\xff\n",
    b"\n",
    b"\0\n",
    b"x" * (2 * MAX_LINE),
    b'{"id": 1, "epoch": 1, "command": "hello"' + b" " * (2 * MAX_LINE),
    b"[" * 60_000 + b"\n",
    b'{"a":' * 12_000 + b"\n",
    b'{"id": ' + b"9" * 60_000 + b"}\n",
    b"\xed\xa0\x80\n",
]


@pytest.mark.parametrize("data", BAD_LINES)
async def test_a_peer_that_talks_nonsense_is_dropped_alone(
    data: bytes, wire: Wire, host: Host
) -> None:
    other = Wire(host.connect())
    with contextlib.suppress(OSError):
        other.connection.sendall(data)
    assert other.ended()
    other.close()
    wire.send(id=1, epoch=1, command="hello")
    assert wire.answer(1)["ok"] is True


async def test_a_gibibyte_without_a_newline_is_not_read(wire: Wire, host: Host) -> None:
    pid = host.state().pid
    before = resident(pid)
    other = host.connect()
    sent, block = 0, b"x" * (1 << 20)
    with contextlib.suppress(OSError):
        while sent < 1 << 30:
            sent += other.send(block)
    other.close()
    assert sent < 1 << 23
    assert resident(pid) - before < 2048
    wire.send(id=1, epoch=1, command="hello")
    assert wire.answer(1)["ok"] is True


def resident(pid: int) -> int:
    """KiB of memory of its own."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


async def connected(host: Host) -> socket.socket:
    """A connection, once the supervisor has accepted enough of those before."""
    while True:
        try:
            return host.connect()
        except BlockingIOError:
            await asyncio.sleep(0.001)


async def test_random_bytes_end_in_nothing_but_the_connection(wire: Wire, host: Host) -> None:
    chance = random.Random(5)
    before = host.state()
    for _ in range(60):
        other = await connected(host)
        with contextlib.suppress(OSError):
            for _ in range(chance.randrange(1, 5)):
                other.sendall(chance.randbytes(chance.randrange(1, 5000)))
        other.close()
    wire.send(id=1, epoch=1, command="hello")
    assert wire.answer(1)["state"] == before.form()


async def test_a_command_may_come_byte_by_byte_and_end_with_the_connection(
    wire: Wire, host: Host
) -> None:
    for byte in b'{"id": 9, "epoch": 1, "command": "hello"}\n':
        wire.connection.sendall(bytes([byte]))
    assert wire.answer(9)["ok"] is True
    half = host.connect()
    half.sendall(b'{"id": 1, "epoch": 1, "comm')
    half.close()
    wire.send(id=1, epoch=1, command="hello")
    assert wire.answer(1)["ok"] is True


async def test_of_too_many_peers_the_oldest_goes(host: Host, running: SupervisorDriver) -> None:
    pid = host.state().pid
    peers = [Wire(await connected(host)) for _ in range(3 * MAX_PEERS)]
    peers[-1].send(id=1, epoch=1, command="hello")
    assert peers[-1].answer(1)["ok"] is True
    assert peers[0].ended()
    assert len(os.listdir(f"/proc/{pid}/fd")) < MAX_PEERS + 40
    for peer in peers:
        peer.close()
    # The server's own connection was among them; it comes back by itself.
    stopped = await running.stop("app", None)
    assert stopped is not None
    assert stopped.state is RuntimeState.STOPPED


async def test_peers_that_read_nothing_hold_nobody_up(host: Host, driver: SupervisorDriver) -> None:
    count = host.work / "go"
    program = f"while [ ! -e {count} ]; do sleep 0.01; done; seq 1 400000"
    await driver.start(host.spec("sh", "-c", program))
    stuck = [Wire(host.connect()) for _ in range(5)]
    for wire in stuck:
        wire.send(id=1, epoch=1, command="hello")
        wire.answer(1)
    count.touch()
    await until(lambda: host.state().ended, "the app is through")
    assert host.output() == b"".join(b"%d\n" % number for number in range(1, 400_001))
    for wire in stuck:
        wire.close()


async def test_the_last_growth_is_never_left_untold(host: Host, driver: SupervisorDriver) -> None:
    await driver.start(
        host.spec("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo $i; done; exec sleep 60")
    )
    wire = Wire(host.connect())
    wire.send(id=1, epoch=1, command="hello")
    wire.answer(1)
    await driver.signal("app", 18)
    await until(lambda: host.output().endswith(b"9\n"), "all lines")
    with host.pipe() as pipe:
        for _ in range(50):
            seen = len(host.output())
            pipe.write(b"more\n")
            assert wire.receive() == {"push": "grew"}
            await until(lambda seen=seen: len(host.output()) > seen, "the line")  # type: ignore[misc]  # bound now
    wire.close()


async def test_a_stop_is_answered_to_everyone_who_asked_with_the_end(
    wire: Wire, host: Host
) -> None:
    other = Wire(host.connect())
    wire.send(id=1, epoch=1, command="stop", grace=None)
    other.send(id=2, epoch=1, command="stop", grace=60)
    first = wire.answer(1)
    assert first["state"]["state"] == "stopped"
    assert first["state"] == host.state().form()
    # The second may find the door closed already; the state on disk says it all.
    assert other.ended()
    other.close()


async def test_only_the_owner_may_open_the_socket(host: Host, running: SupervisorDriver) -> None:
    supervisor = host.supervisor()
    assert (supervisor / "control.sock").stat().st_mode & 0o777 == 0o600
    assert (supervisor / "spec.json").stat().st_mode & 0o777 == 0o600
    assert supervisor.stat().st_mode & 0o777 == 0o700


# The server's part without a process -------------------------------------------


@pytest.fixture
def epoll() -> Iterator[select.epoll]:
    with select.epoll() as made:
        yield made


def test_what_a_slow_peer_has_not_taken_is_merged(tmp_path: Path, epoll: select.epoll) -> None:
    handled: list[Command] = []
    server = ControlServer(epoll, socket_path(tmp_path), lambda _, command: handled.append(command))
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server.add(theirs, told=True)
    for revision in range(5000):
        server.push_state({"revision": revision, "padding": "x" * 500})
    ours.settimeout(PATIENCE)
    file = ours.makefile("rb")
    received: list[dict[str, Any]] = []
    while not received or received[-1]["state"]["revision"] < 4999:
        for descriptor, mask in epoll.poll(0):
            server.on_event(descriptor, mask)
        received.append(json.loads(file.readline()))
    revisions = [message["state"]["revision"] for message in received]
    assert revisions == sorted(set(revisions))
    assert len(revisions) < 1000
    server.close(0)
    file.close()
    ours.close()


def test_a_peer_that_takes_no_answers_is_not_read_further() -> None:
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)
    for number in range(100_000):
        peer.reply({"id": number}, {"padding": "x" * 100})
        peer.send()
        if not peer.interest & select.EPOLLIN:
            break
    else:
        raise AssertionError("it is read for ever")
    ours.close()
    theirs.close()


def socket_path(directory: Path) -> str:
    here = os.open(directory, os.O_PATH)
    return f"/proc/self/fd/{here}/c"
