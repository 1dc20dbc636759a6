"""Receives from ATT with the SDK, by batches or lines: `TARGET PROJECT KIND LINES`."""

from __future__ import annotations

import asyncio

import att_client
from benchmarks.receivers.receiving import Receiver, asked


async def follow(log: att_client.LogFollow, receiver: Receiver) -> None:
    is_attached = False
    async for batch in log.batches():
        # The first one comes at once.
        if not is_attached:
            receiver.begin()
            is_attached = True
        chunks = [record.chunk for record in batch.records if record.chunk]
        if receiver.kind == "ticks":
            done = receiver.take(b"".join(chunk.lines for chunk in chunks))
        else:
            done = receiver.count(sum(chunk.line_count for chunk in chunks))
        if done:
            return


async def read(log: att_client.LogFollow, receiver: Receiver) -> None:
    receiver.begin()
    async for batch in log.batches():
        if receiver.count(sum(r.chunk.line_count for r in batch.records if r.chunk)):
            return


async def read_lines(log: att_client.LogFollow, receiver: Receiver) -> None:
    receiver.begin()
    count = 0
    async for _ in log:
        count += 1
        if count == receiver.lines:
            break
    receiver.count(count)


async def main() -> None:
    (target, project_id), receiver = asked()
    receive = {"read": read, "lines": read_lines}.get(receiver.kind, follow)
    async with att_client.connect(target) as att:
        await receive(att.logs.follow(project_id, cursor=0), receiver)


if __name__ == "__main__":
    asyncio.run(main())
