"""All of a family are ended, and nobody else; what was not looked at is not called gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from att_server.adapters.clock import SystemClock
from att_server.supervisor import hunt, processes
from att_server.supervisor.processes import Process
from tests.server_process import PATIENCE
from tests.supervisor.host import alive, wait_until

RUN, ANOTHER = SystemClock().new_id(), SystemClock().new_id()  # not those of other workers
ENVIRONMENT = {"PATH": os.environ["PATH"], "ATT_RUN_ID": RUN}

# A new link takes over at each byte, and says who it is.
CHAIN = """
import os
while True:
    print(os.getpid(), flush=True)
    if not os.read(0, 1) or os.fork():
        os._exit(0)
    os.setsid()
"""

HEADLESS = """
import ctypes, threading, time
def live():
    with open(f"/proc/self/stat") as stat:
        while ") Z " not in stat.read():
            stat.seek(0)
    print("alone", flush=True)
    time.sleep(600)
threading.Thread(target=live).start()
ctypes.CDLL(None).syscall(EXIT_OF_A_THREAD, 0)
""".replace("EXIT_OF_A_THREAD", "60" if os.uname().machine == "x86_64" else "93")


@contextmanager
def started(
    *command: str, env: Mapping[str, str] = ENVIRONMENT
) -> Iterator[subprocess.Popen[bytes]]:
    """A command, whose output ends when all that hold it have ended."""
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as made:
        try:
            yield made
        finally:
            made.kill()
            hunt.end_run(RUN, None, within=PATIENCE)


def python(program: str) -> tuple[str, ...]:
    return sys.executable, "-S", "-c", program


def found(pid: int) -> Process:
    process = processes.find(pid)
    assert process is not None
    return process


def below(pid: int) -> list[Process]:
    return processes.descendants([pid], processes.everyone())


def names(of: list[Process]) -> list[str]:
    return [Path(f"/proc/{process.pid}/comm").read_text().strip() for process in of]


def over(process: subprocess.Popen[bytes]) -> bool:
    """Whether nobody holds the output any more."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return process.stdout.read() == b""


def test_a_run_is_ended_by_its_environment() -> None:
    with started("sh", "-c", "sleep 60 & wait") as shell:
        wait_until(lambda: below(shell.pid), "the grandchild")
        assert hunt.end_run(ANOTHER, None, within=10)
        assert below(shell.pid)
        assert hunt.end_run(RUN, None, within=10)
        assert over(shell)


def test_a_run_is_ended_by_its_main_process() -> None:
    with started("sleep", "60", env={}) as process:
        main = found(process.pid)
        assert hunt.end_run(RUN, (main.pid, main.ticks + 1), within=10)
        assert alive(process.pid)
        assert hunt.end_run(RUN, (main.pid, main.ticks), within=10)
        assert over(process)


def test_a_run_is_ended_by_the_id_of_its_supervisor_too() -> None:
    with started("sleep", "60", env={**ENVIRONMENT, "ATT_SUPERVISOR_ID": f"{ANOTHER}1"}) as process:
        assert hunt.end_run("", None, supervisor_id=ANOTHER, within=10)
        assert alive(process.pid)
        assert hunt.end_run("", None, supervisor_id=f"{ANOTHER}1", within=10)
        assert over(process)


def test_a_hunt_strikes_a_family_and_nobody_else() -> None:
    with started("sh", "-c", "sleep 60 & wait") as shell, started("sleep", "60") as stranger:
        wait_until(lambda: below(shell.pid), "the grandchild")
        grandchild = below(shell.pid)[0]
        family = hunt.Hunt(shell.pid)
        assert not family.strike()
        assert family.struck == [grandchild]
        wait_until(lambda: not alive(grandchild.pid), "the grandchild is gone")
        assert alive(stranger.pid)


