"""Reading code through the client: what is sent, and what is made of the answers."""

from __future__ import annotations

import grpc
import pytest

import att_client
from att.v1 import code_service_pb2
from att_client import Client, CodeRevision
from tests.client.stub_server import StubServer, answer, failure

SHA = "a" * 40


async def test_a_tree_is_named_by_a_text_or_by_what_holds_it(att: Client, stub: StubServer) -> None:
    stub.script("ReadFile", answer(code_service_pb2.ReadFileResponse(content=b"x", commit_sha=SHA)))
    await att.code.read("web", "app.py")
    await att.code.read("web", "app.py", at="main", first_line=3, line_limit=2)
    await att.code.read("web", "app.py", at=CodeRevision(cycle_id="01C"))
    unset, branch, cycle = stub.requests["ReadFile"]
    assert not unset.HasField("revision")
    assert branch.revision.WhichOneof("revision") == "commit"
    assert (branch.revision.commit, branch.first_line, branch.line_limit) == ("main", 3, 2)
    assert cycle.revision.WhichOneof("revision") == "cycle_id"


async def test_files_come_in_pages_of_one_tree(att: Client, stub: StubServer) -> None:
    def page(path: str, token: str) -> code_service_pb2.ListFilesResponse:
        file = code_service_pb2.CodeFile(path=path, size_bytes=3)
        return code_service_pb2.ListFilesResponse(
            files=[file], next_page_token=token, commit_sha=SHA
        )

    stub.script("ListFiles", answer(page("src/a.py", "more")), answer(page("src/b.py", "")))
    files = att.code.files("web", at=SHA, directory="src", page_size=1)
    assert [file.path async for file in files] == ["src/a.py", "src/b.py"]
    assert [r.page_token for r in stub.requests["ListFiles"]] == ["", "more"]
    assert all(r.revision.commit == SHA for r in stub.requests["ListFiles"])
    assert [page.commit_sha async for page in files.pages()] == [SHA]


async def test_a_search_says_whether_there_is_more(att: Client, stub: StubServer) -> None:
    match = code_service_pb2.CodeMatch(path="app.py", line_number=7, line=b"VERSION = 1")
    stub.script(
        "SearchFiles",
        answer(code_service_pb2.SearchFilesResponse(matches=[match], truncated=True)),
    )
    found = await att.code.search("web", "VERSION", directory="src", limit=1)
    assert [(m.path, m.line_number, m.line) for m in found.matches] == [("app.py", 7, match.line)]
    assert found.truncated
    (request,) = stub.requests["SearchFiles"]
    assert (request.pattern, request.directory, request.limit) == ("VERSION", "src", 1)


async def test_a_difference_is_asked_for_between_two_trees(att: Client, stub: StubServer) -> None:
    stub.script("DiffFiles", answer(code_service_pb2.DiffFilesResponse(diff=b"--- a\n")))
    diff = await att.code.diff("web", head=CodeRevision(cycle_id="01C"), paths=["app.py"])
    assert diff.diff == b"--- a\n"
    (request,) = stub.requests["DiffFiles"]
    assert not request.HasField("base")
    assert request.head.cycle_id == "01C"
    with pytest.raises(TypeError):
        await att.code.diff("web", paths="app.py")


async def test_a_test_report_is_the_last_one_unless_a_cycle_is_named(
    att: Client, stub: StubServer
) -> None:
    report = code_service_pb2.TestReport(cycle_id="01C", passed_count=3)
    stub.script("GetTestReport", answer(code_service_pb2.GetTestReportResponse(report=report)))
    assert (await att.code.test_report("web")).passed_count == 3
    await att.code.test_report("web", cycle_id="01C", failed_only=True)
    last, named = stub.requests["GetTestReport"]
    assert (last.cycle_id, last.failed_only) == ("", False)
    assert (named.cycle_id, named.failed_only) == ("01C", True)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("FILE_NOT_FOUND", att_client.CodeFileNotFoundError),
        ("REVISION_NOT_FOUND", att_client.RevisionNotFoundError),
    ],
)
async def test_what_is_not_there_is_told_apart(
    att: Client, stub: StubServer, reason: str, expected: type[Exception]
) -> None:
    stub.script("ReadFile", failure(grpc.StatusCode.NOT_FOUND, reason))
    with pytest.raises(expected):
        await att.code.read("web", "nowhere.py")
