"""A rehearsal goes through a whole start, of which nothing is left."""

from __future__ import annotations

import os
import threading

from att_server.supervisor import processes
from att_server.supervisor.rehearsal import rehearse


def test_a_rehearsal_comes_to_its_end_and_leaves_nothing() -> None:
    before = os.listdir("/proc/self/fd"), threading.active_count()
    assert rehearse()
    assert (os.listdir("/proc/self/fd"), threading.active_count()) == before
    assert not processes.below(os.getpid())
