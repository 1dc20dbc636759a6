"""The database of the release before, used by this one, and that of this one by it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.state_schema import SCHEMA_VERSION
from att_server.core.cycles.model import CycleState
from att_server.core.model import EventFilter, ProjectMode
from tests.compat.releases import PREVIOUS, released_environ, releases, unpack
from tests.contract.test_cycle_journal import cycle, release
from tests.contract.test_state_store import event, project

USE = """
import asyncio, sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.state_schema import SCHEMA_VERSION
from att_server.core.model import DesiredState, Event, Project, ProjectMode
try:
    from att_server.core.settings import RuntimeSettings
except ImportError:  # before 0.2.0.dev1
    from att_server.core.model import RuntimeSettings

NOW = datetime(2030, 1, 1, tzinfo=UTC)

def project(project_id):
    return Project(
        project_id=project_id, path=Path("/srv/old"), runtime=RuntimeSettings(command=("a",)),
        mode=ProjectMode.NORMAL, log_id="1" * 26, desired=DesiredState.RUNNING,
        desired_runtime=RuntimeSettings(), create_time=NOW, update_time=NOW,
    )

async def main(path, words):
    store = await SqliteStateStore.open(Path(path))
    kept = {each.project_id: each for each in await store.projects()}
    for word in words:
        verb, _, project_id = word.partition(":")
        if verb == "create":
            await store.put_project(project(project_id), Event(event_type="old", time=NOW))
        elif verb == "stop":
            stopped = replace(kept[project_id], desired=DesiredState.STOPPED)
            await store.put_project(stopped, Event(event_type="old", time=NOW))
        elif verb == "calm":
            await store.put_project(replace(kept[project_id], mode=ProjectMode.NORMAL))
        elif verb == "delete":
            await store.delete_project(project_id)
    print(*sorted(kept))
    await store.aclose()

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "previous_tree" in metafunc.fixturenames:
        named = releases(metafunc.config, PREVIOUS)
        metafunc.parametrize("previous_tree", named, indirect=True, scope="module")


@pytest.fixture(scope="module")
def previous_tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(request.param, tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def without_reasons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that knows modes of projects, and not why they are set."""
    return unpack(PREVIOUS, tmp_path_factory.mktemp("releases"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "att.db"


def previous(tree: Path, path: Path, *words: str) -> list[str]:
    """Lets the release before do what the words say; the projects that it found."""
    environ = {**os.environ, **released_environ(tree)}
    command = [sys.executable, "-c", USE, str(path), *words]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def version(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        found: str = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    return found


async def test_a_database_of_the_release_before_is_migrated_with_all_it_holds(
    previous_tree: Path, path: Path
) -> None:
    previous(previous_tree, path, "create:web")
    migrations = previous_tree / "att_server/adapters/migrations/versions"
    assert version(path) == max(each.name for each in migrations.glob("v0*.py"))[1:5]
    database = await SqliteDatabase.open(path)
    store, journal = SqliteStateStore(database), SqliteJournal(database)
    [web] = await store.projects()
    assert (web.project_id, web.path, web.runtime.command) == ("web", Path("/srv/old"), ("a",))
    assert (web.mode_reason, web.release_id) == ("", "")
    await journal.create(cycle(), b"change", event("new"))
    await store.put_project(replace(web, mode=ProjectMode.SAFE, mode_reason="x", release_id="r"))
    events, _ = await store.list_events(EventFilter(), cursor=0, limit=9)
    assert [(each.sequence, each.event_type) for each in events] == [(0, "old"), (1, "new")]
    await database.aclose()
    assert version(path) == f"{SCHEMA_VERSION:04}"


async def test_the_release_before_writes_a_database_of_this_one_and_spoils_nothing(
    previous_tree: Path, path: Path
) -> None:
    database = await SqliteDatabase.open(path)
    store, journal = SqliteStateStore(database), SqliteJournal(database)
    web = replace(project(), mode_reason="rollback_failed", release_id="c" * 40)
    await store.put_project(web)
    await journal.create(cycle(), b"change")
    await journal.put_releases(release())
    await database.aclose()

    assert previous(previous_tree, path, "stop:web", "create:second") == ["web"]
    assert previous(previous_tree, path) == ["second", "web"]

    database = await SqliteDatabase.open(path)
    store, journal = SqliteStateStore(database), SqliteJournal(database)
    second, after = await store.projects()
    assert (second.mode_reason, second.release_id) == ("", "")
    assert (after.mode_reason, after.release_id) == ("rollback_failed", "c" * 40)
    assert after.desired is not web.desired
    assert await journal.cycle("01") == cycle()
    assert await journal.change("01") == b"change"
    assert await journal.releases("web") == [release()]
    await database.aclose()
    assert version(path) == f"{SCHEMA_VERSION:04}"


async def test_a_mode_that_the_release_before_left_has_no_reason(
    without_reasons: Path, path: Path
) -> None:
    store = await SqliteStateStore.open(path)
    await store.put_project(replace(project(), mode_reason="rollback_failed"))
    await store.aclose()
    previous(without_reasons, path, "calm:web")
    store = await SqliteStateStore.open(path)
    [web] = await store.projects()
    assert (web.mode, web.mode_reason) == (ProjectMode.NORMAL, "")
    await store.aclose()


async def test_what_the_release_before_left_of_a_deleted_project_is_not_the_next_ones(
    previous_tree: Path, path: Path
) -> None:
    database = await SqliteDatabase.open(path)
    await SqliteStateStore(database).put_project(project())
    await SqliteJournal(database).create(cycle(), b"change")
    await SqliteJournal(database).put_releases(release())
    await database.aclose()
    previous(previous_tree, path, "delete:web")
    database = await SqliteDatabase.open(path)
    store, journal = SqliteStateStore(database), SqliteJournal(database)
    await store.put_project(project())
    assert await journal.releases("web") == []
    assert await journal.cycles(limit=9) == []
    await journal.create(cycle("02", state=CycleState.RUNNING), b"")
    await database.aclose()
