"""`att mcp serve` as a client starts it: a process with pipes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import att_client
from tests.cli.att import ATT
from tests.cli.att import att as run_att
from tests.mcp.conftest import ERAS, Mode, printing
from tests.mcp.transports import over_stdio
from tests.server_process import PATIENCE, ServerProcess


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="att-mcp-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("mode", ERAS)
async def test_cursors_go_on_over_a_server_that_was_away(place: Path, mode: Mode) -> None:
    with ServerProcess(place / "s") as server:
        async with att_client.connect(server.target) as att:
            await printing(att, "web", place, "for i in range(10): print('line', i)")
        async with over_stdio(server.target, mode) as agent:
            first = await agent.call("att.runtime.logs", project="web", cursor=0, limit=5)
            server.kill()
            away = await agent.refused("att.runtime.logs", project="web", cursor=first["cursor"])
            assert "`att serve`" in away
            server.start()
            rest = await agent.call("att.runtime.logs", project="web", cursor=first["cursor"])
        assert first["lines"] + rest["lines"] == [f"line {i}" for i in range(10)]


MUCH = "import os; [os.write(1, (b'x' * 99 + b'\\n') * 10_000) for _ in range(40)]"


async def test_a_long_log_does_not_make_the_bridge_grow(place: Path) -> None:
    with ServerProcess(place / "s") as server:
        async with att_client.connect(server.target) as att:
            await printing(att, "much", place, MUCH)
        async with over_stdio(server.target, "auto") as agent:
            await agent.call("att.runtime.logs", project="much", cursor=0, limit=1000)
            (bridge,) = (child for child in psutil.Process().children() if "mcp" in child.cmdline())
            before = bridge.memory_info().rss
            cursor = 0
            for _ in range(30):
                page = await agent.call(
                    "att.runtime.logs", project="much", cursor=cursor, limit=1000
                )
                cursor = page["cursor"]
            # It is looked for through the whole log, by the server.
            none = await agent.call(
                "att.runtime.logs", project="much", cursor=0, pattern="nothing like it"
            )
            assert (none["lines"], none["has_more"]) == ([], False)
            assert bridge.memory_info().rss - before < 16 << 20


def test_an_interrupt_ends_it_while_it_waits() -> None:
    command = (*ATT, "mcp", "serve", "--target", "unix:/nowhere/att.sock")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        print('{"jsonrpc": "2.0", "id": 1, "method": "ping"}', file=process.stdin, flush=True)
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT


@pytest.mark.parametrize(
    "options",
    [
        ("--toolsets", "nonsense"),
        ("--target", "tcp:nowhere"),
    ],
)
def test_wrong_options_end_it_with_2_before_it_serves(options: tuple[str, ...]) -> None:
    ended = run_att("mcp", "serve", *options)
    assert ended.code == 2
    assert ended.stdout == b""
    assert ended.stderr.startswith("error: ")
