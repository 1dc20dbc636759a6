"""Pages of lists that fit into one message, whatever their items hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from att_server.rpc.checks import MAX_PAGE_SIZE

DEFAULT_PAGE_SIZE = 50

MAX_MESSAGE_BYTES = 4_000_000
"""Clients refuse messages of more than 4 MiB unless they are told otherwise."""

_M = TypeVar("_M", bound=Message)


async def fitting_page(page_size: int, page: Callable[[int], Awaitable[_M]]) -> _M:
    """The page of up to as many items as a request with `page_size`, 0 or more, gets.

    page: makes the page of up to so many items. It is made with half as many
    while it is too large for a message; the caller goes on from it as from any.
    """
    size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    made = await page(size)
    while made.ByteSize() > MAX_MESSAGE_BYTES and size > 1:
        size //= 2
        made = await page(size)
    return made
