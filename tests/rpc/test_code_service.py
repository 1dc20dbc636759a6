"""Code on the wire: which revision is read, what is told of it, and what is not there."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from att.v1 import code_service_pb2 as pb
from att.v1 import project_service_pb2
from att_server.core.cycles.model import Cycle, CycleRequest, CycleStep, StepStatus
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.test_report import TestOutcome, TestReport, TestResult
from att_server.core.errors import AttError, Reason
from att_server.core.releases import Release
from att_server.rpc.pages import MAX_MESSAGE_BYTES
from att_server.testing.settings import FakeBootstrapSettings
from tests.contract.git_projects import BASE_FILES, git
from tests.rpc.conftest import refusal
from tests.rpc.git_server import GitServer, git_server, next_server

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NEW = b"print('new')\n"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[GitServer]:
    async with git_server(tmp_path) as server:
        yield server


def revision(**fields: str) -> pb.CodeRevision:
    return pb.CodeRevision(**fields)


async def listed(served: GitServer, **fields: Any) -> pb.ListFilesResponse:
    request = pb.ListFilesRequest(**{"project_id": "web", **fields})
    response: pb.ListFilesResponse = await served.wire.unary("ListFiles", request)
    return response


async def read(served: GitServer, path: str = "app.py", **fields: Any) -> pb.ReadFileResponse:
    request = pb.ReadFileRequest(**{"project_id": "web", "path": path, **fields})
    response: pb.ReadFileResponse = await served.wire.unary("ReadFile", request)
    return response


async def search(served: GitServer, pattern: str, **fields: Any) -> pb.SearchFilesResponse:
    request = pb.SearchFilesRequest(**{"project_id": "web", "pattern": pattern, **fields})
    response: pb.SearchFilesResponse = await served.wire.unary("SearchFiles", request)
    return response


async def diff(served: GitServer, **fields: Any) -> pb.DiffFilesResponse:
    request = pb.DiffFilesRequest(**{"project_id": "web", **fields})
    response: pb.DiffFilesResponse = await served.wire.unary("DiffFiles", request)
    return response


async def report(served: GitServer, **fields: Any) -> pb.TestReport:
    request = pb.GetTestReportRequest(**{"project_id": "web", **fields})
    response: pb.GetTestReportResponse = await served.wire.unary("GetTestReport", request)
    return response.report


# Which code ------------------------------------------------------------------


async def test_without_a_revision_it_is_the_head_of_the_base(served: GitServer) -> None:
    assert (await listed(served)).commit_sha == served.project.base
    moved = served.project.commit_on_remote({"app.py": NEW})
    answer = await read(served)
    assert (answer.commit_sha, answer.content) == (moved, NEW)


async def test_without_a_revision_it_is_the_deployed_release_where_there_is_one(
    served: GitServer,
) -> None:
    store = served.adapters.store
    served.project.commit_on_remote({"app.py": NEW})
    (project,) = await store.projects()
    await store.put_project(replace(project, release_id=served.project.base))
    async with next_server(served) as again:
        answer = await read(again)
    assert (answer.commit_sha, answer.content) == (served.project.base, BASE_FILES["app.py"])


async def test_the_base_is_the_one_that_settings_name(served: GitServer) -> None:
    other = served.project.commit_on_remote({"app.py": NEW}, branch="stable")
    settings(served)["web"] = BootstrapSettings(base_branch="stable")
    assert (await read(served)).commit_sha == other


async def test_settings_that_cannot_be_read_do_not_keep_the_code_from_being_read(
    served: GitServer,
) -> None:
    class OnlyDefaults(FakeBootstrapSettings):
        async def at_base(self, project_id: str, content: bytes | None) -> BootstrapSettings:
            if content is not None:
                raise AttError(Reason.SETTINGS_INVALID, "att.toml is wrong")
            return BootstrapSettings()

    broken = served.project.commit_on_remote({"att.toml": b"[["})
    async with next_server(served, bootstrap_settings=OnlyDefaults()) as again:
        answer = await read(again, "att.toml")
    assert (answer.commit_sha, answer.content) == (broken, b"[[")


async def test_a_base_that_is_not_there_is_told(served: GitServer) -> None:
    settings(served)["web"] = BootstrapSettings(base_branch="nowhere")
    refused = await refusal(read(served))
    assert (refused.reason, refused.metadata["revision"]) == (Reason.REVISION_NOT_FOUND, "nowhere")


@pytest.mark.parametrize("kind", ["sha", "branch"])
async def test_a_commit_is_named_by_its_sha_or_by_a_branch(served: GitServer, kind: str) -> None:
    sha = served.project.commit_on_remote({"app.py": NEW}, branch="topic/x")
    answer = await read(served, revision=revision(commit=sha if kind == "sha" else "topic/x"))
    assert (answer.commit_sha, answer.content) == (sha, NEW)


@pytest.mark.parametrize("name", ["1" * 40, "no-such-branch", "v9"])
async def test_a_commit_that_is_not_there_is_told(served: GitServer, name: str) -> None:
    refused = await refusal(read(served, revision=revision(commit=name)))
    assert refused.reason == Reason.REVISION_NOT_FOUND
    assert refused.code is grpc.StatusCode.NOT_FOUND
    assert refused.metadata == {"project_id": "web", "revision": name}


async def test_a_release_is_read_and_an_unknown_one_told(served: GitServer) -> None:
    sha = served.project.commit_on_remote({"app.py": NEW})
    await served.adapters.journal.put_releases(
        Release(release_id=sha, project_id="web", state_time=NOW, create_time=NOW)
    )
    assert (await read(served, revision=revision(release_id=sha))).content == NEW
    refused = await refusal(read(served, revision=revision(release_id=served.project.base)))
    assert refused.reason == Reason.RELEASE_NOT_FOUND


async def test_of_a_cycle_its_own_commit_is_read(served: GitServer) -> None:
    waiting = await served.until(
        (await served.start(require_approval=True)).cycle_id, "AWAITING_APPROVAL"
    )
    of_cycle = revision(cycle_id=waiting.cycle_id)
    answer = await read(served, revision=of_cycle)
    assert (answer.commit_sha, answer.content) == (waiting.result.commit_sha, NEW)
    difference = await diff(served, head=of_cycle)
    assert difference.base_commit_sha == served.project.base
    assert difference.head_commit_sha == waiting.result.commit_sha
    assert b"+print('new')\n" in difference.diff


async def test_a_cycle_that_is_over_can_still_be_read(served: GitServer) -> None:
    ended = await served.until((await served.start()).cycle_id)
    assert (await read(served, revision=revision(cycle_id=ended.cycle_id))).content == NEW


async def test_a_cycle_of_another_project_is_not_shown(served: GitServer) -> None:
    await served.wire.unary(
        "CreateProject",
        project_service_pb2.CreateProjectRequest(
            project_id="other", path=str(served.project.checkout)
        ),
    )
    cycle = await served.start()
    for call in (
        listed(served, project_id="other", revision=revision(cycle_id=cycle.cycle_id)),
        report(served, project_id="other", cycle_id=cycle.cycle_id),
        listed(served, revision=revision(cycle_id="01J0")),
        report(served, cycle_id="01J0"),
    ):
        assert (await refusal(call)).reason == Reason.CYCLE_NOT_FOUND


async def test_every_rpc_tells_of_an_unknown_project(served: GitServer) -> None:
    for call in (
        listed(served, project_id="none"),
        read(served, project_id="none"),
        search(served, "x", project_id="none"),
        diff(served, project_id="none"),
        report(served, project_id="none"),
    ):
        assert (await refusal(call)).reason == Reason.PROJECT_NOT_FOUND


async def test_a_remote_that_is_gone_is_told_and_what_is_here_is_read(served: GitServer) -> None:
    await listed(served)
    served.project.remote.rename(served.project.remote.with_name("elsewhere"))
    refused = await refusal(listed(served))
    assert refused.reason == Reason.REPOSITORY_UNAVAILABLE
    assert refused.metadata == {"project_id": "web", "failure": "remote_not_found"}
    assert (await read(served, revision=revision(commit=served.project.base))).content


async def test_a_directory_that_is_no_repository_is_told(served: GitServer, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    create = project_service_pb2.CreateProjectRequest(
        project_id="plain", path=str(tmp_path / "plain")
    )
    await served.wire.unary("CreateProject", create)
    refused = await refusal(listed(served, project_id="plain"))
    assert refused.reason == Reason.PROJECT_NOT_REPOSITORY_ROOT


# What is told ----------------------------------------------------------------


async def test_pages_are_of_one_tree_though_the_branch_moves(served: GitServer) -> None:
    first = await listed(served, page_size=1, revision=revision(commit="main"))
    served.project.commit_on_remote({"bin/run": None, "zzz": b""})
    paths = [file.path for file in first.files]
    token = first.next_page_token
    while token:
        page = await listed(served, page_size=1, page_token=token)
        assert page.commit_sha == served.project.base
        paths += [file.path for file in page.files]
        token = page.next_page_token
    assert paths == sorted(BASE_FILES)


@pytest.mark.parametrize("token", ["!", "eA==", "MSAyIDM=", "\u00e9"])
async def test_a_token_that_no_page_gave_is_refused(served: GitServer, token: str) -> None:
    refused = await refusal(listed(served, page_token=token))
    assert (refused.reason, refused.fields) == (Reason.FIELD_INVALID, ("page_token",))


async def test_a_name_that_is_no_text_is_shown_and_found_by_what_is_shown(
    served: GitServer,
) -> None:
    served.project.commit_on_remote({'"odd/\\377\\\\x"': b"needle\n"})
    (file,) = (await listed(served, directory="odd")).files
    assert file.path == "odd/\\xff\\x"
    assert (await read(served, file.path)).content == b"needle\n"
    (match,) = (await search(served, "needle")).matches
    assert match.path == file.path


async def test_lines_of_a_file_are_read_in_parts(served: GitServer) -> None:
    answer = await read(served, first_line=2, line_limit=2)
    assert (answer.content, answer.has_more) == (b"line 1\nline 2\n", True)
    assert answer.file.size_bytes == len(BASE_FILES["app.py"])
    assert (await read(served, "bin/run")).file.executable


@pytest.mark.parametrize("path", ["nothing", "docs", "app.py/x"])
async def test_a_file_that_is_not_there_is_told(served: GitServer, path: str) -> None:
    refused = await refusal(read(served, path))
    assert refused.reason == Reason.FILE_NOT_FOUND
    assert refused.metadata == {
        "project_id": "web", "path": path, "commit_sha": served.project.base,
    }  # fmt: skip


async def test_a_directory_that_is_not_there_is_told(served: GitServer) -> None:
    for call in (listed(served, directory="nothing"), search(served, "x", directory="app.py")):
        assert (await refusal(call)).reason == Reason.FILE_NOT_FOUND


async def test_matches_are_told_up_to_the_limit(served: GitServer) -> None:
    answer = await search(served, "^line 1", limit=3)
    assert [(m.path, m.line_number, m.line) for m in answer.matches] == [
        ("app.py", 2, b"line 1"), ("app.py", 11, b"line 10"), ("app.py", 12, b"line 11"),
    ]  # fmt: skip
    assert answer.truncated
    assert not (await search(served, "^line 1$", directory="")).truncated


async def test_differences_are_of_the_paths_that_were_asked_for(served: GitServer) -> None:
    head = served.project.commit_on_remote({"app.py": NEW, "docs/guide.md": NEW})
    base = revision(commit=served.project.base)
    answer = await diff(served, base=base, head=revision(commit=head), paths=["docs/"])
    assert b"docs/guide.md" in answer.diff
    assert b"app.py" not in answer.diff
    assert not answer.truncated


async def test_a_huge_difference_is_cut(served: GitServer) -> None:
    head = served.project.commit_on_remote({"huge": b"a line of text\n" * 200_000})
    base = revision(commit=served.project.base)
    answer = await diff(served, base=base, head=revision(commit=head))
    assert answer.truncated
    assert len(answer.diff) <= 1 << 20


# Test reports ----------------------------------------------------------------


async def keep_report(served: GitServer, number: int, *results: TestResult) -> str:
    journal = served.adapters.journal
    cycle = Cycle(
        cycle_id=f"01J{number:023}",
        project_id="web",
        request=CycleRequest(commit="1" * 40),
        requested_by="token:bob",
        create_time=NOW,
        steps=tuple(StepStatus(step=step) for step in CycleStep),
    )
    await journal.create(cycle, b"")
    taken = await journal.take(cycle.cycle_id, "old", lease=timedelta(minutes=1), force=True)
    assert taken is not None
    kept = TestReport(
        cycle_id=cycle.cycle_id,
        project_id="web",
        tree="a" * 40,
        exit_code=1,
        passed_count=1,
        failed_count=len(results),
        duration=timedelta(seconds=2),
        results=results,
        output_tail=b"\xffboom\n",
    )
    await journal.commit(taken, report=kept)
    return cycle.cycle_id


async def test_a_report_tells_what_tests_said(served: GitServer) -> None:
    failed = TestResult(
        name="t::a",
        outcome=TestOutcome.FAILED,
        duration=timedelta(seconds=1),
        message="boom \udcff",
    )
    passed = TestResult(name="t::b", outcome=TestOutcome.PASSED)
    cycle_id = await keep_report(served, 1, failed, passed)
    told = await report(served, cycle_id=cycle_id)
    assert (told.cycle_id, told.tree_sha, told.exit_code) == (cycle_id, "a" * 40, 1)
    assert (told.failed_count, told.output_tail) == (2, b"\xffboom\n")
    assert [(r.name, pb.TestOutcome.Name(r.outcome), r.message) for r in told.results] == [
        ("t::a", "TEST_OUTCOME_FAILED", "boom \\xff"),
        ("t::b", "TEST_OUTCOME_PASSED", ""),
    ]
    assert told == await report(served)
    assert [r.name for r in (await report(served, failed_only=True)).results] == ["t::a"]


async def test_a_report_of_any_size_fits_into_a_message(served: GitServer) -> None:
    results = [
        TestResult(name=f"t::{n}", outcome=TestOutcome.FAILED, message="é" * 4096)
        for n in range(10_000)
    ]
    await keep_report(served, 1, *results)
    told = await report(served)
    assert told.ByteSize() <= MAX_MESSAGE_BYTES
    assert [r.name for r in told.results] == [r.name for r in results]
    assert told.failed_count == 10_000


async def test_tests_that_were_not_run_are_told(served: GitServer) -> None:
    refused = await refusal(report(served))
    assert refused.reason == Reason.TEST_REPORT_NOT_FOUND
    assert refused.metadata == {"project_id": "web", "cycle_id": ""}


# Everything with a bound ------------------------------------------------------


async def test_a_remote_that_hangs_is_told_before_the_callers_deadline(
    served: GitServer,
) -> None:
    # Nobody takes the connection, so nothing is ever said on it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/app.git"
        git(served.project.checkout, "remote", "set-url", "origin", url)
        request = pb.ListFilesRequest(project_id="web")
        refused = await refusal(served.wire.unary("ListFiles", request, timeout=2))
    assert refused.reason == Reason.REPOSITORY_UNAVAILABLE
    assert refused.metadata == {"project_id": "web", "failure": "timed_out"}


def settings(served: GitServer) -> dict[str, BootstrapSettings | AttError]:
    reader = served.adapters.bootstrap_settings
    assert isinstance(reader, FakeBootstrapSettings)
    return reader.settings
