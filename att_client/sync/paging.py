"""Lists that come in pages, blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Concatenate, Generic, ParamSpec, TypeVar

from att_client import paging
from att_client.sync.background_loop import BackgroundLoop
from att_client.sync.blocking import Group, giving

A = TypeVar("A")
P = ParamSpec("P")
M = TypeVar("M", bound=paging.Page)
T = TypeVar("T")


class Pager(Generic[M, T]):
    """A list on the server: `for item in pager`, or `.pages()` for the messages.

    As `att_client.Pager`.
    """

    def __init__(self, loop: BackgroundLoop, pager: paging.Pager[M, T]) -> None:
        self._loop = loop
        self._pager = pager

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from self._pager._items(page)

    def pages(self, page_token: str = "") -> Iterator[M]:
        """The pages as the server sends them.

        page_token: the `next_page_token` of a page, to go on behind it.
        """
        return self._loop.iterate(lambda: self._pager.pages(page_token))


def paged(
    method: Callable[Concatenate[A, P], paging.Pager[M, T]],
) -> Callable[Concatenate[Group[A], P], Pager[M, T]]:
    """The method that gives the blocking pager."""
    twin: Callable[[BackgroundLoop, paging.Pager[M, T]], Pager[M, T]] = Pager
    return giving(twin, method)
