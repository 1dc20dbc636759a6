"""Story: a demonstration that tells what it does, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from att_client.cli.output import Output


class Story:
    """Tells each step with its time, for people or as JSON lines."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._number = 0
        self._details: list[str] = []
        self._facts: dict[str, object] = {}

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Tells the step's title before and its details after it has been done."""
        self._number += 1
        self._details.clear()
        self._facts.clear()
        if not self.output.as_json:
            self.output.say(f"{self._number}. {title}", style="bold")
        began = time.monotonic()
        with self.output.waiting("…"):
            yield
        seconds = time.monotonic() - began
        if self.output.as_json:
            step = {"step": self._number, "title": title, "seconds": round(seconds, 3)}
            self.output.item(step | self._facts)
            return
        for detail in self._details:
            self.output.say(f"   {detail}")
        self.output.say(f"   {seconds:.2f} s", style="dim")

    def detail(self, text: str, **facts: object) -> None:
        """Adds a sentence, and the facts in it, to the step that is being done."""
        self._details.append(text)
        self._facts |= facts

    def prose(self, text: str, style: str = "") -> None:
        """Tells something between the steps, to people only."""
        if not self.output.as_json:
            self.output.say(text, style=style)
