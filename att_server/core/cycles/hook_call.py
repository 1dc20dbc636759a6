"""How callables of an embedder are called: bounded, and off the event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta


def takes(function: Callable[..., object], count: int) -> bool:
    """Whether `function` can be called with `count` positional arguments, as far as can be told."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


async def call_hook(
    function: Callable[..., object], *arguments: object, timeout: timedelta
) -> object:
    """What `function` returns, awaited if it is to be. Raises what it raises, TimeoutError.

    A plain function has a thread of its own. No thread can be ended: one that
    takes too long goes on, unheard, and does not keep the server from ending.
    """
    async with asyncio.timeout(timeout.total_seconds()):
        if inspect.iscoroutinefunction(function):
            return await function(*arguments)
        returned = await _in_thread(function, arguments)
        return await returned if inspect.isawaitable(returned) else returned


async def _in_thread(function: Callable[..., object], arguments: tuple[object, ...]) -> object:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[object] = loop.create_future()

    def end(returned: object, error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(returned)
        else:
            ended.set_exception(error)

    def work() -> None:
        returned: object = None
        raised: BaseException | None = None
        try:
            returned = function(*arguments)
        except StopIteration as error:
            # No future takes it.
            raised = RuntimeError("the hook raised StopIteration")
            raised.__cause__ = error
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            raised = error
        with suppress(RuntimeError):  # The loop may be closed.
            loop.call_soon_threadsafe(end, returned, raised)

    # A daemon: those of an executor are waited for when the process ends.
    threading.Thread(target=work, name="att-hook", daemon=True).start()
    return await ended
