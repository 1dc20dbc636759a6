"""ProjectService on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.descriptor import ServiceDescriptor

from att.v1 import project_pb2
from att.v1 import project_service_pb2 as pb
from att_server.core.errors import AttError, Reason
from att_server.core.identity import Role
from att_server.core.model import Project, ProjectMode
from att_server.core.projects import ProjectManager
from att_server.rpc import convert, convert_settings, validate
from att_server.rpc.call import Answer, Call, Streaming, Unary
from att_server.rpc.pages import fitting_page

_SETTINGS_ERRORS = (
    Reason.SETTINGS_INVALID,
    Reason.PROJECT_PATH_INVALID,
    Reason.PROJECT_PATH_NOT_ALLOWED,
    Reason.NOT_IMPLEMENTED,
)
"""What can be wrong with a project's `att.toml`; a project with that is shown all the same."""


class ProjectService:
    """Keeps projects."""

    def __init__(self, projects: ProjectManager, probe_hosts: frozenset[str]) -> None:
        """probe_hosts: what probes may ask, beside this host."""
        self._projects = projects
        self._probe_hosts = probe_hosts

    @property
    def descriptor(self) -> ServiceDescriptor:
        return pb.DESCRIPTOR.services_by_name["ProjectService"]

    def methods(self) -> Mapping[str, Unary | Streaming]:
        return {
            "CreateProject": self._create,
            "GetProject": self._get,
            "ListProjects": self._list,
            "UpdateProject": self._update,
            "DeleteProject": self._delete,
            "SetProjectMode": self._set_mode,
        }

    async def _create(self, request: pb.CreateProjectRequest, call: Call) -> Answer:
        validate.create_project(request, self._probe_hosts)
        project = await self._projects.create(
            request.project_id,
            request.path,
            convert_settings.to_runtime_settings(request.runtime),
            template=request.template,
            remote=call.remote,
            principal=call.principal,
        )
        return pb.CreateProjectResponse(project=await self._message(project))

    async def _get(self, request: pb.GetProjectRequest, _call: Call) -> Answer:
        validate.get_project(request)
        project = self._projects.get(request.project_id)
        return pb.GetProjectResponse(project=await self._message(project))

    async def _list(self, request: pb.ListProjectsRequest, call: Call) -> Answer:
        validate.list_projects(request)

        async def page(size: int) -> pb.ListProjectsResponse:
            projects, next_page_token = self._projects.list(
                size, request.page_token, within=call.caller.projects
            )
            return pb.ListProjectsResponse(
                projects=[await self._message(project) for project in projects],
                next_page_token=next_page_token,
            )

        return await fitting_page(request.page_size, page)

    async def _update(self, request: pb.UpdateProjectRequest, call: Call) -> Answer:
        validate.update_project(request, self._probe_hosts)
        given = request.HasField("runtime")
        project = await self._projects.update(
            request.project_id,
            path=request.path or None,
            runtime=convert_settings.to_runtime_settings(request.runtime) if given else None,
            remote=call.remote,
            principal=call.principal,
            another_user=lambda: call.caller.require(Role.ADMIN),
        )
        return pb.UpdateProjectResponse(project=await self._message(project))

    async def _delete(self, request: pb.DeleteProjectRequest, call: Call) -> Answer:
        validate.delete_project(request)
        await self._projects.delete(
            request.project_id, request_id=request.request_id, principal=call.principal
        )
        return pb.DeleteProjectResponse()

    async def _set_mode(self, request: pb.SetProjectModeRequest, call: Call) -> Answer:
        validate.set_project_mode(request)
        mode = convert.to_project_mode(request.mode)
        project = await self._projects.set_mode(
            request.project_id,
            mode,
            # Nothing is the matter with a project in NORMAL; its event keeps the words.
            "" if mode is ProjectMode.NORMAL else request.reason,
            principal=call.principal,
            message=request.reason,
        )
        return pb.SetProjectModeResponse(project=await self._message(project))

    async def _message(self, project: Project) -> project_pb2.Project:
        try:
            effective = (await self._projects.effective(project)).filled
        except AttError as error:
            if error.reason not in _SETTINGS_ERRORS:
                raise
            return convert.project(project, effective=None, settings_error=error.message)
        return convert.project(project, effective=effective, settings_error="")
