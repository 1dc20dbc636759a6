"""A server on a file system of 100 MB, in a mount namespace of its own; prints what came of it.

argv: an empty directory. The app prints 130 MB at once, waits, and prints ten lines more.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import att_client
from att_client import LogGap, LogLine
from tests.server_process import PATIENCE, ServerProcess, wait_until

APP = """
import os, sys, time
directory = sys.argv[1]
def say(first, count):
    block = b"".join(b"%d %s\\n" % (n, b"x" * 990) for n in range(first, first + count))
    while block:
        block = block[os.write(1, block):]
for number in range(0, 130_000, 1000):
    say(number, 1000)
open(directory + "/flooded", "w").close()
while not os.path.exists(directory + "/go"):
    time.sleep(0.02)
say(130_000, 10)
"""


async def main() -> None:
    directory = Path(sys.argv[1])
    disk, notes = directory / "disk", directory / "notes"
    disk.mkdir()
    notes.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m,mode=700", "tmpfs", str(disk)]
    await asyncio.to_thread(subprocess.run, mount, check=True)
    with ServerProcess(disk / "s") as server:
        async with att_client.connect(server.target) as att:
            command = [sys.executable, "-S", "-c", APP, str(notes)]
            await att.projects.create("web", path=str(notes), command=command)
            await att.runtimes.start("web")
            await asyncio.to_thread(wait_until, (notes / "flooded").exists, "the app's flood")
            start = 0
            async with asyncio.timeout(PATIENCE):
                while not start:
                    start = (await att.logs.info("web")).start_cursor
                    await asyncio.sleep(0.05)
            (notes / "go").touch()
            found: list[object] = []
            lines = 0
            async with asyncio.timeout(PATIENCE):
                follow = att.logs.follow("web", cursor=0, until_exit=True, markers=True)
                async for item in follow:
                    if isinstance(item, LogLine):
                        # The marker of the start has number 0.
                        assert int(item.split(" ", 1)[0]) == item.sequence - 1, item.sequence
                        lines += 1
                    elif isinstance(item, LogGap):
                        reason, lost = item.reason.name, item.lost_lines
                        found.append([item.first_sequence, item.count, reason, lost])
                    elif item.ended is not None:
                        found.append(["ended", item.ended.exit_code])
            events = (await att.events.list(project_id="web")).events
    told = [event.event_type for event in events]
    print(json.dumps({"found": found, "lines": lines, "events": told}))


asyncio.run(main())
