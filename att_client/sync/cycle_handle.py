"""A cycle that was started, and what one does with it next, blocking."""

from __future__ import annotations

from att_client import bootstrap
from att_client._proto.att.v1 import Cycle
from att_client.sync.blocking import Group, blocking, giving
from att_client.sync.watches import CycleWatch


class CycleHandle(Group[bootstrap.CycleHandle]):
    """A cycle that was started, as `att_client.CycleHandle`."""

    @property
    def started(self) -> Cycle:
        """How the cycle stood when the call returned."""
        return self._group.started

    @property
    def cycle_id(self) -> str:
        """The cycle's id."""
        return self._group.cycle_id

    watch = giving(CycleWatch, bootstrap.CycleHandle.watch)
    wait = blocking(bootstrap.CycleHandle.wait)
    cancel = blocking(bootstrap.CycleHandle.cancel)
