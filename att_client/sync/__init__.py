"""The whole client for programs without an event loop: the same calls, blocking.

    with att_client.sync.connect() as att:
        att.runtimes.start("demo", wait="ready")
        for line in att.logs.follow("demo"):
            print(line)

Names, arguments, results and errors are those of `att_client`, whose messages and
exceptions it shares; what is awaited there returns here, and `async for` is `for`.

A client has one thread of its own, with the event loop in which its calls run. It may
be used from any number of threads at once; one loop over a follow or a watch belongs
to one of them, and any other may `close` it. Ctrl-C ends the call that waits in the
main thread, and takes nothing from a follow or a watch: a later loop goes on behind
what was given out. Closing the client ends every call, in whatever thread, with
ClosedError. A client does not survive a fork: connect anew in the child.
"""

from att_client.sync.client import Client, connect
from att_client.sync.cycle_handle import CycleHandle
from att_client.sync.log_follow import LogFollow
from att_client.sync.log_merge import LogMerge
from att_client.sync.paging import Pager
from att_client.sync.watches import CycleWatch, EventWatch, RuntimeWatch

__all__ = [
    "Client",
    "CycleHandle",
    "CycleWatch",
    "EventWatch",
    "LogFollow",
    "LogMerge",
    "Pager",
    "RuntimeWatch",
    "connect",
]
