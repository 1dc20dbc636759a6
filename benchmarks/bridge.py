"""The bridge for agents: its first answer, its memory, and a page of the log over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import psutil
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.figures import Figure, percentile
from benchmarks.stage import PATIENCE, Stage

ATT = (sys.executable, "-m", "att_client.cli")
PRINTS = "for i in range(1000): print('2026-11-23 10:00:00 - INFO - app.web:1 - request', i)"
OPENING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "benchmark", "version": "1"},
    },
}


async def measure(stage: Stage, *, calls: int, rounds: int) -> list[Figure]:
    """The bridge on pipes, then over HTTP."""
    await stage.project("bridge", sys.executable, "-c", PRINTS)
    await stage.run_to_end("bridge")
    return [*await first_answer(stage, rounds), await page(stage, calls, rounds)]


async def first_answer(stage: Stage, rounds: int) -> list[Figure]:
    """Seconds from the start of `att mcp serve` to its first answer; by turns with an import."""
    figure = Figure(
        name="att mcp serve: start → first answer",
        unit="s",
        mark="< 0.7 s",
        limit=0.7,
    )
    memory = Figure(name="att mcp serve: memory when idle", unit="MiB", mark="< 90 MiB", limit=90)
    for _ in range(rounds):
        began = time.perf_counter()
        async with process(stage, *ATT, "mcp", "serve") as bridge:
            assert bridge.stdin is not None
            assert bridge.stdout is not None
            bridge.stdin.write(json.dumps(OPENING).encode() + b"\n")
            await bridge.stdout.readline()
            figure.samples.append(time.perf_counter() - began)
            memory.samples.append(psutil.Process(bridge.pid).memory_info().rss / (1 << 20))
            bridge.stdin.close()
            await bridge.wait()
        began = time.perf_counter()
        async with process(stage, sys.executable, "-c", "import mcp.server") as importing:
            await importing.wait()
            figure.add("import of the MCP SDK", time.perf_counter() - began)
    return [figure, memory]


async def page(stage: Stage, calls: int, rounds: int) -> Figure:
    """Milliseconds for 100 lines over HTTP, one in flight; by turns with the SDK on the socket."""
    figure = Figure(
        name="att.runtime.logs over HTTP p50, 100 lines",
        unit="ms",
        mark="< 10 ms",
        limit=10,
    )
    asked = {"project": "bridge", "cursor": 100, "limit": 100}
    async with over_http(stage) as client:
        for _ in range(rounds):
            samples, peer = [], []
            for _ in range(calls):
                began = time.perf_counter()
                result = await client.call_tool("att.runtime.logs", asked)
                samples.append((time.perf_counter() - began) * 1e3)
                if len((result.structured_content or {})["lines"]) != 100:
                    raise RuntimeError(f"a page of 100 lines was expected, not {result}")
                began = time.perf_counter()
                await stage.client.logs.read("bridge", cursor=100, limit=100)
                peer.append((time.perf_counter() - began) * 1e3)
            figure.samples.append(percentile(samples, 0.50))
            figure.add("the same by the SDK", percentile(peer, 0.50))
    return figure


@asynccontextmanager
async def over_http(stage: Stage) -> AsyncIterator[Client]:
    """A client at a bridge over HTTP, with a token of its own."""
    state_dir = Path(stage.client.target.removeprefix("unix:")).parent
    where = ("--state-dir", str(state_dir), "--name", "bench", "--role", "viewer")
    token = stage.directory / "bench.token"
    async with process(stage, *ATT, "token", "create", *where, "--output", str(token)) as making:
        if await making.wait():
            raise RuntimeError("no token could be made")
    async with process(stage, *ATT, "mcp", "serve", "--http", "127.0.0.1:0") as bridge:
        assert bridge.stdout is not None
        url = (await bridge.stdout.readline()).decode().split()[-1]
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield client


@asynccontextmanager
async def process(stage: Stage, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that finds the stage's server; ended with the context."""
    started = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "ATT_TARGET": stage.client.target},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()
