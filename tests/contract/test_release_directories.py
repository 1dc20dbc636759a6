"""What every store of releases keeps to, and what becomes of files, links and kills."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
import textwrap
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from att_server.adapters.release_directories import ReleaseDirectories
from att_server.core.cycles.artifacts import ArtifactStore, Manifest
from att_server.core.errors import AttError, Reason
from att_server.testing.artifacts import MemoryArtifacts

OLD, NEW, OTHER = "a" * 40, "b" * 40, "c" * 40
CYCLE = "01JD0000000000000000000001"


def manifest(release_id: str = NEW) -> Manifest:
    return Manifest(
        release_id=release_id,
        tree="d" * 40,
        cycle_id=CYCLE,
        create_time=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        build=("make", "all"),
        shared=("var/files",),
        facts={"data_version": "3"},
    )


class Stage:
    """A store, and what makes a directory of a release as an export does."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store

    async def exported(self, *release_ids: str, project_id: str = "web") -> None:
        for release_id in release_ids:
            directory = self.store.directory(project_id, release_id)
            if isinstance(self.store, ReleaseDirectories):
                directory.mkdir(parents=True)
                (directory / "app.py").write_text("app")
            else:
                await self.store.link_shared(project_id, release_id, [])

    async def sealed(self, *release_ids: str) -> None:
        await self.exported(*release_ids)
        for release_id in release_ids:
            await self.store.seal("web", manifest(release_id))


