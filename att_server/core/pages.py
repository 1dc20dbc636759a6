"""Pages of a list in memory, ordered by key."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from att_server.core.errors import field_invalid

T = TypeVar("T")


def page_of(items: Mapping[str, T], size: int, token: str) -> tuple[list[T], str]:
    """Up to `size` items after the one that `token` names, by key, and the next token.

    An empty token is the first page, an empty next token the last. Raises
    FIELD_INVALID for a token that no page gave.
    """
    try:
        after = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise field_invalid("page_token", "is not a token that a page gave") from None
    keys = sorted(key for key in items if key > after)
    following = (
        base64.urlsafe_b64encode(keys[size - 1].encode()).decode() if len(keys) > size else ""
    )
    return [items[key] for key in keys[:size]], following


def page_after(
    items: Sequence[T], name: Callable[[T], str], size: int, token: str
) -> tuple[list[T], str]:
    """Up to `size` items after the one with the name `token`, in their order; as `page_of`."""
    first = 0
    if token:
        names = [name(item) for item in items]
        if token not in names:
            raise field_invalid("page_token", "is not a token that a page gave")
        first = names.index(token) + 1
    page = [*items[first : first + size]]
    return page, name(page[-1]) if len(items) > first + size else ""
