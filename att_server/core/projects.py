"""ProjectManager: the projects and their settings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from att_server.core.app_users import AppUsers
from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason, project_not_found
from att_server.core.identity import only
from att_server.core.launch import release_gone, run_directory
from att_server.core.model import (
    DesiredState,
    Event,
    Project,
    ProjectMode,
)
from att_server.core.pages import page_of
from att_server.core.ports import (
    Clock,
    LogStore,
    RunDirectories,
    SettingsReader,
    StateStore,
)
from att_server.core.project_roots import ProjectRoots
from att_server.core.request_claim import RequestClaim
from att_server.core.requests import claim, same_request
from att_server.core.settings import RuntimeSettings
from att_server.core.templates import Templates


class ProjectManager:
    """Keeps all projects in memory; every change is stored before it is shown."""

    def __init__(
        self,
        *,
        store: StateStore,
        logs: LogStore,
        settings: SettingsReader,
        directories: RunDirectories,
        templates: Templates,
        clock: Clock,
        stored: Bell,
        roots: ProjectRoots,
        users: AppUsers,
        is_directory: Callable[[Path], bool],
        released: Callable[[str], AbstractAsyncContextManager[None]],
        forget: Callable[[str], Awaitable[None]],
        desired_changed: Callable[[str], None],
    ) -> None:
        """roots: where projects may lie. users: whom apps may run as. released: entered around
        a deletion; raises where the app runs or is being started, or a cycle is active.

        forget: removes what is kept of a project that is not there, beside its log;
        without effect if there is nothing. desired_changed: told of each project
        that was created or whose app is desired otherwise.
        """
        self._store = store
        self._logs = logs
        self._settings = settings
        self._directories = directories
        self._templates = templates
        self._clock = clock
        self._stored = stored
        self._roots = roots
        self._users = users
        self._is_directory = is_directory
        self._released = released
        self._forget = forget
        self._desired_changed = desired_changed
        self._projects: dict[str, Project] = {}
        # Held over writes, which the store takes one at a time anyway: two changes of
        # one project must not begin from the same state of it.
        self._changes = asyncio.Lock()

    async def open(self) -> None:
        """Loads the projects; called once, first."""
        self._projects = {project.project_id: project for project in await self._store.projects()}

    def get(self, project_id: str) -> Project:
        """The project. Raises PROJECT_NOT_FOUND."""
        project = self._projects.get(project_id)
        if project is None:
            raise project_not_found(project_id)
        return project

    def all(self) -> Mapping[str, Project]:
        """All projects, by id."""
        return self._projects

    def list(
        self, page_size: int, page_token: str, *, within: frozenset[str] | None = None
    ) -> tuple[list[Project], str]:
        """A page of up to `page_size` projects by id, and the next page's token.

        within: only of these; None: of all.
        """
        return page_of(only(self._projects, within), page_size, page_token)

    async def create(
        self,
        project_id: str,
        path: str,
        runtime: RuntimeSettings,
        *,
        template: str = "",
        remote: bool = False,
        principal: str,
    ) -> Project:
        """Creates the project, or returns the one with this id and an equal specification.

        path: absolute, of an existing directory; with a `template`, of one that
        is empty or absent and is filled first. remote: asked for from the network.
        Raises PROJECT_SPEC_CONFLICT, PROJECT_PATH_INVALID, PROJECT_PATH_NOT_ALLOWED,
        RUN_AS_NOT_POSSIBLE, FIELD_INVALID for an unknown template.
        """
        if template:
            self._templates.check(template, path)
            directory = Path(path)
            await self._roots.check(directory, remote=remote)
        else:
            directory = await self._directory(path, remote)
        async with self._changes:
            existing = self._projects.get(project_id)
            if existing is not None:
                if (
                    existing.path == directory
                    and existing.runtime == runtime
                    and (not template or await self._templates.used(project_id) == template)
                ):
                    return existing
                raise AttError(
                    Reason.PROJECT_SPEC_CONFLICT,
                    f"A project {project_id!r} exists with another path, template or settings. "
                    "Update it, or choose another id.",
                    project_id=project_id,
                )
            if runtime.run_as:
                await self._users.check(runtime.run_as, directory)
            if template:
                await self._templates.fill(template, directory)
            # What a deletion that was cut short left behind belongs to another life.
            await self._forget(project_id)
            await self._logs.delete(project_id)
            now = self._clock.now()
            project = Project(
                project_id=project_id,
                path=directory,
                runtime=runtime,
                mode=ProjectMode.NORMAL,
                log_id=self._clock.new_id(),
                desired=DesiredState.STOPPED,
                desired_runtime=RuntimeSettings(),
                create_time=now,
                update_time=now,
            )
            attributes = {"path": str(directory)} | ({"template": template} if template else {})
            await self._put(project, "project.created", principal, attributes)
            self._desired_changed(project_id)
            return project

    async def update(
        self,
        project_id: str,
        *,
        path: str | None,
        runtime: RuntimeSettings | None,
        remote: bool = False,
        principal: str,
        another_user: Callable[[], None] = lambda: None,
    ) -> Project:
        """Replaces what is not None. remote: asked for from the network.

        another_user: called before the user that the app runs as is changed; raises to
        refuse it. Raises PROJECT_NOT_FOUND, PROJECT_PATH_INVALID,
        PROJECT_PATH_NOT_ALLOWED, RUN_AS_NOT_POSSIBLE.
        """
        directory = None if path is None else await self._directory(path, remote)
        async with self._changes:
            project = self.get(project_id)
            changed = replace(
                project,
                path=project.path if directory is None else directory,
                runtime=project.runtime if runtime is None else runtime,
            )
            if changed == project:
                return project
            run_as = changed.runtime.run_as
            if run_as != project.runtime.run_as:
                another_user()
            if run_as and (run_as, changed.path) != (project.runtime.run_as, project.path):
                await self._users.check(run_as, run_directory(changed, self._directories))
            changed = replace(changed, update_time=self._clock.now())
            await self._put(changed, "project.updated", principal, {"path": str(changed.path)})
            return changed

    async def set_desired(
        self,
        project_id: str,
        desired: DesiredState,
        runtime: RuntimeSettings | None,
        *events: Event,
        request: RequestClaim | None = None,
    ) -> RequestClaim | None:
        """Stores what the app is meant to be, with the events that tell why.

        runtime: what the start was given over the project's settings; None:
        unchanged. request: of the call, claimed with it; one that was claimed
        before is returned and nothing changes. Raises PROJECT_NOT_FOUND,
        REQUEST_ID_REUSED.
        """
        async with self._changes:
            project = self.get(project_id)
            changed = replace(
                project,
                desired=desired,
                desired_runtime=project.desired_runtime if runtime is None else runtime,
            )
            new = request if request is not None and request.request_id else None
            known = await self._store.put_project(changed, *events, claim=new)
            if new is not None and known is not None:
                return same_request(new, known)
            self._projects[project_id] = changed
            self._stored.ring()
        if changed.desired is not project.desired:
            self._desired_changed(project_id)
        return None

    async def set_release(
        self,
        project_id: str,
        release_id: str,
        *events: Event,
        desired: DesiredState = DesiredState.RUNNING,
    ) -> None:
        """Stores that the app is to run, and from this release, with the events that tell why.

        release_id: empty: from the project's own directory. desired: STOPPED where
        something else than a supervisor runs it. Raises PROJECT_NOT_FOUND.
        """
        async with self._changes:
            project = self.get(project_id)
            changed = replace(project, release_id=release_id, desired=desired)
            await self._store.put_project(changed, *events)
            self._projects[project_id] = changed
            self._stored.ring()
        self._desired_changed(project_id)

    async def set_mode(
        self,
        project_id: str,
        mode: ProjectMode,
        reason: str,
        *events: Event,
        principal: str = "",
        cycle_id: str = "",
        message: str = "",
    ) -> Project:
        """Stores what the project lets happen and why; without effect if it is so already.

        reason: in snake case or a person's words; empty with NORMAL. events: are
        stored in front of the one that tells of the mode. principal, cycle_id: who
        or what set it. message: of that event. Raises PROJECT_NOT_FOUND.
        """
        async with self._changes:
            project = self.get(project_id)
            if (project.mode, project.mode_reason) == (mode, reason):
                return project
            changed = replace(project, mode=mode, mode_reason=reason)
            told = Event(
                event_type="project.mode",
                time=self._clock.now(),
                project_id=project_id,
                cycle_id=cycle_id,
                principal=principal,
                reason=reason,
                message=message,
                attributes={"mode": mode, "before": project.mode},
            )
            await self._store.put_project(changed, *events, told)
            self._projects[project_id] = changed
            self._stored.ring()
        return changed

    async def delete(self, project_id: str, *, request_id: str, principal: str) -> None:
        """Removes the project, its log, its releases and their data, and its cycles.

        Its own directory is not touched. A repeated call with the same request id
        is without effect. Raises PROJECT_NOT_FOUND, PROJECT_NOT_STOPPED,
        PROJECT_BUSY, CYCLE_ALREADY_RUNNING, REQUEST_ID_REUSED.
        """
        async with self._changes:
            known = await claim(
                self._store,
                RequestClaim(
                    request_id=request_id,
                    method="DeleteProject",
                    digest=project_id,
                    project_id=project_id,
                    time=self._clock.now(),
                ),
            )
            if known is not None and (known.outcome or project_id not in self._projects):
                return
            project = self.get(project_id)
            async with self._released(project_id):
                await self._store.delete_project(
                    project_id,
                    Event(
                        event_type="project.deleted",
                        time=self._clock.now(),
                        project_id=project_id,
                        principal=principal,
                        attributes={"path": str(project.path), "log_id": project.log_id},
                    ),
                )
                del self._projects[project_id]
                self._stored.ring()
            await self._forget(project_id)
            await self._logs.delete(project_id)
            if request_id:
                await self._store.set_request_outcome(request_id, "deleted")

    async def effective(self, project: Project) -> RuntimeSettings:
        """`att.toml`, of the release if there is one, with the project's own settings over it.

        Raises SETTINGS_INVALID, PROJECT_PATH_INVALID, PROJECT_PATH_NOT_ALLOWED,
        NOT_IMPLEMENTED.
        """
        directory = run_directory(project, self._directories)
        try:
            written = await self._settings.read(project, directory)
        except AttError as error:
            if project.release_id and error.reason is Reason.PROJECT_PATH_INVALID:
                raise release_gone(directory) from error
            raise
        return project.runtime.over(written)

    async def secrets(
        self, project: Project, settings: RuntimeSettings, *, owner: str = ""
    ) -> Mapping[str, str]:
        """What the `env_file` of the settings gives; empty without one.

        owner: as `SettingsReader` takes it.

        Raises SETTINGS_INVALID, PROJECT_PATH_NOT_ALLOWED.
        """
        if settings.env_file is None:
            return {}
        return await self._settings.env_file(project, settings.env_file, owner=owner)

    async def _directory(self, path: str, remote: bool) -> Path:
        directory = Path(path)
        if directory.is_absolute():
            # First: that something is there is not for everybody to know.
            await self._roots.check(directory, remote=remote)
            if self._is_directory(directory):
                return directory
        raise AttError(
            Reason.PROJECT_PATH_INVALID,
            f"{path!r} is not the absolute path of an existing directory. "
            "Create the directory, or give another path.",
            path=path,
        )

    async def _put(
        self, project: Project, event_type: str, principal: str, attributes: dict[str, str]
    ) -> None:
        await self._store.put_project(
            project,
            Event(
                event_type=event_type,
                time=project.update_time,
                project_id=project.project_id,
                principal=principal,
                attributes=attributes,
            ),
        )
        self._projects[project.project_id] = project
        self._stored.ring()
