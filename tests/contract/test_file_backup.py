"""What a backup holds of a project's files, and a state directory that is made of it."""

from __future__ import annotations

import asyncio
import io
import os
import sqlite3
import stat
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from att_server import backup
from att_server.adapters.file_backup import FilesInvalid, copy_files, put_files_back
from att_server.adapters.release_directories import ReleaseDirectories
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.store_backup import RESTORED, good_releases
from att_server.archive import BackupError
from att_server.core.cycles.artifacts import Manifest
from att_server.core.cycles.model import CycleFacts, CycleState, CycleStep, StepState, StepStatus
from att_server.core.failure_class import CycleOutcome
from att_server.core.model import EventFilter, ProjectMode
from att_server.core.releases import Release, ReleaseState
from att_server.restore import restore
from tests.contract.test_cycle_journal import LEASE, cycle
from tests.contract.test_state_store import project

NOW = datetime(2030, 1, 1, tzinfo=UTC)
GOOD, OLD, TRIED, BAD, LOST = (letter * 40 for letter in "abcde")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir(mode=0o700)
    return tmp_path / "s"


async def build(state_dir: Path, *release_ids: str) -> ReleaseDirectories:
    """Releases with an executable, a link, an empty directory and what they share."""
    directories = ReleaseDirectories(state_dir)
    for release_id in release_ids:
        directory = directories.directory("web", release_id)
        (directory / "empty").mkdir(parents=True)
        (directory / "größer").write_text(release_id)
        (directory / "run").write_text("#!/bin/sh\n")
        (directory / "run").chmod(0o755)
        (directory / "again").symlink_to("run")
        await directories.link_shared("web", release_id, ["uploads"])
        manifest = Manifest(release_id=release_id, tree="t", cycle_id="01", create_time=NOW)
        await directories.seal("web", manifest)
    return directories


def look(directory: Path) -> dict[str, str]:
    """Every path below, and what is there."""
    found = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_dir():
            found[name] = "/"
        else:
            executable = "*" if path.stat().st_mode & stat.S_IXUSR else ""
            found[name] = executable + path.read_bytes().decode(errors="replace")
    return found


def there_and_back(state_dir: Path, good: set[str], target: Path) -> frozenset[str]:
    copy = target.with_suffix(".tar")
    assert copy_files(state_dir / "projects" / "web", copy, good) == copy.stat().st_size
    target.mkdir()
    with copy.open("rb") as file:
        return put_files_back(file, target)


async def test_releases_data_and_what_is_shared_come_back_as_they_were(
    state_dir: Path, tmp_path: Path
) -> None:
    directories = await build(state_dir, GOOD, OLD, BAD)
    await directories.switch("web", GOOD)
    data = await directories.prepare_data("web")
    (data / "notes").write_bytes(b"kept \xff")
    (state_dir / "projects/web/shared/uploads/picture").write_text("p")
    there = there_and_back(state_dir, {OLD, LOST}, tmp_path / "back")
    assert there == {GOOD, OLD}
    before, after = look(state_dir / "projects" / "web"), look(tmp_path / "back")
    assert after == {name: what for name, what in before.items() if BAD not in name}
    assert after["current"] == f"-> releases/{GOOD}"
    assert after[f"releases/{GOOD}/run"].startswith("*")


