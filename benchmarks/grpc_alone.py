"""`python -m benchmarks.grpc_alone`: what gRPC gives followers that do nothing with it.

A server sends the same bytes, made before, in messages as large as those of FollowLogs, to
clients that drop them, a process each as in the floods. So much is there for ATT at most.

--clients N …   (default 1 10 50)
--megabytes N   that all clients of a round get together (default 2000)
--rounds N      (default 3)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc

from benchmarks.load import LINE
from benchmarks.subjects.subject import receiving

MESSAGE = LINE * (256 * 1024 // len(LINE))
_METHOD = "/Alone/Follow"


def main() -> None:
    if sys.argv[1:2] == ["client"]:
        asyncio.run(_client(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grpc_alone",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("| clients | lines/s of 100 B, all together | least | most |\n|---|---|---|---|")
    for clients in arguments.clients:
        messages = arguments.megabytes * 1_000_000 // len(MESSAGE) // clients
        rates = [asyncio.run(_round(clients, messages)) for _ in range(arguments.rounds)]
        figures = (statistics.median(rates), min(rates), max(rates))
        print(f"| {clients} |", " | ".join(f"{rate:,.0f}" for rate in figures), "|", flush=True)


async def _round(clients: int, messages: int) -> float:
    """Lines a second, from the first message until the last client has its last."""
    begin = asyncio.Event()

    async def follow(_request: bytes, _context: object) -> AsyncIterator[bytes]:
        yield b"attached"
        await begin.wait()
        for _ in range(messages):
            yield MESSAGE

    with tempfile.TemporaryDirectory(prefix="att-alone-") as directory:
        target = f"unix:{Path(directory) / 'alone.sock'}"
        server = grpc.aio.server()
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(follow)
        handlers = grpc.method_handlers_generic_handler("Alone", {"Follow": handler})
        server.add_generic_rpc_handlers((handlers,))
        server.add_insecure_port(target)
        await server.start()
        async with AsyncExitStack() as stack:
            command = (sys.executable, "-m", "benchmarks.grpc_alone", "client", target)
            attached = [await stack.enter_async_context(receiving(command)) for _ in range(clients)]
            began = time.time_ns()
            begin.set()
            ends = await asyncio.gather(*(client.result() for client in attached))
        await server.stop(None)
    last = max(int(str(end)) for end in ends)
    return clients * messages * len(MESSAGE) / len(LINE) / ((last - began) / 1e9)


async def _client(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_METHOD)
        messages = aiter(call(b""))
        await anext(messages)
        print("ready", flush=True)
        async for _ in messages:
            pass
    print(json.dumps(time.time_ns()), flush=True)


if __name__ == "__main__":
    main()
