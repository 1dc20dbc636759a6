"""CodeService on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from google.protobuf.descriptor import ServiceDescriptor

from att.v1 import code_service_pb2 as pb
from att_server.core.code import CodeManager
from att_server.core.code_reader import LETS_GO_WITHIN
from att_server.rpc import convert_code as convert
from att_server.rpc import validate_code as validate
from att_server.rpc.call import Answer, Call, Streaming, Unary
from att_server.rpc.convert_text import raw
from att_server.rpc.pages import fitting_page

TIMEOUT = timedelta(seconds=60)
"""Bounds each call, for which a commit may be fetched from the project's remote."""
DEFAULT_MATCHES = 100


class CodeService:
    """Reads projects' code and test reports."""

    def __init__(self, code: CodeManager) -> None:
        self._code = code

    @property
    def descriptor(self) -> ServiceDescriptor:
        return pb.DESCRIPTOR.services_by_name["CodeService"]

    def methods(self) -> Mapping[str, Unary | Streaming]:
        return {
            "ListFiles": self._list,
            "ReadFile": self._read,
            "SearchFiles": self._search,
            "DiffFiles": self._diff,
            "GetTestReport": self._test_report,
        }

    async def _list(self, request: pb.ListFilesRequest, call: Call) -> Answer:
        validate.list_files(request)

        async def page(size: int) -> pb.ListFilesResponse:
            files, next_page_token, commit = await self._code.files(
                request.project_id,
                convert.to_revision(request.revision),
                directory=raw(request.directory.rstrip("/")),
                page_size=size,
                page_token=request.page_token,
                within=call.bound(TIMEOUT, ending=LETS_GO_WITHIN),
            )
            return pb.ListFilesResponse(
                files=map(convert.code_file, files),
                next_page_token=next_page_token,
                commit_sha=commit,
            )

        return await fitting_page(request.page_size, page)

    async def _read(self, request: pb.ReadFileRequest, call: Call) -> Answer:
        validate.read_file(request)
        part, commit = await self._code.read(
            request.project_id,
            convert.to_revision(request.revision),
            raw(request.path),
            first_line=request.first_line or 1,
            line_limit=request.line_limit,
            within=call.bound(TIMEOUT, ending=LETS_GO_WITHIN),
        )
        return pb.ReadFileResponse(
            content=part.content,
            file=convert.code_file(part.file),
            commit_sha=commit,
            has_more=part.has_more,
        )

    async def _search(self, request: pb.SearchFilesRequest, call: Call) -> Answer:
        validate.search_files(request)
        found, commit = await self._code.search(
            request.project_id,
            convert.to_revision(request.revision),
            request.pattern,
            directory=raw(request.directory.rstrip("/")),
            limit=request.limit or DEFAULT_MATCHES,
            within=call.bound(TIMEOUT, ending=LETS_GO_WITHIN),
        )
        return pb.SearchFilesResponse(
            matches=map(convert.code_match, found.matches),
            truncated=found.truncated,
            commit_sha=commit,
        )

    async def _diff(self, request: pb.DiffFilesRequest, call: Call) -> Answer:
        validate.diff_files(request)
        difference, base, head = await self._code.diff(
            request.project_id,
            convert.to_revision(request.base),
            convert.to_revision(request.head),
            paths=[raw(path.rstrip("/")) for path in request.paths],
            within=call.bound(TIMEOUT, ending=LETS_GO_WITHIN),
        )
        return pb.DiffFilesResponse(
            diff=difference.diff,
            truncated=difference.truncated,
            base_commit_sha=base,
            head_commit_sha=head,
        )

    async def _test_report(self, request: pb.GetTestReportRequest, _call: Call) -> Answer:
        validate.get_test_report(request)
        report = await self._code.test_report(request.project_id, request.cycle_id)
        return pb.GetTestReportResponse(
            report=convert.test_report(report, failed_only=request.failed_only)
        )
