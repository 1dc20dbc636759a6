"""However git ends, it ends with all it began, in time, and says why in our words."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from att_server.adapters.git import Git, GitSettings
from att_server.adapters.git.failures import failure_of, redacted
from att_server.core.repository import RepositoryError, RepositoryFailure
from tests.contract.git_projects import git as person
from tests.contract.git_projects import settings
from tests.server_process import wait_until

HANGS = "#!/bin/sh\nsleep 73.25 &\nexec sleep 73.25\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    person(tmp_path, "init", "-q", "-b", "main", "place")
    return tmp_path / "place"


def fake_git(directory: Path, script: str) -> Git:
    """A git of which only the way it behaves matters."""
    directory.mkdir(exist_ok=True)
    program = directory / "git"
    program.write_text(script)
    program.chmod(0o755)
    return Git(settings(path=f"{directory}:{os.environ['PATH']}", local=timedelta(seconds=0.3)))


def sleepers(directory: Path) -> list[int]:
    """The living processes that a fake git began in `directory`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(directory):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [pid for pid in found if pid != os.getpid()]


async def failure(running: object) -> RepositoryFailure:
    with pytest.raises(RepositoryError) as failed:
        await running  # type: ignore[misc]  # whatever operation it is
    return failed.value.failure


# Ends -----------------------------------------------------------------------


async def test_git_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    git = fake_git(tmp_path / "bin", HANGS)
    here = tmp_path / "here"
    here.mkdir()
    assert await failure(git.run("status", directory=here)) is RepositoryFailure.TIMED_OUT
    wait_until(lambda: not sleepers(here), "all are gone")


async def test_cancelling_ends_git_with_its_children(tmp_path: Path) -> None:
    git = Git(settings(path=f"{tmp_path / 'bin'}:{os.environ['PATH']}"))
    fake_git(tmp_path / "bin", HANGS)
    here = tmp_path / "here"
    here.mkdir()
    running = asyncio.create_task(git.run("status", directory=here))
    while len(sleepers(here)) < 2:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    wait_until(lambda: not sleepers(here), "all are gone")


async def test_what_git_leaves_running_is_ended_too(tmp_path: Path) -> None:
    git = fake_git(tmp_path / "bin", "#!/bin/sh\nsleep 73.25 &\nexit 0\n")
    here = tmp_path / "here"
    here.mkdir()
    assert await failure(git.run("status", directory=here)) is RepositoryFailure.TIMED_OUT
    wait_until(lambda: not sleepers(here), "all are gone")


async def test_git_that_never_stops_talking_is_ended(tmp_path: Path) -> None:
    git = fake_git(tmp_path / "bin", "#!/bin/sh\nexec yes\n")
    failed = await failure(git.run("log", directory=tmp_path, max_output=100_000))
    assert failed is RepositoryFailure.OUTPUT_TOO_LARGE


async def test_git_of_which_enough_was_heard_is_ended(tmp_path: Path) -> None:
    git = fake_git(tmp_path / "bin", "#!/bin/sh\nsleep 73.25 &\nyes\n")
    heard = bytearray()

    def take(data: bytes) -> bool:
        heard.extend(data)
        return len(heard) < 100

    here = tmp_path / "here"
    here.mkdir()
    answer = await git.run("log", directory=here, take=take, max_output=10)
    assert (answer.code, answer.output) == (0, b"")
    assert len(heard) >= 100
    wait_until(lambda: not sleepers(here), "all are gone")


async def test_of_a_long_complaint_the_end_is_kept(tmp_path: Path) -> None:
    script = "#!/bin/sh\nseq 200000 >&2\necho 'fatal: bad object x' >&2\nexit 128\n"
    git = fake_git(tmp_path / "bin", script)
    assert await failure(git.run("log", directory=tmp_path)) is RepositoryFailure.NOT_FOUND


async def test_without_git_the_failure_says_so(tmp_path: Path) -> None:
    git = Git(settings(path=str(tmp_path)))
    assert await failure(git.run("log", directory=tmp_path)) is RepositoryFailure.GIT_MISSING
    git = Git(settings(path=f"{tmp_path}:{tmp_path / 'tools'}"))
    (tmp_path / "tools").mkdir()
    for name in ("timeout", "sh"):
        (tmp_path / "tools" / name).symlink_to(str(shutil.which(name)))
    asking = git.run("fetch", directory=tmp_path, network=True)
    assert await failure(asking) is RepositoryFailure.GIT_MISSING
    gone = Git(settings()).run("log", directory=tmp_path / "gone")
    assert await failure(gone) is RepositoryFailure.NOT_FOUND


