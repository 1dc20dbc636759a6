"""Runs a bridge on a transport until its client or a signal ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial

from mcp.server.stdio import stdio_server

import att_client
from att_client.mcp.bridge import Bridge
from att_client.mcp.callers import Callers
from att_client.mcp.http import Listener, app, serving
from att_client.mcp.options import Options


async def serve_stdio(config: att_client.Config, options: Options) -> None:
    """Serves one client on stdin and stdout; returns when it closes its end.

    SIGINT ends the process at once.
    """
    # A read of stdin cannot be broken off, and there is nothing to put in order.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    callers = Callers(config)
    bridge = Bridge(callers, options)
    server = bridge.server
    try:
        async with stdio_server() as (reads, writes):
            await server.run(reads, writes, server.create_initialization_options())
    finally:
        await bridge.aclose()
        await callers.aclose()


async def serve_http(
    config: att_client.Config,
    options: Options,
    listener: Listener,
    ready: Callable[[str], None],
) -> None:
    """Serves clients over HTTP until SIGINT or SIGTERM; the second one ends it at once.

    ready: is told the URL. Raises OSError where the address cannot be listened on.
    """
    callers = Callers(config, named=True)
    bridge = Bridge(callers, options)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _end, ended, number)
    try:
        async with serving(listener, partial(app, bridge=bridge, callers=callers)) as url:
            ready(url)
            await ended.wait()
            await bridge.aclose()
    finally:
        await callers.aclose()


def _end(ended: asyncio.Event, number: int) -> None:
    if ended.is_set():
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    ended.set()
