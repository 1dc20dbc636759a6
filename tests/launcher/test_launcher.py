"""What the launcher does when releases fail, and when it is killed itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import att_client
from att_server.launcher.launcher import LOSSES
from att_server.launcher.servers import Child
from tests.launcher.conftest import Stage
from tests.server_process import PATIENCE, alive, wait_until


def test_the_current_release_is_served_and_shown(stage: Stage) -> None:
    pid = stage.launcher.served_by(1)
    current = stage.state_dir / "launcher" / "current"
    assert current.resolve() == stage.state_dir / "projects/att/releases/first"
    assert Path(f"/proc/{pid}/environ").read_bytes().count(b"ATT_RELEASE_ID=first\0") == 1


def test_a_release_that_serves_takes_over_and_can_be_proven_good(stage: Stage) -> None:
    before = stage.launcher.served_by(1)
    release = stage.made_good()
    after = stage.launcher.served_by(2)
    assert stage.launcher.record["good"] == [release, "projects/att/releases/first"]
    wait_until(lambda: not alive(before), "the end of the server before")
    assert alive(after)
    wait_until(
        lambda: [each["release"] for each in stage.launcher.told("good")] == [release],
        "it is told that it is good",
    )


@pytest.mark.parametrize(
    ("does", "reason", "within"), [("dies", "exited_3", 30.0), ("hangs", "not_ready_in_time", 0.5)]
)
def test_a_release_that_does_not_start_is_given_up_and_nobody_notices(
    stage: Stage, does: str, reason: str, within: float
) -> None:
    before = stage.launcher.served_by(1)
    wish = stage.wish(stage.release(does), tries=2, ready_within=within)
    record = stage.comes_to(wish, "failed")
    assert record["reason"] == reason
    assert record["current"] == "projects/att/releases/first"
    assert [end["reason"] for end in record["ended"]] == [reason, reason]
    assert stage.launcher.holder["pid"] == before
    assert alive(before)
    if does == "dies":
        assert "it dies" in record["ended"][0]["output"]


def test_a_release_that_crashes_while_on_trial_is_given_up_after_its_tries(stage: Stage) -> None:
    before = stage.launcher.served_by(1)
    wish = stage.wish(stage.release("crashes"), tries=2)
    os.kill(stage.launcher.served_by(2), signal.SIGUSR1)
    os.kill(stage.launcher.served_by(3), signal.SIGUSR1)
    record = stage.comes_to(wish, "failed")
    assert record["reason"] == "exited_4"
    assert stage.launcher.served_by(1) == before
    assert stage.launcher.record["current"] == "projects/att/releases/first"
    assert [event["launch"] for event in stage.launcher.told("started")] == [1, 2, 3]


def test_the_server_before_serves_again_where_one_on_trial_is_killed(stage: Stage) -> None:
    before = stage.launcher.served_by(1)
    wish = stage.wish(stage.release("serves"), tries=2)
    first_try = stage.launcher.served_by(2)
    stage.launcher.kill()  # it is not the launcher that sees to it
    os.kill(first_try, signal.SIGKILL)
    assert stage.launcher.served_by(1) == before
    stage.launcher.start()
    stage.launcher.served_by(3)
    record = stage.comes_to(wish, "serving")
    assert [(end["launch"], end["lost"]) for end in record["ended"]] == [(2, True)]


def test_a_server_that_has_ended_and_that_nobody_has_reaped_is_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        form = {"launch": 1, "release": "", "pid": process.pid}
        child = Child(form)
        process.kill()
        wait_until(child.ended, "its end")
        os.close(child.pidfd)
        with pytest.raises(ValueError, match="ended"):
            Child(child.form)


def test_a_release_that_nobody_proves_is_left_for_the_server_before(stage: Stage) -> None:
    before = stage.launcher.served_by(1)
    wish = stage.wish(stage.release("serves"), good_within=1.0)
    record = stage.comes_to(wish, "failed")
    assert record["reason"] == "not_proven_in_time"
    assert stage.launcher.served_by(1) == before
    wait_until(lambda: bool(stage.launcher.record["ended"]), "the end of the other is on record")
    (end,) = stage.launcher.record["ended"]
    assert (end["reason"], end["lost"]) == ("not_proven_in_time", False)


def test_a_proven_release_is_returned_to_without_a_trial(stage: Stage) -> None:
    stage.made_good()
    wish = stage.wish("projects/att/releases/first")
    record = stage.comes_to(wish, "serving")
    assert record["trial"] == ""
    stage.launcher.served_by(3)


def test_a_server_that_is_killed_is_started_again(stage: Stage) -> None:
    for launch in range(1, 6):
        os.kill(stage.launcher.served_by(launch), signal.SIGKILL)
    stage.launcher.served_by(6)
    assert stage.launcher.told("fell_back") == []


def test_a_launcher_that_is_killed_leaves_the_server_and_the_next_one_finds_it(
    stage: Stage,
) -> None:
    pid = stage.launcher.served_by(1)
    stage.launcher.kill()
    assert alive(pid)
    stage.launcher.start()
    wait_until(lambda: bool(stage.launcher.told("adopted")), "the server is adopted")
    os.kill(pid, signal.SIGKILL)
    stage.launcher.served_by(2)


def test_a_launcher_that_finds_a_server_tells_systemd_that_it_serves(stage: Stage) -> None:
    stage.launcher.served_by(1)
    stage.launcher.kill()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0att-test-launcher-{os.getpid()}")
        manager.settimeout(PATIENCE)
        stage.launcher.start(NOTIFY_SOCKET=f"@att-test-launcher-{os.getpid()}")
        assert manager.recv(100) == b"READY=1"


def test_a_wish_made_while_no_launcher_is_there_is_taken_by_the_next(stage: Stage) -> None:
    stage.launcher.served_by(1)
    stage.launcher.kill()
    wish = stage.wish(stage.release("serves"))
    stage.launcher.start()
    stage.comes_to(wish, "serving")
    stage.launcher.served_by(2)


def test_a_release_that_is_killed_more_often_than_it_has_tries_is_no_worse_for_it(
    stage: Stage,
) -> None:
    stage.launcher.served_by(1)
    wish = stage.wish(stage.release("serves"), tries=1)
    for launch in range(2, 5):
        os.kill(stage.launcher.served_by(launch), signal.SIGKILL)
    stage.launcher.served_by(5)
    assert stage.comes_to(wish, "serving")["tries_left"] == 0
    assert stage.launcher.told("gave_up") == []


def test_a_good_release_that_is_killed_at_each_start_is_not_left(stage: Stage) -> None:
    stage.made_good()
    pid = stage.launcher.served_by(2)
    release = stage.release("hangs", "hangs")
    stage.launcher.kill()
    record = {**stage.launcher.record, "current": release}
    record["good"] = [release, "projects/att/releases/first"]
    (stage.state_dir / "launcher" / "record.json").write_text(json.dumps(record))
    os.kill(pid, signal.SIGKILL)
    stage.launcher.start()
    for launch in range(3, 8):
        stage.begun(launch)
        (begun,) = stage.launcher.record["servers"]
        os.kill(begun["pid"], signal.SIGKILL)
    stage.begun(8)
    assert stage.launcher.record["current"] == release
    assert stage.launcher.told("fell_back") == []


def test_what_is_killed_at_each_start_is_given_up_in_the_end_whoever_counts(stage: Stage) -> None:
    stage.launcher.served_by(1)
    wish = stage.wish(stage.release("hangs"), tries=2, ready_within=600.0)
    path = stage.state_dir / "launcher" / "record.json"
    for launch in range(2, 7):
        stage.begun(launch)
        stage.launcher.kill()
        record = stage.launcher.record
        assert record["losses_left"] == (LOSSES if launch == 2 else max(0, 5 - launch))
        if launch == 2:
            path.write_text(json.dumps({**record, "losses_left": 3}))
        os.kill(record["servers"][-1]["pid"], signal.SIGKILL)
        stage.launcher.start()
    record = stage.comes_to(wish, "failed")
    assert record["launches"] == 6


def test_a_second_launcher_is_refused_and_told_the_first_one(stage: Stage) -> None:
    stage.launcher.served_by(1)
    second = subprocess.run(
        [sys.executable, "-m", "att_server", "launch", "--state-dir", stage.state_dir],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert second.returncode == 2
    assert second.stderr.startswith("att: ALREADY_RUNNING: ")
    assert str(stage.launcher.pid) in second.stderr


def test_what_leads_nowhere_is_left_for_what_was_good_before(stage: Stage) -> None:
    release = stage.made_good()
    pid = stage.launcher.served_by(2)
    shutil.rmtree(stage.state_dir / release)
    os.kill(pid, signal.SIGKILL)
    stage.launcher.served_by(3)
    assert stage.launcher.record["current"] == "projects/att/releases/first"
    (fell,) = stage.launcher.told("fell_back")
    assert fell["reason"].startswith("release_missing")


def test_a_record_that_cannot_be_read_is_replaced_by_what_current_says(stage: Stage) -> None:
    release = stage.made_good()
    pid = stage.launcher.served_by(2)
    stage.launcher.kill()
    os.kill(pid, signal.SIGKILL)
    (stage.state_dir / "launcher" / "record.json").write_text("{torn")
    stage.launcher.start()
    stage.launcher.served_by(1)
    assert stage.launcher.record["current"] == release
    assert stage.launcher.told("record_damaged")


def test_a_wish_of_a_later_release_that_is_not_understood_changes_nothing(stage: Stage) -> None:
    pid = stage.launcher.served_by(1)
    wish = stage.wish(stage.release("serves"), format=99, unknown=True)
    assert stage.comes_to(wish, "failed")["reason"] == "launcher_too_old"
    assert stage.launcher.holder["pid"] == pid


def test_a_bad_server_that_does_not_make_way_is_ended(stage: Stage) -> None:
    before = stage.launcher.served_by(1)
    wish = stage.wish(stage.release("stuck"), good_within=3.0)
    stage.launcher.served_by(2)
    os.kill(before, signal.SIGKILL)  # else it would serve again at once
    stage.comes_to(wish, "failed")
    stage.launcher.served_by(3)
    wait_until(
        lambda: [end["reason"] for end in stage.launcher.record["ended"]] == ["made_no_way"],
        "its end is on record",
    )


def test_a_server_that_was_asked_to_end_ends_the_launcher(stage: Stage) -> None:
    os.kill(stage.launcher.served_by(1), signal.SIGTERM)
    assert stage.launcher.wait() == 0


def test_the_launcher_ends_its_server_when_it_is_asked_to_end(stage: Stage) -> None:
    pid = stage.launcher.served_by(1)
    assert stage.launcher.terminate() == 0
    assert not alive(pid)


async def test_where_nothing_starts_the_socket_says_so_until_something_does(stage: Stage) -> None:
    release = stage.made_good()
    pid = stage.launcher.served_by(2)
    for path in (release, "projects/att/releases/first"):
        (stage.state_dir / path / ".venv").rename(stage.state_dir / path / "gone")
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(
        wait_until, lambda: bool(stage.launcher.told("broken")), "it is told that nothing starts"
    )
    with pytest.raises(att_client.NoWorkingReleaseError) as refused:
        async with att_client.connect(stage.launcher.target):
            pass
    assert "release_missing" in str(refused.value)
    assert str(stage.state_dir) in str(refused.value)
    (stage.state_dir / release / "gone").rename(stage.state_dir / release / ".venv")
    stage.launcher.kill()
    stage.launcher.start()
    stage.launcher.served_by(3)


def test_where_the_old_server_is_killed_while_a_bad_one_hangs_a_good_one_serves(
    stage: Stage,
) -> None:
    before = stage.launcher.served_by(1)
    wish = stage.wish(stage.release("hangs"), tries=1, ready_within=600.0)
    stage.begun(2)
    os.kill(before, signal.SIGKILL)
    stage.launcher.served_by(3)
    record = stage.launcher.record
    assert (record["wish"], record["outcome"]) == (wish, "trying")
    assert Path(f"/proc/{stage.launcher.holder['pid']}/environ").read_bytes().count(b"=first\0")


def test_on_a_full_disk_no_release_is_tried_and_what_serves_goes_on(stage: Stage) -> None:
    pid = stage.launcher.served_by(1)
    wait_until(lambda: bool(stage.launcher.told("serving")), "the launcher has seen it")
    draft = stage.state_dir / "launcher" / "record.json.new"
    draft.symlink_to("/dev/full")
    wish = stage.wish(stage.release("serves"), tries=1)
    wait_until(lambda: len(stage.launcher.told("not_recorded")) > 2, "it cannot be recorded")
    assert stage.launcher.holder["pid"] == pid
    assert len(stage.launcher.told("started")) == 1
    draft.unlink()
    stage.comes_to(wish, "serving")


def test_on_a_full_disk_a_server_that_was_killed_is_started_again(stage: Stage) -> None:
    pid = stage.launcher.served_by(1)
    wait_until(lambda: bool(stage.launcher.told("serving")), "the launcher has seen it")
    (stage.state_dir / "launcher" / "record.json.new").symlink_to("/dev/full")
    os.kill(pid, signal.SIGKILL)
    stage.launcher.served_by(2)


SETS_THE_CLOCK_BACK = """
import os, time
as_it_is = time.time
time.time = lambda: as_it_is() - 7200 * os.path.exists({flag!r})
"""


def test_a_clock_that_is_set_back_stretches_no_deadline(stage: Stage, tmp_path: Path) -> None:
    flag = tmp_path / "set-back"
    (tmp_path / "sitecustomize.py").write_text(SETS_THE_CLOCK_BACK.format(flag=str(flag)))
    stage.launcher.served_by(1)
    stage.launcher.kill()
    stage.launcher.start(PYTHONPATH=str(tmp_path))
    wish = stage.wish(stage.release("hangs"), tries=1, ready_within=2.0)
    wait_until(lambda: len(stage.launcher.told("started")) == 2, "the release begins")
    flag.touch()
    record = stage.comes_to(wish, "failed")
    assert record["reason"] == "not_ready_in_time"
    (end,) = record["ended"]
    assert end["ended"] < end["began"]  # so far was it set back


def test_what_leads_nowhere_is_left_for_the_installation_where_the_record_is_gone(
    stage: Stage,
) -> None:
    release = stage.made_good()
    pid = stage.launcher.served_by(2)
    stage.launcher.kill()
    os.kill(pid, signal.SIGKILL)
    (stage.state_dir / "launcher" / "record.json").write_text("{torn")
    shutil.rmtree(stage.state_dir / release)
    assert not (stage.state_dir / "launcher" / "current").exists()
    stage.launcher.start()
    wait_until(lambda: stage.launcher.holder.get("instance_id") != "stub", "the real server")
    stage.launcher.served_by(1)
    assert stage.launcher.record["current"] == ""
    (fell,) = stage.launcher.told("fell_back")
    assert fell["reason"].startswith("release_missing")


def test_a_record_of_a_later_launcher_is_read_as_far_as_it_is_known(stage: Stage) -> None:
    pid = stage.launcher.served_by(1)
    stage.launcher.kill()
    path = stage.state_dir / "launcher" / "record.json"
    path.write_text(json.dumps({**stage.launcher.record, "unknown": {"to": "this one"}}))
    stage.launcher.start()
    wait_until(lambda: bool(stage.launcher.told("adopted")), "the server is adopted")
    assert alive(pid)
    assert stage.launcher.told("record_damaged") == []
