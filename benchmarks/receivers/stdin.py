"""Receives what another program prints: `tail -F FILE | python -m benchmarks.receivers.stdin`."""

from __future__ import annotations

import os

from benchmarks.receivers.receiving import asked


def main() -> None:
    _, receiver = asked()
    receiver.begin()
    if receiver.kind == "lines":
        with open(0, errors="replace") as lines:
            receiver.count(sum(1 for _ in lines))
        return
    while data := os.read(0, 1 << 20):
        if receiver.take(data):
            return


if __name__ == "__main__":
    main()
