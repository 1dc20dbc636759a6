"""CommandRunner on the zygote: a helper command is a job, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from att_server.adapters.zygote_client import ZygoteClient
from att_server.core.model import CommandResult

ENDS_WITHIN = timedelta(seconds=10)
"""What a command and its tree may take longer than the timeout, on a busy host."""
MAX_INPUT_BYTES = 64 * 1024
MAX_OUTPUT_BYTES = 64 * 1024
_TRIES = 2

log = logging.getLogger(__name__)


class ZygoteCommandRunner:
    """Implements `CommandRunner`.

    Each command is run by a process of its own, which ends with it. It outlives
    neither the call nor the server: both hold a socket whose end is its end.
    """

    def __init__(self, zygote: ZygoteClient) -> None:
        """zygote: may have other users; stays the caller's to close."""
        self._zygote = zygote

    async def run(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        env: Mapping[str, str],
        timeout: timedelta,
        input: bytes = b"",  # noqa: A002 - the port's name for what subprocess calls so too
        output_bytes: int = 4096,
        run_as: str = "",
    ) -> CommandResult:
        """See `CommandRunner`. Raises ValueError for more than 64 KiB of input or output."""
        if len(input) > MAX_INPUT_BYTES:
            raise ValueError(f"a command reads at most {MAX_INPUT_BYTES} bytes")
        if not 1 <= output_bytes <= MAX_OUTPUT_BYTES:
            raise ValueError(f"of an output 1 to {MAX_OUTPUT_BYTES} bytes are kept")
        request = {
            "command": list(command),
            "directory": str(directory),
            "env": dict(env),
            "timeout": timeout.total_seconds(),
            "input": base64.b64encode(input).decode(),
            "output_bytes": output_bytes,
            "run_as": run_as,
        }
        line = json.dumps(request).encode() + b"\n"
        try:
            async with asyncio.timeout((timeout + ENDS_WITHIN).total_seconds()):
                for _ in range(_TRIES):
                    answers = await self._answers(line)
                    if answers:
                        return _result(answers)
                    # The zygote was killed with the request unread: nothing was begun.
        except TimeoutError:
            return CommandResult(timed_out=True)
        except OSError as error:
            return CommandResult(start_error=f"no process could be started: {error.strerror}")
        return CommandResult(start_error="the process that starts commands was killed")

    async def _answers(self, line: bytes) -> list[Mapping[str, object]]:
        """What the job says until it ends; nothing if it was never begun. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # Closing it ends the job, also when this task is cancelled.
        with ours:
            with theirs:
                ours.setblocking(False)
                await self._zygote.submit({"job": "command"}, theirs)
            loop = asyncio.get_running_loop()
            answer = bytearray()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await loop.sock_sendall(ours, line)
                while data := await loop.sock_recv(ours, 64 * 1024):
                    answer += data
        return [json.loads(part) for part in answer.splitlines()]


def _result(answers: Sequence[Mapping[str, object]]) -> CommandResult:
    last = answers[-1]
    if "begun" in last:
        return CommandResult(start_error="the process that ran the command was killed")
    if "refused" in last:
        return CommandResult(start_error=str(last.get("message")))
    output = base64.b64decode(str(last.get("output", "")))
    for name in ("exit_code", "signal"):
        if name in last:
            return CommandResult(**{name: int(str(last[name]))}, output=output)  # type: ignore[arg-type]  # its int fields
    if "timed_out" in last:
        return CommandResult(timed_out=True, output=output)
    return CommandResult(start_error=str(last.get("start_error")), output=output)
