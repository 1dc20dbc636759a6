"""Whatever a request about code holds: the field that broke its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from att.v1 import code_service_pb2 as pb
from att_server.core.errors import AttError, Reason
from att_server.rpc import validate_code as validate

SHA = "0123456789abcdef" * 2 + "01234567"


def revision(**fields: str) -> pb.CodeRevision:
    return pb.CodeRevision(**fields)


def files(**fields: Any) -> pb.ListFilesRequest:
    return pb.ListFilesRequest(**{"project_id": "web", **fields})


def file(**fields: Any) -> pb.ReadFileRequest:
    return pb.ReadFileRequest(**{"project_id": "web", "path": "app.py", **fields})


def search(**fields: Any) -> pb.SearchFilesRequest:
    return pb.SearchFilesRequest(**{"project_id": "web", "pattern": "x", **fields})


def diff(**fields: Any) -> pb.DiffFilesRequest:
    return pb.DiffFilesRequest(**{"project_id": "web", **fields})


@pytest.mark.parametrize(
    ("check", "request_"),
    [
        (validate.list_files, files()),
        (validate.list_files, files(directory="src/", revision=revision(commit="release/1.0"))),
        (validate.list_files, files(revision=revision(commit=SHA))),
        (validate.list_files, files(revision=revision(release_id="v1"))),
        (validate.read_file, file(path=".github/a b\n*?", first_line=5, line_limit=10)),
        (validate.search_files, search(directory="/")),
        (validate.search_files, search(pattern="(?i)^class\\s+\\w+$", limit=1000)),
        (validate.diff_files, diff(base=revision(cycle_id="01JD"), paths=["a", "b/"] * 500)),
        (validate.get_test_report, pb.GetTestReportRequest(project_id="web", cycle_id="01JD")),
    ],
)
def test_what_makes_sense_is_taken(check: Callable[[Any], None], request_: Any) -> None:
    check(request_)


@pytest.mark.parametrize(
    ("check", "request_", "fields"),
    [
        (validate.list_files, files(project_id="-"), {"project_id"}),
        *(
            (validate.list_files, files(revision=revision(commit=name)), {"revision.commit"})
            for name in ("", "-x", "--upload-pack=x", "a b", SHA.upper(), "HEAD", "main~1", "a..b")
        ),
        (validate.list_files, files(revision=revision(release_id="")), {"revision.release_id"}),
        (validate.list_files, files(revision=revision(cycle_id="x" * 129)), {"revision.cycle_id"}),
        *(
            (validate.list_files, files(directory=path), {"directory"})
            for path in ("/etc", "../x", "a/../b", "a//b", ".", "./a", "x" * 4097, "a\0b")
        ),
        (validate.list_files, files(page_size=-1), {"page_size"}),
        (validate.list_files, files(page_token="x" * 9000), {"page_token"}),
        (validate.read_file, file(path=""), {"path"}),
        (validate.read_file, file(path="../app.py"), {"path"}),
        (validate.read_file, file(path="app.py/"), {"path"}),
        (validate.read_file, file(first_line=-1, line_limit=-1), {"first_line", "line_limit"}),
        *(
            (validate.search_files, search(pattern=pattern), {"pattern"})
            for pattern in ("", "(", "a{1001}", "x" * 1001, "(?P<a>", "(?=x)", "\\1")
        ),
        (validate.search_files, search(limit=1001), {"limit"}),
        (validate.diff_files, diff(paths=["x"] * 1001), {"paths"}),
        (validate.diff_files, diff(paths=["x" * 4000] * 100), {"paths"}),
        (validate.diff_files, diff(paths=["ok", ""]), {"paths[1]"}),
        (
            validate.diff_files,
            diff(base=revision(commit="-x"), head=revision(commit="a b")),
            {"base.commit", "head.commit"},
        ),
        (validate.get_test_report, pb.GetTestReportRequest(), {"project_id"}),
    ],
)
def test_what_makes_no_sense_is_refused(
    check: Callable[[Any], None], request_: Any, fields: set[str]
) -> None:
    with pytest.raises(AttError) as caught:
        check(request_)
    assert caught.value.reason is Reason.FIELD_INVALID
    assert {v.field for v in caught.value.violations} == fields
