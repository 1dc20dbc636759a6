"""What makes no sense, and what breaks under it: each has a stated result and leaves nothing."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

import att_client
from att_client import (
    Client,
    HttpProbe,
    LogProbe,
    Probe,
    ResourceLimits,
    RestartPolicy,
    RestartPolicyCondition,
    RuntimeSettings,
    RuntimeState,
    TcpProbe,
)
from tests.contract import http_app
from tests.server_process import PATIENCE, ServerProcess, alive, wait_until

LASTS = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(3600)"]
MIB = 1 << 20
LONG = timedelta(days=999_999_999)
"""The longest duration there is; gRPC cannot wait for it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("bad") / "s") as server:
        yield server


@pytest.fixture
async def att(server: ServerProcess) -> AsyncIterator[Client]:
    async with att_client.connect(server.target) as att:
        yield att


@pytest.fixture
def name() -> str:
    """The id of a project that no other test has."""
    return f"bad-{secrets.token_hex(4)}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "app"
    path.mkdir()
    return path


def processes_of(project_id: str) -> list[int]:
    """The processes that have the project's id in their environment, wherever they went."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ATT_PROJECT_ID") == project_id:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


async def until(att: Client, name: str, state: RuntimeState) -> att_client.Runtime:
    async with asyncio.timeout(PATIENCE):
        async for change in att.runtimes.watch(project_ids=[name]):
            for runtime in change.runtimes:
                if runtime.state is state:
                    return runtime
    raise AssertionError("the watch ended")


def probed(probe: Probe) -> RuntimeSettings:
    return RuntimeSettings(command=LASTS, readiness=probe)


def restarted(**policy: timedelta | float) -> RuntimeSettings:
    condition = RestartPolicyCondition.ALWAYS
    return RuntimeSettings(command=LASTS, restart=RestartPolicy(condition=condition, **policy))  # type: ignore[arg-type]  # mypy does not see which names there are


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (RuntimeSettings(command=["a\0b"]), "runtime.command"),
        (RuntimeSettings(command=[""]), "runtime.command[0]"),
        (RuntimeSettings(command=["x" * MIB]), "runtime.command"),
        (RuntimeSettings(command=LASTS, env={"A": "\0"}), "runtime.env['A']"),
        (RuntimeSettings(command=LASTS, env={"": "x"}), "runtime.env['']"),
        (RuntimeSettings(command=LASTS, env={"ATT_X": "x"}), "runtime.env['ATT_X']"),
        (RuntimeSettings(command=LASTS, env={"A": "x" * MIB}), "runtime.env"),
        (RuntimeSettings(command=LASTS, env={f"A{i}": "" for i in range(100_000)}), "runtime.env"),
        (RuntimeSettings(command=LASTS, env_file="\0"), "runtime.env_file"),
        (RuntimeSettings(command=LASTS, stop_grace=timedelta(seconds=-1)), "runtime.stop_grace"),
        (RuntimeSettings(command=LASTS, stop_grace=timedelta(days=99_999)), "runtime.stop_grace"),
        (restarted(initial_backoff=timedelta(seconds=-1)), "runtime.restart.initial_backoff"),
        (restarted(max_backoff=timedelta(days=99_999)), "runtime.restart.max_backoff"),
        (restarted(backoff_factor=float("nan")), "runtime.restart.backoff_factor"),
        (restarted(backoff_jitter=float("inf")), "runtime.restart.backoff_jitter"),
        (
            RuntimeSettings(command=LASTS, limits=ResourceLimits(memory_bytes=-1)),
            "runtime.limits.memory_bytes",
        ),
        (probed(Probe(tcp=TcpProbe(port=70_000))), "runtime.readiness.tcp.port"),
        (
            probed(Probe(tcp=TcpProbe(port=1), interval=timedelta(0))),
            "runtime.readiness.interval",
        ),
        (
            probed(Probe(http=HttpProbe(url="http://example.com/"))),
            "runtime.readiness.http.url",
        ),
        (probed(Probe(log=LogProbe(pattern="("))), "runtime.readiness.log.pattern"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_settings_that_make_no_sense_are_refused_by_their_field(
    att: Client, name: str, directory: Path, settings: RuntimeSettings, field: str
) -> None:
    with pytest.raises(att_client.FieldInvalidError) as refused:
        await att.projects.create(name, path=directory, runtime=settings)
    assert f": {field}: must " in str(refused.value) or f": {field}: is " in str(refused.value)
    with pytest.raises(att_client.ProjectNotFoundError):
        await att.projects.get(name)


@pytest.mark.parametrize("wait", [timedelta(seconds=-1), LONG], ids=["negative", "absurd"])
@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda att, name, wait: att.runtimes.start(name, timeout=wait), "timeout"),
        (lambda att, name, wait: att.runtimes.stop(name, grace=wait), "grace"),
        (lambda att, name, wait: att.runtimes.restart(name, grace=wait), "grace"),
        (lambda att, name, wait: att.runtimes.restart(name, timeout=wait), "timeout"),
        (
            lambda att, name, wait: att.runtimes.probe(
                name, Probe(tcp=TcpProbe(port=1), timeout=wait)
            ),
            "probe.timeout",
        ),
    ],
    ids=["start", "stop", "restart-grace", "restart-timeout", "probe"],
)
async def test_a_wait_that_makes_no_sense_is_refused_and_nothing_is_done(
    att: Client,
    name: str,
    directory: Path,
    call: Callable[[Client, str, timedelta], Awaitable[object]],
    field: str,
    wait: timedelta,
) -> None:
    await att.projects.create(name, path=directory, command=LASTS)
    with pytest.raises(att_client.FieldInvalidError, match=f": {field}: (must be|is) "):
        await call(att, name, wait)
    assert (await att.runtimes.get(name)).run_id == ""


async def test_the_longest_wait_of_a_probe_call_is_no_deadline_that_has_passed(
    att: Client, name: str, directory: Path
) -> None:
    await att.projects.create(name, path=directory, command=LASTS)
    checked = await att.runtimes.probe(name, timeout=LONG)
    assert checked.health_reason == "process_not_running"


def _script(directory: Path, text: str, mode: int = 0o700) -> None:
    (directory / "run").write_text(text)
    (directory / "run").chmod(mode)


@pytest.mark.parametrize(
    ("make", "command", "error", "words"),
    [
        (None, [], att_client.CommandMissingError, "has no command. Set `command`"),
        (None, ["no-such-program"], att_client.CommandNotFoundError, "no file 'no-such-program'"),
        (None, ["./run"], att_client.CommandNotFoundError, "no file './run'"),
        (
            lambda place: _script(place, "#!/bin/sh\n", 0o600),
            ["./run"],
            att_client.CommandNotExecutableError,
            "chmod",
        ),
        (
            lambda place: _script(place, "#!/no/such/interpreter\n"),
            ["./run"],
            att_client.RuntimeStartFailedError,
            "could not be started: ./run: the program that runs it is not found. Mend it",
        ),
        (
            lambda place: _script(place, "neither a script nor a program"),
            ["./run"],
            att_client.RuntimeStartFailedError,
            "could not be started: ./run: Exec format error. Mend it",
        ),
    ],
    ids=["none", "no-program", "no-file", "not-executable", "no-interpreter", "no-format"],
)
async def test_a_command_that_cannot_run_says_why_and_leaves_nothing(
    att: Client,
    name: str,
    directory: Path,
    make: Callable[[Path], None] | None,
    command: list[str],
    error: type[att_client.AttError],
    words: str,
) -> None:
    if make is not None:
        make(directory)
    await att.projects.create(name, path=directory, command=command)
    for _ in range(2):
        with pytest.raises(error) as failed:
            await att.runtimes.start(name)
        assert words in str(failed.value)
    runtime = await att.runtimes.get(name)
    assert runtime.state in (RuntimeState.STOPPED, RuntimeState.FAILED)
    assert runtime.desired_state is att_client.DesiredState.STOPPED
    assert processes_of(name) == []
    await att.projects.delete(name)


async def test_an_app_whose_directory_goes_runs_on_and_can_be_stopped(
    att: Client, name: str, directory: Path
) -> None:
    await att.projects.create(name, path=directory, command=LASTS)
    started = await att.runtimes.start(name)
    shutil.rmtree(directory)
    for call in (att.runtimes.start, att.runtimes.restart):
        with pytest.raises(att_client.ProjectPathInvalidError, match="Create the directory"):
            await call(name)
    assert (await att.runtimes.get(name)).pid == started.pid
    assert alive(started.pid)
    assert (await att.runtimes.stop(name)).state is RuntimeState.STOPPED
    assert processes_of(name) == []
    await att.projects.delete(name)


@pytest.mark.parametrize(
    ("way", "verdict"),
    [
        ("silent", (False, "http_timeout", None)),
        ("drip", (False, "http_timeout", None)),
        ("big-head", (False, "http_error", None)),
        ("garbage", (False, "http_error", None)),
        ("gone", (False, "http_error", None)),
        ("big-body", (True, "http_ok", 200)),
        ("slow-body", (True, "http_ok", 200)),
        ("moved", (True, "http_ok", 302)),
    ],
)
async def test_an_app_that_answers_a_probe_badly_gets_a_verdict_and_costs_nothing(
    server: ServerProcess,
    att: Client,
    name: str,
    directory: Path,
    way: str,
    verdict: tuple[bool, str, int | None],
) -> None:
    command = [sys.executable, http_app.__file__, way, "127.0.0.1", "0"]
    await att.projects.create(name, path=directory, command=command)
    await att.runtimes.start(name)
    async with asyncio.timeout(PATIENCE):
        async for line in att.logs.follow(name):
            port = int(str(line))
            break
    probe = Probe(
        http=HttpProbe(url=f"http://127.0.0.1:{port}/"), timeout=timedelta(milliseconds=500)
    )
    await att.runtimes.probe(name, probe)  # loads what the first probe needs
    me = psutil.Process(server.pid)
    files, memory = me.num_fds(), me.memory_info().rss
    checks = await asyncio.gather(*(att.runtimes.probe(name, probe) for _ in range(10)))
    assert {(c.healthy, c.health_reason, c.http_status) for c in checks} == {verdict}
    wait_until(lambda: me.num_fds() <= files, "the descriptors of the probes")
    assert me.memory_info().rss < memory + 64 * MIB
    await att.runtimes.stop(name, grace=timedelta(0))


async def test_a_place_that_cannot_be_written_is_named_and_nothing_runs(
    server: ServerProcess, att: Client, name: str, directory: Path
) -> None:
    await att.projects.create(name, path=directory, command=LASTS)
    place = server.state_dir / "projects" / name
    place.mkdir()
    (place / "supervisors").touch()
    with pytest.raises(att_client.SupervisorUnreachableError) as failed:
        await att.runtimes.start(name)
    assert f"{place}/supervisors/" in str(failed.value)
    assert "Not a directory. Mend that and call again." in str(failed.value)
    assert processes_of(name) == []
    (place / "supervisors").unlink()
    assert (await att.runtimes.start(name)).state is RuntimeState.READY
    await att.runtimes.stop(name)


async def test_garbage_on_the_control_socket_harms_nothing(
    server: ServerProcess, att: Client, name: str, directory: Path
) -> None:
    await att.projects.create(name, path=directory, command=LASTS)
    started = await att.runtimes.start(name)
    (path,) = (server.state_dir / "projects" / name).glob("supervisors/*/control.sock")
    place = os.open(path.parent, os.O_PATH)
    try:
        for garbage in (b"\0" * MIB, b'{"command": "stop"}\n', b"[" * 50_000 + b"\n", b"\xff\n"):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(10)
                stranger.connect(f"/proc/self/fd/{place}/{path.name}")
                try:
                    stranger.sendall(garbage)
                    stranger.shutdown(socket.SHUT_WR)
                    while stranger.recv(65_536):
                        pass
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it hung up on us
    finally:
        os.close(place)
    now = await att.runtimes.get(name)
    assert (now.run_id, now.state) == (started.run_id, RuntimeState.READY)
    assert (await att.runtimes.stop(name)).state is RuntimeState.STOPPED


@pytest.mark.parametrize("rest", ["", '{"state": "rea', "null", "\0" * 100], ids=repr)
async def test_an_app_is_adopted_although_its_state_file_is_torn(
    tmp_path: Path, rest: str, name: str
) -> None:
    with ServerProcess(tmp_path / "s") as server:
        async with att_client.connect(server.target) as att:
            await att.projects.create(name, path=tmp_path, command=LASTS)
            started = await att.runtimes.start(name)
            server.kill()
            (state,) = (server.state_dir / "projects" / name).glob("supervisors/*/state.json")
            state.write_text(rest)
            (server.state_dir / "att.lock").write_text("{torn")
            await asyncio.to_thread(server.start)
            adopted = await att.runtimes.get(name)
            assert (adopted.run_id, adopted.pid) == (started.run_id, started.pid)
            assert adopted.state is RuntimeState.READY
            assert (await att.runtimes.stop(name)).state is RuntimeState.STOPPED
            assert processes_of(name) == []


async def test_an_app_without_outputs_that_ignores_signals_is_stopped_with_its_daemon(
    att: Client, name: str, directory: Path
) -> None:
    code = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(3600)"], {})
    os._exit(0)
os.wait()
open("up", "w").close()
os.closerange(0, 3)
time.sleep(3600)
"""
    await att.projects.create(name, path=directory, command=[sys.executable, "-c", code])
    started = await att.runtimes.start(name)
    wait_until((directory / "up").exists, "the daemon")
    supervisor = psutil.Process(started.pid).parent()
    assert supervisor is not None
    tree = supervisor.children(recursive=True)
    assert len(tree) == 2
    os.kill(started.pid, signal.SIGSTOP)
    stopped = await att.runtimes.stop(name, grace=timedelta(milliseconds=100))
    assert stopped.state is RuntimeState.STOPPED
    assert stopped.exit is not None
    assert stopped.exit.signal == signal.SIGKILL
    assert not [process for process in tree if alive(process.pid)]


