"""Notices that nobody reads our output any more, also while there is none."""

from __future__ import annotations

import asyncio
import os
import select
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


@asynccontextmanager
async def ended_with_reader(descriptor: int) -> AsyncGenerator[None, None]:
    """Raises BrokenPipeError inside once the other end of a pipe is closed.

    So `att logs web -f | grep -m 1 ready` ends with `grep`, and not with the next line.
    A descriptor that is no pipe or socket is left alone.
    """
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        yield
        return
    loop = asyncio.get_running_loop()
    # Asked for nothing, it tells of errors and of the end only.
    with select.epoll() as end:
        end.register(descriptor, 0)
        try:
            async with asyncio.timeout(None) as limit:
                loop.add_reader(end.fileno(), lambda: limit.reschedule(loop.time()))
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise BrokenPipeError from error
        finally:
            loop.remove_reader(end.fileno())
