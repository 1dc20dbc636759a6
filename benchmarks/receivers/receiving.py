"""What every receiver does with the bytes that it gets."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Receiver:
    """Takes bytes until it has all lines, then prints its result."""

    kind: str
    lines: int
    received: int = 0
    samples: list[float] = field(default_factory=list)
    rest: bytes = b""
    began: float = 0.0

    def begin(self) -> None:
        """Says that whatever comes from now on is received."""
        self.began = time.perf_counter()
        print("ready", flush=True)

    def take(self, data: bytes) -> bool:
        """Takes what came next; True once that is all."""
        if self.kind == "ticks":
            now = time.monotonic_ns()
            *lines, self.rest = (self.rest + data).split(b"\n")
            self.samples += [(now - int(line)) / 1e6 for line in lines]
            self.received += len(lines)
        else:
            self.received += data.count(b"\n")
        return self.count(0)

    def count(self, lines: int) -> bool:
        """Counts lines that came; True once that is all, and then the result is printed."""
        self.received += lines
        if self.received < self.lines:
            return False
        if self.kind == "ticks":
            result: object = self.samples
        elif self.kind == "count":
            result = time.time_ns()
        else:
            result = time.perf_counter() - self.began
        print(json.dumps(result), flush=True)
        return True


def asked() -> tuple[list[str], Receiver]:
    """The arguments of the program, and the receiver for the last two: kind and lines."""
    *arguments, kind, lines = sys.argv[1:]
    return arguments, Receiver(kind, int(lines))
