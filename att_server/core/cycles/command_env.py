"""The environment of a project's commands: tests, checks and builds."""

from __future__ import annotations

from collections.abc import Mapping


def command_env(
    inherited: Mapping[str, str], given: Mapping[str, str], *, project_id: str, cycle_id: str
) -> dict[str, str]:
    """What a command of the cycle is given.

    inherited: what apps get of the server's environment; nothing of the server's
    own is for a change that nobody has looked at yet. given: the settings' `env`.
    """
    return {
        # What is printed last says most, and a command that is killed keeps its buffer.
        "PYTHONUNBUFFERED": "1",
        # Nobody is there to answer.
        "GIT_TERMINAL_PROMPT": "0",
        **inherited,
        "ATT_PROJECT_ID": project_id,
        "ATT_CYCLE_ID": cycle_id,
        **given,
    }
