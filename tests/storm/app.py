"""The app of a storm: counts in its log, now and then leaves children behind, fails or hangs.

argv: project's directory, chance of ending by itself each 100 ms. It prints
`<role> <n>`, and `two at once` if another main process of the project lives.
"""

import fcntl
import os
import random
import signal
import sys
import time


def count(role: str, pause: float, ends: float) -> None:
    chance = random.Random()
    number = 0
    began = time.monotonic()
    while True:
        os.write(1, f"{role} {number}\n".encode())
        number += 1
        if chance.random() < ends * (time.monotonic() - began):
            os._exit(chance.choice((0, 1, 7)))
        began = time.monotonic()
        time.sleep(pause)


def daemonised(pause: float) -> None:
    """A descendant in a session of its own that no longer has the app above it."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            count(f"daemon-{os.getpid()}", pause, 0)
        os._exit(0)


def main() -> None:
    directory, ends = sys.argv[1], float(sys.argv[2])
    lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(1, b"two at once\n")
    if random.random() < 0.3:
        daemonised(0.02)
    if random.random() < 0.2:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    count("main", 0.01, 10 * ends)


main()
