"""Code and test reports from the core's objects, and revisions into them: pure and total."""

from __future__ import annotations

from collections.abc import Mapping

from att.v1 import code_service_pb2 as pb
from att_server.core.code import Revision
from att_server.core.code_reader import CodeFile, Match
from att_server.core.cycles.test_report import TestOutcome, TestReport, TestResult
from att_server.rpc.convert_text import text
from att_server.rpc.convert_time import duration
from att_server.rpc.pages import MAX_MESSAGE_BYTES

TEST_OUTCOMES: Mapping[TestOutcome, pb.TestOutcome.ValueType] = {
    outcome: pb.TestOutcome.Value(f"TEST_OUTCOME_{outcome.name}") for outcome in TestOutcome
}

_RESULT_BYTES = 64
"""More than a result takes beside its texts, and a report beside its results."""


def to_revision(message: pb.CodeRevision) -> Revision:
    """Unset is the deployed release, else the head of the base branch."""
    return Revision(commit=message.commit, release_id=message.release_id, cycle_id=message.cycle_id)


def code_file(file: CodeFile) -> pb.CodeFile:
    """A file of a tree."""
    return pb.CodeFile(
        path=text(file.path),
        size_bytes=file.size_bytes,
        executable=file.executable,
        symlink=file.symlink,
    )


def code_match(match: Match) -> pb.CodeMatch:
    """A line that matches."""
    return pb.CodeMatch(path=text(match.path), line_number=match.line_number, line=match.line)


def test_report(report: TestReport, *, failed_only: bool) -> pb.TestReport:
    """A report, cut to what fits into a message: what tests say, and the last of very many."""
    results = [
        result
        for result in report.results
        if not failed_only or result.outcome is TestOutcome.FAILED
    ]
    room = MAX_MESSAGE_BYTES - len(report.output_tail) - _RESULT_BYTES
    kept = 0
    for result in results:
        room -= len(text(result.name).encode()) + _RESULT_BYTES
        if room < 0:
            break
        kept += 1
    said = [len(text(result.message).encode()) for result in results[:kept] if result.message]
    most_said = max(said, default=0) if sum(said) <= room else max(room, 0) // len(said)
    return pb.TestReport(
        cycle_id=report.cycle_id,
        tree_sha=report.tree,
        exit_code=report.exit_code,
        passed_count=report.passed_count,
        failed_count=report.failed_count,
        skipped_count=report.skipped_count,
        duration=duration(report.duration),
        results=[_test_result(result, most_said) for result in results[:kept]],
        output_tail=report.output_tail,
    )


def _test_result(result: TestResult, most_said: int) -> pb.TestResult:
    return pb.TestResult(
        name=text(result.name),
        outcome=TEST_OUTCOMES[result.outcome],
        duration=duration(result.duration),
        message=_cut(text(result.message), most_said),
    )


def _cut(said: str, max_bytes: int) -> str:
    return said.encode()[:max_bytes].decode(errors="ignore")
