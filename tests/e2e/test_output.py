"""Whatever an app prints is kept exactly, through the real processes and the SDK."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import att_client
from tests.server_process import ServerProcess

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("output") / "s") as server:
        yield server


async def run_to_its_end(
    att: att_client.Client, project_id: str, code: str, directory: Path
) -> att_client.LogFollow:
    """A follow of the app that runs `code`, not yet read."""
    await att.projects.create(project_id, path=str(directory), command=[sys.executable, "-c", code])
    follow = att.logs.follow(project_id, until_exit=True)
    await att.runtimes.start(project_id)
    return follow


@pytest.mark.parametrize(
    ("written", "lines", "flags"),
    [
        (b"caf\xe9\xff\xfe\n", [b"caf\xe9\xff\xfe"], ""),
        (b"a\0b\0\n\0\n", [b"a\0b\0", b"\0"], ""),
        (b"\n\n", [b"", b""], ""),
        (b"one\r\ntwo\rthree\n", [b"one\r", b"two\rthree"], ""),
        (b"first\nthe end", [b"first", b"the end"], "unterminated"),
        ("\u2028 é 🎉\n".encode(), ["\u2028 é 🎉".encode()], ""),
    ],
    ids=["not UTF-8", "NUL", "empty lines", "carriage returns", "no newline", "Unicode"],
)
async def test_bytes_are_kept_as_they_were_written(
    server: ServerProcess, tmp_path: Path, written: bytes, lines: list[bytes], flags: str
) -> None:
    code = f"import os; os.write(1, {written!r})"
    project_id = f"bytes-{hashlib.sha256(written).hexdigest()[:8]}"
    async with att_client.connect(server.target) as att:
        follow = await run_to_its_end(att, project_id, code, tmp_path)
        items = [item async for item in follow if isinstance(item, att_client.LogLine)]
    assert [item.data for item in items] == lines
    assert [str(item) for item in items] == [line.decode(errors="replace") for line in lines]
    assert items[-1].unterminated == (flags == "unterminated")


async def test_a_line_of_50_mib_is_kept_in_parts_while_memory_stays_flat(
    server: ServerProcess, tmp_path: Path
) -> None:
    code = f"""
import os
block = bytes(range(1, 10)) + b"\\x0b" * (65536 - 9)
for number in range({50 * MIB // 65536}):
    view = memoryview(block)
    while view: view = view[os.write(1, view):]
os.write(1, b"\\n")
"""
    block = bytes(range(1, 10)) + b"\x0b" * (65536 - 9)
    expected, received = hashlib.sha256(), hashlib.sha256()
    for _ in range(50 * MIB // 65536):
        expected.update(block)
    server_process = psutil.Process(server.pid)
    before = server_process.memory_info().rss
    largest, parts = 0, 0
    async with att_client.connect(server.target) as att:
        follow = await run_to_its_end(att, "long-line", code, tmp_path)
        async for batch in follow.batches():
            for record in batch.records:
                if record.chunk is None:
                    continue
                parts += record.chunk.line_count
                received.update(record.chunk.lines[:-1])
                last = record.chunk
        for state in server.supervisor_states():
            assert isinstance(state["pid"], int)
            if psutil.pid_exists(state["pid"]):
                largest = max(largest, psutil.Process(state["pid"]).memory_info().rss)
    assert received.hexdigest() == expected.hexdigest()
    assert parts == -(-50 * MIB // 65535)
    assert not last.partial
    assert server_process.memory_info().rss - before < 24 * MIB
    assert largest < 64 * MIB


async def test_a_child_that_outlives_its_parent_is_heard_to_its_last_line(
    server: ServerProcess, tmp_path: Path
) -> None:
    code = """
import os
print("parent", flush=True)
heard, held = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(held)
        os.read(heard, 1)  # returns when the parent has ended
        os.write(1, b"orphan\\n")
    os._exit(0)
os.wait()
"""
    async with att_client.connect(server.target) as att:
        follow = await run_to_its_end(att, "orphan", code, tmp_path)
        lines = [str(item) async for item in follow]
        runtime = await att.runtimes.get("orphan")
    assert lines == ["parent", "orphan"]
    assert runtime.exit is not None
    assert runtime.exit.exit_code == 0
