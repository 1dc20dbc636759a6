"""LauncherFiles: the launcher of this server, as its directory tells of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from att_server.adapters.launcher_events import LauncherEvents
from att_server.core.cycles.server_launcher import (
    Launch,
    LaunchEnd,
    LauncherState,
    OwnProject,
    Trial,
)
from att_server.core.errors import AttError, Reason
from att_server.core.model import Event
from att_server.launcher.record import FORMAT
from att_server.supervisor import json_file, processes

PROJECT_FILE = "project.json"
_LOG_BYTES = 64 * 1024
_BEGINS = '{"type": "launcher.'


class LauncherFiles:
    """Implements `ServerLauncher`. Reads what is there at each call."""

    def __init__(
        self, state_dir: Path, *, launch: int, release_id: str, start_time: datetime
    ) -> None:
        """launch, release_id: of this start; empty: the installation, also where it is known
        as a release."""
        self._state_dir = state_dir
        self._directory = state_dir / "launcher"
        self.launch = launch
        self.release_id = release_id
        self.start_time = start_time
        self._own = own_project(state_dir)
        if launch and not release_id and self._own is not None:
            self.release_id = self._own.baseline
        self._events = LauncherEvents(self._directory)

    @property
    def own(self) -> OwnProject | None:
        """See `ServerLauncher`. Registered before this server began."""
        return self._own

    @property
    def present(self) -> bool:
        """See `ServerLauncher`: it has its bell open."""
        return self._ring(b"")

    def startable(self, release_id: str) -> Path | None:
        """See `ServerLauncher`."""
        path = self._path(release_id)
        if not path:
            return None
        python = self._state_dir / path / ".venv" / "bin" / "python"
        return None if os.access(python, os.X_OK) else python

    def state(self) -> LauncherState:
        """See `ServerLauncher`. A record that cannot be read says nothing."""
        try:
            record = json_file.read(str(self._directory / "record.json"))
            return LauncherState(
                current=self._release_id(str(record.get("current", ""))),
                wish=str(record.get("wish", "")),
                outcome=str(record.get("outcome", "")),
                reason=str(record.get("reason", "")),
                ended=tuple(self._end(form) for form in record.get("ended", ())),
                missed=tuple(
                    Launch(
                        launch=int(form["launch"]),
                        release_id=self._release_id(form["release"]),
                        pid=int(form["pid"]),
                    )
                    for form in record.get("servers", ())
                    if _is_gone(form)
                ),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return LauncherState()

    async def wish(self, wish_id: str, release_id: str, trial: Trial) -> None:
        """See `ServerLauncher`."""
        form = {
            "format": FORMAT,
            "id": wish_id,
            "release": self._path(release_id),
            "good": False,
            "tries": trial.tries,
            "ready_within": trial.ready_within.total_seconds(),
            "good_within": trial.good_within.total_seconds(),
        }
        await asyncio.to_thread(self._write, form)

    async def prove(self, release_id: str) -> None:
        """See `ServerLauncher`."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            form = json_file.read(str(self._directory / "wish.json"))
            if form.get("release") == self._path(release_id):
                await asyncio.to_thread(self._write, {**form, "good": True})

    async def events(self, after: int) -> Sequence[Event]:
        """See `ServerLauncher`. A line that a full disk cut off is passed over."""

        def told() -> list[tuple[int, str]]:
            self._events.forget(after)
            return self._events.lines(after)

        try:
            lines = await asyncio.to_thread(told)
        except OSError:
            return []
        return [event for number, line in lines if (event := self._event(line, number))]

    def output(self, count: int) -> list[bytes]:
        """See `ServerLauncher`."""
        ended = self.state().ended
        if ended and ended[-1].launch > self.launch - 2 and ended[-1].output:
            return ended[-1].output.encode().splitlines()[-count:]
        try:
            with (self._state_dir / "log" / "server.log").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
                return file.read(_LOG_BYTES).splitlines()[-count:]
        except OSError:
            return []

    def _path(self, release_id: str) -> str:
        """The release as the launcher names it."""
        if self._own is None or release_id in ("", self._own.baseline):
            return ""
        return f"projects/{self._own.project_id}/releases/{release_id}"

    def _release_id(self, path: str) -> str:
        """The id of what the launcher names so."""
        return os.path.basename(path) or ("" if self._own is None else self._own.baseline)

    def _end(self, form: Mapping[str, Any]) -> LaunchEnd:
        return LaunchEnd(
            launch=int(form["launch"]),
            release_id=self._release_id(form["release"]),
            pid=int(form["pid"]),
            start_time=datetime.fromtimestamp(form["began"], UTC),
            end_time=datetime.fromtimestamp(form["ended"], UTC),
            exit_code=form["code"],
            reason=str(form["reason"]),
            lost=bool(form["lost"]),
            output=str(form["output"]),
        )

    def _write(self, form: Mapping[str, object]) -> None:
        path = self._directory / "wish.json"
        try:
            json_file.replace(str(path), form, durable=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise AttError(
                Reason.STORAGE_FULL,
                f"There is no space left to write {path}. Free some and call again.",
                path=path,
            ) from error
        self._ring(b"!")

    def _ring(self, data: bytes) -> bool:
        """Whether somebody listens."""
        try:
            bell = os.open(self._directory / "bell", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.write(bell, data)
        except OSError:
            pass  # full: it will be heard all the same
        finally:
            os.close(bell)
        return True

    def _event(self, line: str, number: int) -> Event | None:
        try:
            # What follows one that a full disk cut off is in the same line.
            form = json.loads(line[line.rindex(_BEGINS) :])
            facts = {key: str(form[key]) for key in form if key not in ("type", "time", "output")}
            return Event(
                event_type=str(form["type"]),
                time=datetime.fromisoformat(form["time"]),
                project_id="" if self._own is None else self._own.project_id,
                reason=str(form.get("reason", "")),
                attributes={**facts, "number": str(number)},
            )
        except (ValueError, KeyError, TypeError):
            return None


def own_project(state_dir: Path) -> OwnProject | None:
    """The project that `att init --self` registered, None without one."""
    try:
        form = json_file.read(str(state_dir / "launcher" / PROJECT_FILE))
        return OwnProject(
            project_id=str(form["project_id"]),
            path=Path(str(form["path"])),
            baseline=str(form.get("baseline", "")),
        )
    except (OSError, ValueError, KeyError):
        return None


def on_trial(state_dir: Path, release_id: str) -> bool:
    """Whether the launcher has this release on trial: it is not proven yet."""
    record = json_file.read_or_empty(str(state_dir / "launcher" / "record.json"))
    return bool(release_id) and os.path.basename(str(record.get("trial", ""))) == release_id


def lend_environment(directory: Path) -> None:
    """Has `.venv` in the directory lead to the environment of this server. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        (directory / ".venv").symlink_to(sys.prefix)


def register(state_dir: Path, own: OwnProject) -> None:
    """Makes it the project whose app is the server. Raises OSError."""
    directory = state_dir / "launcher"
    directory.mkdir(mode=0o700, exist_ok=True)
    form = {"project_id": own.project_id, "path": str(own.path), "baseline": own.baseline}
    json_file.replace(str(directory / PROJECT_FILE), form, durable=True)


def _is_gone(form: Mapping[str, Any]) -> bool:
    return processes.find_running(int(form["pid"]), form.get("ticks")) is None
