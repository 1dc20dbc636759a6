"""One thing at a time is done with an app, and it outlives who asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from att_server.core.background import Background
from att_server.core.errors import AttError, Reason
from att_server.core.operations import Operations


@pytest.fixture
async def operations() -> AsyncIterator[Operations]:
    async with Background() as background:
        yield Operations(background)


async def test_a_second_operation_is_refused_by_the_name_of_the_first(
    operations: Operations,
) -> None:
    gate = asyncio.Event()

    async def work() -> None:
        await gate.wait()

    operations.begin("web", "start", work)
    with pytest.raises(AttError) as refused:
        operations.begin("web", "restart", work)
    assert refused.value.reason is Reason.PROJECT_BUSY
    assert refused.value.metadata == {"project_id": "web", "operation": "start"}
    operations.begin("other", "start", work)
    gate.set()
    await operations.join("web")
    assert operations.current("web") == ""


async def test_an_operation_goes_on_when_its_caller_leaves(operations: Operations) -> None:
    gate, finished = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await gate.wait()
        finished.set()

    operations.begin("web", "stop", work)
    caller = asyncio.create_task(operations.join("web"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.set()
    await finished.wait()


async def test_everyone_who_joined_gets_the_error(operations: Operations) -> None:
    gate = asyncio.Event()

    async def work() -> None:
        await gate.wait()
        raise AttError(Reason.SUPERVISOR_UNREACHABLE, "gone")

    operations.begin("web", "stop", work)
    joined = [asyncio.create_task(operations.join("web")) for _ in range(3)]
    settled = asyncio.create_task(operations.settle("web"))
    await asyncio.sleep(0)
    gate.set()
    errors = await asyncio.gather(*joined, return_exceptions=True)
    assert [getattr(error, "reason", None) for error in errors] == [
        Reason.SUPERVISOR_UNREACHABLE
    ] * 3
    await settled
    operations.begin("web", "start", gate.wait)  # type: ignore[arg-type]  # its result is dropped
    await operations.join("web")


async def test_a_defect_reaches_who_joined_and_frees_the_project(
    operations: Operations, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        raise ZeroDivisionError

    operations.begin("web", "start", work)
    with pytest.raises(ZeroDivisionError):
        await operations.join("web")
    assert operations.current("web") == ""
    assert "ZeroDivisionError" in caplog.text


async def test_the_end_of_the_background_ends_operations() -> None:
    async with Background() as background:
        operations = Operations(background)
        operations.begin("web", "stop", asyncio.Event().wait)  # type: ignore[arg-type]  # never ends
        joined = asyncio.create_task(operations.join("web"))
        await asyncio.sleep(0)
    with pytest.raises(AttError) as ended:
        await joined
    assert ended.value.reason is Reason.SHUTTING_DOWN
    assert operations.current("web") == ""


async def test_a_defect_in_the_background_ends_that_task_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    survived = asyncio.Event()

    async def broken() -> None:
        raise ZeroDivisionError

    async def sound() -> None:
        await asyncio.sleep(0)
        survived.set()

    async with Background() as background:
        background.start("broken", broken)
        background.start("sound", sound)
        await survived.wait()
    assert "defect in broken" in caplog.text
