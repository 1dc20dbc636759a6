"""One app under one supervisor: what it prints is kept, what it starts is ended."""

from __future__ import annotations

import hashlib
import json
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.core.model import RuntimeState
from att_server.supervisor import processes
from att_server.supervisor.segment import FLAG_UNTERMINATED, FrameKind
from tests.supervisor.host import Host, Listener, alive, until


def ended(status: object) -> bool:
    return not status.state.alive  # type: ignore[attr-defined]  # a RunStatus


async def test_a_run_is_two_markers_around_its_lines(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    started = await driver.start(host.spec("sh", "-c", "echo one; echo two >&2; exit 3"))
    status = await listener.until("app", ended)
    assert status.state is RuntimeState.EXITED
    assert status.exit is not None
    assert status.exit.exit_code == 3
    assert status.run_id == started.run_id
    assert (host.output(), host.output(stream=2)) == (b"one\n", b"two\n")
    kinds = host.kinds()
    assert kinds[0] == FrameKind.RUN_STARTED
    assert kinds[-1] == FrameKind.RUN_ENDED
    marker = json.loads(host.records()[0].payload)
    assert marker["pid"] == started.pid
    assert marker["command"][0] == "sh"
    assert json.loads(host.records()[-1].payload)["exit_code"] == 3


async def test_an_app_without_a_probe_is_ready_as_it_runs(
    host: Host, driver: SupervisorDriver
) -> None:
    assert (await driver.start(host.spec("sleep", "60"))).state is RuntimeState.READY


async def test_the_app_gets_its_environment_and_run_id_and_nothing_of_the_servers(
    host: Host, driver: SupervisorDriver, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    started = await driver.start(host.spec("env", env={"GIVEN": "ä\nb"}))
    await listener.until("app", ended)
    assert f"ATT_RUN_ID={started.run_id}\n".encode() in host.output()
    assert "GIVEN=ä\nb\n".encode() in host.output()
    assert b"SECRET" not in host.output()


async def test_the_app_leads_a_group_in_its_directory_with_no_input(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    program = "import os,sys; print(os.getpid()==os.getpgid(0), os.getcwd(), sys.stdin.read()=='')"
    await driver.start(host.python(program))
    await listener.until("app", ended)
    assert host.output() == f"True {host.work} True\n".encode()


async def test_signals_reach_the_app_as_by_default(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    await driver.start(host.spec("grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"))
    await listener.until("app", ended)
    held_back = [int(line.split()[1], 16) for line in host.output().splitlines()]
    # 32 and 33 are the C library's own; no program can change what it does with them.
    assert {mask & ~(1 << 31 | 1 << 32) for mask in held_back} == {0}


FLOOD = """
import os, sys, hashlib
digest = hashlib.sha256()
for number in range(int(sys.argv[1])):
    block = b"".join(b"%d %d " % (number, i) + b"x" * 80 + b"\\n" for i in range(600))
    digest.update(block)
    view = memoryview(block)
    while view:
        view = view[os.write(1, view):]
open(sys.argv[2], "w").write(digest.hexdigest())
"""


async def test_a_flood_is_kept_exactly(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    wanted = host.work / "digest"
    await driver.start(host.python(FLOOD, "400", str(wanted)))
    await listener.until("app", ended)
    assert hashlib.sha256(host.output()).hexdigest() == wanted.read_text()
    assert listener.growths["app"] > 0


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 300,
        b"\0\0\n\0",
        b"\n" * 70_000,
        b"no newline at all",
        b"x" * 300_000 + b"\nend",
        b"",
        b"\xff\xfe\n\r\n",
    ],
    ids=["binary", "nul", "newlines", "no-newline", "long-line", "nothing", "not-utf-8"],
)
async def test_output_is_kept_byte_for_byte(
    data: bytes, host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    source = host.work / "data"
    source.write_bytes(data)
    await driver.start(host.spec("cat", str(source)))
    await listener.until("app", ended)
    assert host.output() == data


async def test_a_line_without_its_end_is_shown_after_a_pause(
    host: Host, driver: SupervisorDriver
) -> None:
    await driver.start(host.spec("sh", "-c", "printf prompt; exec sleep 60"))
    await until(lambda: host.output() == b"prompt", "the pending line")
    lines = [r for r in host.records() if r.frame.kind == FrameKind.LINES]
    assert [r.frame.flags for r in lines] == [FLAG_UNTERMINATED]


async def test_both_streams_flooded_at_once_are_kept(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    program = "seq 1 200000 & seq 200001 400000 >&2; wait"
    await driver.start(host.spec("sh", "-c", program))
    await listener.until("app", ended)
    assert host.output() == b"".join(b"%d\n" % n for n in range(1, 200001))
    assert host.output(stream=2) == b"".join(b"%d\n" % n for n in range(200001, 400001))


# Starting --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "failure"),
    [
        ("no-such-command", "command_not_found"),
        ("./missing", "command_not_found"),
        ("./plain", "command_not_executable"),
        ("./garbage", "command_not_executable"),
        ("/", "command_not_executable"),
    ],
)
async def test_a_failed_start_says_why_and_is_a_run(
    command: str, failure: str, host: Host, driver: SupervisorDriver
) -> None:
    (host.work / "plain").write_text("echo")
    (host.work / "garbage").write_bytes(b"\1\2\3\4")
    (host.work / "garbage").chmod(0o755)
    status = await driver.start(host.spec(command))
    assert (status.state, status.start_failure) == (RuntimeState.FAILED, failure)
    assert status.pid == 0
    assert status.exit is not None
    assert status.exit.start_error is not None
    assert host.kinds() == [FrameKind.RUN_STARTED, FrameKind.RUN_ENDED]
    assert json.loads(host.ends()[0].payload)["start_error"] == status.exit.start_error


async def test_a_directory_that_is_gone_fails_the_start(
    host: Host, driver: SupervisorDriver
) -> None:
    status = await driver.start(host.spec("true", directory=Path("/nowhere")))
    assert (status.state, status.start_failure) == (RuntimeState.FAILED, "directory_invalid")


async def test_starts_after_one_another_leave_one_supervisor_directory(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    runs = []
    for _ in range(4):
        runs.append((await driver.start(host.spec("true"))).run_id)
        await driver.stop("app", None)
    assert len(set(runs)) == 4
    assert len(host.states()) == 1
    assert host.kinds() == [FrameKind.RUN_STARTED, FrameKind.RUN_ENDED] * 4


async def test_a_state_directory_deeper_than_a_socket_path_works(host: Host) -> None:
    deep = Host(host.state_dir / ("d" * 100) / ("e" * 100), host.log_id)
    driver = await deep.opened("app")
    assert (await driver.start(deep.spec("sleep", "60"))).state is RuntimeState.READY
    await driver.aclose()
    again = await deep.opened("app")
    status = await again.stop("app", None)
    assert status is not None
    assert status.state is RuntimeState.STOPPED
    await again.aclose()


# Ending ----------------------------------------------------------------------


async def test_stop_ends_the_app_with_sigterm(host: Host, driver: SupervisorDriver) -> None:
    await driver.start(host.spec("sleep", "60"))
    status = await driver.stop("app", None)
    assert status is not None
    assert status.state is RuntimeState.STOPPED
    assert status.exit is not None
    assert status.exit.signal == signal.SIGTERM
    assert not alive(status.pid)
    assert await driver.stop("app", None) == status


async def test_stop_kills_an_app_that_ignores_sigterm(host: Host, driver: SupervisorDriver) -> None:
    await driver.start(host.spec("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"))
    await until(lambda: host.output() == b"up\n", "the app is up")
    status = await driver.stop("app", timedelta(milliseconds=50))
    assert status is not None
    assert status.exit is not None
    assert status.exit.signal == signal.SIGKILL


async def test_last_words_after_sigterm_are_kept(host: Host, driver: SupervisorDriver) -> None:
    program = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"
    await driver.start(host.spec("sh", "-c", program))
    await until(lambda: host.output() == b"up\n", "the app is up")
    status = await driver.stop("app", None)
    assert status is not None
    assert status.exit is not None
    assert (status.state, status.exit.exit_code) == (RuntimeState.STOPPED, 0)
    assert host.output() == b"up\nbye\n"


DAEMON = """
import os, signal, sys, time
kind = sys.argv[1]
if os.fork() == 0:
    if kind != "group":
        os.setsid()
    if kind == "double" and os.fork():
        os._exit(0)
    if kind == "closed":
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1); os.dup2(null, 2)
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open("pid.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("pid.new", "pid")
    if kind == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)
while not os.path.exists("pid"):
    time.sleep(0.001)
if kind == "empty-environment":
    pass
print("up", flush=True)
if sys.argv[2] == "stays":
    time.sleep(600)
"""


@pytest.mark.parametrize("main", ["stays", "exits"])
@pytest.mark.parametrize("kind", ["group", "session", "double", "stopped", "closed", "deaf"])
async def test_nothing_of_the_tree_survives_a_stop(
    kind: str, main: str, host: Host, driver: SupervisorDriver
) -> None:
    started = await driver.start(host.python(DAEMON, kind, main))
    await until(lambda: host.output() == b"up\n", "the daemon is up")
    daemon = int((host.work / "pid").read_text())
    assert alive(daemon)
    status = await driver.stop("app", timedelta(milliseconds=300))
    assert status is not None
    assert not status.state.alive
    assert not alive(daemon)
    assert not alive(started.pid)
    assert len(host.ends()) == 1


async def test_what_an_app_leaves_behind_gets_its_grace_and_keeps_its_last_lines(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    await driver.start(host.spec("sh", "-c", "(sleep 0.3; echo late) & echo early; exit 7"))
    status = await listener.until("app", ended)
    assert status.exit is not None
    assert (status.state, status.exit.exit_code) == (RuntimeState.EXITED, 7)
    assert host.output() == b"early\nlate\n"
    assert host.kinds()[-1] == FrameKind.RUN_ENDED


async def test_what_an_app_leaves_behind_is_killed_after_the_grace(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    await driver.start(host.python(DAEMON, "double", "exits", grace=0.3))
    status = await listener.until("app", ended)
    assert status.exit is not None
    assert (status.state, status.exit.exit_code) == (RuntimeState.EXITED, 0)
    assert not alive(int((host.work / "pid").read_text()))


async def test_a_stranger_that_holds_the_pipe_does_not_keep_the_run_open(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    await driver.start(host.spec("sleep", "60"))
    with host.pipe() as pipe:
        pipe.write(b"from outside\n")
        stopped = await driver.stop("app", None)
    assert stopped is not None
    assert stopped.state is RuntimeState.STOPPED
    assert host.output() == b"from outside\n"


async def test_a_signal_reaches_the_main_process_only(host: Host, driver: SupervisorDriver) -> None:
    program = "trap 'echo caught' USR1; echo up; while :; do sleep 0.01; done"
    await driver.start(host.spec("sh", "-c", program))
    await until(lambda: host.output() == b"up\n", "the app is up")
    await driver.signal("app", signal.SIGUSR1)
    await until(lambda: host.output() == b"up\ncaught\n", "the signal is caught")


async def test_output_of_children_that_die_one_by_one_is_reaped(
    host: Host, driver: SupervisorDriver
) -> None:
    orphans = "for i in 1 2 3 4 5; do (sh -c 'sleep 0.01 & exec true' &); done"
    program = f"{orphans}; sleep 0.2; echo up; exec sleep 60"
    status = await driver.start(host.spec("sh", "-c", program))
    await until(lambda: host.output() == b"up\n", "the app is up")
    await until(lambda: children(host.state().pid) == [status.pid], "orphans are reaped")


def children(pid: int) -> list[int]:
    return [process.pid for process in processes.everyone().values() if process.parent == pid]
