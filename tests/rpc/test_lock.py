"""Who may hold a state directory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from att_server.core.errors import RefusalReason, StartRefused
from att_server.lock import Hold, Tenure, is_held, state_directory

NOBODY = 65534


def hold(directory: Path, socket_path: Path | None = None) -> AbstractContextManager[Hold]:
    return state_directory(
        directory,
        socket_path=socket_path or directory / "att.sock",
        instance_id="instance-1",
        start_time=datetime(2026, 1, 2, tzinfo=UTC),
    )


def refused(holding: AbstractContextManager[Hold]) -> StartRefused:
    with pytest.raises(StartRefused) as caught, holding:
        pass
    return caught.value


def test_a_missing_directory_is_made_for_its_owner_alone(directory: Path) -> None:
    state = directory / "deep" / "state"
    with hold(state):
        assert state.stat().st_mode & 0o777 == 0o700
        assert (state / "att.lock").stat().st_mode & 0o777 == 0o600


def test_the_lock_says_who_holds_it(directory: Path) -> None:
    with hold(directory) as held:
        said = {
            "pid": os.getpid(),
            "instance_id": "instance-1",
            "start_time": "2026-01-02T00:00:00+00:00",
            "launch": 0,
        }
        for tenure in (Tenure.BEGINS, Tenure.SERVES, Tenure.ENDED):
            if tenure is not Tenure.BEGINS:
                held.tell(tenure)
            found = json.loads((directory / "att.lock").read_text())
            assert found == {**said, "tenure": tenure}
        assert is_held(directory)
    assert not is_held(directory)


def test_a_lock_that_was_handed_on_is_held_until_the_last_one_lets_go(directory: Path) -> None:
    with hold(directory) as before:
        handed = os.dup(before.descriptor)
        after = state_directory(
            directory,
            socket_path=directory / "att.sock",
            instance_id="instance-2",
            start_time=datetime(2026, 1, 3, tzinfo=UTC),
            launch=2,
            lock=handed,
        )
        with after:
            assert json.loads((directory / "att.lock").read_text())["launch"] == 2
        assert refused(hold(directory)).reason is RefusalReason.ALREADY_RUNNING
    assert not is_held(directory)


def test_a_second_server_is_refused_and_told_the_first_one(directory: Path) -> None:
    with hold(directory):
        error = refused(hold(directory))
        assert error.reason is RefusalReason.ALREADY_RUNNING
        assert str(os.getpid()) in error.message
    with hold(directory):
        pass


def test_a_lock_that_says_nothing_yet_is_still_a_lock(directory: Path) -> None:
    with hold(directory):
        (directory / "att.lock").write_text("")
        assert refused(hold(directory)).reason is RefusalReason.ALREADY_RUNNING


def test_a_killed_holder_leaves_no_lock(directory: Path) -> None:
    program = (
        "import sys; from datetime import datetime, UTC; from pathlib import Path;"
        "from att_server.lock import Hold, Tenure, is_held, state_directory;"
        "p = Path(sys.argv[1]);"
        "c = state_directory(p, socket_path=p / 's', instance_id='', start_time=datetime.now(UTC));"
        "c.__enter__(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert refused(hold(directory)).reason is RefusalReason.ALREADY_RUNNING
        holder.kill()
    with hold(directory):
        pass


@pytest.mark.parametrize("mode", [0o701, 0o750, 0o777])
def test_a_directory_that_others_may_enter_is_refused(directory: Path, mode: int) -> None:
    directory.chmod(mode)
    assert refused(hold(directory)).reason is RefusalReason.INSECURE_STATE_DIR


def test_a_symbolic_link_is_refused(directory: Path) -> None:
    (directory / "real").mkdir(mode=0o700)
    (directory / "link").symlink_to("real")
    assert refused(hold(directory / "link")).reason is RefusalReason.INSECURE_STATE_DIR


def test_a_file_is_refused(directory: Path) -> None:
    (directory / "file").touch()
    assert refused(hold(directory / "file")).reason is RefusalReason.INSECURE_STATE_DIR


def test_the_root_of_the_file_system_of_processes_cannot_be_written() -> None:
    assert refused(hold(Path("/proc/att"))).reason is RefusalReason.STATE_DIR_NOT_WRITABLE


def test_a_directory_of_another_user_is_refused(directory: Path) -> None:
    foreign = Path("/usr")
    if os.geteuid() == 0:
        foreign = directory / "state"
        foreign.mkdir(mode=0o700)
        os.chown(foreign, NOBODY, NOBODY)
    assert refused(hold(foreign)).reason is RefusalReason.INSECURE_STATE_DIR


def test_a_directory_without_the_right_to_write_is_refused(directory: Path) -> None:
    state = directory / "state"
    state.mkdir(mode=0o500)
    with unprivileged(directory, state):
        assert refused(hold(state)).reason is RefusalReason.STATE_DIR_NOT_WRITABLE


def test_a_socket_that_somebody_listens_on_is_not_taken_away(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "other.sock"))
        listener.listen(1)
        error = refused(hold(directory, directory / "other.sock"))
        assert error.reason is RefusalReason.ALREADY_RUNNING
    # Its file is still there, and nobody answers.
    with hold(directory, directory / "other.sock"):
        pass


def test_the_directory_of_a_socket_elsewhere_has_to_be_private(directory: Path) -> None:
    (directory / "open").mkdir()
    (directory / "open").chmod(0o755)
    error = refused(hold(directory / "state", directory / "open" / "att.sock"))
    assert error.reason is RefusalReason.INSECURE_STATE_DIR


@contextmanager
def unprivileged(parent: Path, owned: Path) -> Iterator[None]:
    """As a user who owns `owned` in `parent` and is not above its mode."""
    if os.geteuid() != 0:
        yield
        return
    parent.chmod(0o755)
    os.chown(owned, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