@pytest.fixture(params=["directories", "memory"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    if request.param == "memory":
        return Stage(MemoryArtifacts(tree_paths=["app.py"]))
    return Stage(ReleaseDirectories(tmp_path))


@pytest.fixture
def files(tmp_path: Path) -> Stage:
    return Stage(ReleaseDirectories(tmp_path))


def link(tmp_path: Path) -> Path:
    return tmp_path / "projects" / "web" / "current"


# Every store ------------------------------------------------------------------


async def test_what_was_sealed_is_a_release(stage: Stage) -> None:
    await stage.exported(NEW)
    assert await stage.store.manifest("web", NEW) is None
    await stage.store.seal("web", manifest())
    assert await stage.store.manifest("web", NEW) == manifest()
    assert await stage.store.manifest("web", OLD) is None
    assert await stage.store.manifest("other", NEW) is None


async def test_what_is_not_sealed_is_there_all_the_same(stage: Stage) -> None:
    assert await stage.store.staged("web") == frozenset()
    await stage.sealed(OLD)
    await stage.exported(NEW)
    await stage.exported(OTHER, project_id="other")
    assert await stage.store.staged("web") == {OLD, NEW}


async def test_what_was_discarded_is_gone_and_can_be_made_again(stage: Stage) -> None:
    await stage.sealed(NEW)
    for _ in range(2):
        await stage.store.discard("web", NEW)
    assert await stage.store.manifest("web", NEW) is None
    assert await stage.store.staged("web") == frozenset()
    await stage.sealed(NEW)
    assert await stage.store.manifest("web", NEW) == manifest()


async def test_what_never_became_a_release_is_removed_but_not_the_current_one(
    stage: Stage,
) -> None:
    await stage.sealed(OLD)
    await stage.exported(NEW, OTHER)
    await stage.store.switch("web", OTHER)
    await stage.store.discard_unsealed("web")
    assert await stage.store.staged("web") == {OLD, OTHER}


async def test_the_current_release_is_the_last_one_switched_to(stage: Stage) -> None:
    await stage.sealed(OLD, NEW)
    assert await stage.store.current("web") == ""
    for release_id in (OLD, NEW, NEW, OLD):
        await stage.store.switch("web", release_id)
        assert await stage.store.current("web") == release_id
    assert await stage.store.current("other") == ""


async def test_nothing_is_switched_to_what_is_not_there(stage: Stage) -> None:
    await stage.sealed(OLD)
    await stage.store.switch("web", OLD)
    with pytest.raises(ValueError, match="no directory"):
        await stage.store.switch("web", NEW)
    assert await stage.store.current("web") == OLD


async def test_a_path_of_the_tree_is_not_shared(stage: Stage) -> None:
    await stage.exported(NEW)
    with pytest.raises(ValueError, match=r"'app\.py' is in the release's tree"):
        await stage.store.link_shared("web", NEW, ["app.py"])


async def test_the_data_directory_is_the_same_for_all_releases(stage: Stage) -> None:
    for _ in range(2):
        assert await stage.store.prepare_data("web") == stage.store.data_directory("web")
    assert stage.store.data_directory("web") != stage.store.data_directory("other")


async def test_of_a_forgotten_project_nothing_is_left(stage: Stage) -> None:
    await stage.sealed(OLD)
    await stage.store.switch("web", OLD)
    await stage.store.link_shared("web", OLD, ["var"])
    await stage.store.prepare_data("web")
    await stage.exported(OTHER, project_id="other")
    for _ in range(2):
        await stage.store.forget_project("web")
    assert await stage.store.staged("web") == frozenset()
    assert await stage.store.current("web") == ""
    assert await stage.store.staged("other") == {OTHER}
    if isinstance(stage.store, ReleaseDirectories):
        project = stage.store.data_directory("web").parent
        assert list(project.iterdir()) == []


# Files ------------------------------------------------------------------------


async def test_the_link_leads_to_the_files(files: Stage, tmp_path: Path) -> None:
    await files.sealed(OLD, NEW)
    await files.store.switch("web", NEW)
    assert (link(tmp_path) / "app.py").read_text() == "app"
    assert link(tmp_path).resolve() == files.store.directory("web", NEW)


async def test_a_state_directory_can_be_moved_with_its_links(files: Stage, tmp_path: Path) -> None:
    await files.exported(NEW)
    await files.store.link_shared("web", NEW, ["var/files"])
    await files.store.seal("web", manifest())
    await files.store.switch("web", NEW)
    (link(tmp_path) / "var/files/note").write_text("kept")
    (tmp_path / "projects").rename(tmp_path / "moved")
    assert (tmp_path / "moved/web/current/var/files/note").read_text() == "kept"


async def test_what_is_shared_lives_across_releases(files: Stage) -> None:
    await files.exported(OLD, NEW)
    for release_id in (OLD, NEW, NEW):
        await files.store.link_shared("web", release_id, ["var/files", "cache"])
    (files.store.directory("web", OLD) / "var/files/note").write_text("kept")
    assert (files.store.directory("web", NEW) / "var/files/note").read_text() == "kept"
    await files.store.discard("web", OLD)
    assert (files.store.directory("web", NEW) / "var/files/note").read_text() == "kept"


@pytest.mark.parametrize("path", ["", "/etc", "../x", "a/../../x", "a\0b", "app.py/x", "out/x"])
async def test_nothing_outside_of_the_release_is_linked(files: Stage, path: str) -> None:
    await files.exported(NEW)
    (files.store.directory("web", NEW) / "out").symlink_to("/tmp")
    with pytest.raises(ValueError, match="release"):
        await files.store.link_shared("web", NEW, [path])


@pytest.mark.parametrize("release_id", ["", "..", "a/b", "main", "A" * 40, "a" * 39])
async def test_what_is_no_id_is_no_path(files: Stage, release_id: str) -> None:
    with pytest.raises(ValueError, match="not the id"):
        files.store.directory("web", release_id)
    with pytest.raises(ValueError, match="not the id"):
        await files.store.discard("web", release_id)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"release_id": "x"}', "\xff", "nul\0"],
)
async def test_a_manifest_that_is_damaged_is_none(files: Stage, content: str) -> None:
    await files.sealed(NEW)
    directory = files.store.directory("web", NEW)
    directory.with_name(f"{NEW}.json").write_bytes(content.encode("latin-1"))
    assert await files.store.manifest("web", NEW) is None
    assert await files.store.staged("web") == {NEW}


async def test_a_manifest_of_another_release_is_none(files: Stage) -> None:
    await files.sealed(OLD, NEW)
    directory = files.store.directory("web", NEW)
    directory.with_name(f"{OLD}.json").replace(directory.with_name(f"{NEW}.json"))
    assert await files.store.manifest("web", NEW) is None


