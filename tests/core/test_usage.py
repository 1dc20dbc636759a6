"""What apps use is measured while somebody asks, for everybody who does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from att_server.core.model import Runtime, Usage
from tests.core.fake_server import Server


async def measured(server: Server) -> Runtime:
    (runtime,) = await server.runtimes.measured([server.runtimes.get("web")])
    return runtime


def usage(server: Server, resident: int) -> Usage:
    return Usage(
        cpu_percent=1.5,
        cpu_time=timedelta(seconds=2),
        resident_bytes=resident,
        process_count=3,
        open_file_count=4,
        time=server.clock.now(),
    )


async def test_nothing_is_measured_while_nobody_asks(server: Server) -> None:
    await server.start()
    server.clock.advance(timedelta(minutes=1))
    assert server.driver.looks == 0


async def test_what_a_running_app_uses_is_given(server: Server) -> None:
    await server.start()
    server.driver.usages["web"] = usage(server, 1000)
    assert (await measured(server)).usage == server.driver.usages["web"]


async def test_who_asks_within_a_second_gets_the_same_and_later_a_new_one(server: Server) -> None:
    await server.start()
    server.driver.usages["web"] = usage(server, 1000)
    first = await measured(server)
    server.driver.usages["web"] = usage(server, 2000)
    server.clock.advance(timedelta(milliseconds=999))
    assert await measured(server) == first
    server.clock.advance(timedelta(milliseconds=1))
    assert (await measured(server)).usage == server.driver.usages["web"]
    assert server.driver.looks == 2


async def test_one_look_serves_all_who_ask_at_once(server: Server) -> None:
    await server.start()
    await asyncio.gather(*(measured(server) for _ in range(50)))
    assert server.driver.looks == 1


async def test_an_app_that_does_not_run_uses_nothing_and_costs_no_look(server: Server) -> None:
    assert (await measured(server)).usage is None
    assert server.driver.looks == 0


async def test_a_new_run_does_not_show_what_the_one_before_used(server: Server) -> None:
    await server.start()
    assert (await measured(server)).usage is not None
    await server.restart()
    assert (await measured(server)).usage is None
    server.clock.advance(timedelta(seconds=1))
    assert (await measured(server)).usage is not None
