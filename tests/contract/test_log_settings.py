"""The `[log]` table of an `att.toml`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.settings import LogSettings
from tests.contract.test_notify_settings import READER, project, write

__all__ = ["project"]


async def test_without_file_or_table_the_defaults_hold(project: Project) -> None:
    assert await READER.log(project) == LogSettings()
    write(project, '[runtime]\ncommand = ["app"]\n[log]\n')
    assert await READER.log(project) == LogSettings()


async def test_size_age_and_free_space_are_read(project: Project) -> None:
    write(project, '[log]\nmax_size = "2GiB"\nmax_age = "30d"\nmin_free = 0.25\n')
    assert await READER.log(project) == LogSettings(
        max_size=2 << 30, max_age=timedelta(days=30), min_free=0.25
    )
    write(project, "[log]\nmin_free = 0.0\n")
    assert (await READER.log(project)).min_free == 0


async def test_a_mistake_elsewhere_does_not_change_what_is_kept(project: Project) -> None:
    write(project, '[runtime]\nno_such_key = 2\n[log]\nmax_size = "64MiB"\n')
    assert (await READER.log(project)).max_size == 64 << 20


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('max_size = "1MiB"', "log.max_size"),
        ('max_size = "2MB"', "log.max_size"),
        ('max_age = "1s"', "log.max_age"),
        ("max_age = 5", "log.max_age"),
        ("min_free = 1.5", "log.min_free"),
        ("min_free = -0.1", "log.min_free"),
        ("keep = 1", "log.keep"),
    ],
)
async def test_a_mistake_is_told_with_its_key(project: Project, line: str, key: str) -> None:
    write(project, f"[log]\n{line}\n")
    for read in (READER.log(project), READER.read(project, project.path)):
        with pytest.raises(AttError) as refused:
            await read
        assert refused.value.reason is Reason.SETTINGS_INVALID
        assert (refused.value.metadata["key"], refused.value.metadata["line"]) == (key, "2")
