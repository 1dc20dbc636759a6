"""The supervisor: runs one app, again where its policy says so, and answers for it to the end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from att_server.supervisor import orders, processes, wakeup
from att_server.supervisor.control import Command, ControlServer, Peer
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.own_log import OwnLog
from att_server.supervisor.record import Record
from att_server.supervisor.restart import GiveUp, History, Wait, decide
from att_server.supervisor.running import Running
from att_server.supervisor.segment import run_to_text
from att_server.supervisor.settle import started_marker
from att_server.supervisor.spec import Spec
from att_server.supervisor.start_failure import StartFailed
from att_server.supervisor.state import (
    BACKOFF,
    CONTROL_SOCKET,
    CRASH_LOOP,
    EXITED,
    FAILED,
    HOST_SHUTDOWN,
    MAX_PAST,
    READY,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPING,
    SUPERVISOR_LOST,
    Run,
    RunEnd,
    State,
    utc,
)

LINGER = 1.0
"""Seconds that a peer has to take the last words."""
LOOK_AGAIN = 3600.0
"""Seconds that one wait lasts at most; what is due later is waited for again."""
MAX_STOPS = 1000
"""How many calls may wait for the end."""


class Supervisor:
    """One supervisor with its one app. `run` is the life of the process."""

    def __init__(
        self,
        directory: str,
        spec: Spec,
        *,
        lock: int,
        log: LogWriter,
        boot_id: str,
        earlier: Sequence[Run] = (),
        server: socket.socket,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """directory: the supervisor's own. lock: the writer lock, held until the last end
        is recorded. log: the project's. earlier: the last runs of supervisors before.
        server: a connected peer, which is told every change. secrets: are added to the
        app's environment. Raises OSError."""
        self._project = os.path.dirname(os.path.dirname(directory))
        self._log = log
        self._spec = spec
        self._secrets = secrets or {}
        self._grace = spec.grace.total_seconds()
        self._lock = lock
        self._epoll = select.epoll()
        self._signals = wakeup.on(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
        self._epoll.register(self._signals, select.EPOLLIN)
        # The path of a socket is short, that of a directory need not be.
        here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = f"/proc/self/fd/{here}/{CONTROL_SOCKET}"
        self._control = ControlServer(self._epoll, self._socket, self._on_command)
        self._control.add(server, told=True)
        me = processes.find(os.getpid())
        inherited = {run.run_id for run in spec.history.past}
        state = State(
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
            earlier=tuple(run for run in earlier if run.run_id not in inherited),
        )
        self._own_log = OwnLog(
            self._project, [os.fsencode(text) for text in self._secrets.values()]
        )
        self._record = Record(directory, state, self._control.push_state, self._own_log)
        self._history = History()
        self._restart_at: float | None = None
        self._running: Running | None = None
        self._stop_asked = False
        self._stops: list[tuple[Peer, Command]] = []

    def run(self) -> None:
        """Runs the app, and returns when it is not to be run any more and all is recorded."""
        if self._spec.after_loss:
            self._resume()
        else:
            self._begin(History())
        self._record.remove_older()
        while not self._state.ended:
            for descriptor, mask in self._epoll.poll(self._timeout()):
                if self._running is not None and self._running.owns(descriptor):
                    self._running.on_event(descriptor)
                elif descriptor == self._signals:
                    self._on_signals()
                elif self._control.owns(descriptor):
                    self._control.on_event(descriptor, mask)
            if not self._state.ended:
                self._on_time()
        self._control.close(LINGER)

    @property
    def _state(self) -> State:
        return self._record.state

    def _timeout(self) -> float:
        running = None if self._running is None else self._running.deadline
        moments = (running, self._control.deadline, self._record.deadline, self._restart_at)
        first = min((moment for moment in moments if moment is not None), default=None)
        return LOOK_AGAIN if first is None else min(max(0.0, first - time.monotonic()), LOOK_AGAIN)

    def _on_time(self) -> None:
        now = time.monotonic()
        self._control.on_deadline(now)
        self._record.on_deadline(now)
        if self._running is not None:
            self._running.on_deadline(now)
            if self._running.over:
                self._on_over(self._running)
            elif self._running.ending is not None and self._state.state != STOPPING:
                self._record.change(state=STOPPING, reason=self._running.ending)
        elif self._restart_at is not None and now >= self._restart_at:
            self._begin(self._history.restarted(now))

    def _on_signals(self) -> None:
        received = set(os.read(self._signals, 65_536))
        if received & {signal.SIGTERM, signal.SIGINT}:
            self._stop(self._grace, HOST_SHUTDOWN)
        # A signal can stand for several children, so look whatever has come.
        if self._running is not None:
            self._running.reap()

    # One run after the other ------------------------------------------------

    def _begin(self, history: History) -> None:
        """Starts the app, as a new run."""
        now = time.time_ns()
        binary = (now // 1_000_000).to_bytes(6, "big") + os.urandom(10)
        run = Run(run_id=run_to_text(binary), start_time=utc(now / 1e9))
        before = self._state.run
        self._history, self._restart_at = history, None
        # On disk before the process is: a successor finds it by its run id.
        self._record.note(
            state=STARTING,
            reason="",
            start_failure="",
            run=run,
            past=self._state.past if before is None else (*self._state.past, before)[-MAX_PAST:],
            marker_sequence=self._log.next_sequence,
            next_restart_time=None,
            **self._told_history(),
        )
        try:
            running = Running(
                self._epoll,
                self._log,
                self._spec,
                run=binary,
                secrets=self._secrets,
                on_growth=self._control.push_grew,
            )
        except StartFailed as error:
            self._append_started(binary, 0)
            end = RunEnd(start_error=str(error), time=utc(time.time()), duration=timedelta(0))
            self._record.note(start_failure=error.failure)
            self._record_end(binary, end)
            return
        self._running = running
        run = replace(run, pid=running.pid, start_ticks=running.ticks)
        # Before the marker, which may have to wait until its number is reserved:
        # a successor writes one that is missing.
        if self._spec.probed:
            self._record.note(state=RUNNING, run=run)
        else:
            self._record.note(state=READY, run=replace(run, ready_time=utc(time.time())))
        self._append_started(binary, running.pid)
        self._record.tell()
        self._control.push_grew()

    def _resume(self) -> None:
        """Goes on after a supervisor that was lost with its run."""
        given = self._spec.history
        now, past = time.monotonic(), given.past
        # On the clock on which waits are measured; a wall clock that was set
        # back in between makes a restart a recent one.
        behind = time.time() - now
        self._history = History(
            restarts=given.restarts,
            attempt=given.attempt,
            times=tuple(min(now, moment - behind) for moment in given.restart_times),
        )
        last = past[-1] if past else None
        self._record.note(run=last, past=past[:-1][-MAX_PAST:])
        end = None if last is None else last.end
        lasted = 0.0 if end is None else end.duration.total_seconds()
        lost = (EXITED, SUPERVISOR_LOST)
        self._follow(failed=True, lasted=lasted, cause=SUPERVISOR_LOST, otherwise=lost)

    def _on_over(self, running: Running) -> None:
        running.close()
        self._running = None
        assert running.end is not None  # a tree is gone after its main process
        self._record_end(running.run, running.end)

    def _record_end(self, binary: bytes, end: RunEnd) -> None:
        """The end of a run, in the log and in the state, and what follows."""
        self._log.append_ended(binary, end.marker())
        self._log.flush()
        self._control.push_grew()
        run = self._state.run
        assert run is not None  # it began
        self._record.state = replace(self._state, run=replace(run, end=end))
        if self._stop_asked:
            self._conclude(STOPPED, self._state.reason)
        elif end.start_error is not None and self._history.restarts == 0:
            self._conclude(*end.conclusion)  # whoever asked for the start is told
        else:
            self._follow(
                failed=end.failed,
                lasted=end.duration.total_seconds(),
                cause=end.cause,
                otherwise=end.conclusion,
            )

    def _follow(
        self, *, failed: bool, lasted: float, cause: str, otherwise: tuple[str, str]
    ) -> None:
        """Does what the policy says to an end; `otherwise` is what is left when it says nothing."""
        chance = int.from_bytes(os.urandom(4), "big") / 2**32
        now = time.monotonic()
        answer = decide(
            self._spec.restart, self._history, failed=failed, lasted=lasted, now=now, chance=chance
        )
        if isinstance(answer, Wait):
            self._history = answer.history
            self._restart_at = now + answer.seconds
            self._record.change(
                state=BACKOFF,
                reason=cause,
                next_restart_time=utc(time.time() + answer.seconds),
                **self._told_history(),
            )
        elif isinstance(answer, GiveUp):
            self._history = answer.history
            self._conclude(FAILED, CRASH_LOOP)
        else:
            self._conclude(*otherwise)

    def _conclude(self, state: str, reason: str) -> None:
        """The app is not run any more: the last state, and the project is free for a successor."""
        self._restart_at = None
        with contextlib.suppress(OSError):  # the state has the end as well
            self._log.close()
        self._record.note(
            state=state, reason=reason, next_restart_time=None, **self._told_history()
        )
        with contextlib.suppress(OSError):
            os.unlink(self._socket)
        os.close(self._lock)
        for peer, command in self._stops:
            peer.reply(command, self._state.form())
        self._record.tell()

    def _stop(self, grace: float, reason: str = "") -> None:
        if self._state.ended:
            return
        if self._running is None:
            self._conclude(STOPPED, reason)
            return
        if not self._stop_asked:
            self._stop_asked = True
            self._record.change(state=STOPPING, reason=reason)
        self._running.stop(grace, reason)

    # Records ----------------------------------------------------------------

    def _append_started(self, binary: bytes, pid: int) -> None:
        marker = started_marker(self._spec.command, pid, self._spec.release_id)
        self._log.append_started(binary, marker)
        self._log.flush()

    def _told_history(self) -> dict[str, object]:
        behind = time.time() - time.monotonic()
        return {
            "restarts": self._history.restarts,
            "attempt": self._history.attempt,
            "restart_times": tuple(round(moment + behind, 3) for moment in self._history.times),
        }

    # Commands ---------------------------------------------------------------

    def _on_command(self, peer: Peer, command: Command) -> None:
        try:
            epoch = orders.epoch_of(command)
            if epoch < self._state.epoch:
                raise orders.Refused("stale_epoch", f"epoch {self._state.epoch} has taken over")
            if epoch > self._state.epoch and not self._state.ended:
                self._record.change(epoch=epoch)
            order = orders.order_of(command)
            if not isinstance(order, orders.Hello):
                self._own_log.note("asked", epoch=epoch, order=order)
            answered = self._obey(order, peer, command)
        except orders.Refused as refused:
            self._own_log.note("refused", error=refused.error, because=refused)
            peer.refuse(command, refused.error, str(refused))
        else:
            if answered:
                peer.reply(command, self._state.form())

    def _obey(self, order: orders.Order, peer: Peer, command: Command) -> bool:
        """Whether the command is carried out, so that it can be answered. Raises Refused."""
        match order:
            case orders.Hello():
                peer.told = True
            case orders.Stop(grace=grace):
                if self._state.ended:
                    return True
                if len(self._stops) >= MAX_STOPS:
                    self._stops = [waiting for waiting in self._stops if not waiting[0].gone]
                if len(self._stops) >= MAX_STOPS:
                    raise orders.Refused("too_many", "too many calls wait for the end already")
                # First: the end, which may come at once, answers all who wait.
                self._stops.append((peer, command))
                self._stop(self._grace if grace is None else grace)
                return False
            case orders.StartNow():
                if self._state.state == BACKOFF:
                    self._begin(History())
            case orders.Ready(run_id=run_id, ready=ready):
                run = self._current(run_id)
                if run is not None and ready and self._state.state == RUNNING:
                    ready_time = utc(time.time())
                    self._record.change(state=READY, run=replace(run, ready_time=ready_time))
                elif run is not None and not ready and self._state.state == READY:
                    self._record.change(state=RUNNING, run=replace(run, ready_time=None))
            case orders.Fail(run_id=run_id, reason=reason):
                if self._running is not None and self._current(run_id) is not None:
                    self._running.stop(self._grace, reason)
                    self._record.change(state=STOPPING, reason=reason)
            case orders.Signal(number=number):
                if self._running is None or not self._running.signal(number):
                    raise orders.Refused("not_running", "the main process has ended")
        return True

    def _current(self, run_id: str) -> Run | None:
        """The run with this id, if it is the one that runs and nothing has ended it yet."""
        run = self._state.run
        running = self._state.state in (RUNNING, READY)
        return run if running and run is not None and run.run_id == run_id else None
