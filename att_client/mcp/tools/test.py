"""`att.test.results`: what a cycle's tests said."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

import att_client
from att_client.mcp.call import Call
from att_client.mcp.text import cut, cut_front, decoded, printable, word
from att_client.mcp.tool import Effect, OfProject, Output, Tool

_MOST = 50
_LONGEST_MESSAGE = 1_000
_OUTPUT_TAIL = 4_000


class Results(OfProject):
    """Arguments of a look at results."""

    cycle: Annotated[str, Field(description="default: the last that ran tests")] = ""
    failed_only: bool = True


class TestResults(Output):
    """The outcome of a test command."""

    cycle: str
    exit_code: int
    passed: int
    failed: int
    skipped: int
    results: Annotated[list[str], Field(description="outcome name: message")]
    has_more: bool
    output_tail: str | None = None


async def _results(call: Call, given: Results) -> TestResults:
    report = await call.att.code.test_report(
        given.project, cycle_id=given.cycle, failed_only=given.failed_only
    )
    results = [_line(result) for result in report.results[:_MOST]]
    return TestResults(
        cycle=report.cycle_id,
        exit_code=report.exit_code,
        passed=report.passed_count,
        failed=report.failed_count,
        skipped=report.skipped_count,
        results=results,
        has_more=len(report.results) > _MOST,
        output_tail=None if results else cut_front(decoded(report.output_tail), _OUTPUT_TAIL),
    )


def _line(result: att_client.TestResult) -> str:
    message = cut(printable(result.message), _LONGEST_MESSAGE)
    return f"{word(result.outcome)} {printable(result.name)}" + (f": {message}" if message else "")


TOOLS = (
    Tool(
        name="att.test.results",
        description="Which tests of a cycle failed, and why.",
        arguments=Results,
        output=TestResults,
        effect=Effect.READS,
        run=_results,
    ),
)
