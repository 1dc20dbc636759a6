"""Apps to be probed, and what a prober needs to probe them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from att_server.core.model import CommandResult, ProbeTarget

LONG = timedelta(seconds=20)


def target(pid: int, *, run_id: str = "", directory: Path = Path("/")) -> ProbeTarget:
    return ProbeTarget(
        project_id="web",
        log_id="LOG1",
        run_id=run_id,
        pid=pid,
        first_cursor=0,
        directory=directory,
        env={"PATH": os.environ["PATH"], "GREETING": "hello"},
    )


@contextmanager
def app(program: str, *arguments: object, run_id: str = "") -> Iterator[tuple[int, int]]:
    """A program beside this file that prints its port: its pid and port."""
    path = Path(__file__).with_name(program)
    command = [sys.executable, str(path), *map(str, arguments)]
    environ = {**os.environ, "ATT_RUN_ID": run_id}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environ, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            os.killpg(process.pid, signal.SIGKILL)


class SubprocessRunner:
    """A `CommandRunner` without a supervisor's care for what a command leaves behind."""

    async def run(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        env: Mapping[str, str],
        timeout: timedelta,
        input: bytes = b"",  # noqa: A002 - as the port calls it
        output_bytes: int = 4096,
        run_as: str = "",
    ) -> CommandResult:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=directory,
                env=dict(env),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            return CommandResult(start_error=str(error))
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                output, _ = await process.communicate(input)
        except TimeoutError:
            return CommandResult(timed_out=True)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        code = process.returncode
        assert code is not None
        if code < 0:
            return CommandResult(signal=-code, output=output[-output_bytes:])
        return CommandResult(exit_code=code, output=output[-output_bytes:])
