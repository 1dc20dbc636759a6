"""The server as a process: it holds the state directory, serves, and makes way for the next one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

from att_server.adapters.clock import SystemClock
from att_server.adapters.launcher_files import on_trial
from att_server.adapters.zygote_client import ZygoteClient
from att_server.app import SHUTDOWN_GRACE
from att_server.config import Config
from att_server.core.cycles.step import Hooks
from att_server.core.errors import RefusalReason, StartRefused
from att_server.lock import Tenure, is_held, make_private, state_directory
from att_server.spare import Reserve, needed
from att_server.state import serving_state
from att_server.succession import (
    FINDS_WITHIN,
    Predecessor,
    PredecessorSilent,
    Succession,
    ask,
    look_again,
)

HANDOVER_GRACE = timedelta(milliseconds=300)
"""Nobody is served during a handover; whoever has called is told to call again."""
SPARE_TAKES_WITHIN = timedelta(milliseconds=500)
"""A server that is killed while another one begins has a spare that comes first."""

log = logging.getLogger(__name__)


async def run(
    config: Config, ready: Callable[[Sequence[str]], None], *, hooks: Hooks | None = None
) -> None:
    """Serves until it is cancelled, or another server has taken over; the apps run on.

    ready: told the targets whenever they are served, the socket's first: again where a
    server that was to take over has ended before it served. hooks: what an embedder
    brings along. Raises StartRefused.
    """
    clock = SystemClock()
    instance_id = clock.new_id()
    async with AsyncExitStack() as stack:
        zygote = ZygoteClient()
        stack.push_async_callback(zygote.aclose)
        before = await _predecessor(config, zygote) if config.take_over else None
        if config.is_spare:
            await zygote.open()
            if not await needed(config.state_dir):
                return
        hold = stack.enter_context(
            state_directory(
                config.state_dir,
                socket_path=config.socket_path,
                instance_id=instance_id,
                start_time=clock.now(),
                launch=config.launch,
                lock=None if before is None else before.lock,
            )
        )
        succession = stack.enter_context(Succession(config.state_dir))
        reserve = await stack.enter_async_context(
            Reserve(
                before,
                has_spare=config.has_spare,
                is_spare=config.is_spare,
                on_trial=lambda: on_trial(config.state_dir, config.release_id),
            )
        )
        while True:
            serving = serving_state(
                config,
                clock=clock,
                zygote=zygote,
                instance_id=instance_id,
                hooks=hooks or Hooks(),
                migrates=reserve.tell_migrating,
                grace=lambda: HANDOVER_GRACE if succession.wanted else SHUTDOWN_GRACE,
            )
            try:
                async with serving as targets:
                    hold.tell(Tenure.SERVES)
                    reserve.tell_serving()
                    ready(targets)
                    successor = await succession.asked()
                    log.info("makes way for process %d", successor.pid)
            except asyncio.CancelledError:
                reserve.let_go()
                hold.tell(Tenure.ENDED)
                raise
            reserve.let_go()
            if await succession.settled(hold.descriptor):
                log.info("process %d serves, this one ends", successor.pid)
                return
            log.warning("process %d has ended: this one serves again", successor.pid)
            hold.tell(Tenure.BEGINS)


async def _predecessor(config: Config, zygote: ZygoteClient) -> Predecessor | None:
    """The server before, once it has made way; None: nobody is there to be asked.

    What needs no hold of the directory is done first: nobody is served meanwhile.
    Raises StartRefused.
    """
    make_private(config.state_dir)
    with contextlib.suppress(OSError):  # whoever needs it first says so
        await zygote.open()
    deadline = time.monotonic() + FINDS_WITHIN.total_seconds()
    free_at = time.monotonic()
    while time.monotonic() < deadline:
        if is_held(config.state_dir):
            free_at = time.monotonic() + SPARE_TAKES_WITHIN.total_seconds()
        elif time.monotonic() >= free_at:
            return None
        try:
            before = await ask(config.state_dir)
        except PredecessorSilent as error:
            raise StartRefused(
                RefusalReason.ALREADY_RUNNING,
                f"The server that holds {config.state_dir} does not make way: {error}. "
                "Stop it with `att shutdown`.",
            ) from error
        if before is not None:
            return before
        await look_again()
    return None
