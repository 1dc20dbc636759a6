"""Signals as something to poll for."""

from __future__ import annotations

import os
import signal


def on(*numbers: int) -> int:
    """The descriptor on which the numbers of these signals can be read as they arrive.

    For the one loop of a process: every signal that Python handles is told there.
    """
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return read
