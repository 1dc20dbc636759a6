"""`att backup` and `att restore`, on real servers with running apps."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import att_client
from tests.cli.att import Ended, att, python
from tests.server_process import ServerProcess, alive, wait_until

APP = """
import os, sys, time
number = 0
while not os.path.exists(sys.argv[1]):
    print(f"line {number}", flush=True)
    number += 1
    time.sleep(0.001)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="att-cli-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def create(server: ServerProcess, project_id: str, place: Path) -> None:
    command = shlex.join([*python(APP), str(place / "enough")])
    made = att(
        *("project", "create", project_id, "--path", str(place), "--command", command),
        *("--env", "CANARY=not-in-a-log"),
        target=server.target,
    )
    assert made.code == 0, made.stderr


def start(server: ServerProcess, project_id: str) -> int:
    pid = att("start", project_id, "--json", target=server.target).item["pid"]
    assert isinstance(pid, int)
    return pid


def back_up(state_dir: Path, archive: Path, *options: str) -> Ended:
    return att("backup", str(archive), "--state-dir", str(state_dir), "--json", *options)


def restore(archive: Path, state_dir: Path, *options: str) -> Ended:
    return att("restore", str(archive), "--state-dir", str(state_dir), "--json", *options)


def lines(server: ServerProcess, project_id: str) -> list[dict[str, object]]:
    return att("logs", project_id, "--tail", "100000", "--json", target=server.target).items


def test_a_backup_of_running_apps_becomes_a_server_that_starts_them_again(place: Path) -> None:
    archive = place / "b.tar.gz"
    with ServerProcess(place / "s") as server:
        for project_id in ("runs", "stopped"):
            create(server, project_id, place)
        pid = start(server, "runs")
        start(server, "stopped")
        att("stop", "stopped", target=server.target)
        wait_until(lambda: len(lines(server, "runs")) > 300, "some output")
        made = back_up(server.state_dir, archive)
        assert made.code == 0, made.stderr
        report = made.item["backup"]
        assert isinstance(report, dict)
        assert report["projects"] == 2
        assert archive.stat().st_mode & 0o777 == 0o600
        assert sorted(path.name for path in place.iterdir()) == ["b.tar.gz", "s", "s.log"]

        done = restore(archive, place / "r")
        assert done.code == 0, done.stderr
        assert done.item["restored"] == {
            "state_dir": str(place / "r"),
            "backup_time": report["time"],
            "projects": 2,
            "meant_to_run": 1,
            "ended_runs": 1,
            "ended_cycles": 0,
        }
        assert (place / "r").stat().st_mode & 0o777 == 0o700
        with ServerProcess(place / "r") as second:
            wait_until(
                lambda: (
                    att("status", "runs", "--json", target=second.target).item["state"]
                    in ("running", "ready")
                ),
                "the restored app",
            )
            status = att("status", "runs", "--json", target=second.target)
            assert status.item["pid"] != pid
            state = att("status", "stopped", "--json", target=second.target).item["state"]
            assert state == "stopped"
            # The original is untouched, and so are its lines in the copy.
            assert alive(pid)
            original, copied = lines(server, "runs"), lines(second, "runs")
            shared = copied[: [_is_end(item) for item in copied].index(True)]
            assert len(shared) > 300
            assert shared == original[: len(shared)]
            events = att("events", "--json", target=second.target).items
            at = [event["event_type"] for event in events].index("server.restored")
            ended = [event for event in events[at:] if event["event_type"] == "runtime.ended"]
            assert [event["project_id"] for event in ended] == ["runs"]
            (place / "enough").touch()


