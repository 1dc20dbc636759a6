"""What a start needs and how a failed one explains itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from att_server.core.errors import AttError, Reason
from att_server.core.model import (
    DEFAULT_STOP_GRACE,
    ProbeResult,
    Project,
    RunSpec,
    RunStatus,
    RuntimeSettings,
)

INHERITED = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    }
)
"""What an app gets of the server's environment, with every LC_ name. Secrets of
the server, ATT's own among them, are not for the app."""


def inherited_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the server's environment that apps get."""
    return {
        name: value
        for name, value in environ.items()
        if name in INHERITED or name.startswith("LC_")
    }


def run_spec(project: Project, settings: RuntimeSettings, inherited: Mapping[str, str]) -> RunSpec:
    """The specification of a run of `project` with its effective `settings`.

    inherited: what the app gets of the server's environment. Raises COMMAND_MISSING.
    """
    if not settings.command:
        raise AttError(
            Reason.COMMAND_MISSING,
            f"The project {project.project_id!r} has no command. Set `command` in the "
            "table [runtime] of its att.toml, or give one with the call.",
            project_id=project.project_id,
        )
    own_env = {"ATT_PROJECT_ID": project.project_id, **settings.env}
    return RunSpec(
        project_id=project.project_id,
        log_id=project.log_id,
        command=settings.command,
        directory=project.path,
        # A Python app that buffers loses what it printed when it is killed.
        env={"PYTHONUNBUFFERED": "1", **inherited, **own_env},
        own_env=own_env,
        stop_grace=DEFAULT_STOP_GRACE if settings.stop_grace is None else settings.stop_grace,
        probed=settings.readiness is not None,
    )


def settings_digest(project_id: str, settings: RuntimeSettings) -> str:
    """Equal for equal arguments; tells a repeated call from another one."""
    form = [
        project_id,
        list(settings.command),
        sorted(settings.env.items()),
        str(settings.stop_grace),
        str(settings.readiness),
    ]
    return hashlib.sha256(json.dumps(form).encode()).hexdigest()


def start_failed(project_id: str, status: RunStatus, last_lines: Sequence[str]) -> AttError:
    """The error for a run that could not be started or ended before it was ready."""
    ended = status.exit
    if ended is None:
        cause, text = status.reason or "start_error", "could not be started"
    elif ended.start_error is not None:
        cause = status.start_failure or "start_error"
        text = f"could not be started: {ended.start_error}"
    elif ended.supervisor_lost:
        cause, text = "supervisor_lost", "was lost with its supervisor"
    elif ended.signal is not None:
        cause, text = "signal", f"was ended by signal {ended.signal}"
    else:
        cause, text = "exited", f"exited with code {ended.exit_code}"
    tail = "".join(f"\n  {line}" for line in last_lines)
    return AttError(
        Reason.RUNTIME_START_FAILED,
        f"The app of {project_id!r} {text} before it was ready. Mend it and start it again; "
        + (f"its last lines were:{tail}" if tail else "it printed nothing."),
        project_id=project_id,
        run_id=status.run_id,
        cause=cause,
    )


def not_ready(project_id: str, status: RunStatus, health: ProbeResult | None) -> AttError:
    """The error for a run that is not ready in time."""
    health_reason = "not_probed" if health is None else health.reason
    return AttError(
        Reason.RUNTIME_NOT_READY,
        f"The app of {project_id!r} is not ready yet ({health_reason}); it runs on. "
        "Follow its log, or wait with a longer timeout.",
        project_id=project_id,
        run_id=status.run_id,
        health_reason=health_reason,
    )
