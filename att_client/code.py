"""Reads a project's code, and what its tests said: what one needs to write a change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from att_client._proto.att.v1 import (
    CodeFile,
    CodeRevision,
    DiffFilesRequest,
    DiffFilesResponse,
    GetTestReportRequest,
    GetTestReportResponse,
    ListFilesRequest,
    ListFilesResponse,
    ReadFileRequest,
    ReadFileResponse,
    SearchFilesRequest,
    SearchFilesResponse,
    TestReport,
)
from att_client.paging import Pager
from att_client.transport import Service, Transport, present

Revision = str | CodeRevision | None
"""A tree: a full commit sha, a branch or a tag; with `CodeRevision` also a release or
a cycle. None: the deployed release, else the head of the base branch."""


class Code:
    """The code of projects as their repositories hold it. Changes nothing."""

    def __init__(self, transport: Transport, timeout: timedelta) -> None:
        self._service = Service(transport, "CodeService", timeout)

    def files(
        self, project_id: str, *, at: Revision = None, directory: str = "", page_size: int = 0
    ) -> Pager[ListFilesResponse, CodeFile]:
        """The files of a tree by path; `.pages()` also says which commit was read.

        at: see `Revision`. directory: only those below it.
        page_size: 1 to 1,000, 0 is 50. Raises RevisionNotFoundError.
        """

        async def fetch(page_token: str) -> ListFilesResponse:
            return await self._service.call(
                ListFilesRequest(
                    project_id=project_id,
                    revision=_revision(at),
                    directory=directory,
                    page_size=page_size,
                    page_token=page_token,
                ),
                ListFilesResponse,
            )

        return Pager(fetch, lambda page: page.files)

    async def read(
        self,
        project_id: str,
        path: str,
        *,
        at: Revision = None,
        first_line: int = 0,
        line_limit: int = 0,
    ) -> ReadFileResponse:
        """A file's content, from `first_line` (from 1) on; `has_more` says that it goes on.

        line_limit: 0: as many lines as 1 MiB holds.
        Raises CodeFileNotFoundError, RevisionNotFoundError.
        """
        return await self._service.call(
            ReadFileRequest(
                project_id=project_id,
                revision=_revision(at),
                path=path,
                first_line=first_line,
                line_limit=line_limit,
            ),
            ReadFileResponse,
        )

    async def search(
        self,
        project_id: str,
        pattern: str,
        *,
        at: Revision = None,
        directory: str = "",
        limit: int = 0,
    ) -> SearchFilesResponse:
        """The lines that match an RE2 pattern, by path and line.

        limit: 1 to 1,000, 0 is 100; `truncated` says that there are more.
        Raises FieldInvalidError for a pattern that is none, RevisionNotFoundError.
        """
        return await self._service.call(
            SearchFilesRequest(
                project_id=project_id,
                revision=_revision(at),
                pattern=pattern,
                directory=directory,
                limit=limit,
            ),
            SearchFilesResponse,
        )

    async def diff(
        self,
        project_id: str,
        *,
        base: Revision = None,
        head: Revision = None,
        paths: Sequence[str] = (),
    ) -> DiffFilesResponse:
        """What leads from `base` to `head`, as a unified diff of at most 1 MiB.

        paths: only these, empty for all. Raises RevisionNotFoundError.
        """
        if isinstance(paths, str):
            raise TypeError("`paths` is a list of paths.")
        return await self._service.call(
            DiffFilesRequest(
                project_id=project_id,
                base=_revision(base),
                head=_revision(head),
                paths=[*paths],
            ),
            DiffFilesResponse,
        )

    async def test_report(
        self, project_id: str, *, cycle_id: str = "", failed_only: bool = False
    ) -> TestReport:
        """What a cycle's tests said; cycle_id: empty: the last one that ran tests.

        failed_only: only results of tests that failed. Raises TestReportNotFoundError.
        """
        response = await self._service.call(
            GetTestReportRequest(project_id=project_id, cycle_id=cycle_id, failed_only=failed_only),
            GetTestReportResponse,
        )
        return present(response.report)


def _revision(at: Revision) -> CodeRevision | None:
    return CodeRevision(commit=at) if isinstance(at, str) else at
