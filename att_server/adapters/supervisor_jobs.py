"""What the zygote does for the driver: supervisors, and settling what lost ones left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from att_server.adapters.control_client import ControlClient, Message
from att_server.adapters.zygote_client import ZygoteClient

SETTLES_WITHIN = timedelta(seconds=30)


class SupervisorJobs:
    """Hands jobs of one server to its zygote."""

    def __init__(self, zygote: ZygoteClient, *, boot_id: str) -> None:
        self._zygote = zygote
        self._boot_id = boot_id

    async def run(self, directory: Path, log_id: str) -> socket.socket:
        """A connection to a new supervisor, which takes over its project and then waits.

        directory: its own, which need not be there yet. Closing the connection
        ends it without effect. Raises OSError.
        """
        return await self._submit({"job": "run", "directory": str(directory), "log_id": log_id})

    async def settle(self, project: Path, log_id: str) -> None:
        """Settles what a lost supervisor left, unless somebody else holds the project.

        Raises OSError.
        """
        told: list[Message] = []
        ended = asyncio.Event()
        client = ControlClient(
            epoch=0,
            on_message=told.append,
            on_grew=lambda: None,
            on_lost=lambda _: ended.set(),
        )
        try:
            job = {"job": "settle", "project": str(project), "log_id": log_id}
            await client.open(await self._submit(job))
            async with asyncio.timeout(SETTLES_WITHIN.total_seconds()):
                await ended.wait()
        finally:
            client.close()
        if any(message.get("refused") == "failed" for message in told):
            raise OSError(f"it cannot be settled: {told[-1].get('message')}")

    async def _submit(self, job: Mapping[str, object]) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                await self._zygote.submit({**job, "boot_id": self._boot_id}, theirs)
            except BaseException:
                ours.close()
                raise
        return ours
