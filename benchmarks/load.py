"""What the measured apps run: programs that write lines, with no import but the quick ones.

    load.py blocks LINES START    whole lines of 100 bytes, in writes of up to 64 KiB
    load.py lines LINES START     the same lines, one write each
    load.py ticks LINES START     a line each 10 ms: the monotonic time of writing, in ns

START is a file that gets the time (Unix, in ns) just before the first write.
"""

import os
import sys
import time

LINE = (
    b"2026-01-01T00:00:00Z INFO step=plan tool=search tokens=1234 cost=0.0012 status=ok ".ljust(
        99, b"."
    )
    + b"\n"
)
BLOCK_LINES = 65536 // len(LINE)
TICK = 0.01


def main() -> None:
    kind, lines = sys.argv[1], int(sys.argv[2])
    with open(sys.argv[3], "w") as start:
        start.write(str(time.time_ns()))
    {"blocks": blocks, "lines": singles, "ticks": ticks}[kind](lines)
    os._exit(0)  # what an interpreter does at its end is not measured


def blocks(lines: int) -> None:
    block = LINE * BLOCK_LINES
    for _ in range(lines // BLOCK_LINES):
        write(block)
    write(LINE * (lines % BLOCK_LINES))


def singles(lines: int) -> None:
    for _ in range(lines):
        os.write(1, LINE)


def ticks(lines: int) -> None:
    due = time.monotonic()
    for _ in range(lines):
        due += TICK
        time.sleep(max(0.0, due - time.monotonic()))
        os.write(1, b"%d\n" % time.monotonic_ns())


def write(block: bytes) -> None:
    while block:
        block = block[os.write(1, block) :]


if __name__ == "__main__":
    main()
