"""What the server reads of its launcher, and writes for it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from att_server.adapters.launcher_events import LauncherEvents
from att_server.adapters.launcher_files import LauncherFiles, on_trial, own_project, register
from att_server.core.cycles.server_launcher import Launch, LauncherState, OwnProject, Trial
from att_server.core.errors import AttError, Reason
from att_server.launcher.record import Files

SHA = "a" * 40
TRIAL = Trial(tries=3, ready_within=timedelta(seconds=20), good_within=timedelta(minutes=2))
OWN = OwnProject(project_id="att", path=Path("/srv/att"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    register(tmp_path, OWN)
    return tmp_path / "launcher"


def files(directory: Path, *, launch: int = 4, release_id: str = SHA) -> LauncherFiles:
    return LauncherFiles(
        directory.parent, launch=launch, release_id=release_id, start_time=datetime.now(UTC)
    )


def wish(directory: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((directory / "wish.json").read_text())
    return found


async def test_the_installation_is_known_by_the_commit_it_was_registered_at(tmp_path: Path) -> None:
    register(tmp_path, replace(OWN, baseline=SHA))
    directory = tmp_path / "launcher"
    launcher = files(directory, release_id="")
    assert launcher.release_id == SHA
    assert files(directory, release_id="", launch=0).release_id == ""
    assert launcher.startable(SHA) is None
    await launcher.wish("c1:a", SHA, TRIAL)
    assert wish(directory)["release"] == ""
    (directory / "record.json").write_text('{"current": ""}')
    assert launcher.state().current == SHA


def test_what_was_registered_is_the_own_project(directory: Path, tmp_path: Path) -> None:
    assert own_project(tmp_path) == files(directory).own == OWN
    (directory / "project.json").write_text("{torn")
    assert own_project(tmp_path) is None


async def test_a_wish_is_on_the_disk_and_the_launcher_hears_of_it(directory: Path) -> None:
    os.mkfifo(directory / "bell")
    bell = os.open(directory / "bell", os.O_RDONLY | os.O_NONBLOCK)
    launcher = files(directory)
    assert launcher.present
    await launcher.wish("c1:a", SHA, TRIAL)
    assert os.read(bell, 16) == b"!"
    assert wish(directory) == {
        "format": 1,
        "id": "c1:a",
        "release": f"projects/att/releases/{SHA}",
        "good": False,
        "tries": 3,
        "ready_within": 20.0,
        "good_within": 120.0,
    }
    os.close(bell)
    assert not launcher.present


async def test_only_the_release_that_was_wished_for_is_said_to_be_good(directory: Path) -> None:
    launcher = files(directory)
    await launcher.prove(SHA)
    await launcher.wish("c1:a", SHA, TRIAL)
    await launcher.prove("b" * 40)
    assert wish(directory)["good"] is False
    await launcher.prove(SHA)
    assert wish(directory)["good"] is True
    assert wish(directory)["id"] == "c1:a"


async def test_without_space_a_wish_is_none(directory: Path) -> None:
    (directory / "wish.json.new").symlink_to("/dev/full")
    with pytest.raises(AttError) as refused:
        await files(directory).wish("c1:a", SHA, TRIAL)
    assert refused.value.reason is Reason.STORAGE_FULL


def test_the_state_tells_of_the_starts_that_are_over(directory: Path) -> None:
    ended = {
        "launch": 3,
        "release": f"projects/att/releases/{SHA}",
        "pid": 7,
        "began": 1.0,
        "ended": 2.0,
        "code": 3,
        "reason": "exited_3",
        "lost": False,
        "output": "one\ntwo\n",
    }
    record = {"wish": "c1:a", "outcome": "failed", "reason": "exited_3", "ended": [ended]}
    (directory / "record.json").write_text(json.dumps({**record, "unknown": 1}))
    launcher = files(directory)
    state = launcher.state()
    assert (state.wish, state.outcome, state.reason) == ("c1:a", "failed", "exited_3")
    (end,) = state.ended
    assert (end.launch, end.release_id, end.exit_code, end.lost) == (3, SHA, 3, False)
    assert end.end_time - end.start_time == timedelta(seconds=1)
    assert launcher.output(1) == [b"two"]


def test_a_start_that_is_gone_and_not_noted_is_missed(directory: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    servers = [
        {"launch": 5, "release": f"projects/att/releases/{SHA}", "pid": gone.pid},
        {"launch": 4, "release": "", "pid": os.getpid()},
    ]
    record = {"current": f"projects/att/releases/{SHA}", "servers": servers}
    (directory / "record.json").write_text(json.dumps(record))
    state = files(directory).state()
    assert state.current == SHA
    assert state.missed == (Launch(launch=5, release_id=SHA, pid=gone.pid),)


def test_a_release_is_on_trial_while_the_record_says_so(directory: Path) -> None:
    assert not on_trial(directory.parent, SHA)
    record = {"trial": f"projects/att/releases/{SHA}"}
    (directory / "record.json").write_text(json.dumps(record))
    assert on_trial(directory.parent, SHA)
    assert not on_trial(directory.parent, "")
    (directory / "record.json").write_text('{"trial": ""}')
    assert not on_trial(directory.parent, "")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ended": [{}]}', '{"ended": 1}'])
def test_a_record_that_cannot_be_read_says_nothing(directory: Path, content: str) -> None:
    (directory / "record.json").write_text(content)
    assert files(directory).state() == LauncherState()


async def test_each_line_it_told_is_an_event_with_its_number(directory: Path) -> None:
    told = [
        {"type": "launcher.started", "time": "2026-01-02T00:00:00+00:00", "launch": 1},
        {"type": "launcher.gave_up", "time": "2026-01-02T00:00:01+00:00", "reason": "exited_1"},
    ]
    lines = [json.dumps(told[0]), '{"type": "lau', json.dumps(told[1])]
    (directory / "events.jsonl").write_text("\n".join(lines) + "\n")
    first, second = await files(directory).events(0)
    assert (first.event_type, first.project_id) == ("launcher.started", "att")
    assert first.attributes == {"launch": "1", "number": "1"}
    assert (second.reason, second.attributes["number"]) == ("exited_1", "3")
    assert list(await files(directory).events(1)) == [second]


async def test_what_follows_a_line_that_was_cut_off_is_told(directory: Path) -> None:
    line = json.dumps({"type": "launcher.good", "time": "2026-01-02T00:00:00+00:00"})
    (directory / "events.jsonl").write_text(f'{{"type": "launcher.sta{line}\n')
    (event,) = await files(directory).events(0)
    assert (event.event_type, event.attributes["number"]) == ("launcher.good", "1")


class Told:
    """A launcher that tells by the way of the real one, and a server that tells it as events."""

    def __init__(self, directory: Path) -> None:
        self.files = Files(str(directory.parent))
        self.directory = directory
        self.said = 0
        self.heard: list[tuple[int, str]] = []

    def say(self, count: int) -> None:
        for _ in range(count):
            self.said += 1
            self.files.tell("started", launch=self.said)

    def hear(self, *, dies: bool = False) -> None:
        """dies: before it has removed anything."""
        events = LauncherEvents(self.directory, most_bytes=500)
        told = self.heard[-1][0] if self.heard else 0
        self.heard += events.lines(told)
        if not dies:
            events.forget(self.heard[-1][0])

    @property
    def heard_launches(self) -> list[int]:
        return [json.loads(line)["launch"] for _, line in self.heard]

    @property
    def kept_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.directory.glob("events*.jsonl"))


def test_what_was_told_is_removed_and_nothing_is_lost_or_told_twice(directory: Path) -> None:
    told = Told(directory)
    for round_ in range(100):
        told.say(round_ % 7)
        told.hear(dies=round_ % 3 == 0)
    told.hear()
    assert told.heard_launches == list(range(1, told.said + 1))
    assert [number for number, _ in told.heard] == list(range(1, told.said + 1))
    assert told.kept_bytes < 3000


def test_a_line_that_comes_after_its_file_was_put_aside_is_told(directory: Path) -> None:
    told = Told(directory)
    told.say(20)
    with (directory / "events.jsonl").open("a") as late:
        told.hear()
        assert not (directory / "events.jsonl").exists()
        told.said += 1
        told.say(1)
        told.hear()  # not yet: what the launcher adds to the file before comes first
        late.write('{"type": "launcher.started", "launch": 21}\n')
    told.hear()
    assert told.heard_launches == list(range(1, 23))


def test_a_release_without_an_interpreter_cannot_be_started(directory: Path) -> None:
    launcher = files(directory)
    python = directory.parent / "projects/att/releases" / SHA / ".venv/bin/python"
    assert launcher.startable("") is None
    assert launcher.startable(SHA) == python
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/sh")
    assert launcher.startable(SHA) is None
