"""What a start needs and how a failed one explains itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from att_server.core.app_users import AppUsers
from att_server.core.errors import AttError, Reason
from att_server.core.model import ProbeResult, Project, RunSpec, RunStatus, RuntimeState
from att_server.core.ports import CommandFinder, RunDirectories
from att_server.core.settings import DEFAULT_STOP_GRACE, ResourceLimits, RuntimeSettings
from att_server.core.settings_rules import environment_rule

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


_OF_THE_SERVER = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "TMPDIR"})
"""What of that is no use to another user."""


def inherited_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the server's environment that apps get."""
    return {
        name: value
        for name, value in environ.items()
        if name in INHERITED or name.startswith("LC_")
    }


def env_for(run_as: str, inherited: Mapping[str, str]) -> Mapping[str, str]:
    """What is inherited, less what is the server's own where another user is to run.

    That user's home and name come in its place where the process begins.
    """
    if not run_as:
        return inherited
    return {name: value for name, value in inherited.items() if name not in _OF_THE_SERVER}


def run_directory(project: Project, directories: RunDirectories) -> Path:
    """Where the project's app runs: in its release's directory, else in the project's own."""
    if not project.release_id:
        return project.path
    return directories.directory(project.project_id, project.release_id)


def run_spec(
    project: Project,
    settings: RuntimeSettings,
    inherited: Mapping[str, str],
    secrets: Mapping[str, str],
    directories: RunDirectories,
) -> RunSpec:
    """The specification of a run of `project` with its effective `settings`.

    inherited: what the app gets of the server's environment. secrets: what the
    settings' `env_file` gives; `env` wins over it. Raises COMMAND_MISSING,
    SETTINGS_INVALID.
    """
    if not settings.command:
        raise AttError(
            Reason.COMMAND_MISSING,
            f"The project {project.project_id!r} has no command. Set `command` in the "
            "table [runtime] of its att.toml, or give one with the call.",
            project_id=project.project_id,
        )
    own_env = {"ATT_PROJECT_ID": project.project_id, **settings.env}
    run_as = settings.run_as or ""
    # No part of what gives a run its digest: apps that run already have none of it.
    places = {}
    if not run_as:  # another user does not get into the state directory
        places["ATT_DATA_DIR"] = str(directories.data_directory(project.project_id))
    if project.release_id:
        places["ATT_RELEASE_ID"] = project.release_id
    # A Python app that buffers loses what it printed when it is killed.
    env = {"PYTHONUNBUFFERED": "1", **env_for(run_as, inherited), **own_env, **places}
    hidden = {
        name: value for name, value in secrets.items() if name not in own_env and name not in places
    }
    # Each was within bounds; together they may still be more than an app can be given.
    rule = environment_rule({**settings.env, **hidden})
    if rule:
        raise AttError(
            Reason.SETTINGS_INVALID,
            f"The variables of {project.project_id!r}, those of `env` and `env_file` together, "
            f"{rule}. Remove some.",
            path=project.path,
            line="",
            key="runtime.env",
        )
    return RunSpec(
        project_id=project.project_id,
        log_id=project.log_id,
        command=settings.command,
        directory=run_directory(project, directories),
        env={name: value for name, value in env.items() if name not in hidden},
        own_env=own_env,
        secrets=hidden,
        stop_grace=DEFAULT_STOP_GRACE if settings.stop_grace is None else settings.stop_grace,
        probed=settings.readiness is not None,
        restart=settings.restart_policy,
        limits=settings.limits or ResourceLimits(),
        release_id=project.release_id,
        run_as=run_as,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What an app is started with: the settings in force and what becomes of them."""

    settings: RuntimeSettings
    spec: RunSpec


class ProjectSettings(Protocol):
    """Where the settings of projects come from."""

    async def effective(self, project: Project) -> RuntimeSettings:
        """The project's settings as a start without more would use them.

        A project with a release has those of the release.
        """
        ...

    async def secrets(
        self, project: Project, settings: RuntimeSettings, *, owner: str = ""
    ) -> Mapping[str, str]:
        """What the `env_file` of the settings gives; owner: as `SettingsReader` takes it."""
        ...


class Launcher:
    """Prepares starts, which changes nothing but that there is a directory for data."""

    def __init__(
        self,
        *,
        projects: ProjectSettings,
        commands: CommandFinder,
        users: AppUsers,
        directories: RunDirectories,
        inherited_env: Mapping[str, str],
    ) -> None:
        """inherited_env: what apps get of the server's environment."""
        self._projects = projects
        self._commands = commands
        self._users = users
        self._directories = directories
        self._inherited_env = inherited_env

    async def plan(self, project: Project, overrides: RuntimeSettings) -> Launch:
        """What a start with `overrides` over the project's settings would use now.

        Raises SETTINGS_INVALID, PROJECT_PATH_INVALID, NOT_IMPLEMENTED, COMMAND_MISSING,
        RUN_AS_NOT_POSSIBLE.
        """
        settings = overrides.over(await self._projects.effective(project))
        asked = (overrides.env_file, project.runtime.env_file) != (None, None)
        # The app may write its own att.toml, and is not to be read what is others'.
        owner = "" if asked else settings.run_as or ""
        secrets = await self._projects.secrets(project, settings, owner=owner)
        spec = run_spec(project, settings, self._inherited_env, secrets, self._directories)
        await self._users.check(spec.run_as, spec.directory)
        return Launch(settings=settings, spec=spec)

    async def checked(self, project: Project, overrides: RuntimeSettings) -> Launch:
        """As `plan`, checked as far as one can without starting; ATT_DATA_DIR is there then.

        Raises COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE, STORAGE_FULL too.
        """
        launch = await self.plan(project, overrides)
        spec = launch.spec
        await self._commands.check(
            spec.command, directory=spec.directory, env={**spec.env, **spec.secrets}
        )
        await self._directories.prepare_data(project.project_id)
        return launch


def settings_digest(project_id: str, settings: RuntimeSettings) -> str:
    """Equal for equal arguments; tells a repeated call from another one."""
    form = [project_id, dataclasses.asdict(settings)]
    return hashlib.sha256(json.dumps(form, sort_keys=True, default=str).encode()).hexdigest()


# Failures -------------------------------------------------------------------

_CAUSES = {
    "crash_loop": "ended again and again and is not started any more",
    "startup_deadline": "was not ready within its deadline and was ended",
    "liveness_failed": "failed its liveness probe and was ended",
    "memory_limit": "went over its memory limit and was ended",
    "process_limit": "went over its limit of processes and was ended",
    "cpu_time_limit": "went over its limit of processor time and was ended",
    "oom_killed": "was ended by the host, which had no memory left",
    "supervisor_lost": "was lost with its supervisor",
    "host_shutdown": "was ended, since its supervisor was told to end",
}


def start_failed(project_id: str, status: RunStatus, last_lines: Sequence[str]) -> AttError:
    """The error for a run that could not be started or ended before it was ready."""
    cause, text = _end(status)
    if cause in ("exited", "signal"):
        text += " before it was ready"
    return AttError(
        Reason.RUNTIME_START_FAILED,
        f"The app of {project_id!r} {text}. Mend it and start it again; {_quoted(last_lines)}",
        project_id=project_id,
        run_id=status.run_id,
        cause=cause,
    )


def not_ready(
    project_id: str, status: RunStatus, health: ProbeResult | None, last_lines: Sequence[str]
) -> AttError:
    """The error for a run that is not ready in time.

    last_lines: of an app that has ended and is started again.
    """
    health_reason = "not_probed" if health is None else health.reason
    text, tail = "it runs on", ""
    if status.past or status.state is RuntimeState.BACKOFF:
        ended = status.past[-1].exit if status.exit is None and status.past else status.exit
        _, end = _end(dataclasses.replace(status, exit=ended))
        text, tail = f"it {end}, and is started again by its policy", _quoted(last_lines)
    return AttError(
        Reason.RUNTIME_NOT_READY,
        f"The app of {project_id!r} is not ready yet ({health_reason}); {text}. Follow its "
        "log, or wait with a longer timeout" + (f"; {tail}" if tail else "."),
        project_id=project_id,
        run_id=status.run_id,
        health_reason=health_reason,
    )


def other_spec_runs(project_id: str, status: RunStatus) -> AttError:
    """The error for a start of an app that runs with another specification."""
    return AttError(
        Reason.RUNTIME_SPEC_CONFLICT,
        f"The app of {project_id!r} runs with other settings. "
        "Restart it to use these, or stop it first.",
        project_id=project_id,
        run_id=status.run_id,
    )


def not_known_to_run(project_id: str) -> AttError:
    """The error for a start of an app that may run, which nobody can say now."""
    return AttError(
        Reason.SUPERVISOR_UNREACHABLE,
        f"The supervisor of {project_id!r} does not answer, so it is not known whether the app "
        "runs. Call again.",
        project_id=project_id,
    )


def release_gone(directory: Path) -> AttError:
    """The error for a release whose directory is not there."""
    return AttError(
        Reason.PROJECT_PATH_INVALID,
        f"The release that the app is run from is not at {str(directory)!r} any more. "
        "Deploy its commit again, or roll back to another release.",
        path=directory,
    )


def stopped_but_not_stored(project_id: str, error: AttError) -> AttError:
    """The error for a stop that was done, though `error` kept it from being stored."""
    facts: dict[str, Any] = dict(error.metadata)
    return AttError(
        error.reason,
        f"The app of {project_id!r} is stopped, but that could not be stored, and the next "
        f"server would start it again. {error.message}",
        **facts,
    )


def _end(status: RunStatus) -> tuple[str, str]:
    """How the app ended: the cause in a word, and a predicate."""
    ended = status.exit
    for reason in (status.reason, "" if ended is None else ended.reason):
        if reason in _CAUSES and not status.start_failure:
            return reason, _CAUSES[reason]
    if status.state in (RuntimeState.STOPPING, RuntimeState.STOPPED):
        return "stopped", "was stopped"
    if ended is None:
        return status.reason or "start_error", "could not be started"
    if ended.start_error is not None:
        cause = status.start_failure or "start_error"
        return cause, f"could not be started: {ended.start_error}"
    if ended.supervisor_lost:
        return "supervisor_lost", _CAUSES["supervisor_lost"]
    if ended.signal is not None:
        return "signal", f"was ended by signal {ended.signal}"
    return "exited", f"exited with code {ended.exit_code}"


def _quoted(lines: Sequence[str]) -> str:
    if not lines:
        return "it printed nothing."
    return "its last lines were:" + "".join(f"\n  {line}" for line in lines)
