"""Followers of one log wait for each other, but not for one that stopped."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from att_server.core.log_convoy import REACH, Convoy, Member
from tests.server_process import PATIENCE

PAGE = 10


async def go(member: Member, pages: int) -> None:
    """Gives it so many pages, with more behind each."""
    async with asyncio.timeout(PATIENCE):
        for _ in range(pages):
            await member.advance(member.cursor + PAGE)


async def test_who_goes_ahead_waits_until_the_others_are_near() -> None:
    convoy = Convoy()
    with convoy.member(0) as first, convoy.member(0) as last:
        last.arrive(0)
        await go(first, REACH)
        ahead = asyncio.ensure_future(go(first, 1))
        await asyncio.sleep(0)
        assert not ahead.done()
        last.arrive(PAGE)
        await ahead
        assert last.counts


async def test_one_that_stopped_is_left_behind() -> None:
    convoy = Convoy()
    with convoy.member(0) as first, convoy.member(0) as stopped:
        stopped.arrive(0)
        await go(first, 3 * REACH)
        assert not stopped.counts


async def test_one_that_is_slow_is_left_behind() -> None:
    convoy = Convoy()
    with convoy.member(0) as first, convoy.member(0) as slow:
        slow.arrive(0)

        async def crawl() -> None:
            # A page for each of the other's that it is waited for: never stopped, never near.
            while slow.counts:
                for _ in range(50):
                    await asyncio.sleep(0)
                if first.cursor > slow.cursor + REACH * PAGE:
                    await slow.advance(slow.cursor + PAGE)

        crawling = asyncio.ensure_future(crawl())
        async with asyncio.timeout(PATIENCE):
            while slow.counts:
                await first.advance(first.cursor + PAGE)
            await crawling
            # Near by now, but slow until it comes to the end.
            await slow.advance(first.cursor)
            assert not slow.counts
            slow.arrive(first.cursor)
            assert slow.counts


async def test_many_that_stopped_are_left_at_once() -> None:
    convoy = Convoy()
    with convoy.member(0) as first, ExitStack() as stack:
        stopped = [stack.enter_context(convoy.member(0)) for _ in range(20)]
        for member in stopped:
            member.arrive(0)
        await go(first, REACH + 1)
        assert not any(member.counts for member in stopped)


async def test_one_that_leaves_is_not_waited_for() -> None:
    convoy = Convoy()
    with convoy.member(0) as first:
        with convoy.member(0) as other:
            other.arrive(0)
            ahead = asyncio.ensure_future(go(first, REACH + 1))
            while first.cursor <= REACH * PAGE:
                await asyncio.sleep(0)
        await ahead


async def test_one_that_was_left_counts_again_when_it_is_near() -> None:
    convoy = Convoy()
    with convoy.member(0) as first, convoy.member(0) as late:
        await go(first, 2 * REACH)
        await go(late, REACH)
        assert not late.counts
        await go(late, REACH)
        assert late.counts


async def test_a_wait_that_is_cancelled_leaves_nothing() -> None:
    convoy = Convoy()
    with convoy.member(0) as first, convoy.member(0) as last:
        last.arrive(0)
        ahead = asyncio.ensure_future(go(first, REACH + 1))
        while first.cursor <= REACH * PAGE:
            await asyncio.sleep(0)
        ahead.cancel()
        await asyncio.wait([ahead])
        last.arrive(2 * REACH * PAGE)
        assert last.counts
