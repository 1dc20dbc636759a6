"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar


class Page(Protocol):
    """What every page says."""

    next_page_token: str


P = TypeVar("P", bound=Page)
T = TypeVar("T")


class Pager(Generic[P, T]):
    """A list on the server: `async for item in pager`, or `.pages()` for the messages.

    Every loop begins anew. A page is asked for when the one before is used up.
    Items that come or go meanwhile may be seen or not; none is seen twice.
    """

    def __init__(
        self, fetch: Callable[[str], Awaitable[P]], items: Callable[[P], Sequence[T]]
    ) -> None:
        self._fetch = fetch
        self._items = items

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in self._items(page):
                yield item

    async def pages(self, page_token: str = "") -> AsyncIterator[P]:
        """The pages as the server sends them.

        page_token: the `next_page_token` of a page, to go on behind it.
        """
        token = page_token
        while True:
            page = await self._fetch(token)
            yield page
            token = page.next_page_token
            if not token:
                return
