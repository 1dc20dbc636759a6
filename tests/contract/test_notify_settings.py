"""The `[notify]` table of an `att.toml`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from att_server.adapters.settings import TomlSettingsReader
from att_server.core.errors import AttError
from att_server.core.model import DesiredState, Project, ProjectMode
from att_server.core.settings import NotifySettings, RuntimeSettings

READER = TomlSettingsReader()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    now = datetime.now(UTC)
    return Project(
        project_id="web",
        path=tmp_path,
        runtime=RuntimeSettings(),
        mode=ProjectMode.NORMAL,
        log_id="LOG",
        desired=DesiredState.STOPPED,
        desired_runtime=RuntimeSettings(),
        create_time=now,
        update_time=now,
    )


def write(project: Project, text: str) -> None:
    (project.path / "att.toml").write_text(text)


async def test_command_and_timeout_are_read(project: Project) -> None:
    write(project, '[notify]\ncommand = ["tell", "us"]\n')
    assert await READER.notify(project) == NotifySettings(
        command=("tell", "us"), timeout=timedelta(seconds=30)
    )
    write(project, '[notify]\ncommand = ["tell"]\ntimeout = "2m"\n')
    assert await READER.notify(project) == NotifySettings(
        command=("tell",), timeout=timedelta(minutes=2)
    )


async def test_without_file_or_table_nobody_wants_to_know(project: Project) -> None:
    assert await READER.notify(project) is None
    write(project, '[runtime]\ncommand = ["app"]\n')
    assert await READER.notify(project) is None


async def test_a_mistake_elsewhere_does_not_keep_people_from_being_told(project: Project) -> None:
    write(project, '[runtime]\ncommand = 1\nno_such_key = 2\n[notify]\ncommand = ["tell"]\n')
    assert await READER.notify(project) == NotifySettings(command=("tell",))


@pytest.mark.parametrize(
    ("table", "line", "key"),
    [
        ("", "1", "notify.command"),
        ('timeout = "30s"', "1", "notify.command"),
        ("command = []", "2", "notify.command"),
        ('command = "tell us"', "2", "notify.command"),
        ('command = ["tell"]\ntimeout = "500ms"', "3", "notify.timeout"),
        ('command = ["tell"]\ntimeout = "11m"', "3", "notify.timeout"),
        ('command = ["tell"]\ntimeout = 30', "3", "notify.timeout"),
        ('command = ["tell"]\ntimeuot = "30s"', "3", "notify.timeuot"),
    ],
)
async def test_a_wrong_table_is_refused_with_its_line_also_at_a_start(
    project: Project, table: str, line: str, key: str
) -> None:
    write(project, f"[notify]\n{table}\n")
    for call in (READER.notify(project), READER.read(project, project.path)):
        with pytest.raises(AttError) as caught:
            await call
        assert caught.value.reason == "SETTINGS_INVALID"
        assert (caught.value.metadata["line"], caught.value.metadata["key"]) == (line, key)


async def test_a_directory_that_is_gone_is_told(project: Project) -> None:
    project.path.rmdir()
    with pytest.raises(AttError) as caught:
        await READER.notify(project)
    assert caught.value.reason == "PROJECT_PATH_INVALID"