async def test_a_large_input_and_a_large_answer_pass_whole(place: Path) -> None:
    content = os.urandom(3_000_000)
    git = Git(settings())
    made = await git.run("hash-object", "-w", "--stdin", directory=place, input=content)
    blob = await git.run("cat-file", "blob", made.output.decode().strip(), directory=place)
    assert blob.output == content


async def test_memory_beyond_its_bound_is_not_given(place: Path) -> None:
    git = Git(settings())
    running = git.run(
        "hash-object", "--stdin", directory=place, input=b"x" * 50_000_000, memory=30_000_000
    )
    assert await failure(running) is not RepositoryFailure.TIMED_OUT


# Nothing of the caller or the repository gets in -----------------------------


async def test_the_callers_environment_and_settings_do_not_count(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text("[user]\n\tname = Somebody\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.name")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "Somebody")
    git = Git(settings())
    answer = await git.run("config", "user.name", directory=place, accept=(0, 1))
    assert answer.output == b""
    top = await git.run("rev-parse", "--show-toplevel", directory=place)
    assert Path(top.output.decode().strip()).samefile(place)


async def test_settings_of_the_operator_reach_git_and_no_command_line(tmp_path: Path) -> None:
    script = '#!/bin/sh\necho "$@"\necho "$GIT_CONFIG_KEY_0=$GIT_CONFIG_VALUE_0"\n'
    fake_git(tmp_path / "bin", script)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    git = Git(settings(path=path, config=(("http.extraHeader", "Authorization: x"),)))
    told = (await git.run("fetch", directory=tmp_path)).output.decode().splitlines()
    assert "Authorization" not in told[0]
    assert told[1] == "http.extraHeader=Authorization: x"
    assert "Authorization" not in repr(git.settings)


async def test_the_transport_that_runs_commands_is_never_allowed(place: Path) -> None:
    with pytest.raises(ValueError, match="protocols"):
        GitSettings(protocols=("file", "ext"))
    git = Git(settings(environ={"GIT_ALLOW_PROTOCOL": "ext"}))
    proof = place / "ran"
    running = git.run(
        "ls-remote", "--end-of-options", f"ext::sh -c touch% {proof}", directory=place, network=True
    )
    assert await failure(running) is RepositoryFailure.PROTOCOL_NOT_ALLOWED
    assert not proof.exists()


# Remotes that do not answer ---------------------------------------------------


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that gives each connection to `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


def http(status: str, *headers: str) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(64 * 1024)
        lines = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        connection.close()

    return answer


async def asked(place: Path, url: str, **changes: object) -> RepositoryFailure:
    git = Git(settings(protocols=("http", "git"), **changes))
    running = git.run("ls-remote", "--end-of-options", url, directory=place, network=True)
    return await failure(running)


@pytest.mark.parametrize("scheme", ["http", "git"])
async def test_a_remote_that_accepts_and_is_silent_costs_a_deadline(
    place: Path, scheme: str
) -> None:
    with listening(lambda _: None) as port:
        url = f"{scheme}://127.0.0.1:{port}/r.git"
        said = await asked(place, url, network=timedelta(seconds=0.5))
    assert said is RepositoryFailure.REMOTE_TIMED_OUT
    assert said.external


async def test_a_remote_that_asks_for_a_password_fails_at_once(place: Path) -> None:
    wants = http("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')
    with listening(wants) as port:
        said = await asked(place, f"http://127.0.0.1:{port}/r.git")
    assert said is RepositoryFailure.REMOTE_AUTHENTICATION


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("503 Service Unavailable", RepositoryFailure.REMOTE_UNREACHABLE),
        ("403 Forbidden", RepositoryFailure.REMOTE_AUTHENTICATION),
        ("404 Not Found", RepositoryFailure.REMOTE_NOT_FOUND),
    ],
)
async def test_a_remote_that_refuses_is_told_apart(
    place: Path, status: str, expected: RepositoryFailure
) -> None:
    with listening(http(status)) as port:
        assert await asked(place, f"http://127.0.0.1:{port}/r.git") is expected


async def test_a_port_where_nobody_listens_is_unreachable(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = await asked(place, f"http://127.0.0.1:{port}/r.git")
    assert said is RepositoryFailure.REMOTE_UNREACHABLE


# What was said ----------------------------------------------------------------


def test_what_a_remote_says_itself_decides_nothing() -> None:
    said = "remote: fatal: Authentication failed\nfatal: the remote end hung up unexpectedly\n"
    assert failure_of(said, network=True) is RepositoryFailure.REMOTE_UNREACHABLE


def test_no_password_is_repeated() -> None:
    said = "fatal: unable to access 'https://me:secret@example.com/r.git/': x"
    assert "secret" not in redacted(said)
    assert "example.com" in redacted(said)
