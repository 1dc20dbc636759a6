"""The resources: what tools read, at addresses that a client can keep and watch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp import MCPError, UriTemplate
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS

import att_client
from att_client.mcp.catalog import TOOLS
from att_client.mcp.runner import Failed, Request, Runner
from att_client.mcp.steps import Step
from att_client.mcp.tool import Tool

PROJECTS = "att://projects"
_JSON = "application/json"
_MOST_VALUES = 100  # of a completion, by the protocol
_PAGE = 100  # projects in a page of resources
_TOOLS: Mapping[str, Tool[Any]] = {tool.name: tool for tool in TOOLS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Resources of one kind: their address, and the tool that reads them.

    names: the tool's argument for each variable of the address.
    """

    kind: str
    template: UriTemplate
    description: str
    tool: str
    names: Mapping[str, str]


def _family(kind: str, template: str, description: str, tool: str, **names: str) -> Family:
    return Family(
        kind=kind,
        template=UriTemplate.parse(template),
        description=description,
        tool=tool,
        names=names,
    )


FAMILIES = (
    _family("projects", PROJECTS, "All projects with the states of their apps", "att.project.list"),
    _family(
        "logs",
        "att://project/{id}/logs{?cursor,limit}",
        "What the app printed: from cursor on, else the last lines",
        "att.runtime.logs",
        id="project",
        cursor="cursor",
        limit="limit",
    ),
    _family(
        "runtime",
        "att://project/{id}/runtime",
        "State of the app",
        "att.runtime.status",
        id="project",
    ),
    _family(
        "releases",
        "att://project/{id}/releases",
        "Releases, newest first",
        "att.release.list",
        id="project",
    ),
    _family("cycle", "att://cycle/{id}", "A release cycle", "att.bootstrap.status", id="cycle"),
)


@dataclass(frozen=True, slots=True)
class Address:
    """A resource: its family, and what stands for the variables."""

    family: Family
    variables: Mapping[str, str]


def address(uri: str) -> Address | None:
    """The resource at `uri`; None for an address of none."""
    for family in FAMILIES:
        found = family.template.match(uri)
        if found is not None:
            return Address(family, {name: str(value) for name, value in found.items()})
    return None


class Resources:
    """Answers the protocol's questions about resources."""

    def __init__(self, runner: Runner, projects: tuple[str, ...]) -> None:
        """projects: the only ones that are served; empty for all."""
        self._runner = runner
        self._projects = projects

    async def page(
        self, request: Request, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        """The projects and, page by page, what each has; only the former without a server."""
        token = (params.cursor if params is not None else None) or ""
        found = [] if token else [_resource(FAMILIES[0], PROJECTS, "projects")]
        try:
            ids, following = await self._projects_from(token)
        except att_client.AttError as error:
            if token:
                raise MCPError(
                    INVALID_PARAMS, f"This page cannot be read: {error.message}"
                ) from error
            ids, following = [], ""
        for project in ids:
            found += [
                _resource(
                    family, family.template.expand({"id": project}), f"{project} {family.kind}"
                )
                for family in FAMILIES
                if family.names.get("id") == "project"
            ]
        return types.ListResourcesResult(resources=found, next_cursor=following or None)

    async def list_templates(
        self, request: Request, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        """The addresses with variables."""
        return types.ListResourceTemplatesResult(
            resource_templates=[
                types.ResourceTemplate(
                    name=family.kind,
                    uri_template=str(family.template),
                    description=family.description,
                    mime_type=_JSON,
                )
                for family in FAMILIES
                if family.names
            ]
        )

    async def read(
        self, request: Request, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        """The resource as JSON. Raises MCPError, with the next step in its text."""
        where = address(params.uri)
        try:
            if where is None:
                known = ", ".join(str(family.template) for family in FAMILIES)
                raise self._runner.failure(
                    "There is no such resource.", Step(advice=f"read one of {known}."), wrong=True
                )
            given = {where.family.names[name]: value for name, value in where.variables.items()}
            output = await self._runner.run(_TOOLS[where.family.tool], given, request)
        except Failed as failed:
            code = INVALID_PARAMS if failed.wrong else INTERNAL_ERROR
            raise MCPError(code, failed.text, {"uri": params.uri}) from failed
        return types.ReadResourceResult(
            contents=[
                types.TextResourceContents(
                    uri=params.uri, mime_type=_JSON, text=output.model_dump_json(exclude_none=True)
                )
            ]
        )

    async def complete(
        self, request: Request, params: types.CompleteRequestParams
    ) -> types.CompleteResult:
        """Ids that begin with what was typed; none for other arguments, or without a server."""
        values: list[str] = []
        if isinstance(params.ref, types.ResourceTemplateReference) and params.argument.name == "id":
            families = {str(family.template): family for family in FAMILIES}
            family = families.get(params.ref.uri)
            if family is not None:
                values = await self._ids(family, params.argument.value)
        shown = values[:_MOST_VALUES]
        return types.CompleteResult(
            completion=types.Completion(
                values=shown, total=len(values), has_more=len(values) > len(shown)
            )
        )

    async def _ids(self, family: Family, begin: str) -> list[str]:
        """The ids of the family that begin so, at most one more than are shown."""
        found: list[str] = []
        try:
            async with self._runner.caller() as att:
                if family.kind == "cycle":
                    ids = (
                        cycle.cycle_id
                        async for cycle in att.bootstrap.list(page_size=1000)
                        if not self._projects or cycle.project_id in self._projects
                    )
                else:
                    ids = (
                        project.project_id
                        async for project in att.projects.list(page_size=1000)
                        if not self._projects or project.project_id in self._projects
                    )
                async for name in ids:
                    if name.startswith(begin):
                        found.append(name)
                    if len(found) > _MOST_VALUES:
                        break
        except att_client.AttError:
            return []
        return found

    async def _projects_from(self, token: str) -> tuple[list[str], str]:
        """Ids of projects, and the token of the next page."""
        if self._projects:
            return list(self._projects), ""
        async with self._runner.caller() as att:
            page = await anext(att.projects.list(page_size=_PAGE).pages(token))
        return [project.project_id for project in page.projects], page.next_page_token


def _resource(family: Family, uri: str, name: str) -> types.Resource:
    return types.Resource(name=name, uri=uri, description=family.description, mime_type=_JSON)
