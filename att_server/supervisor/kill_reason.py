"""Why a process was killed: a limit of its own, or the want of memory around it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable

from att_server.supervisor.cgroup import Cgroup
from att_server.supervisor.limits import CPU_TIME_LIMIT, OOM_KILLED, Limits

# Priority, number and microseconds since boot come first. An app can write there
# only as root, and then with another facility, which makes the priority 8 or more.
_KILLED = re.compile(
    rb"^[0-7],\d+,(?P<microseconds>\d+)[^;]*;(?:"
    rb"(?:(?:Memory cgroup out|Out) of memory: )?Killed process (?P<killed>\d+)\b"
    rb"|oom-kill:.*,pid=(?P<chosen>\d+),)"
)
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
_CLOCKS_DIFFER = 0.001
"""Share by which the kernel's clock of messages may run apart from ours."""


def kill_reason(
    status: int,
    limits: Limits,
    *,
    pid: int,
    cpu_seconds: float,
    since: float,
    cgroup: Cgroup | None,
) -> str:
    """The limit, or the lack of memory, that ended a process; ``""`` if nothing proves one.

    status: its exit code, or minus the signal. cpu_seconds: what the process
    itself has used. since: when it was started, in monotonic seconds.
    """
    if limits.cpu_time is not None:
        if status == -signal.SIGXCPU:
            return CPU_TIME_LIMIT
        if status == -signal.SIGKILL and cpu_seconds >= limits.cpu_time:
            return CPU_TIME_LIMIT  # it took no notice of SIGXCPU
    if status != -signal.SIGKILL:
        return ""
    if cgroup is not None:
        return cgroup.end_reason()
    return OOM_KILLED if killed_for_memory(kernel_messages(), pid, since=since) else ""


def kernel_messages() -> Iterable[bytes]:
    """The records of `/dev/kmsg`; none where they cannot be read, or tell of other pids."""
    try:
        if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
            return
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while True:
            try:
                yield os.read(descriptor, 8192)
            except BrokenPipeError:  # overwritten while we read; the next one is there
                continue
            except OSError:
                return
    finally:
        os.close(descriptor)


def killed_for_memory(messages: Iterable[bytes], pid: int, *, since: float) -> bool:
    """Whether records of `/dev/kmsg` say that the kernel killed `pid` for want of memory.

    since: monotonic seconds; what is older tells of another process with that pid.
    """
    earliest = since - 1 - since * _CLOCKS_DIFFER
    for message in messages:
        match = _KILLED.match(message)
        if match is None or int(match["killed"] or match["chosen"]) != pid:
            continue
        if int(match["microseconds"]) / 1e6 >= earliest:
            return True
    return False
