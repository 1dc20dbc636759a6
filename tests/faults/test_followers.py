"""Many followers of one server, most of them idle, one of them stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import grpc
import psutil

import att_client
from att.v1 import log_service_pb2, log_service_pb2_grpc
from tests.server_process import PATIENCE, ServerProcess, wait_until

IDLE, BUSY = 1000, 50
LINES = 20_000
MIB = 1 << 20

APP = f"""
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
run = os.environ["ATT_RUN_ID"]
for number in range(0, {LINES}, 500):
    block = b"".join(b"%s %d %s\\n" % (run.encode(), number + n, b"x" * 70) for n in range(500))
    while block:
        block = block[os.write(1, block):]
"""

FOLLOWER = Path(__file__).parents[1] / "storm/log_follower.py"


async def lines_until_exit(stub: log_service_pb2_grpc.LogServiceAsyncStub) -> int:
    call = stub.FollowLogs(log_service_pb2.FollowLogsRequest(project_id="web", until_exit=True))
    cursor = lines = 0
    async for message in call:
        for record in message.records:
            first = record.chunk.first_sequence if record.HasField("chunk") else record.run.sequence
            assert first == cursor
            cursor += record.chunk.line_count or 1
            lines += record.chunk.line_count
    return lines


async def test_a_thousand_idle_and_a_stopped_one_cost_the_busy_ones_nothing(
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    with ServerProcess(tmp_path / "s") as server:
        async with (
            att_client.connect(server.target) as att,
            grpc.aio.insecure_channel(server.target) as channel,
            asyncio.timeout(3 * PATIENCE),
        ):
            await att.projects.create("quiet", path=str(tmp_path), command=["true"])
            command = [sys.executable, "-S", "-c", APP, str(go)]
            await att.projects.create("web", path=str(tmp_path), command=command)
            stub = log_service_pb2_grpc.LogServiceStub(channel)
            asked = log_service_pb2.FollowLogsRequest(project_id="quiet")
            idle = [stub.FollowLogs(asked) for _ in range(IDLE)]
            await asyncio.gather(*(call.read() for call in idle))

            await att.runtimes.start("web")
            kept = tmp_path / "stopped.txt"
            arguments = [sys.executable, str(FOLLOWER), server.target, "web", str(kept), "0", ""]
            stopped = psutil.Popen(arguments)
            try:
                await asyncio.to_thread(wait_until, lambda: cut_of(kept) > 0, "its first batch")
                stopped.send_signal(signal.SIGSTOP)
                memory = psutil.Process(server.pid).memory_full_info().uss
                busy = [asyncio.ensure_future(lines_until_exit(stub)) for _ in range(BUSY)]
                go.touch()
                assert await asyncio.gather(*busy) == [LINES] * BUSY
                grown = psutil.Process(server.pid).memory_full_info().uss - memory
                assert grown < 64 * MIB, f"{grown // MIB} MiB"
                # It goes on where it was.
                stopped.send_signal(signal.SIGCONT)
                end = (await att.logs.info("web")).end_cursor
                await asyncio.to_thread(wait_until, lambda: cut_of(kept) == end, "its last batch")
            finally:
                stopped.kill()
                stopped.wait()
            for call in idle:
                call.cancel()


def cut_of(file: Path) -> int:
    """Where the file of a follower ends; 0 before its first batch."""
    text = file.read_text() if file.exists() else ""
    at = text.rfind("\nC ") + 1
    return int(text[at + 2 :].split("\n")[0]) if text[at : at + 2] == "C " else 0
