"""Helper commands end as they should, and leave nothing behind in any way they can end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.command_runner import (
    MAX_INPUT_BYTES,
    MAX_OUTPUT_BYTES,
    ZygoteCommandRunner,
)
from att_server.adapters.zygote_client import ZygoteClient
from att_server.core.model import CommandResult
from att_server.supervisor import processes
from tests.server_process import PATIENCE, wait_until

TREE = "setsid sh -c 'sleep 60 & sleep 61' & sleep 62 & "
"""A shell's background processes, one of them a daemon with a child."""


class Commands:
    """A runner whose commands can be found again by their environment."""

    def __init__(self) -> None:
        self.zygote = ZygoteClient()
        self.runner = ZygoteCommandRunner(self.zygote)
        self.mark = uuid.uuid4().hex
        self.env = {"PATH": os.environ["PATH"], "MARK": self.mark}

    async def run(
        self,
        *command: str,
        timeout: float = 60.0,
        env: dict[str, str] | None = None,
        directory: Path = Path("/tmp"),
        input: bytes = b"",  # noqa: A002 - as the port calls it
    ) -> CommandResult:
        return await self.runner.run(
            command,
            directory=directory,
            env={**self.env, **(env or {})},
            timeout=timedelta(seconds=timeout),
            input=input,
        )

    async def sh(self, script: str, **options: float) -> CommandResult:
        return await self.run("sh", "-c", script, **options)  # type: ignore[arg-type]  # only its timeout

    def left(self) -> set[int]:
        return marked(self.mark)


def marked(mark: str) -> set[int]:
    """The living processes with this mark in their environment."""
    found = set()
    for pid in processes.everyone():
        try:
            if f"MARK={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(pid)
        except OSError:
            continue
    return found


@pytest.fixture
async def commands() -> AsyncIterator[Commands]:
    made = Commands()
    yield made
    await made.zygote.aclose()


# How a command ends ---------------------------------------------------------


async def test_the_exit_code_is_told_with_what_was_printed(commands: Commands) -> None:
    assert await commands.sh("echo out; exit 3") == CommandResult(exit_code=3, output=b"out\n")
    assert await commands.sh("echo err >&2") == CommandResult(exit_code=0, output=b"err\n")


async def test_the_signal_that_ended_it_is_told(commands: Commands) -> None:
    assert await commands.sh("kill -9 $$") == CommandResult(signal=9)


