"""Lists of which the newest are shown."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Annotated, TypeVar

import typer

from att_client.cli.output import Output

_LONGEST_PAGE = 1000

T = TypeVar("T")

Limit = Annotated[int, typer.Option(min=1, metavar="N", help="The newest so many.")]


def page_size(limit: int) -> int:
    """Of pages, where so many items are wanted."""
    return min(limit, _LONGEST_PAGE)


async def newest(items: AsyncIterable[T], limit: int, output: Output) -> list[T]:
    """The first `limit` items (at least 1); as JSON each is told as soon as it is there."""
    found: list[T] = []
    async for item in items:
        found.append(item)
        if output.as_json:
            output.item(item)
        if len(found) == limit:
            break
    return found