async def test_a_restored_log_refuses_cursors_of_the_original(place: Path) -> None:
    with ServerProcess(place / "s") as server:
        create(server, "web", place)
        start(server, "web")
        assert back_up(server.state_dir, place / "b.tar.gz").code == 0
        async with att_client.connect(server.target) as client:
            page = await client.logs.read("web", tail=1)
            events, _ = await _last_event(client)
        (place / "enough").touch()
    for name in ("r", "r2"):
        assert restore(place / "b.tar.gz", place / name, "--stopped").code == 0
        with ServerProcess(place / name) as second:
            async with att_client.connect(second.target) as client:
                with pytest.raises(att_client.LogCursorAheadError) as error:
                    await client.logs.read("web", cursor=page.cursor, log_id=page.log_id)
                assert error.value.reason == "LOG_CURSOR_AHEAD"
                fresh = await client.logs.read("web", cursor=0)
                assert fresh.log_id != page.log_id
                # No number of an event comes twice, in no restore.
                first, last = await _last_event(client)
                assert first > events
                events = last


def _is_end(item: dict[str, object]) -> bool:
    run = item.get("run")
    return isinstance(run, dict) and "ended" in run


async def _last_event(client: att_client.Client) -> tuple[int, int]:
    """The number of the last event that a backup can hold, and of the last one."""
    found = (await client.events.list(page_size=200)).events
    restored = [event.sequence for event in found if event.event_type == "server.restored"]
    return (restored or [found[-1].sequence])[0], found[-1].sequence


def test_with_stopped_nothing_starts(place: Path) -> None:
    with ServerProcess(place / "s") as server:
        create(server, "web", place)
        start(server, "web")
        assert back_up(server.state_dir, place / "b.tar.gz").code == 0
        (place / "enough").touch()
    (place / "r").mkdir(mode=0o755)  # an empty one may be there
    report = restore(place / "b.tar.gz", place / "r", "--stopped").item["restored"]
    assert isinstance(report, dict)
    assert report["meant_to_run"] == 0
    with ServerProcess(place / "r") as second:
        item = att("status", "web", "--json", target=second.target).item
        # It ran, and nobody saw its end.
        assert (item["state"], item["reason"]) == ("exited", "host_restarted")
        last = att("logs", "web", "--tail", "100000", "--json", target=second.target)
        assert last.code == 0, last.stderr


def test_an_app_that_had_ended_is_not_run_again_and_keeps_its_exit(place: Path) -> None:
    with ServerProcess(place / "s") as server:
        command = shlex.join(python("raise SystemExit(3)"))
        options = ("--path", str(place), "--command", command)
        att("project", "create", "job", *options, target=server.target)
        att("start", "job", target=server.target)
        wait_until(
            lambda: att("status", "job", "--json", target=server.target).item["state"] == "exited",
            "the end of the app",
        )
        before = att("status", "job", "--json", target=server.target).item
        assert back_up(server.state_dir, place / "b.tar.gz").code == 0
    report = restore(place / "b.tar.gz", place / "r").item["restored"]
    assert isinstance(report, dict)
    assert (report["meant_to_run"], report["ended_runs"]) == (1, 0)
    with ServerProcess(place / "r") as second:
        after = att("status", "job", "--json", target=second.target).item
        assert after["state"] == "exited"
        assert after["run_id"] == before["run_id"]
        assert isinstance(after["exit"], dict)
        assert after["exit"]["exit_code"] == 3
        end = len(lines(second, "job"))
        assert second.terminate() == 0
        second.start()
        assert len(lines(second, "job")) == end


def test_a_backup_holds_neither_supervisors_nor_sockets_nor_apps_environments(
    place: Path,
) -> None:
    with ServerProcess(place / "s") as server:
        create(server, "web", place)
        start(server, "web")
        assert back_up(server.state_dir, place / "b.tar.gz").code == 0
        (place / "enough").touch()
    with tarfile.open(place / "b.tar.gz") as tar:
        names = tar.getnames()
    assert set(names) == {
        *("att-backup.json", "att.db", "manifest.json", "projects/web/logs/head.json"),
        "projects/web/logs/00000000000000000000.seg",
    }
    data = gzip.decompress((place / "b.tar.gz").read_bytes())
    # What the project was given is in the database, what the server's process has is not.
    assert b"not-in-a-log" in data
    assert os.fsencode(os.environ["PATH"]) not in data


