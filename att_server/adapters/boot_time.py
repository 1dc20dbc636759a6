"""A clock that processes of one host share and that no change of the wall clock moves."""

from __future__ import annotations

import time
from dataclasses import dataclass

from att_server.supervisor.processes import boot_id


@dataclass(frozen=True, slots=True, kw_only=True)
class BootTime:
    """A moment: the id of the host's boot, and the seconds since then."""

    boot_id: str
    seconds: float


def boot_time() -> BootTime:
    """The present moment; counts on while the host is suspended."""
    return BootTime(boot_id=boot_id(), seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
