"""One run of the app: from its process until its tree is gone and its pipes are read."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from att_server.supervisor.app_process import AppProcess, terminate_rest
from att_server.supervisor.capture import Capture
from att_server.supervisor.cgroup import Cgroup
from att_server.supervisor.limit_watch import LimitWatch
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import STREAM_STDERR, STREAM_STDOUT, run_to_text
from att_server.supervisor.spec import Spec
from att_server.supervisor.start_failure import StartFailed
from att_server.supervisor.state import MAIN_EXITED, RunEnd, utc

PIPES_WITHIN = 1.0
"""Seconds that strangers may hold the pipes after the app's tree is gone."""
KILL_AGAIN = (0.02, 1.0)
"""Seconds between two looks at a tree that does not end at once: first, longest."""


class Running:
    """A run whose process was started, on an epoll that the owner waits on.

    The owner calls `reap` when a child has ended, `on_event` for the
    descriptors that this `owns`, and `on_deadline` at `deadline`, until it is `over`.
    """

    def __init__(
        self,
        epoll: select.epoll,
        log: LogWriter,
        spec: Spec,
        *,
        run: bytes,
        secrets: Mapping[str, str],
        on_growth: Callable[[], None],
    ) -> None:
        """Starts the app's process. Raises StartFailed.

        secrets: the part of the app's environment that is nowhere on disk, nor
        in the log: it is masked there.
        """
        self.run = run
        self.end: RunEnd | None = None
        """How the main process ended, which others of the tree may survive for a while."""
        self._grace = spec.grace.total_seconds()
        self._began = time.monotonic()
        self._cgroup = Cgroup.for_run(spec.log_id, spec.limits)
        try:
            self._app = AppProcess(
                spec.command,
                spec.directory,
                {
                    **spec.env,
                    **secrets,
                    "ATT_RUN_ID": run_to_text(run),
                    "ATT_SUPERVISOR_ID": spec.supervisor_id,
                },
                limits=spec.limits,
                cgroup=self._cgroup,
                run_as=spec.run_as,
            )
        except StartFailed:
            self._leave_cgroup()
            raise
        self._limits = LimitWatch(spec.limits, cgroup=self._cgroup)
        self._capture = Capture(
            epoll,
            log,
            run,
            {self._app.stdout: STREAM_STDOUT, self._app.stderr: STREAM_STDERR},
            on_growth,
            [os.fsencode(value) for value in secrets.values()],
        )
        self._asked = False
        self._reason = ""
        self._kill_at: float | None = None
        self._killing = False
        self._kill_again = KILL_AGAIN[0]
        self._gone_at: float | None = None

    @property
    def pid(self) -> int:
        """The main process."""
        return self._app.pid

    @property
    def ticks(self) -> int:
        """The start of the main process, in clock ticks since boot."""
        return self._app.ticks

    @property
    def over(self) -> bool:
        """Whether nothing of the tree is left, and nothing more of its output."""
        if self._gone_at is None:
            return False
        return self._capture.ended or time.monotonic() >= self._gone_at + PIPES_WITHIN

    @property
    def ending(self) -> str | None:
        """Why the tree is to end, empty if a call asked for it; None: it is not, or has."""
        if self._gone_at is not None:
            return None
        if self._asked:
            return self._reason
        return None if self.end is None else MAIN_EXITED

    def signal(self, number: int) -> bool:
        """Signals the main process; False if it has ended."""
        return self._app.signal(number)

    def stop(self, grace: float, reason: str = "") -> None:
        """Asks the tree to end, and has it killed in `grace` seconds, or earlier if already due.

        reason: what ends the run, if no call does; the first one counts.
        """
        if self._gone_at is not None:
            return
        if not self._asked and self.end is None:
            self._reason = reason
            self._app.terminate()
        elif self.end is not None:
            terminate_rest()
        self._asked = True
        self._kill_by(time.monotonic() + grace)

    def reap(self) -> None:
        """Takes note of the processes that have ended."""
        left = self._app.reap()
        now = time.monotonic()
        if self._app.status is not None and self.end is None:
            self.end = self._ended(self._app.status)
            if left and self._asked:
                terminate_rest()
            elif left:
                self._kill_by(now + self._grace)
        if not left:
            self._gone_at, self._kill_at = now, None
        elif self._killing:
            # Whoever lost its parent by this is ours now and can be found.
            self._app.kill()

    # On the owner's epoll ---------------------------------------------------

    def owns(self, descriptor: int) -> bool:
        """Whether events of this descriptor are for `on_event`."""
        return self._capture.owns(descriptor)

    def on_event(self, descriptor: int) -> None:
        """Takes what the app has written."""
        self._capture.on_event(descriptor)

    @property
    def deadline(self) -> float | None:
        """When `on_deadline` is due, in monotonic seconds."""
        pipes = None if self._gone_at is None else self._gone_at + PIPES_WITHIN
        limits = None if self._asked else self._limits.deadline
        children = 0.0 if self._app.behind else None
        moments = (self._capture.deadline, limits, self._kill_at, pipes, children)
        return min((moment for moment in moments if moment is not None), default=None)

    def on_deadline(self, now: float) -> None:
        """Does what is due."""
        self._capture.on_deadline(now)
        if self._app.behind:
            self.reap()
        if not self._asked and self._gone_at is None:
            above = self._limits.check(now)
            if above:  # what takes too much gets no time to take more
                self.stop(0.0, above)
        if self._kill_at is not None and now >= self._kill_at:
            self._killing = True
            self._app.kill()
            self._kill_at = now + self._kill_again
            self._kill_again = min(2 * self._kill_again, KILL_AGAIN[1])

    def close(self) -> None:
        """Takes the last output and lets go of the pipes, whoever may still hold them."""
        self._capture.abandon()
        self._leave_cgroup()

    # ------------------------------------------------------------------------

    def _kill_by(self, moment: float) -> None:
        if not self._killing:
            self._kill_at = moment if self._kill_at is None else min(self._kill_at, moment)

    def _leave_cgroup(self) -> None:
        if self._cgroup is not None:
            self._cgroup.close()

    def _ended(self, status: int) -> RunEnd:
        return RunEnd(
            exit_code=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            time=utc(time.time()),
            duration=timedelta(seconds=time.monotonic() - self._began),
            reason=self._reason if self._asked else self._app.end_reason(),
        )