def test_a_chain_whose_links_go_before_they_are_looked_at_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = processes.find
    with started(*python(CHAIN)) as chain:
        assert chain.stdin is not None
        assert chain.stdout is not None
        links = [int(chain.stdout.readline())]

        def find_too_late(pid: int) -> Process | None:
            if pid == links[-1] and len(links) < 10:
                link = find(pid)
                assert link is not None
                assert chain.stdin is not None
                assert chain.stdout is not None
                chain.stdin.write(b"x")
                links.append(int(chain.stdout.readline()))
                assert processes.await_end(link, time.monotonic() + PATIENCE)
            return find(pid)

        monkeypatch.setattr(processes, "find", find_too_late)
        assert hunt.end_run(RUN, None, within=10)
        assert len(links) == 10
        assert over(chain)


def test_a_process_that_keeps_no_environment_is_ended_though_its_parent_ends_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send, listdir = processes.send, os.listdir

    def send_and_wait(process: Process, number: int) -> bool:
        return send(process, number) and processes.await_end(process, time.monotonic() + PATIENCE)

    with started("sh", "-c", "sh -c 'env -i sleep 60 & wait' & wait") as shell:
        wait_until(lambda: "sleep" in names(below(shell.pid)), "the child that says nothing")
        monkeypatch.setattr(processes, "send", send_and_wait)
        # As where pids have begun anew between the parent's and the child's.
        monkeypatch.setattr(os, "listdir", lambda path: listdir(path)[::-1])
        assert hunt.end_run(RUN, None, within=10)
        assert over(shell)


def test_a_process_whose_first_thread_has_ended_is_alive_and_is_ended() -> None:
    with started(*python(HEADLESS)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"alone\n"
        assert alive(process.pid)
        assert hunt.end_run(RUN, None, within=10)
        assert over(process)


def test_a_process_that_has_no_environment_for_a_moment_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = processes.read
    with started("sleep", "60") as process:
        wait_until(lambda: RUN.encode() in environment(process.pid), "it is executed")
        looks = iter(range(6))

        def read_in_exec(path: str) -> bytes | None:
            in_exec = path.startswith(f"/proc/{process.pid}/") and path.endswith("/environ")
            return b"" if in_exec and next(looks, None) is not None else read(path)

        monkeypatch.setattr(processes, "read", read_in_exec)
        assert hunt.end_run(RUN, None, within=10)
        assert over(process)


def test_a_process_in_an_exec_without_end_is_not_called_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, stat = processes.read, processes.stat
    with started("sleep", "60") as process:
        own = f"/proc/{process.pid}/"

        def stat_in_exec(pid: int) -> list[bytes] | None:
            fields = stat(pid)
            if fields is not None and pid == process.pid:
                fields[47:49] = b"0", b"0"
            return fields

        with monkeypatch.context() as patch:
            patch.setattr(processes, "stat", stat_in_exec)
            patch.setattr(
                processes,
                "read",
                lambda path: b"" if path.startswith(own) and "environ" in path else read(path),
            )
            assert not hunt.end_run(RUN, None, within=0)
            # Who began before the run is none of it.
            later = (2**22 + 1, found(process.pid).ticks + 1)
            assert hunt.end_run(RUN, later, within=10)
        assert alive(process.pid)
        assert hunt.end_run(RUN, None, within=10)


def test_a_list_in_which_pids_began_anew_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    family = hunt.Hunt()
    wait_until(family.strike, "a list that is proof")
    monkeypatch.setattr(hunt, "_newest_pid", lambda: 1)
    assert not family.strike()


def test_a_list_with_a_pid_that_was_used_again_is_no_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = processes.find
    with started("sleep", "60") as process:
        family = hunt.Hunt()
        wait_until(family.strike, "a list that is proof")

        def find_another(pid: int) -> Process | None:
            now = find(pid)
            if now is None or pid != process.pid:
                return now
            return replace(now, ticks=now.ticks + 1)

        monkeypatch.setattr(processes, "find", find_another)
        assert not family.strike()
        monkeypatch.undo()


def test_who_survives_is_not_called_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with started("sleep", "60") as process:
        wait_until(lambda: RUN.encode() in environment(process.pid), "it is executed")
        with monkeypatch.context() as patch:
            patch.setattr(signal, "SIGKILL", signal.SIGCONT)
            assert not hunt.end_run(RUN, None, within=0)
        assert alive(process.pid)


def environment(pid: int) -> bytes:
    return processes.read(f"/proc/{pid}/environ") or b""
