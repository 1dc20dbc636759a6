"""An event loop in a thread of its own, for callers that block."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from att_client.errors import ClosedError

T = TypeVar("T")
R = TypeVar("R")

_END: Any = object()


class BackgroundLoop:
    """Runs coroutines for the threads that call it. Runs from `start` to `stop`.

    Nothing but the loop's own thread touches what lives in the loop.
    """

    def __init__(self) -> None:
        # Reentrant: an iterator that is collected by chance ends while it is held.
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._last: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._pid = 0

    def start(self) -> None:
        """Starts the thread. Raises RuntimeError if it runs."""
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("The client is open already.")
            started: Future[asyncio.AbstractEventLoop] = Future()
            # A daemon: a program that ends without closing its client ends.
            thread = threading.Thread(
                target=self._run, args=[started], name="att_client.sync", daemon=True
            )
            thread.start()
            self._loop, self._thread, self._pid = started.result(), thread, os.getpid()

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `last`, then ends all calls and the thread. Again, it does nothing."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None or self._pid != os.getpid():
                return
            self._last = last
            loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def call(
        self, coroutine: Coroutine[Any, Any, R], *, lost: Callable[[R], object] | None = None
    ) -> R:
        """What the coroutine returns or raises; ClosedError if it was not let end.

        An exception that interrupts the wait, such as KeyboardInterrupt, is raised
        once the coroutine has been cancelled and has ended; at once when a second
        one comes.
        lost: is told what it returned all the same, which nobody is given then.
        """
        call = _Call(coroutine)
        try:
            self._post(call.begin)
            call.wait()
        except ClosedError:
            coroutine.close()
            raise
        except BaseException:
            if self.post(call.cancel):
                call.wait()
            if lost is not None and call.has_result:
                lost(call.result())
            raise
        return call.result()

    def iterate(
        self, begin: Callable[[], AsyncIterator[T]], *, lost: Callable[[T], object] | None = None
    ) -> Iterator[T]:
        """The items of what `begin` makes, which lives and is dropped in the loop's thread.

        lost: is told of an item that came as the wait for it was interrupted.
        """
        items: list[AsyncIterator[T]] = []

        async def step() -> T:
            if not items:
                items.append(begin())
            return await anext(items[0], _END)

        try:
            while (item := self.call(step(), lost=lost)) is not _END:
                yield item
        finally:
            self.post(items.clear)

    def close(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `aclose`; after `stop` there is nothing left to close."""
        with suppress(ClosedError):
            self.call(aclose())

    def post(self, act: Callable[[], object]) -> bool:
        """Does `act` in the loop's thread, soon. Does not wait. False after `stop`."""
        try:
            self._post(act)
        except ClosedError:
            return False
        return True

    def _post(self, act: Callable[[], object]) -> None:
        with self._lock:
            if self._loop is None:
                raise ClosedError("The client is not open. Use it inside `with`.")
            if self._pid != os.getpid():
                raise ClosedError(
                    "The client was opened in another process, before a fork. Connect anew in "
                    "this one."
                )
            self._loop.call_soon_threadsafe(act)

    def _run(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        # What is left when the runner is closed is cancelled.
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            loop.call_soon(started.set_result, loop)
            loop.run_forever()
            if self._last is not None:
                runner.run(self._last())


class _Call(Generic[R]):
    """A coroutine in the loop, and the thread that waits for it.

    Not a `Future`: an exception out of a signal's handler may strike anywhere in the
    wait, and has to find all of it in order.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, R]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[R] | None = None
        self._is_over = False
        self._over = threading.Lock()
        self._over.acquire()

    def begin(self) -> None:
        """Begins it. In the loop's thread."""
        self._task = asyncio.ensure_future(self._coroutine)
        self._task.add_done_callback(lambda _: self._end())

    def cancel(self) -> None:
        """Ends it, soon, also if it was not begun. In the loop's thread."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._coroutine.close()
            self._end()

    def wait(self) -> None:
        """Waits for its end. In the other thread."""
        if not self._is_over:
            self._over.acquire()

    @property
    def has_result(self) -> bool:
        """Whether it returned."""
        task = self._task
        if task is None or not task.done() or task.cancelled():
            return False
        return task.exception() is None

    def result(self) -> R:
        """What it returned or raised."""
        if self._task is None or self._task.cancelled():
            raise ClosedError("The client was closed during the call.")
        return self._task.result()

    def _end(self) -> None:
        self._is_over = True
        self._over.release()