async def test_a_crash_loop_tells_who_waits_for_it(att: Client, name: str, directory: Path) -> None:
    command = json.dumps([sys.executable, "-c", "import sys; sys.exit('no configuration')"])
    (directory / "att.toml").write_text(
        f"""[runtime]
command = {command}
[runtime.restart]
condition = "on-failure"
backoff = {{ initial = "10ms", max = "10ms" }}
max_restarts = 2
[runtime.readiness]
tcp = 1
"""
    )
    await att.projects.create(name, path=directory)
    with pytest.raises(att_client.RuntimeStartFailedError) as failed:
        await att.runtimes.start(name, wait="ready")
    assert "ended again and again and is not started any more. Mend it" in str(failed.value)
    assert "no configuration" in str(failed.value)
    runtime = await att.runtimes.get(name)
    assert (runtime.state, runtime.reason) == (RuntimeState.FAILED, "crash_loop")
    assert (runtime.restarts, runtime.pid) == (2, 0)


async def test_between_two_runs_there_is_no_process_to_be_named(
    att: Client, name: str, directory: Path
) -> None:
    """The number of the last one may be that of a stranger already."""
    (directory / "att.toml").write_text(
        f"""[runtime]
command = {json.dumps([sys.executable, "-c", "raise SystemExit(3)"])}
[runtime.restart]
condition = "always"
backoff = {{ initial = "1h", max = "1h" }}
"""
    )
    await att.projects.create(name, path=directory)
    await att.runtimes.start(name)
    waits = await until(att, name, RuntimeState.BACKOFF)
    assert waits.pid == 0
    assert waits.exit is not None
    with pytest.raises(att_client.ProjectNotStoppedError, match="Stop it"):
        await att.projects.delete(name)
    assert (await att.runtimes.stop(name)).state is RuntimeState.STOPPED
    await att.projects.delete(name)


