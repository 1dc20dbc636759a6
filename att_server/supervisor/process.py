"""The supervisor: runs one app, keeps its log, and answers for it until its end is recorded."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import signal
import socket
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from att_server.supervisor import processes
from att_server.supervisor.app_process import (
    AppProcess,
    StartFailed,
    kill_rest,
    terminate_rest,
)
from att_server.supervisor.capture import Capture
from att_server.supervisor.control import Command, ControlServer, Peer
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.segment import (
    STREAM_STDERR,
    STREAM_STDOUT,
    run_to_text,
)
from att_server.supervisor.settle import started_marker
from att_server.supervisor.state import (
    CONTROL_SOCKET,
    EXITED,
    FAILED,
    HOST_SHUTDOWN,
    LOCK_FILE,
    LOGS,
    MAIN_EXITED,
    READY,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPING,
    Run,
    RunEnd,
    Spec,
    State,
    supervisor_directories,
    utc,
)

PIPES_WITHIN = 1.0
"""Seconds that strangers may hold the pipes after the app's tree is gone."""
LINGER = 1.0
"""Seconds that a peer has to take the last words."""
KILL_AGAIN = (0.02, 1.0)
"""Seconds between two looks at a tree that does not end at once: first, longest."""


def take_lock(project: str) -> int | None:
    """Takes the project's writer lock; its descriptor holds it. None if it is taken."""
    path = os.path.join(project, LOCK_FILE)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


