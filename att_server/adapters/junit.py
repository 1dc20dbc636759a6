"""JUnit XML of tests: read without trust; what is kept of it is bounded."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import stat
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from att_server.core.cycles.test_report import (
    MAX_MESSAGE_BYTES,
    MAX_RESULTS,
    JUnitResults,
    TestOutcome,
    TestResult,
)

MAX_BYTES = 16 * 1024 * 1024
MAX_NAME_LENGTH = 500
MAX_ALL_MESSAGES_BYTES = 1024 * 1024
"""So that a report fits into one answer."""
_PORTION = 1024 * 1024
_MAX_DEPTH = 100
_MAX_SECONDS = 10 * 365 * 24 * 3600.0
_OUTCOMES = {
    "failure": TestOutcome.FAILED,
    "error": TestOutcome.FAILED,
    "skipped": TestOutcome.SKIPPED,
}
_NAME = "junit.xml"


class JUnitDirectory:
    """Implements `JUnitFiles` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        """directory: absolute, nobody else's; made when it is needed."""
        self._directory = directory

    async def place(self, cycle_id: str) -> Path:
        """See `JUnitFiles`."""
        await self.discard(cycle_id)
        place = self._directory / cycle_id
        place.mkdir(mode=0o700, parents=True)
        return place / _NAME

    async def read(self, path: Path) -> JUnitResults:
        """See `JUnitFiles`."""
        return await asyncio.to_thread(read_junit, path)

    async def discard(self, cycle_id: str) -> None:
        """See `JUnitFiles`."""
        await asyncio.to_thread(shutil.rmtree, self._directory / cycle_id, ignore_errors=True)


def read_junit(path: Path) -> JUnitResults:
    """What the file says; its `problem` where it cannot be read as JUnit XML, or not to its end."""
    collected = _Collected()
    try:
        data = _content(path)
        # Nothing in a report needs a document type; entities come with one.
        parser = DefusedXMLParser(target=collected, forbid_dtd=True)
        for start in range(0, len(data), _PORTION):
            parser.feed(data[start : start + _PORTION])
        parser.close()
    except _Unreadable as error:
        return collected.results(problem=error.problem)
    except DefusedXmlException:
        return collected.results(problem="junit_has_doctype")
    except (ParseError, ValueError, LookupError):  # of which the last two are encodings
        return collected.results(problem="junit_malformed")
    return collected.results()


class _Unreadable(Exception):
    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def _content(path: Path) -> bytes:
    """The bytes of a regular file; what else tests may have put there is not read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _Unreadable("junit_not_a_file")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _Unreadable("junit_missing") from error
    except OSError as error:
        raise _Unreadable("junit_not_a_file") from error
    if len(data) > MAX_BYTES:
        raise _Unreadable("junit_too_large")
    return data


class _Collected:
    """The target of a parser: what test cases say, in the order of outcomes, up to bounds."""

    def __init__(self) -> None:
        self._kept: dict[TestOutcome, list[TestResult]] = {
            TestOutcome.FAILED: [],
            TestOutcome.SKIPPED: [],
            TestOutcome.PASSED: [],
        }
        self._counts = dict.fromkeys(TestOutcome, 0)
        self._left = MAX_ALL_MESSAGES_BYTES
        self._path: list[str] = []
        self._case: Mapping[str, str] | None = None
        self._case_depth = 0
        self._outcome = TestOutcome.PASSED
        self._message: list[str] = []
        self._speaks = False

    def results(self, problem: str = "") -> JUnitResults:
        kept = [result for results in self._kept.values() for result in results]
        return JUnitResults(
            results=tuple(kept[:MAX_RESULTS]),
            passed_count=self._counts[TestOutcome.PASSED],
            failed_count=self._counts[TestOutcome.FAILED],
            skipped_count=self._counts[TestOutcome.SKIPPED],
            problem=problem,
        )

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if len(self._path) >= _MAX_DEPTH:
            raise ValueError("too deep")
        name = tag.rpartition("}")[2]
        self._path.append(name)
        if self._case is None:
            if name == "testcase":
                self._case, self._case_depth = attributes, len(self._path)
                self._outcome, self._message = TestOutcome.PASSED, []
        elif name in _OUTCOMES and len(self._path) == self._case_depth + 1:
            # Of several the worst counts, and speaks.
            self._speaks = self._outcome is not TestOutcome.FAILED
            if self._speaks:
                self._outcome = _OUTCOMES[name]
                self._message = [attributes.get("message", ""), "\n"]

    def data(self, text: str) -> None:
        if self._speaks:
            self._message.append(text)

    def end(self, tag: str) -> None:
        depth = len(self._path)
        self._path.pop()
        if self._case is None:
            return
        if depth == self._case_depth + 1:
            self._speaks = False
        elif depth == self._case_depth:
            self._keep(self._case)
            self._case = None

    def close(self) -> None:
        """Asked for by the parser."""

    def _keep(self, case: Mapping[str, str]) -> None:
        self._counts[self._outcome] += 1
        kept = self._kept[self._outcome]
        if len(kept) < MAX_RESULTS:
            message = _cut("".join(self._message).strip(), min(MAX_MESSAGE_BYTES, self._left))
            self._left -= len(message.encode())
            kept.append(
                TestResult(
                    name=_name(case),
                    outcome=self._outcome,
                    duration=_duration(case.get("time", "")),
                    message=message,
                )
            )


def _name(case: Mapping[str, str]) -> str:
    place = case.get("file") or case.get("classname") or ""
    name = case.get("name", "")
    whole = f"{place}::{name}" if place and name else place or name or "unnamed"
    return " ".join(whole.split())[:MAX_NAME_LENGTH]


def _duration(text: str) -> timedelta:
    try:
        seconds = float(text.replace(",", ""))
    except ValueError:
        return timedelta()
    return (
        timedelta(seconds=min(max(seconds, 0.0), _MAX_SECONDS))
        if math.isfinite(seconds)
        else timedelta()
    )


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")
