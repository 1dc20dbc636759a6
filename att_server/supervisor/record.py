"""The state of a supervisor as it is on disk and as its servers are told."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from att_server.supervisor.own_log import OwnLog
from att_server.supervisor.state import State, supervisor_directories

SAVE_AGAIN = 1.0
"""Seconds between two tries to save a state."""


class Record:
    """Keeps `state.json` and tells of its changes.

    state: the newest. saved: whether it is on disk. Where the disk is full the
    app goes on, and saving is tried again.
    """

    def __init__(
        self,
        directory: str,
        state: State,
        tell: Callable[[Mapping[str, object]], None],
        own_log: OwnLog,
    ) -> None:
        """directory: the supervisor's own. tell: is given the form of a state."""
        self.state = state
        self.saved = False
        self._tried_at = time.monotonic()
        self._directory = directory
        self._project = os.path.dirname(os.path.dirname(directory))
        self._tell = tell
        self._own_log = own_log

    def note(self, **fields: object) -> None:
        """Changes the state on disk."""
        self.state = replace(self.state, revision=self.state.revision + 1, **fields)  # type: ignore[arg-type]  # names and types are State's
        self._save()
        run = self.state.run
        if "state" in fields:
            self._own_log.note(
                self.state.state,
                reason=self.state.reason,
                run=None if run is None else run.run_id,
                pid=None if run is None else run.pid or None,
                end=None if run is None or run.end is None else run.end.cause,
                attempt=self.state.attempt or None,
                next=self.state.next_restart_time,
            )

    def tell(self) -> None:
        """Tells the state to all who listen."""
        self._tell(self.state.form())

    def change(self, **fields: object) -> None:
        """Changes the state and tells it."""
        self.note(**fields)
        self.tell()

    @property
    def deadline(self) -> float | None:
        """When `on_deadline` is due, in monotonic seconds."""
        return None if self.saved else self._tried_at + SAVE_AGAIN

    def on_deadline(self, now: float) -> None:
        """Saves what could not be saved before, if that is due."""
        if not self.saved and now >= self._tried_at + SAVE_AGAIN:
            self._save()

    def remove_older(self) -> None:
        """Removes what earlier supervisors of the project wrote, if it is told by this one."""
        if not self.saved:
            return
        for directory in supervisor_directories(self._project):
            if os.path.basename(directory) < self.state.supervisor_id:
                with contextlib.suppress(OSError):
                    for name in os.listdir(directory):
                        os.unlink(os.path.join(directory, name))
                    os.rmdir(directory)

    def _save(self) -> None:
        self._tried_at = time.monotonic()
        try:
            self.state.save(self._directory)
            self.saved = True
        except OSError as error:
            self.saved = False
            self._own_log.note("not saved", error=error)
