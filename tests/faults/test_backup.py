"""A backup or restore that is killed, or runs out of space, leaves all or nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import att_client
from att_server.adapters.segments import SegmentLogStore
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.archive import BackupError
from att_server.backup import make
from att_server.core.model import LogChunk, LogGap, RunEnded
from att_server.drafts import draft_directory
from att_server.restore import restore
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import STREAM_STDOUT
from tests.faults.disk import QuickFiles
from tests.server_process import PATIENCE, ServerProcess, wait_until

RUN = bytes(range(16))
SEGMENT_BYTES = 1 << 20

FLOOD = """
import os, sys, time
number = 0
while not os.path.exists(sys.argv[1]):
    burst = "".join(f"line {number + i}\\n" for i in range(500))
    os.write(1, burst.encode())
    number += 500
    time.sleep(0.002)
"""


@pytest.fixture
async def state_dir(tmp_path: Path) -> Path:
    """A state directory with a log of some 20 MB, which packs badly."""
    with ServerProcess(tmp_path / "s") as server:
        async with att_client.connect(server.target) as att:
            await att.projects.create("web", path=str(tmp_path), command=["true"])
    store = await SqliteStateStore.open(tmp_path / "s" / "att.db")
    (project,) = await store.projects()
    await store.aclose()
    writer = LogWriter.open(
        tmp_path / "s" / "projects" / "web" / "logs",
        log_id=project.log_id,
        boot_id="boot",
        files=QuickFiles(),
        segment_bytes=SEGMENT_BYTES,
    )
    writer.append_started(RUN, {"command": ["true"], "pid": 7, "release_id": ""})
    for _ in range(400):
        line = os.urandom(25_000).hex().encode() + b"\n"
        writer.append_lines(STREAM_STDOUT, RUN, [(line, 0)])
    writer.close()
    return tmp_path / "s"


def begin(*arguments: object) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "att_server", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_when(process: subprocess.Popen[bytes], moment: Callable[[], bool]) -> None:
    """Kills the process at `moment`, or finds it ended."""
    wait_until(lambda: process.poll() is not None or moment(), "the moment")
    process.kill()
    process.wait(PATIENCE)
    assert process.stderr is not None
    process.stderr.close()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


@pytest.mark.parametrize("written", [-1, 0, 1 << 20, 6 << 20])
def test_a_backup_that_is_killed_leaves_no_archive_and_the_next_one_cleans_up(
    state_dir: Path, tmp_path: Path, written: int
) -> None:
    archive = tmp_path / "b.tar.gz"
    draft = tmp_path / ".b.tar.gz.partial"
    process = begin("backup", archive, "--state-dir", state_dir)
    kill_when(process, lambda: draft.exists() and size(draft / "archive") >= written)
    if archive.exists():  # it was quicker
        assert process.returncode == 0
        archive.unlink()
    make(state_dir, archive)
    assert not draft.exists()
    assert restore(archive, tmp_path / "r", stopped=True).projects == 1


@pytest.mark.parametrize("files", [0, 1, 6, 15])
def test_a_restore_that_is_killed_leaves_no_directory_and_the_next_one_cleans_up(
    state_dir: Path, tmp_path: Path, files: int
) -> None:
    archive, target = tmp_path / "b.tar.gz", tmp_path / "r"
    make(state_dir, archive)
    draft = tmp_path / ".r.restoring"
    process = begin("restore", archive, "--state-dir", target)
    kill_when(process, lambda: draft.exists() and len(list(draft.rglob("*.*"))) >= files)
    if target.exists():
        assert process.returncode == 0
        target = tmp_path / "r2"
    assert restore(archive, target, stopped=False).ended_runs == 1
    assert not (tmp_path / f".{target.name}.restoring").exists()
    with ServerProcess(target):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_backup_tidily(
    state_dir: Path, tmp_path: Path, number: signal.Signals
) -> None:
    draft = tmp_path / ".b.tar.gz.partial"
    process = begin("backup", tmp_path / "b.tar.gz", "--state-dir", state_dir)
    wait_until(lambda: size(draft / "archive") > 0 or process.poll() is not None, "its work")
    process.send_signal(number)
    _, words = process.communicate(timeout=PATIENCE)
    assert not draft.exists()
    if process.returncode:  # it had not ended yet
        assert process.returncode == 130
        assert b"INTERRUPTED" in words
        assert not (tmp_path / "b.tar.gz").exists()


@pytest.mark.parametrize(
    ("blocks", "reason"), [(1, "STORAGE_FAILED"), (1_000, "STORAGE_FULL"), (8_000, "STORAGE_FULL")]
)
def test_a_backup_without_space_says_so_and_leaves_nothing(
    state_dir: Path, tmp_path: Path, blocks: int, reason: str
) -> None:
    # The largest file that a process may write, in KiB, stands in for a full disk.
    command = [sys.executable, "-m", "att_server", "backup", str(tmp_path / "b.tar.gz")]
    limited = f"ulimit -f {blocks}; exec {shlex.join(command)} --state-dir {state_dir} --json"
    ended = subprocess.run(["bash", "-c", limited], capture_output=True, timeout=PATIENCE)
    assert ended.returncode == 1
    assert json.loads(ended.stderr)["error"]["reason"] == reason
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "s.log"]


def test_a_restore_without_space_says_so_and_leaves_nothing(
    state_dir: Path, tmp_path: Path
) -> None:
    make(state_dir, tmp_path / "b.tar.gz")
    command = [sys.executable, "-m", "att_server", "restore", str(tmp_path / "b.tar.gz")]
    limited = f"ulimit -f 500; exec {shlex.join(command)} --state-dir {tmp_path / 'r'} --json"
    ended = subprocess.run(["bash", "-c", limited], capture_output=True, timeout=PATIENCE)
    assert ended.returncode == 1
    assert b'"STORAGE_FULL"' in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.gz", "s", "s.log"]


def test_a_restore_that_runs_out_of_space_late_says_so_and_leaves_nothing(
    state_dir: Path, tmp_path: Path
) -> None:
    make(state_dir, tmp_path / "b.tar.gz")
    database = (state_dir / "att.db").stat().st_size
    segments = max(path.stat().st_size for path in state_dir.rglob("*.seg"))
    assert database < segments
    # What is unpacked fits, what is written to the database does not.
    blocks = segments // 1024 + 1
    with closing(sqlite3.connect(state_dir / "att.db")) as store, store:
        filler = "x" * (segments - 8192)
        store.execute("UPDATE event SET message = ? WHERE sequence = 0", (filler,))
    make(state_dir, tmp_path / "c.tar.gz")
    command = [sys.executable, "-m", "att_server", "restore", str(tmp_path / "c.tar.gz")]
    limited = f"ulimit -f {blocks}; exec {shlex.join(command)} --state-dir {tmp_path / 'r'} --json"
    ended = subprocess.run(["bash", "-c", limited], capture_output=True, timeout=PATIENCE)
    assert ended.returncode == 1, ended.stderr
    last = json.loads(ended.stderr.splitlines()[-1])
    assert last["error"]["reason"] in (
        *("STORAGE_FULL", "STORAGE_FAILED", "AUDIT_UNAVAILABLE", "STATE_DIR_NOT_WRITABLE"),
    )
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / ".r.restoring").exists()


def test_two_backups_to_one_file_do_not_meet(state_dir: Path, tmp_path: Path) -> None:
    archive = tmp_path / "b.tar.gz"
    with draft_directory(archive, "partial"), pytest.raises(BackupError) as busy:
        make(state_dir, archive)
    assert busy.value.reason == "BUSY"
    make(state_dir, archive)


async def test_a_log_that_is_flooded_meanwhile_comes_as_a_whole_beginning(tmp_path: Path) -> None:
    enough = tmp_path / "enough"
    with ServerProcess(tmp_path / "s") as server:
        async with att_client.connect(server.target) as att:
            await att.projects.create(
                "web", path=str(tmp_path), command=[sys.executable, "-c", FLOOD, str(enough)]
            )
            await att.runtimes.start("web")
            for number in range(3):
                make(server.state_dir, tmp_path / f"{number}.tar.gz")
        enough.touch()
    ends = []
    for number in range(3):
        target = tmp_path / f"r{number}"
        await asyncio.to_thread(restore, tmp_path / f"{number}.tar.gz", target, stopped=True)
        ends.append(await check_lines(target))
    assert ends == sorted(ends)
    assert ends[-1] > 0


async def check_lines(state_dir: Path) -> int:
    """That the restored log holds the first lines, each once, and its run's end; how many."""
    store = await SqliteStateStore.open(state_dir / "att.db")
    (project,) = await store.projects()
    await store.aclose()
    logs = SegmentLogStore(state_dir)
    lines: list[bytes] = []
    last: object = None
    cursor = 0
    while cursor < (await logs.bounds("web", project.log_id)).end:
        page = await logs.read("web", project.log_id, cursor=cursor, max_bytes=1 << 20)
        for record in page.records:
            assert not isinstance(record, LogGap)
            if isinstance(record, LogChunk):
                lines += record.lines.splitlines()
        cursor, last = page.cursor, page.records[-1]
    await logs.aclose()
    assert isinstance(last, RunEnded)
    assert lines == [b"line %d" % number for number in range(len(lines))]
    return len(lines)