async def test_a_repository_comes_back_with_its_refs_and_without_its_work(
    state_dir: Path, tmp_path: Path
) -> None:
    repository = state_dir / "projects/web/repository.git"

    def git(*words: str, where: Path = repository) -> str:
        done = subprocess.run(
            ["git", "-C", str(where), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    repository.mkdir(parents=True)
    git("init", "--quiet", "--bare", "--template=", ".")
    tree = git("write-tree")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    commit = git(*identity, "commit-tree", "-m", "x", tree)
    packed = git(*identity, "commit-tree", "-m", "y", tree)
    git("update-ref", f"refs/att/releases/{packed}", packed)
    git("pack-refs", "--all")
    git("repack", "-a", "-d", "-q")
    git("update-ref", f"refs/att/releases/{commit}", commit)
    git("worktree", "add", "-q", "--detach", str(state_dir / "projects/web/work/1"), commit)
    (repository / "refs/att/releases/x.lock").touch()
    assert there_and_back(state_dir, set(), tmp_path / "back") == frozenset()
    copied = tmp_path / "back" / "repository.git"
    refs = git("for-each-ref", "--format=%(refname)", where=copied).split()
    assert sorted(refs) == sorted(f"refs/att/releases/{each}" for each in (commit, packed))
    git("fsck", "--strict", where=copied)
    assert git("worktree", "list", where=copied).count("\n") == 0
    assert not [name for name in look(tmp_path / "back") if "lock" in name or "work" in name]


async def test_a_release_without_a_manifest_is_none(state_dir: Path, tmp_path: Path) -> None:
    directories = await build(state_dir, GOOD, OLD)
    await directories.switch("web", GOOD)
    for release_id in (GOOD, OLD):
        (state_dir / f"projects/web/releases/{release_id}.json").unlink()
    assert there_and_back(state_dir, {OLD}, tmp_path / "back") == frozenset()
    assert [name for name in look(tmp_path / "back") if "a" * 9 in name or "current" in name] == []


def test_a_project_without_files_makes_no_copy(state_dir: Path, tmp_path: Path) -> None:
    (state_dir / "projects/web/logs").mkdir(parents=True)
    assert copy_files(state_dir / "projects/web", tmp_path / "c.tar", {GOOD}) == 0
    assert not (tmp_path / "c.tar").exists()


def test_sockets_and_pipes_are_left_out(state_dir: Path, tmp_path: Path) -> None:
    data = state_dir / "projects/web/data"
    data.mkdir(parents=True)
    os.mkfifo(data / "pipe")
    (data / "file").write_text("x")
    there_and_back(state_dir, set(), tmp_path / "back")
    assert look(tmp_path / "back") == {"data": "/", "data/file": "x"}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "members",
    [
        [member("/data/x")],
        [member("data/../../x")],
        [member("logs/head.json")],
        [member("releases/x/y")],
        [member("releases")],
        [member("data/x", tarfile.CHRTYPE)],
        [member("data/x", tarfile.FIFOTYPE)],
        [member("data/x", tarfile.LNKTYPE, "../../outside/secret")],
        [member("data/x"), member("data/x")],
        [member("data/x"), member("data/x/y")],
        [member("data/x", tarfile.DIRTYPE), member("data/x")],
        [member("data/x", tarfile.SYMTYPE, "../../outside"), member("data/x/y")],
        [
            member("data/x", tarfile.SYMTYPE, "../../outside"),
            member("data/x/y", tarfile.SYMTYPE, "z"),
        ],
        [member("data", tarfile.SYMTYPE, "../outside"), member("data/y")],
    ],
    ids=lambda members: " ".join(f"{each.name}:{each.type.decode()}" for each in members),
)
def test_a_copy_that_leads_elsewhere_is_refused(
    tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    (tmp_path / "project").mkdir()
    copy = io.BytesIO()
    with tarfile.open(mode="w", fileobj=copy) as tar:
        for each in members:
            tar.addfile(each)
    copy.seek(0)
    with pytest.raises(FilesInvalid):
        put_files_back(copy, tmp_path / "project")
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "project"]


def test_a_link_to_no_release_is_not_current(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    copy = io.BytesIO()
    with tarfile.open(mode="w", fileobj=copy) as tar:
        tar.addfile(member("current", tarfile.SYMTYPE, "/etc"))
    copy.seek(0)
    assert put_files_back(copy, tmp_path / "project") == frozenset()
    assert look(tmp_path / "project") == {}


@pytest.mark.parametrize("cut", [b"", b"x" * 700])
def test_a_copy_that_is_cut_is_refused_or_empty(tmp_path: Path, cut: bytes) -> None:
    with pytest.raises(FilesInvalid):
        put_files_back(io.BytesIO(cut), tmp_path)


# A whole state directory --------------------------------------------------------


def release(release_id: str, change: Callable[[Release], Release] = lambda each: each) -> Release:
    staged = Release(release_id=release_id, project_id="web", state_time=NOW, create_time=NOW)
    return change(staged)


async def fill(state_dir: Path, facts: CycleFacts) -> None:
    """A project that runs on a good release, and a cycle on its way."""
    database = await SqliteDatabase.open(state_dir / "att.db")
    store, journal = SqliteStateStore(database), SqliteJournal(database)
    await store.put_project(replace(project(), mode=ProjectMode.NORMAL, release_id=GOOD))
    await journal.create(cycle(), b"change")
    taken = await journal.take("01", "a", lease=LEASE, force=False)
    assert taken is not None
    running = StepStatus(step=CycleStep.DEPLOY, state=StepState.RUNNING, attempt=1)
    await journal.commit(
        replace(taken.with_step(running), facts=facts),
        releases=[
            release(GOOD, lambda each: each.trying(1, NOW).good(NOW)),
            release(OLD, lambda each: each.trying(1, NOW).good(NOW)),
            release(LOST, lambda each: each.trying(1, NOW).good(NOW)),
            release(TRIED, lambda each: each.trying(1, NOW)),
            release(BAD, lambda each: each.trying(1, NOW).bad("health_failure", NOW)),
        ],
    )
    await database.aclose()


@pytest.mark.parametrize("cut_over", [False, True])
async def test_a_restored_project_has_its_releases_and_nothing_is_on_its_way(
    state_dir: Path, tmp_path: Path, cut_over: bool
) -> None:
    directories = await build(state_dir, GOOD, OLD, TRIED, BAD)
    await directories.switch("web", GOOD)
    await fill(state_dir, CycleFacts(cut_over=cut_over, branch_pushed=True))
    made = await asyncio.to_thread(backup.make, state_dir, tmp_path / "b.tar.gz")
    assert made.file_bytes > 0
    restored = await asyncio.to_thread(
        restore, tmp_path / "b.tar.gz", tmp_path / "r", stopped=False
    )
    assert (restored.projects, restored.ended_cycles) == (1, 1)
    assert not list((tmp_path / "r").rglob("files.tar"))
    assert await ReleaseDirectories(tmp_path / "r").current("web") == GOOD
    assert await ReleaseDirectories(tmp_path / "r").staged("web") == {GOOD, OLD}
    database = await SqliteDatabase.open(tmp_path / "r" / "att.db")
    store, journal = SqliteStateStore(database), SqliteJournal(database)
    [web] = await store.projects()
    assert web.release_id == GOOD
    expected = (ProjectMode.SAFE, RESTORED) if cut_over else (ProjectMode.NORMAL, "")
    assert (web.mode, web.mode_reason) == expected
    ended = await journal.cycle("01")
    assert ended is not None
    assert (ended.state, ended.outcome) == (CycleState.ENDED, CycleOutcome.FAILED)
    assert ended.outcome_reason == RESTORED
    assert ended.step(CycleStep.DEPLOY).state is StepState.FAILED
    assert ended.step(CycleStep.HEALTH).state is StepState.SKIPPED
    # The original may go on with it: what it has on the remote stays.
    assert ended.facts.cleaned_up
    assert await journal.change("01") == b""
    releases = {each.release_id: each for each in await journal.releases("web")}
    there = {each.release_id for each in releases.values() if each.removed_time is None}
    assert there == {GOOD, OLD}
    assert releases[TRIED].state is ReleaseState.BAD
    events, _ = await store.list_events(EventFilter(), cursor=0, limit=9)
    assert [each.event_type for each in events] == ["cycle.ended", "server.restored"]
    await database.aclose()


async def test_an_archive_with_files_that_lead_elsewhere_restores_nothing(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(state_dir, CycleFacts())

    def evil(project: Path, target: Path, good: object) -> int:
        with tarfile.open(target, "w") as tar:
            tar.addfile(member("data/../../../x"))
        return target.stat().st_size

    monkeypatch.setattr(backup, "copy_files", evil)
    await asyncio.to_thread(backup.make, state_dir, tmp_path / "b.tar.gz")
    with pytest.raises(BackupError) as refused:
        await asyncio.to_thread(restore, tmp_path / "b.tar.gz", tmp_path / "r", stopped=False)
    assert refused.value.reason == "ARCHIVE_INVALID"
    assert not (tmp_path / "r").exists()


def test_a_database_without_releases_has_no_good_ones(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "att.db")) as connection:
        connection.execute("CREATE TABLE project (a)")
    assert good_releases(tmp_path / "att.db") == {}
