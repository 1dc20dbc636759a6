"""What the demo with NAT is made of: its project, its commands, a stranger on its port."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from att_client.cli.exits import CommandError

COMMAND_TIMEOUT = 180.0
INSTALL_TIMEOUT = 900.0
REQUEST_TIMEOUT = 600.0

# Answers every request with 200, as something else on the port could.
STRANGER = """
import http.server, sys

class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a stranger")

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Stranger)
print("listening", flush=True)
server.serve_forever()
"""


def demand(condition: object, what: str) -> None:
    """Returns if the condition holds; else the demo has failed, with what was expected."""
    if not condition:
        raise CommandError("DEMO_FAILED", f"Not seen: {what}.")


class Commands:
    """Runs `att` with `--json` against one server."""

    def __init__(self, target: str, directory: Path) -> None:
        self._target = target
        self._directory = directory

    async def att(self, *words: str) -> list[dict[str, object]]:
        """The objects that the command printed; raises CommandError if it failed."""
        command = [sys.executable, "-m", "att_client.cli", *words, "--json"]
        env = {**os.environ, "ATT_TARGET": self._target}
        code, out, said = await run_process(command, self._directory, env, COMMAND_TIMEOUT)
        demand(code == 0, f"success of `att {' '.join(words)}`: {said.strip()[-500:]}")
        return [json.loads(line) for line in out.splitlines()]

    async def runtime(self, *words: str) -> dict[str, object]:
        """The one object that the command printed."""
        (found,) = await self.att(*words)
        return found


class NatApp:
    """The project that the template made, and the app that it runs."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port

    def use_port(self) -> None:
        """Writes the port into att.toml, as its README tells people to."""
        settings = self.directory / "att.toml"
        settings.write_text(settings.read_text().replace("8000", str(self.port)))

    async def install(self, cache: Path) -> str:
        """Makes the project's environment by its setup.sh; returns NAT's version.

        What was downloaded and installed is kept in `cache` for the next run. It is
        made in a copy of the project there, since scripts name the environment they
        were made in.
        """
        copy = cache / "project"
        stamp = cache / "installed"
        made_of = (self.directory / "requirements.txt").read_bytes() + sys.version.encode()
        wanted = hashlib.sha256(made_of + os.fsencode(copy)).hexdigest()
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self.directory, copy)
            await _set_up(copy)
            stamp.write_text(wanted)
        (self.directory / ".venv").symlink_to(copy / ".venv")
        await _set_up(self.directory)
        command = [".venv/bin/nat", "--version"]
        code, out, said = await run_process(
            command, self.directory, _environment(), COMMAND_TIMEOUT
        )
        demand(code == 0 and "1.9." in out, f"NAT 1.9 in its environment: {out} {said[-300:]}")
        return out.split()[-1]

    async def get(self, page: str) -> tuple[int, str]:
        """The status and the body of a page."""
        return await asyncio.to_thread(_ask, f"http://127.0.0.1:{self.port}{page}", None)

    async def ask(self, text: str, delay: float = 0.0) -> tuple[int, Mapping[str, object]]:
        """The status and the answer of the workflow; raises OSError if none came."""
        url = f"http://127.0.0.1:{self.port}/v1/workflow"
        status, body = await asyncio.to_thread(_ask, url, {"text": text, "delay": delay})
        answer = json.loads(body)
        assert isinstance(answer, dict)
        return status, answer

    @asynccontextmanager
    async def taken_port(self) -> AsyncIterator[int]:
        """Lets a stranger listen on the port while the context lasts; yields its pid."""
        stranger = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", STRANGER, str(self.port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            assert stranger.stdout is not None
            async with asyncio.timeout(COMMAND_TIMEOUT):
                demand(await stranger.stdout.readline(), "a stranger that listens")
            yield stranger.pid
            demand(stranger.returncode is None, "a stranger that is left alone")
        finally:
            if stranger.returncode is None:
                stranger.kill()
                await stranger.wait()


def _ask(url: str, body: object) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data=data, headers={"content-type": "application/json"})
    try:
        with urlopen(request, timeout=REQUEST_TIMEOUT) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


async def _set_up(project: Path) -> None:
    code, out, said = await run_process(
        ["sh", "setup.sh"], project, _environment(), INSTALL_TIMEOUT
    )
    demand(code == 0, f"success of setup.sh: {(out + said).strip()[-1000:]}")


def _environment() -> dict[str, str]:
    """Without what would lead NAT's Python to our packages."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**env, "PYTHON": sys.executable}


async def run_process(
    command: Sequence[str], directory: Path, env: Mapping[str, str], timeout: float
) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command, which is ended with all it started."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout):
            out, said = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace"), said.decode(errors="replace")


def processes_of_runs(run_ids: Sequence[str]) -> list[int]:
    """The processes that have one of the runs in their environment."""
    marks = [f"ATT_RUN_ID={run_id}".encode() for run_id in run_ids]
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(mark in variables for mark in marks):
            found.append(int(path.parent.name))
    return found


@contextmanager
def only_user(cache: Path) -> Iterator[None]:
    """Holds the cache for this demo alone; raises CommandError while another has it.

    Its environment leads to one project at a time.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("ab") as lock:
        deadline = time.monotonic() + COMMAND_TIMEOUT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise CommandError(
                        "DEMO_BUSY", f"Another demo uses {cache}. Wait for its end."
                    ) from error
                time.sleep(0.5)
        yield
