"""A server as far as the launcher can see: argv[1] says what it does, the rest is a server's.

serves; dies: exits with 3; hangs: before it asks for the directory; crashes: exits
with 4 once it serves and is told SIGUSR1; stuck: serves, and never makes way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from att_server.adapters.launcher_files import on_trial
from att_server.lock import Hold, Tenure, is_held, state_directory
from att_server.spare import Reserve
from att_server.succession import Succession, ask


async def main(does: str, state_dir: Path) -> None:
    if does == "dies":
        print("it dies", file=sys.stderr)
        sys.exit(3)
    while does == "hangs":
        await asyncio.sleep(3600)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    loop.add_signal_handler(signal.SIGUSR1, os._exit, 4)
    before = None
    while is_held(state_dir):
        before = await ask(state_dir)
        if before is not None:
            break
        await asyncio.sleep(0.02)
    with state_directory(
        state_dir,
        socket_path=state_dir / "att.sock",
        instance_id="stub",
        start_time=datetime.now(UTC),
        launch=int(os.environ["ATT_LAUNCH"]),
        lock=None if before is None else before.lock,
    ) as hold:
        reserve = Reserve(
            before,
            has_spare=False,
            is_spare=False,
            on_trial=lambda: on_trial(state_dir, os.environ["ATT_RELEASE_ID"]),
        )
        async with reserve:
            await serve(does, hold, state_dir, reserve, ending)


async def serve(
    does: str, hold: Hold, state_dir: Path, reserve: Reserve, ending: asyncio.Event
) -> None:
    with Succession(state_dir) as succession:
        hold.tell(Tenure.SERVES)
        reserve.tell_serving()
        while True:
            asked = asyncio.ensure_future(succession.asked())
            ends = asyncio.ensure_future(ending.wait())
            await asyncio.wait([asked, ends], return_when=asyncio.FIRST_COMPLETED)
            if ends.done():
                reserve.let_go()
                hold.tell(Tenure.ENDED)
                os._exit(0)
            while does == "stuck":
                await asyncio.sleep(3600)
            reserve.let_go()
            if await succession.settled(hold.descriptor):
                return
            hold.tell(Tenure.SERVES)


asyncio.run(main(sys.argv[1], Path(sys.argv[sys.argv.index("--state-dir") + 1])))