async def test_settings_changed_meanwhile_are_those_of_the_restart(
    att: Client, name: str, directory: Path
) -> None:
    await att.projects.create(name, path=directory, command=LASTS)
    before = await att.runtimes.start(name)
    await att.projects.update(name, runtime=RuntimeSettings(command=LASTS, env={"COLOUR": "blue"}))
    assert (await att.runtimes.get(name)).run_id == before.run_id
    with pytest.raises(att_client.RuntimeSpecConflictError, match="Restart it"):
        await att.runtimes.start(name)
    after = await att.runtimes.restart(name)
    assert psutil.Process(after.pid).environ()["COLOUR"] == "blue"
    assert processes_of(name) == [after.pid]
    await att.runtimes.stop(name)


async def test_after_all_this_the_server_holds_nothing_of_it(server: ServerProcess) -> None:
    """Last in the module: what the tests above left would be here."""
    me = psutil.Process(server.pid)
    async with att_client.connect(server.target) as att:
        async for runtime in att.runtimes.list():
            await att.runtimes.stop(runtime.project_id, grace=timedelta(0))
            assert processes_of(runtime.project_id) == []
            await att.projects.delete(runtime.project_id)
    assert list(server.state_dir.glob("projects/*")) == []
    wait_until(lambda: me.num_fds() < 40, "the descriptors of the apps")
    log = (server.state_dir / "log" / "server.log").read_text()
    assert "Traceback" not in log
