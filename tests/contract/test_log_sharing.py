"""What is read of a log for one serves others who are near."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from att_server.adapters.segments import SegmentLogStore
from att_server.core.log_selection import LogPosition
from att_server.core.logs import LogManager
from att_server.core.model import LogPage
from tests.contract.log_fillings import LOG, PROJECT, SegmentFilling, read_all
from tests.core import test_logs

WEB = replace(test_logs.WEB, log_id=LOG)


async def test_who_reads_behind_others_comes_to_their_pages(tmp_path: Path) -> None:
    segments = SegmentFilling(tmp_path, 1 << 20)
    segments.store = SegmentLogStore(tmp_path)
    for _ in range(12):
        segments.lines(*[b"x" * 49] * 2)
    first = await read_all(segments.store, 0, 300)
    others = await read_all(segments.store, 2, 300)

    assert [page.cursor for page in first] == [6, 12, 18, 24]
    assert [page.cursor for page in others] == [6, 12, 18, 24]
    assert others[1] is first[1]
    assert others[2] is first[2]
    await segments.store.aclose()
    segments.close()


async def test_followers_of_a_flood_share_its_pages(tmp_path: Path) -> None:
    segments = SegmentFilling(tmp_path, 1 << 20)
    segments.store = SegmentLogStore(tmp_path, cache_bytes=32 << 10)
    for _ in range(300):
        segments.lines(*[b"x" * 49] * 2)
    logs = LogManager(store=segments.store, find_project=lambda _: WEB, current_run=lambda _: "")

    async def pages(cursor: int, pauses: int) -> list[LogPage]:
        found: list[LogPage] = []
        follow = logs.follow(
            PROJECT, LogPosition(cursor=cursor), max_bytes=300, progress_interval=timedelta(hours=1)
        )
        async with aclosing(follow) as items:
            async for item in items:
                found.append(item.page)
                if item.page.cursor == 600:
                    break
                for _ in range(pauses):
                    await asyncio.sleep(0)
        return found

    given = await asyncio.gather(*(pages(2 * number, 1 + number % 3) for number in range(10)))

    assert [page.cursor for page in given[0]] == list(range(6, 606, 6))
    read = {id(page) for follower in given for page in follower}
    assert len(read) < 150  # of 1,000 that were given
    await segments.store.aclose()
    segments.close()