async def test_what_a_later_release_adds_to_a_manifest_is_left_alone(files: Stage) -> None:
    await files.sealed(NEW)
    path = files.store.directory("web", NEW).with_name(f"{NEW}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2, "new": {"a": 1}}))
    assert await files.store.manifest("web", NEW) == manifest()


async def test_a_release_whose_directory_was_deleted_is_none(files: Stage) -> None:
    await files.sealed(NEW)
    (files.store.directory("web", NEW) / "app.py").unlink()
    files.store.directory("web", NEW).rmdir()
    assert await files.store.manifest("web", NEW) is None
    await files.store.discard("web", NEW)
    assert await files.store.staged("web") == frozenset()


async def test_what_is_no_directory_is_not_sealed(files: Stage) -> None:
    with pytest.raises(FileNotFoundError):
        await files.store.seal("web", manifest())
    assert await files.store.staged("web") == frozenset()


async def test_what_took_its_own_permissions_away_is_removed(files: Stage) -> None:
    await files.sealed(NEW)
    inner = files.store.directory("web", NEW) / "closed" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    inner.chmod(0)
    inner.parent.chmod(0o500)
    await files.store.discard("web", NEW)
    assert not files.store.directory("web", NEW).exists()


async def test_a_link_to_elsewhere_is_removed_as_a_link(files: Stage, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    await files.exported(NEW)
    (files.store.directory("web", NEW) / "link").symlink_to(kept)
    await files.store.discard("web", NEW)
    assert (kept / "file").exists()


async def test_a_full_disk_is_told_and_leaves_what_was_there(
    files: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await files.sealed(OLD)
    await files.store.switch("web", OLD)
    await files.exported(NEW)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for act in (files.store.seal("web", manifest()), files.store.switch("web", NEW)):
        with pytest.raises(AttError) as caught:
            await act
        assert caught.value.reason is Reason.STORAGE_FULL
    monkeypatch.undo()
    assert await files.store.manifest("web", NEW) is None
    assert await files.store.manifest("web", OLD) is not None
    await files.store.seal("web", manifest())
    assert await files.store.manifest("web", NEW) == manifest()


async def test_a_reader_always_finds_the_current_release(files: Stage, tmp_path: Path) -> None:
    await files.sealed(OLD, NEW)
    await files.store.switch("web", OLD)
    over = threading.Event()
    misses: list[str] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        while not over.is_set():
            try:
                (link(tmp_path) / "app.py").read_bytes()
            except OSError as error:
                misses.append(str(error))
            reads += 1

    reader = asyncio.create_task(asyncio.to_thread(read))
    for number in range(100):
        await files.store.switch("web", (NEW, OLD)[number % 2])
    over.set()
    await reader
    assert (misses, reads > 0) == ([], True)


# Kills ------------------------------------------------------------------------

_WORKER = """
    import asyncio, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from att_server.adapters.release_directories import ReleaseDirectories
    from att_server.core.cycles.artifacts import Manifest

    OLD, NEW = "a" * 40, "b" * 40

    async def main(store):
        for round in range(1_000_000):
            release_id = (OLD, NEW)[round % 2]
            if await store.current("web") != release_id:
                await store.discard("web", release_id)
                directory = store.directory("web", release_id)
                directory.mkdir(parents=True)
                for number in range(20):
                    (directory / f"{number}").write_text("whole")
                await store.link_shared("web", release_id, ["var/files"])
                await store.seal("web", Manifest(
                    release_id=release_id, tree="d" * 40, cycle_id="c",
                    create_time=datetime.now(UTC), facts={"round": str(round)}))
                await store.switch("web", release_id)
            print(round, flush=True)

    asyncio.run(main(ReleaseDirectories(Path(sys.argv[1]))))
"""


async def test_whatever_is_killed_a_release_is_whole_and_the_link_leads_to_one(
    files: Stage, tmp_path: Path
) -> None:
    rounds = 0
    for kill in range(12):
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            textwrap.dedent(_WORKER),
            str(tmp_path),
            stdout=asyncio.subprocess.PIPE,
        )
        assert worker.stdout is not None
        for _ in range(2 + kill % 3):
            assert await worker.stdout.readline()
            rounds += 1
        # Somewhere within what comes next, another place each time.
        for _ in range(kill):
            assert await files.store.current("web")
        worker.kill()
        await worker.communicate()
        current = await files.store.current("web")
        assert await files.store.manifest("web", current) is not None
        for release_id in await files.store.staged("web"):
            if await files.store.manifest("web", release_id) is not None:
                directory = files.store.directory("web", release_id)
                content = [(directory / f"{number}").read_text() for number in range(20)]
                assert content == ["whole"] * 20
                assert (directory / "var/files").is_dir()
    assert rounds >= 24
