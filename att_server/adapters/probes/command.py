"""Checks of apps by a command of theirs."""

from __future__ import annotations

from datetime import timedelta

from att_server.adapters.probes.outcome import Outcome
from att_server.core.model import ProbeTarget
from att_server.core.ports import CommandRunner
from att_server.core.settings import CommandProbe


async def check_command(
    probe: CommandProbe, target: ProbeTarget, commands: CommandRunner, timeout: timedelta
) -> Outcome:
    """command_ok, command_exit (also by a signal), command_timeout or command_error."""
    result = await commands.run(
        probe.command,
        directory=target.directory,
        env=target.env,
        timeout=timeout,
        run_as=target.run_as,
    )
    if result.timed_out:
        return Outcome(reason="command_timeout")
    if result.start_error is not None:
        return Outcome(reason="command_error")
    reason = "command_ok" if result.exit_code == 0 else "command_exit"
    return Outcome(reason=reason, exit_code=result.exit_code)