async def test_a_command_that_cannot_be_started_says_why(
    commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("echo")
    (tmp_path / "orphan").write_text("#!/no/such/shell\n")
    (tmp_path / "orphan").chmod(0o700)

    assert (await commands.run("no-such-command")).start_error == "no-such-command: not found"
    plain = await commands.run("./plain", directory=tmp_path)
    assert plain.start_error == "./plain: Permission denied"
    orphan = await commands.run("./orphan", directory=tmp_path)
    assert orphan.start_error == "./orphan: the program that runs it is not found"
    nowhere = await commands.run("true", directory=tmp_path / "none")
    assert nowhere.start_error == f"{tmp_path / 'none'}: cannot be entered"
    too_long = await commands.run("true", "x" * 200_000)
    assert too_long.start_error == "true: Argument list too long"
    assert not commands.left()


async def test_it_runs_in_its_directory_with_its_environment_only(
    commands: Commands, tmp_path: Path
) -> None:
    result = await commands.run("sh", "-c", "pwd; exec env", directory=tmp_path, env={"A": "b=c"})
    directory, *env = result.output.decode().splitlines()
    assert directory == str(tmp_path)
    given = {"A=b=c", f"MARK={commands.mark}", f"PATH={os.environ['PATH']}"}
    assert given <= set(env)
    assert {line.split("=")[0] for line in set(env) - given} <= {"PWD", "OLDPWD", "SHLVL", "_"}


async def test_it_has_no_descriptors_but_its_own_three(commands: Commands) -> None:
    result = await commands.sh("ls -l /proc/self/fd")
    listed = [line.split(" -> ") for line in result.output.decode().splitlines() if "->" in line]
    numbers = {left.split()[-1] for left, _ in listed}
    assert numbers == {"0", "1", "2", "3"}, listed  # the last is what `ls` reads the directory by


async def test_signals_are_as_a_program_expects_them(commands: Commands) -> None:
    result = await commands.sh("grep -E 'Sig(Ign|Blk)' /proc/self/status")
    masks = [int(line.split()[1], 16) for line in result.output.splitlines()]
    # Above 31 are those that the C library keeps for itself.
    assert [mask & 0x7FFFFFFF for mask in masks] == [0, 0]


# Input and output -----------------------------------------------------------


async def test_without_input_it_reads_the_end_of_a_file(commands: Commands) -> None:
    assert await commands.run("cat") == CommandResult(exit_code=0)


async def test_input_is_read_to_its_last_byte(commands: Commands) -> None:
    data = os.urandom(MAX_INPUT_BYTES)
    result = await commands.run("sha256sum", input=data)
    assert result.output.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_more_input_than_a_command_may_have_is_refused(commands: Commands) -> None:
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        await commands.run("cat", input=b"x" * (MAX_INPUT_BYTES + 1))


async def test_a_command_that_does_not_read_its_input_just_ends(commands: Commands) -> None:
    assert await commands.run("true", input=b"x" * MAX_INPUT_BYTES) == CommandResult(exit_code=0)


async def test_of_a_gibibyte_of_output_the_end_is_kept(commands: Commands) -> None:
    result = await commands.sh("head -c 1073741824 /dev/zero; echo; echo the end")
    assert result.exit_code == 0
    assert len(result.output) == 4096
    assert result.output.endswith(b"\0\nthe end\n")


async def test_as_much_of_the_output_is_kept_as_was_asked_for(commands: Commands) -> None:
    async def kept(count: int) -> bytes:
        result = await commands.runner.run(
            ("sh", "-c", "yes 0123456789 | head -c 10000000; echo the end"),
            directory=Path("/tmp"),
            env=commands.env,
            timeout=timedelta(minutes=1),
            output_bytes=count,
        )
        assert result.exit_code == 0
        return result.output

    largest = await kept(MAX_OUTPUT_BYTES)
    assert len(largest) == MAX_OUTPUT_BYTES
    assert largest.endswith(b"the end\n")
    assert await kept(4) == b"end\n"
    for count in (0, MAX_OUTPUT_BYTES + 1):
        with pytest.raises(ValueError, match="65536"):
            await kept(count)


async def test_a_command_that_closes_its_outputs_is_waited_for(commands: Commands) -> None:
    result = await commands.sh("exec >&- 2>&-; sleep 0.1; exit 5")
    assert result == CommandResult(exit_code=5)


async def test_an_environment_larger_than_a_message_arrives(commands: Commands) -> None:
    large = {f"LARGE_{number}": "v" * 32_000 for number in range(6)}
    result = await commands.run("sh", "-c", "echo ${#LARGE_5}; env | wc -c", env=large)
    length, total = result.output.split()
    assert length == b"32000"
    assert int(total) > 192_000


# What is left ---------------------------------------------------------------


async def test_at_the_timeout_the_whole_tree_ends(commands: Commands) -> None:
    result = await commands.sh(f"{TREE} trap '' TERM; echo up; wait", timeout=0.5)
    assert result == CommandResult(timed_out=True, output=b"up\n")
    assert not commands.left()


async def test_what_a_command_leaves_behind_ends_with_it(commands: Commands) -> None:
    assert await commands.sh(f"{TREE} exit 7") == CommandResult(exit_code=7)
    assert not commands.left()


async def test_cancelling_ends_the_tree(commands: Commands) -> None:
    call = asyncio.create_task(commands.sh(f"{TREE} wait"))
    await until(lambda: len(commands.left()) == 5, "the tree")
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert call.cancelled()
    await until(lambda: not commands.left(), "the tree gone")


def test_a_command_does_not_outlive_a_server_that_is_killed() -> None:
    mark = uuid.uuid4().hex
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, f"{TREE} wait"], env={**os.environ, "OF_TREE": mark}
    )
    try:
        wait_until(lambda: len(marked(mark)) == 5, "the tree")
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    wait_until(lambda: not marked(mark), "the tree gone")


