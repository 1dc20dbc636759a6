"""SystemClock: the host's clocks, and ids that sort by time (ULID)."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


def encode_ulid(value: int) -> str:
    """The 26 characters (Crockford's base 32) of a number of 128 bits."""
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -5, -5))


class SystemClock:
    """Implements `Clock` for one event loop."""

    def __init__(self) -> None:
        self._last_id = 0

    def now(self) -> datetime:
        """The wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary origin."""
        return time.monotonic()

    async def sleep(self, duration: timedelta) -> None:
        """Returns after `duration`, at once if it is not positive."""
        await asyncio.sleep(duration.total_seconds())

    def new_id(self) -> str:
        """A new ULID, higher than every one this clock made before.

        Also within one millisecond and after the wall clock was set back.
        """
        drawn = time.time_ns() // 1_000_000 << _RANDOM_BITS | int.from_bytes(os.urandom(10))
        if drawn >> _RANDOM_BITS > self._last_id >> _RANDOM_BITS:
            self._last_id = drawn
        else:
            # A step of more than one, so that an id does not tell its neighbour.
            self._last_id += 1 + (drawn & 0xFFFF)
        return encode_ulid(self._last_id)
