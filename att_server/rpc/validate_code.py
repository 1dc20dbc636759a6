"""The rules of requests about code, beside those that only the repository can know.

Each function raises FIELD_INVALID with everything that is wrong.
"""

from __future__ import annotations

from att.v1 import code_service_pb2 as pb
from att_server.core.branch_names import branch_violation
from att_server.core.repository import is_sha
from att_server.core.settings_rules import pattern_rule
from att_server.rpc.checks import Checks
from att_server.rpc.validate import MAX_ID, MAX_PATH_BYTES

MAX_LINE = 2**31 - 1
MAX_MATCHES = 1000
MAX_PATHS = 1000
MAX_PATHS_BYTES = 256 * 1024
"""Of all paths of a difference, which are words of one command."""


def list_files(request: pb.ListFilesRequest) -> None:
    """A page of a directory."""
    checks = Checks()
    checks.project_id(request.project_id)
    _check_revision(checks, "revision", request.revision)
    _check_path(checks, "directory", request.directory.rstrip("/"))
    checks.page(request.page_size, "")
    # It holds a path.
    if len(request.page_token) > 2 * MAX_PATH_BYTES:
        checks.broken("page_token", "is not a token that a page gave")
    checks.done()


def read_file(request: pb.ReadFileRequest) -> None:
    """A path, and which lines."""
    checks = Checks()
    checks.project_id(request.project_id)
    _check_revision(checks, "revision", request.revision)
    if not request.path:
        checks.broken("path", "must not be empty")
    _check_path(checks, "path", request.path)
    checks.range("first_line", request.first_line, 0, MAX_LINE)
    checks.range("line_limit", request.line_limit, 0, MAX_LINE)
    checks.done()


def search_files(request: pb.SearchFilesRequest) -> None:
    """A pattern, and where."""
    checks = Checks()
    checks.project_id(request.project_id)
    _check_revision(checks, "revision", request.revision)
    if rule := pattern_rule(request.pattern):
        checks.broken("pattern", rule)
    _check_path(checks, "directory", request.directory.rstrip("/"))
    checks.range("limit", request.limit, 0, MAX_MATCHES)
    checks.done()


def diff_files(request: pb.DiffFilesRequest) -> None:
    """Two trees, and which paths of them."""
    checks = Checks()
    checks.project_id(request.project_id)
    _check_revision(checks, "base", request.base)
    _check_revision(checks, "head", request.head)
    if len(request.paths) > MAX_PATHS:
        checks.broken("paths", f"must have at most {MAX_PATHS:,} entries")
    elif sum(len(path.encode()) for path in request.paths) > MAX_PATHS_BYTES:
        checks.broken("paths", f"must have at most {MAX_PATHS_BYTES:,} bytes in all")
    else:
        for index, path in enumerate(request.paths):
            if not path.rstrip("/"):
                checks.broken(f"paths[{index}]", "must not be empty")
            _check_path(checks, f"paths[{index}]", path.rstrip("/"))
    checks.done()


def get_test_report(request: pb.GetTestReportRequest) -> None:
    """A project, and maybe a cycle."""
    checks = Checks()
    checks.project_id(request.project_id)
    checks.text("cycle_id", request.cycle_id, MAX_ID)
    checks.done()


def _check_revision(checks: Checks, field: str, revision: pb.CodeRevision) -> None:
    kind = revision.WhichOneof("revision")
    if kind is None:
        return
    value = getattr(revision, kind)
    name = f"{field}.{kind}"
    if not value:
        checks.broken(name, "must not be empty")
    elif kind != "commit":
        checks.text(name, value, MAX_ID)
    elif not is_sha(value) and (rule := branch_violation(value)):
        checks.broken(name, f"is no full sha in lower case, and as a name of a branch {rule}")


def _check_path(checks: Checks, field: str, path: str) -> None:
    """Empty, or a path as a tree of git may have it."""
    if len(path.encode()) > MAX_PATH_BYTES:
        checks.broken(field, f"must have at most {MAX_PATH_BYTES:,} bytes")
    elif "\0" in path:
        checks.broken(field, "must not hold a NUL character")
    elif path and {"", ".", ".."} & set(path.split("/")):
        checks.broken(field, "must be against the top of the tree, without empty parts, . or ..")
