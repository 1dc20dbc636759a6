"""The app of a storm of logs: numbered lines as fast as it is told, and how far it got.

argv: directory, bytes a second, seed. A line is `<run> <number> <filling>`. The file
`<run>` in the directory has the numbers up to which lines were begun and written.
"""

import os
import random
import sys
import time

TICK = 0.02


def main() -> None:
    directory, rate, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    run = os.environ["ATT_RUN_ID"]
    chance = random.Random(f"{seed} {run}")
    stream = chance.choice((1, 2))  # one for each run: between two there is no order
    noted = os.open(os.path.join(directory, run), os.O_WRONLY | os.O_CREAT, 0o600)
    number = 0
    due = time.monotonic()
    while True:
        due += TICK
        budget = int(rate * TICK * chance.choice((0, 0.2, 1, 1, 2)))
        while budget > 0:
            lines = []
            for _ in range(chance.choice((1, 1, 5, 50))):
                filling = "x" * chance.choice((0, 100, 1000, 3000))
                lines.append(f"{run} {number} {filling}\n".encode())
                number += 1
            block = b"".join(lines)
            budget -= len(block)
            os.pwrite(noted, b"%020d " % number, 0)
            while block:
                block = block[os.write(stream, block) :]
            os.pwrite(noted, b"%020d " % number, 21)
        time.sleep(max(0.0, due - time.monotonic()))


main()
