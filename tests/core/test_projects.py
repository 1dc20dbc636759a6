"""What becomes of projects, on fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from att_server.core.app_users import ANYBODY
from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason
from att_server.core.model import DesiredState, Event, EventFilter
from att_server.core.project_roots import ANYWHERE
from att_server.core.projects import ProjectManager
from att_server.core.settings import RuntimeSettings
from att_server.core.templates import Templates
from att_server.testing.artifacts import MemoryArtifacts
from att_server.testing.clock import FakeClock
from att_server.testing.log_store import MemoryLogStore
from att_server.testing.settings import FakeSettingsReader
from att_server.testing.state_store import MemoryStateStore
from att_server.testing.templates import FakeTemplateStore

RUN = RuntimeSettings(command=("python", "app.py"))


class Stage:
    """A manager on fakes; `running` holds the projects whose app runs."""

    def __init__(self) -> None:
        self.store = MemoryStateStore()
        self.settings = FakeSettingsReader()
        self.templates = FakeTemplateStore("nat", "other")
        self.clock = FakeClock()
        self.running: set[str] = set()
        self.forgotten: list[str] = []
        self.projects = self.manager()

    def manager(self) -> ProjectManager:
        return ProjectManager(
            store=self.store,
            logs=MemoryLogStore(),
            settings=self.settings,
            directories=MemoryArtifacts(),
            templates=Templates(store=self.templates, events=self.store),
            clock=self.clock,
            stored=Bell(),
            roots=ANYWHERE,
            users=ANYBODY,
            is_directory=lambda path: path.name == "there",
            released=self.released,
            forget=self.forget,
            desired_changed=lambda _: None,
        )

    async def forget(self, project_id: str) -> None:
        self.forgotten.append(project_id)

    @asynccontextmanager
    async def released(self, project_id: str) -> AsyncIterator[None]:
        if project_id in self.running:
            raise AttError(Reason.PROJECT_NOT_STOPPED, "it runs", project_id=project_id)
        yield

    async def event_types(self) -> list[str]:
        events, _ = await self.store.list_events(EventFilter(), cursor=0, limit=100)
        return [event.event_type for event in events]


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_created_project_is_there_for_the_next_server(stage: Stage) -> None:
    created = await stage.projects.create("web", "/is/there", RUN, principal="local:7")
    later = stage.manager()
    await later.open()
    assert later.get("web") == created
    assert created.desired is DesiredState.STOPPED
    assert await stage.event_types() == ["project.created"]


async def test_creating_it_again_returns_it_and_changes_nothing(stage: Stage) -> None:
    created = await stage.projects.create("web", "/is/there", RUN, principal="")
    assert await stage.projects.create("web", "/is/there", RUN, principal="") == created
    assert await stage.event_types() == ["project.created"]


@pytest.mark.parametrize(
    ("path", "runtime"), [("/other/there", RUN), ("/is/there", RuntimeSettings())]
)
async def test_another_specification_under_its_id_is_refused(
    stage: Stage, path: str, runtime: RuntimeSettings
) -> None:
    created = await stage.projects.create("web", "/is/there", RUN, principal="")
    with pytest.raises(AttError) as refused:
        await stage.projects.create("web", path, runtime, principal="")
    assert refused.value.reason is Reason.PROJECT_SPEC_CONFLICT
    assert stage.projects.get("web") == created


@pytest.mark.parametrize("path", ["relative/there", "/is/missing", ""])
async def test_a_path_that_is_no_directory_creates_nothing(stage: Stage, path: str) -> None:
    with pytest.raises(AttError) as refused:
        await stage.projects.create("web", path, RUN, principal="")
    assert refused.value.reason is Reason.PROJECT_PATH_INVALID
    assert refused.value.metadata == {"path": path}
    assert await stage.event_types() == []


async def test_a_template_fills_the_directory_before_the_project_is_there(stage: Stage) -> None:
    created = await stage.projects.create("web", "/new", RUN, template="nat", principal="")
    assert created.path == Path("/new")
    assert stage.templates.filled == {Path("/new"): "nat"}
    events, _ = await stage.store.list_events(EventFilter(), cursor=0, limit=9)
    assert [event.attributes for event in events] == [{"path": "/new", "template": "nat"}]


async def test_creating_it_again_by_its_template_returns_it(stage: Stage) -> None:
    created = await stage.projects.create("web", "/new", RUN, template="nat", principal="")
    stage.templates.filled[Path("/new")] = "somebody worked there since"
    again = await stage.projects.create("web", "/new", RUN, template="nat", principal="")
    assert again == created
    assert await stage.event_types() == ["project.created"]


async def test_a_project_made_otherwise_is_not_taken_for_one_of_the_template(stage: Stage) -> None:
    await stage.projects.create("plain", "/is/there", RUN, principal="")
    await stage.projects.create("other", "/new", RUN, template="other", principal="")
    for project_id, path in {"plain": "/is/there", "other": "/new"}.items():
        with pytest.raises(AttError) as refused:
            await stage.projects.create(project_id, path, RUN, template="nat", principal="")
        assert refused.value.reason is Reason.PROJECT_SPEC_CONFLICT
    assert stage.templates.filled == {Path("/new"): "other"}


async def test_a_new_life_of_a_project_may_have_another_template(stage: Stage) -> None:
    await stage.projects.create("web", "/new", RUN, template="other", principal="")
    await stage.projects.delete("web", request_id="", principal="")
    await stage.projects.create("web", "/newer", RUN, template="nat", principal="")
    again = await stage.projects.create("web", "/newer", RUN, template="nat", principal="")
    assert again.path == Path("/newer")


async def test_an_unknown_template_is_refused_with_those_that_are_known(stage: Stage) -> None:
    with pytest.raises(AttError) as refused:
        await stage.projects.create("web", "/new", RUN, template="not", principal="")
    assert refused.value.reason is Reason.FIELD_INVALID
    assert [v.field for v in refused.value.violations] == ["template"]
    assert "nat, other" in refused.value.message
    assert stage.templates.filled == {}


@pytest.mark.parametrize("path", ["relative", "/occupied"])
async def test_a_directory_that_cannot_be_filled_creates_nothing(stage: Stage, path: str) -> None:
    stage.templates.filled[Path("/occupied")] = ""
    with pytest.raises(AttError) as refused:
        await stage.projects.create("web", path, RUN, template="nat", principal="")
    assert refused.value.reason is Reason.PROJECT_PATH_INVALID
    assert refused.value.metadata == {"path": path}
    assert await stage.event_types() == []


async def test_a_filled_directory_whose_project_was_not_stored_is_taken_up_again(
    stage: Stage,
) -> None:
    stage.store.write_error = AttError(Reason.STORAGE_FULL, "full", path="/")
    with pytest.raises(AttError):
        await stage.projects.create("web", "/new", RUN, template="nat", principal="")
    stage.store.write_error = None
    await stage.projects.create("web", "/new", RUN, template="nat", principal="")
    assert await stage.event_types() == ["project.created"]


async def test_a_project_that_could_not_be_stored_is_not_shown(stage: Stage) -> None:
    stage.store.write_error = AttError(Reason.STORAGE_FULL, "full", path="/")
    with pytest.raises(AttError) as failed:
        await stage.projects.create("web", "/is/there", RUN, principal="")
    assert failed.value.reason is Reason.STORAGE_FULL
    with pytest.raises(AttError) as missing:
        stage.projects.get("web")
    assert missing.value.reason is Reason.PROJECT_NOT_FOUND


async def test_an_update_replaces_what_is_given_and_keeps_the_rest(stage: Stage) -> None:
    await stage.projects.create("web", "/is/there", RUN, principal="")
    changed = await stage.projects.update("web", path="/new/there", runtime=None, principal="")
    assert (changed.path, changed.runtime) == (Path("/new/there"), RUN)
    same = await stage.projects.update("web", path="/new/there", runtime=RUN, principal="")
    assert same == changed
    assert await stage.event_types() == ["project.created", "project.updated"]


async def test_a_deleted_project_is_gone_and_a_new_one_has_another_log(stage: Stage) -> None:
    first = await stage.projects.create("web", "/is/there", RUN, principal="")
    await stage.projects.delete("web", request_id="", principal="")
    with pytest.raises(AttError) as missing:
        stage.projects.get("web")
    assert missing.value.reason is Reason.PROJECT_NOT_FOUND
    second = await stage.projects.create("web", "/is/there", RUN, principal="")
    assert second.log_id != first.log_id


async def test_a_running_app_keeps_its_project(stage: Stage) -> None:
    created = await stage.projects.create("web", "/is/there", RUN, principal="")
    stage.running.add("web")
    with pytest.raises(AttError) as refused:
        await stage.projects.delete("web", request_id="once", principal="")
    assert refused.value.reason is Reason.PROJECT_NOT_STOPPED
    assert stage.projects.get("web") == created
    stage.running.clear()
    await stage.projects.delete("web", request_id="once", principal="")
    assert await stage.event_types() == ["project.created", "project.deleted"]


async def test_a_deletion_repeated_under_its_request_id_succeeds_once(stage: Stage) -> None:
    await stage.projects.create("web", "/is/there", RUN, principal="")
    await stage.projects.delete("web", request_id="once", principal="")
    await stage.projects.delete("web", request_id="once", principal="")
    await stage.projects.create("web", "/is/there", RUN, principal="")
    await stage.projects.delete("web", request_id="once", principal="")
    assert stage.projects.get("web").project_id == "web"


async def test_a_request_id_of_another_deletion_is_refused(stage: Stage) -> None:
    for project_id in ("one", "two"):
        await stage.projects.create(project_id, "/is/there", RUN, principal="")
    await stage.projects.delete("one", request_id="once", principal="")
    with pytest.raises(AttError) as refused:
        await stage.projects.delete("two", request_id="once", principal="")
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert stage.projects.get("two").project_id == "two"


async def test_settings_of_the_project_win_key_by_key(stage: Stage) -> None:
    stage.settings.settings["web"] = RuntimeSettings(
        command=("written",), env={"A": "file", "B": "file"}
    )
    project = await stage.projects.create(
        "web", "/is/there", RuntimeSettings(env={"B": "given"}), principal=""
    )
    effective = await stage.projects.effective(project)
    assert effective.command == ("written",)
    assert effective.env == {"A": "file", "B": "given"}


async def test_pages_hold_every_project_once_in_order(stage: Stage) -> None:
    names = [f"p{number:03}" for number in range(23)]
    for name in reversed(names):
        await stage.projects.create(name, "/is/there", RUN, principal="")
    seen: list[str] = []
    token = ""
    while True:
        page, token = stage.projects.list(5, token)
        seen += [project.project_id for project in page]
        if not token:
            break
    assert seen == names


@pytest.mark.parametrize("token", ["%%%", "x", "=", "ä"])
def test_a_made_up_page_token_is_refused(stage: Stage, token: str) -> None:
    with pytest.raises(AttError) as refused:
        stage.projects.list(5, token)
    assert refused.value.reason is Reason.FIELD_INVALID


async def test_what_is_desired_is_stored_with_who_wants_it(stage: Stage) -> None:
    await stage.projects.create("web", "/is/there", RUN, principal="")
    event = Event(event_type="runtime.start_requested", time=stage.clock.now(), project_id="web")
    await stage.projects.set_desired("web", DesiredState.RUNNING, RUN, event)
    later = stage.manager()
    await later.open()
    assert later.get("web").desired is DesiredState.RUNNING
    assert later.get("web").desired_runtime == RUN
    assert await stage.event_types() == ["project.created", "runtime.start_requested"]
