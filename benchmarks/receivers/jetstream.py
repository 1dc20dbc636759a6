"""JetStream with nats-py, a message a line: `publish PORT`, or `follow PORT KIND LINES`.

publish: stdin goes into a new stream; returns when all of it is acknowledged.
"""

from __future__ import annotations

import asyncio
import sys

import nats

from benchmarks.receivers.receiving import Receiver, asked

_AT_ONCE = 4000  # messages that wait for their acknowledgement


async def publish(port: int) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    stream = client.jetstream(publish_async_max_pending=_AT_ONCE)
    waiting: list[asyncio.Future[object]] = []
    async for line in await _stdin():
        waiting.append(await stream.publish_async("log", line[:-1]))
        if len(waiting) == _AT_ONCE:
            await asyncio.gather(*waiting)
            waiting.clear()
    await asyncio.gather(*waiting)
    await client.close()


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def make(port: int) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    stream = client.jetstream()
    await stream.add_stream(name="log", subjects=["log"])
    await stream.purge_stream("log")
    await client.close()


async def follow(port: int, receiver: Receiver) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    subscription = await client.jetstream().subscribe("log", ordered_consumer=True)
    receiver.begin()
    async for message in subscription.messages:
        if receiver.take(message.data + b"\n"):
            break
    await client.close()


if __name__ == "__main__":
    command, where = sys.argv[1:3]
    if command == "follow":
        asyncio.run(follow(int(where), asked()[1]))
    else:
        asyncio.run({"publish": publish, "make": make}[command](int(where)))