def test_a_server_that_does_not_run_is_backed_up_too(place: Path) -> None:
    with ServerProcess(place / "s") as server:
        create(server, "web", place)
        server.kill()
        assert back_up(server.state_dir, place / "b.tar.gz").code == 0
        assert restore(place / "b.tar.gz", place / "r").code == 0
        server.start()


@pytest.mark.parametrize(
    ("state", "archive", "reason"),
    [
        ("s", "b.tar.gz", "STATE_NOT_FOUND"),
        ("s", "b.tar.zst", "ARCHIVE_NAME"),
        ("s", "made.tar.gz", "ARCHIVE_EXISTS"),
        ("broken", "b.tar.gz", "STATE_UNREADABLE"),
        ("other", "b.tar.gz", "STATE_UNREADABLE"),
        ("ok", "absent/b.tar.gz", "STORAGE_FAILED"),
    ],
)
def test_a_backup_that_cannot_be_made_says_why(
    place: Path, state: str, archive: str, reason: str
) -> None:
    (place / "made.tar.gz").touch()
    for name in ("broken", "other", "ok"):
        (place / name).mkdir(mode=0o700)
    (place / "broken" / "att.db").write_bytes(b"no database" * 1000)
    with closing(sqlite3.connect(place / "other" / "att.db")) as other:
        other.execute("CREATE TABLE something (x)")
    (place / "ok" / "att.db").touch()
    before = sorted(place.iterdir())
    ended = back_up(place / state, place / archive)
    assert ended.code == 1
    assert ended.error["reason"] == reason
    assert ended.stdout == b""
    assert sorted(place.iterdir()) == before


def test_a_restore_that_cannot_be_made_says_why_and_leaves_nothing(place: Path) -> None:
    with ServerProcess(place / "s") as server:
        assert back_up(server.state_dir, place / "b.tar.gz").code == 0
        used = restore(place / "b.tar.gz", server.state_dir)
        assert (used.code, used.error["reason"]) == (1, "STATE_DIR_NOT_EMPTY")
        assert att("status", target=server.target).code == 0
    (place / "link").symlink_to(place / "elsewhere")
    assert restore(place / "b.tar.gz", place / "link").error["reason"] == "INSECURE_STATE_DIR"
    assert restore(place / "c.tar.gz", place / "r").error["reason"] == "ARCHIVE_NOT_FOUND"
    (place / "c.tar.gz").write_bytes((place / "b.tar.gz").read_bytes()[:-20])
    cut = restore(place / "c.tar.gz", place / "r")
    assert (cut.code, cut.error["reason"]) == (1, "ARCHIVE_INVALID")
    assert sorted(path.name for path in place.iterdir()) == [
        *("b.tar.gz", "c.tar.gz", "link", "s", "s.log")
    ]


def test_a_backup_of_a_later_schema_is_refused(place: Path) -> None:
    with ServerProcess(place / "s"):
        pass
    with closing(sqlite3.connect(place / "s" / "att.db")) as store:
        store.execute("UPDATE meta SET value = 9999 WHERE name = 'min_reader'")
        store.commit()
    assert back_up(place / "s", place / "b.tar.gz").code == 0
    newer = restore(place / "b.tar.gz", place / "r")
    assert (newer.code, newer.error["reason"]) == (1, "SCHEMA_TOO_NEW")
    assert not (place / "r").exists()


def test_the_words_for_people_name_what_was_made(place: Path) -> None:
    with ServerProcess(place / "s"):
        made = att("backup", str(place / "b.tar.gz"), "--state-dir", str(place / "s"))
        assert b"b.tar.gz holds 0 projects" in made.stdout
    done = att("restore", str(place / "b.tar.gz"), env={"ATT_STATE_DIR": str(place / "r")})
    assert b"holds 0 projects" in done.stdout
    ended = att("restore", str(place / "b.tar.gz"), "--state-dir", str(place / "r"))
    assert ended.code == 1
    assert "STATE_DIR_NOT_EMPTY" in ended.stderr
    assert json.loads(back_up(place / "s", place / "b.tar.gz").stderr)["error"]["message"]
