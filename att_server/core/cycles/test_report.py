"""What the tests of a tree said (`TestReport` in the contract)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Protocol

MAX_RESULTS = 10_000
MAX_MESSAGE_BYTES = 8 * 1024


class TestOutcome(StrEnum):
    """How a test ended."""

    __test__ = False  # Not one of pytest's.

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test. message: why it failed, at most 8 KiB."""

    __test__ = False

    name: str
    outcome: TestOutcome
    duration: timedelta = timedelta()
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestReport:
    """The tests of one tree. results: at most 10,000, those that failed first."""

    __test__ = False

    cycle_id: str
    project_id: str
    tree: str
    exit_code: int
    passed_count: int = 0
    failed_count: int = 0
    skipped_count: int = 0
    duration: timedelta = timedelta()
    results: tuple[TestResult, ...] = ()
    output_tail: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class JUnitResults:
    """What JUnit XML said. results: at most MAX_RESULTS, those that failed first; counts of all.

    problem: why it could not be read, or not to its end, in snake case; what was
    read until then is there. Empty: all of it was read.
    """

    results: tuple[TestResult, ...] = ()
    passed_count: int = 0
    failed_count: int = 0
    skipped_count: int = 0
    problem: str = ""


class JUnitFiles(Protocol):
    """Where tests of cycles may write JUnit XML, and how it is read."""

    async def place(self, cycle_id: str) -> Path:
        """A path outside of every tree where the tests of the cycle may write; nothing is there."""
        ...

    async def read(self, path: Path) -> JUnitResults:
        """Reads what hostile tests may have written there. Raises nothing."""
        ...

    async def discard(self, cycle_id: str) -> None:
        """Removes what is at the cycle's place, if there is anything."""
        ...
