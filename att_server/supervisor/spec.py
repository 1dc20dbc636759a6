"""What a supervisor is asked to do: `spec.json`, written by the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from att_server.supervisor import json_file
from att_server.supervisor.limits import Limits
from att_server.supervisor.restart import RestartPolicy
from att_server.supervisor.state import VERSION, Run

SPEC_FILE = "spec.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What the supervisor before had come to, with its last run as the last of `past`.

    restart_times: seconds since 1970.
    """

    restarts: int = 0
    attempt: int = 0
    restart_times: tuple[float, ...] = ()
    past: tuple[Run, ...] = ()

    def form(self) -> dict[str, object]:
        """The JSON object."""
        return {
            "restarts": self.restarts,
            "attempt": self.attempt,
            "restart_times": list(self.restart_times),
            "past": [run.past_form() for run in self.past],
        }

    @classmethod
    def from_form(cls, form: Mapping[str, object]) -> Inherited:
        """What a JSON object tells. Raises KeyError, TypeError, ValueError."""
        times, past = form.get("restart_times"), form.get("past")
        return cls(
            restarts=int(str(form.get("restarts", 0))),
            attempt=int(str(form.get("attempt", 0))),
            restart_times=tuple(map(float, times)) if isinstance(times, list) else (),
            past=tuple(map(Run.from_form, past)) if isinstance(past, list) else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a supervisor is asked to run.

    env: the app's whole environment, less its secrets, ATT_RUN_ID and ATT_SUPERVISOR_ID.
    grace: between SIGTERM and SIGKILL.
    probed: readiness is the server's to tell; else the app is ready as it runs.
    epoch: of the server that asks.
    run_as: the user that the app runs as, by name or number; empty: the supervisor's own.
    after_loss: the supervisor before was lost: the last run of `history` failed,
    and what the restart policy says to that comes first.
    """

    supervisor_id: str
    project_id: str
    log_id: str
    epoch: int
    digest: str
    command: tuple[str, ...]
    directory: str
    env: Mapping[str, str]
    grace: timedelta
    probed: bool
    release_id: str = ""
    run_as: str = ""
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    limits: Limits = field(default_factory=Limits)
    history: Inherited = field(default_factory=Inherited)
    after_loss: bool = False

    def save(self, directory: str) -> None:
        """Writes `spec.json`, readable by its owner only: it holds the environment."""
        json_file.replace(os.path.join(directory, SPEC_FILE), self.form())

    def form(self) -> dict[str, object]:
        """The JSON object."""
        return {
            "version": VERSION,
            "supervisor_id": self.supervisor_id,
            "project_id": self.project_id,
            "log_id": self.log_id,
            "epoch": self.epoch,
            "digest": self.digest,
            "command": list(self.command),
            "directory": self.directory,
            "env": dict(self.env),
            "grace": self.grace.total_seconds(),
            "probed": self.probed,
            "release_id": self.release_id,
            "run_as": self.run_as,
            "restart": self.restart.form(),
            "limits": self.limits.form(),
            "history": self.history.form(),
            "after_loss": self.after_loss,
        }

    @classmethod
    def load(cls, directory: str) -> Spec:
        """Reads `spec.json`. Raises OSError, ValueError (it is none)."""
        return cls.from_form(json_file.read(os.path.join(directory, SPEC_FILE)))

    @classmethod
    def from_form(cls, form: Mapping[str, Any]) -> Spec:
        """The specification that a JSON object tells. Raises ValueError."""
        try:
            return cls(
                supervisor_id=form["supervisor_id"],
                project_id=form["project_id"],
                log_id=form["log_id"],
                epoch=form["epoch"],
                digest=form["digest"],
                command=tuple(form["command"]),
                directory=form["directory"],
                env=form["env"],
                grace=timedelta(seconds=form["grace"]),
                probed=form["probed"],
                release_id=form.get("release_id", ""),
                run_as=form.get("run_as", ""),
                restart=RestartPolicy.from_form(form.get("restart") or {}),
                limits=Limits.from_form(form.get("limits")),
                history=Inherited.from_form(form.get("history") or {}),
                after_loss=bool(form.get("after_loss", False)),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"this is not a specification: {error!r}") from error
