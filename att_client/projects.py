"""Keeps projects."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from att_client._proto.att.v1 import (
    CreateProjectRequest,
    CreateProjectResponse,
    DeleteProjectRequest,
    DeleteProjectResponse,
    GetProjectRequest,
    GetProjectResponse,
    ListProjectsRequest,
    ListProjectsResponse,
    Project,
    ProjectMode,
    RuntimeSettings,
    SetProjectModeRequest,
    SetProjectModeResponse,
    UpdateProjectRequest,
    UpdateProjectResponse,
)
from att_client.paging import Pager
from att_client.transport import Service, Transport, present


class Projects:
    """The projects: one app each, with its directory and settings."""

    def __init__(self, transport: Transport, timeout: timedelta) -> None:
        self._service = Service(transport, "ProjectService", timeout)

    async def create(
        self,
        project_id: str,
        *,
        path: str | os.PathLike[str],
        command: Sequence[str] = (),
        runtime: RuntimeSettings | None = None,
        template: str = "",
    ) -> Project:
        """Creates the project, or returns it if it exists with the same specification.

        project_id: `[a-z][a-z0-9-]{0,61}[a-z0-9]`.
        path: the app's directory on the server's host, absolute.
        command: the argument list, short for `runtime.command`.
        runtime: wins over the directory's `att.toml`, key by key.
        template: fills the directory first, which is empty or absent then.
        Raises ProjectSpecConflictError, ProjectPathInvalidError, FieldInvalidError.
        """
        if isinstance(command, str):
            raise TypeError("`command` is a list of words; shlex.split makes one of a text.")
        if command:
            if runtime is not None and runtime.command:
                raise TypeError("Give `command` or `runtime.command`, not both.")
            runtime = replace(runtime or RuntimeSettings(), command=list(command))
        response = await self._service.call(
            CreateProjectRequest(
                project_id=project_id, path=os.fspath(path), runtime=runtime, template=template
            ),
            CreateProjectResponse,
        )
        return present(response.project)

    async def get(self, project_id: str) -> Project:
        """The project as it is now. Raises ProjectNotFoundError."""
        response = await self._service.call(
            GetProjectRequest(project_id=project_id), GetProjectResponse
        )
        return present(response.project)

    def list(self, *, page_size: int = 0) -> Pager[ListProjectsResponse, Project]:
        """All projects by id; page_size: 1 to 1,000, 0 is 50."""

        async def fetch(page_token: str) -> ListProjectsResponse:
            return await self._service.call(
                ListProjectsRequest(page_size=page_size, page_token=page_token),
                ListProjectsResponse,
            )

        return Pager(fetch, lambda page: page.projects)

    async def update(
        self,
        project_id: str,
        *,
        path: str | os.PathLike[str] | None = None,
        runtime: RuntimeSettings | None = None,
    ) -> Project:
        """Changes the specification; a running app keeps the old one until its next start.

        path, runtime: None leaves it as it is; `runtime` replaces all its fields.
        Raises ProjectNotFoundError, ProjectPathInvalidError, FieldInvalidError.
        """
        response = await self._service.call(
            UpdateProjectRequest(
                project_id=project_id,
                path="" if path is None else os.fspath(path),
                runtime=runtime,
            ),
            UpdateProjectResponse,
        )
        return present(response.project)

    async def set_mode(self, project_id: str, mode: ProjectMode, *, reason: str = "") -> Project:
        """Sets what the project lets happen; NORMAL is how safe mode is left.

        reason: why, for the event and for who reads the project. At most 1,000
        characters. Needs the role admin. Raises PermissionDeniedError,
        ProjectNotFoundError, FieldInvalidError.
        """
        response = await self._service.call(
            SetProjectModeRequest(project_id=project_id, mode=mode, reason=reason),
            SetProjectModeResponse,
        )
        return present(response.project)

    async def delete(self, project_id: str, *, request_id: str | None = None) -> None:
        """Deletes the project and its log; the project's own directory is not touched.

        request_id: makes a repetition by the caller safe; None is a new one.
        Raises ProjectNotFoundError, ProjectNotStoppedError.
        """
        await self._service.call(
            DeleteProjectRequest(project_id=project_id, request_id=request_id or uuid.uuid4().hex),
            DeleteProjectResponse,
        )
