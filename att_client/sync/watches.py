"""Watches states and events, blocking."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Protocol, TypeVar

from att_client import cycle_watch, events, runtime_watch
from att_client._proto.att.v1 import Cycle, Event, WatchRuntimesResponse
from att_client.sync.background_loop import BackgroundLoop

T = TypeVar("T", covariant=True)


class RuntimeWatch:
    """States as they change: `for change in watch`, as `att_client.RuntimeWatch`."""

    def __init__(self, loop: BackgroundLoop, watch: runtime_watch.RuntimeWatch) -> None:
        self._loop = loop
        self._watch = watch

    @property
    def revision(self) -> int:
        """Where to go on."""
        return self._watch.revision

    def __iter__(self) -> Iterator[WatchRuntimesResponse]:
        return _states(self._loop, self._watch)

    def close(self) -> None:
        """Closes the call. A loop that still waits raises ClosedError."""
        self._loop.close(self._watch.aclose)


class CycleWatch:
    """A cycle's states as they change: `for cycle in watch`, as `att_client.CycleWatch`."""

    def __init__(self, loop: BackgroundLoop, watch: cycle_watch.CycleWatch) -> None:
        self._loop = loop
        self._watch = watch

    @property
    def revision(self) -> int:
        """Where to go on."""
        return self._watch.revision

    def __iter__(self) -> Iterator[Cycle]:
        return _states(self._loop, self._watch)

    def close(self) -> None:
        """Closes the call. A loop that still waits raises ClosedError."""
        self._loop.close(self._watch.aclose)


class EventWatch:
    """Events as they come: `for event in watch`, as `att_client.EventWatch`."""

    def __init__(self, loop: BackgroundLoop, watch: events.EventWatch) -> None:
        self._loop = loop
        self._watch = watch

    @property
    def cursor(self) -> int | None:
        """Where to go on; None before the first answer, unless a cursor was asked for."""
        return self._watch.cursor

    def __iter__(self) -> Iterator[Event]:
        return self._loop.iterate(lambda: aiter(self._watch), lost=self._go_back)

    def close(self) -> None:
        """Closes the call. A loop that still waits raises ClosedError."""
        self._loop.close(self._watch.aclose)

    def _go_back(self, lost: Event) -> None:
        self._watch.cursor = lost.sequence


class _Watch(Protocol[T]):
    revision: int

    def __aiter__(self) -> AsyncIterator[T]: ...


def _states(loop: BackgroundLoop, watch: _Watch[T]) -> Iterator[T]:
    given = watch.revision

    def go_back(_lost: object) -> None:
        watch.revision = given

    for state in loop.iterate(lambda: aiter(watch), lost=go_back):
        given = watch.revision
        yield state