_SERVER = """
import asyncio, os, sys
from datetime import timedelta
from pathlib import Path
from att_server.adapters.command_runner import ZygoteCommandRunner
from att_server.adapters.zygote_client import ZygoteClient

runner = ZygoteCommandRunner(ZygoteClient())
env = {"PATH": os.environ["PATH"], "MARK": os.environ["OF_TREE"]}
command = ("sh", "-c", sys.argv[1])
asyncio.run(runner.run(command, directory=Path("/"), env=env, timeout=timedelta(minutes=5)))
"""


async def test_after_hundreds_of_commands_nothing_is_left(commands: Commands) -> None:
    assert (await commands.run("true")).exit_code == 0
    zygote = commands.zygote.pid
    await until(lambda: len(children(zygote)) == 1, "the process for the next command")
    before = files(os.getpid()), files(zygote)
    for number in range(50):
        together = (
            commands.sh(f"exit {number}"),
            commands.sh("sleep 60 & kill -15 $$"),
            commands.run("no-such-command"),
            commands.sh("sleep 60", timeout=0.02),
        )
        results = await asyncio.gather(*together)
        assert [r.exit_code for r in results] == [number, None, None, None]
        assert [r.signal for r in results] == [None, 15, None, None]
        assert [r.timed_out for r in results] == [False, False, False, True]
    # Between a command and the process for the next one it has fewer, or more.
    # Around them both have a few more now and then; a leak would be 200.
    assert files(zygote) <= before[1] + 20
    assert files(os.getpid()) <= before[0] + 20
    assert not commands.left()
    # All but the one that waits for the next.
    await until(lambda: len(children(zygote)) == 1, "no process of a command, nor a zombie")


async def test_more_commands_at_once_than_wait_in_a_queue_all_run(commands: Commands) -> None:
    results = await asyncio.gather(*(commands.sh(f"exit {n % 100}") for n in range(150)))
    assert [result.exit_code for result in results] == [n % 100 for n in range(150)]
    assert not commands.left()


async def test_a_zygote_that_is_killed_is_replaced(commands: Commands) -> None:
    assert (await commands.run("true")).exit_code == 0
    for _ in range(5):
        os.kill(commands.zygote.pid, signal.SIGKILL)
        results = await asyncio.gather(*(commands.run("true") for _ in range(4)))
        assert results == [CommandResult(exit_code=0)] * 4


async def test_a_zygote_that_is_killed_takes_no_command_along(
    commands: Commands, tmp_path: Path
) -> None:
    script = "until [ -e go ]; do sleep 0.01; done; exit 4"
    call = asyncio.create_task(commands.run("sh", "-c", script, directory=tmp_path))
    await until(commands.left, "the command")
    os.kill(commands.zygote.pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    assert await call == CommandResult(exit_code=4)


async def test_a_command_whose_keeper_is_killed_is_an_error(commands: Commands) -> None:
    call = asyncio.create_task(commands.run("sleep", "60"))
    await until(commands.left, "the command")
    (main,) = commands.left()
    keeper = processes.find(main)
    assert keeper is not None
    os.kill(keeper.parent, signal.SIGKILL)
    result = await call
    assert result.start_error == "the process that ran the command was killed"
    os.kill(main, signal.SIGKILL)


async def until(condition: Callable[[], object], what: str) -> None:
    """Returns once the condition holds, which other processes bring about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def children(pid: int) -> list[processes.Process]:
    return [process for process in processes.everyone().values() if process.parent == pid]


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