class Supervisor:
    """One supervisor with its one app. `run` is the life of the process."""

    def __init__(
        self, directory: str, spec: Spec, *, lock: int, boot_id: str, server: socket.socket
    ) -> None:
        """directory: the supervisor's own. lock: the writer lock, held until the end
        is recorded. server: a connected peer, which is told every change. Raises OSError."""
        self._directory = directory
        self._project = os.path.dirname(os.path.dirname(directory))
        self._spec = spec
        self._lock = lock
        self._epoll = select.epoll()
        self._signals = self._watch_signals()
        # The path of a socket is short, that of a directory need not be.
        here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = f"/proc/self/fd/{here}/{CONTROL_SOCKET}"
        self._control = ControlServer(self._epoll, self._socket, self._on_command)
        self._control.add(server, told=True)
        me = processes.find(os.getpid())
        self._state = State(
            supervisor_id=spec.supervisor_id,
            project_id=spec.project_id,
            log_id=spec.log_id,
            pid=os.getpid(),
            start_ticks=0 if me is None else me.ticks,
            boot_id=boot_id,
            epoch=spec.epoch,
            spec_digest=spec.digest,
            state=STARTING,
            release_id=spec.release_id,
            command=spec.command,
        )
        self._stop_asked = False
        self._stops: list[tuple[Peer, Command]] = []
        self._kill_at: float | None = None
        self._kill_again = KILL_AGAIN[0]
        self._end: RunEnd | None = None
        self._gone_at: float | None = None

    def run(self) -> None:
        """Starts the app and returns after its end is recorded and told."""
        now = time.time_ns()
        self._binary = (now // 1_000_000).to_bytes(6, "big") + os.urandom(10)
        self._run = Run(run_id=run_to_text(self._binary), start_time=utc(now / 1e9))
        self._began = time.monotonic()
        self._log = LogWriter.open(
            Path(self._project, LOGS), log_id=self._spec.log_id, boot_id=self._state.boot_id
        )
        # On disk before the process is: a successor finds it by ATT_RUN_ID.
        self._note(run=self._run, marker_sequence=self._log.next_sequence)
        try:
            app = AppProcess(
                self._spec.command,
                self._spec.directory,
                {**self._spec.env, "ATT_RUN_ID": self._run.run_id},
            )
        except StartFailed as error:
            self._record_start_failure(error)
        else:
            self._follow(app)
            self._conclude()
        self._control.close(LINGER)

    # Life of the app --------------------------------------------------------

    def _follow(self, app: AppProcess) -> None:
        """Serves the app until its tree is gone and its pipes are read to the end."""
        self._app = app
        self._append_started(app.pid)
        self._log.flush()
        started = replace(self._run, pid=app.pid, start_ticks=app.ticks)
        if self._spec.probed:
            self._change(state=RUNNING, run=started)
        else:
            self._change(state=READY, run=replace(started, ready_time=utc(time.time())))
        self._control.push_grew()
        self._remove_predecessors()
        capture = Capture(
            self._epoll,
            self._log,
            self._binary,
            {app.stdout: STREAM_STDOUT, app.stderr: STREAM_STDERR},
            self._control.push_grew,
        )
        while not self._over(capture):
            for descriptor, mask in self._epoll.poll(self._timeout(capture)):
                if capture.owns(descriptor):
                    capture.on_event(descriptor)
                elif descriptor == self._signals:
                    self._on_signals()
                elif self._control.owns(descriptor):
                    self._control.on_event(descriptor, mask)
            now = time.monotonic()
            capture.on_deadline(now)
            self._control.on_deadline(now)
            self._kill_if_due(now)
        capture.abandon()

    def _over(self, capture: Capture) -> bool:
        if self._gone_at is None:
            return False
        return capture.ended or time.monotonic() >= self._gone_at + PIPES_WITHIN

    def _timeout(self, capture: Capture) -> float | None:
        pipes = None if self._gone_at is None else self._gone_at + PIPES_WITHIN
        moments = (capture.deadline, self._control.deadline, self._kill_at, pipes)
        first = min((moment for moment in moments if moment is not None), default=None)
        return None if first is None else max(0.0, first - time.monotonic())

    def _on_signals(self) -> None:
        received = set(os.read(self._signals, 512))
        if received & {signal.SIGTERM, signal.SIGINT}:
            self._stop(self._spec.grace.total_seconds(), HOST_SHUTDOWN)
        # A signal can stand for several children, so look whatever has come.
        left = self._app.reap()
        if self._app.status is not None and self._end is None:
            self._end = self._ended(self._app.status)
            if left and self._stop_asked:
                terminate_rest()
            elif left:
                self._kill_at = time.monotonic() + self._spec.grace.total_seconds()
                self._change(state=STOPPING, reason=MAIN_EXITED)
        if not left:
            self._gone_at, self._kill_at = time.monotonic(), None

    def _stop(self, grace: float, reason: str = "") -> None:
        if self._end is None and not self._stop_asked:
            self._stop_asked = True
            self._change(state=STOPPING, reason=reason)
            self._app.terminate()
        elif self._end is not None and self._gone_at is None:
            terminate_rest()
        if self._gone_at is None:
            asked = time.monotonic() + grace
            self._kill_at = asked if self._kill_at is None else min(self._kill_at, asked)

    def _kill_if_due(self, now: float) -> None:
        if self._kill_at is not None and now >= self._kill_at:
            kill_rest()
            self._kill_at = now + self._kill_again
            self._kill_again = min(2 * self._kill_again, KILL_AGAIN[1])

    # Records ----------------------------------------------------------------

    def _append_started(self, pid: int) -> None:
        marker = started_marker(self._spec.command, pid, self._spec.release_id)
        self._log.append_started(self._binary, marker)

    def _record_start_failure(self, error: StartFailed) -> None:
        end = RunEnd(start_error=str(error), time=utc(time.time()), duration=timedelta(0))
        self._append_started(0)
        self._record(end, state=FAILED, reason=str(error), start_failure=error.failure)

    def _conclude(self) -> None:
        assert self._end is not None  # the loop ends after the main process
        if self._stop_asked:
            self._record(self._end, state=STOPPED, reason=self._state.reason)
        else:
            self._record(self._end, state=EXITED, reason="")

    def _record(self, end: RunEnd, *, state: str, reason: str, start_failure: str = "") -> None:
        """The end, in the log and in the state; then the project is free for a successor."""
        self._log.append_ended(self._binary, end.marker())
        self._log.flush()
        self._control.push_grew()
        with contextlib.suppress(OSError):  # the state has the end as well
            self._log.close()
        run = None if self._state.run is None else replace(self._state.run, end=end)
        self._note(state=state, reason=reason, start_failure=start_failure, run=run)
        with contextlib.suppress(OSError):
            os.unlink(self._socket)
        os.close(self._lock)
        for peer, command in self._stops:
            peer.reply(command, self._state.form())
        self._control.push_state(self._state.form())

    def _ended(self, status: int) -> RunEnd:
        duration = timedelta(seconds=time.monotonic() - self._began)
        if status >= 0:
            return RunEnd(exit_code=status, time=utc(time.time()), duration=duration)
        return RunEnd(signal=-status, time=utc(time.time()), duration=duration)

    def _change(self, **fields: object) -> None:
        self._note(**fields)
        self._control.push_state(self._state.form())

    def _note(self, **fields: object) -> None:
        self._state = replace(self._state, revision=self._state.revision + 1, **fields)  # type: ignore[arg-type]  # names and types are State's
        self._save()

    def _save(self) -> None:
        # Where the disk is full the app goes on; what is not recorded now is
        # settled by the next one to hold the lock.
        with contextlib.suppress(OSError):
            self._state.save(self._directory)

    def _remove_predecessors(self) -> None:
        for directory in supervisor_directories(self._project):
            if os.path.basename(directory) < self._spec.supervisor_id:
                with contextlib.suppress(OSError):
                    for name in os.listdir(directory):
                        os.unlink(os.path.join(directory, name))
                    os.rmdir(directory)

    # Commands ---------------------------------------------------------------

    def _on_command(self, peer: Peer, command: Command) -> None:
        epoch = command.get("epoch")
        if not isinstance(epoch, int):
            peer.refuse(command, "invalid_argument", "a command has an epoch")
        elif epoch < self._state.epoch:
            peer.refuse(command, "stale_epoch", f"epoch {self._state.epoch} has taken over")
        else:
            if epoch > self._state.epoch:
                self._change(epoch=epoch)
            self._obey(peer, command)

    def _obey(self, peer: Peer, command: Command) -> None:
        match command.get("command"):
            case "hello":
                peer.told = True
                peer.reply(command, self._state.form())
            case "stop":
                self._on_stop(peer, command)
            case "ready":
                self._on_ready(command)
                peer.reply(command, self._state.form())
            case "signal":
                self._on_signal_command(peer, command)
            case unknown:
                peer.refuse(command, "unknown_command", f"{unknown!r} is not known here")

    def _on_stop(self, peer: Peer, command: Command) -> None:
        grace = command.get("grace")
        if grace is None:
            grace = self._spec.grace.total_seconds()
        if not isinstance(grace, int | float) or not 0 <= grace < math.inf:
            peer.refuse(command, "invalid_argument", "grace is seconds, 0 or more")
            return
        self._stops.append((peer, command))
        self._stop(grace)

    def _on_ready(self, command: Command) -> None:
        run = self._state.run
        if self._state.state == RUNNING and run and run.run_id == command.get("run_id"):
            self._change(state=READY, run=replace(run, ready_time=utc(time.time())))

    def _on_signal_command(self, peer: Peer, command: Command) -> None:
        number = command.get("number")
        if number not in signal.valid_signals():
            peer.refuse(command, "invalid_argument", f"there is no signal {number!r}")
        elif self._app.signal(int(number)):
            peer.reply(command, self._state.form())
        else:
            peer.refuse(command, "not_running", "the main process has ended")

    # Signals ----------------------------------------------------------------

    def _watch_signals(self) -> int:
        """The descriptor on which the numbers of arriving signals can be read."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._epoll.register(read, select.EPOLLIN)
        return read
