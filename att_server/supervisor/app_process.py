"""The app's own process: how it is started, signalled and ended with its whole tree."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import math
import os
import resource
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from att_server.supervisor import processes
from att_server.supervisor.cgroup import Cgroup
from att_server.supervisor.kill_reason import kill_reason
from att_server.supervisor.limits import Limits

PIPE_BYTES = 256 * 1024
_F_SETPIPE_SZ = 1031
_PR_SET_CHILD_SUBREAPER = 36
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_REAPED_AT_ONCE = 1000
_HUNT_WITHIN = 0.2
"""Seconds."""
# What Python ignores and other programs do not expect to be ignored.
_IGNORED_HERE = (signal.SIGPIPE, signal.SIGXFSZ)
libc = ctypes.CDLL(None, use_errno=True)


class StartFailed(Exception):
    """The app could not be started.

    failure: `command_not_found`, `command_not_executable`, `directory_invalid`
    or `start_error`.
    """

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure


class AppProcess:
    """A running app: the leader of a process group, both of whose outputs are ours to read.

    pid, ticks: of the main process. stdout, stderr: non-blocking read ends.
    status: its exit code, or minus the signal that ended it; None while it runs.
    behind: whether `reap` has to be called again without a signal.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: str,
        env: Mapping[str, str],
        *,
        limits: Limits | None = None,
        cgroup: Cgroup | None = None,
        stdin: int | None = None,
    ) -> None:
        """Starts the command, found over the PATH of `env`. Raises StartFailed.

        cgroup: is where its tree is put. stdin: a descriptor, which stays the
        caller's; None is no input. No other descriptor of this process may be
        inheritable, and no other thread may depend on its working directory.
        """
        self._limits = limits or Limits()
        confined = _Confined.by(self._limits, cgroup)
        self._cgroup = cgroup
        self._since = time.monotonic()
        self._cpu_seconds = 0.0
        self.status: int | None = None
        self.behind = False
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as opened:
            try:
                self.stdout, out = _pipe(on_failure, opened)
                self.stderr, err = _pipe(on_failure, opened)
                if stdin is None:
                    stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                    opened.callback(os.close, stdin)
                self.pid = _start(command, directory, env, (stdin, out, err), confined)
            except (OSError, ValueError) as error:
                raise _start_failed(command, directory, error) from error
            on_failure.pop_all()
        # The process is ours to reap, so even a dead one still has its entry.
        process = processes.find(self.pid)
        self.ticks = 0 if process is None else process.ticks

    def signal(self, number: int) -> bool:
        """Signals the main process; False if it has ended."""
        if self.status is not None:
            return False
        os.kill(self.pid, number)
        return True

    def terminate(self) -> None:
        """Asks the group to end; a stopped process is woken to hear it."""
        if self.status is None:
            for number in (signal.SIGTERM, signal.SIGCONT):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)
        else:
            terminate_rest()

    def kill(self) -> None:
        """Ends the tree with SIGKILL; to be called again until `reap` says that it is gone."""
        if self._cgroup is not None:
            self._cgroup.kill()
        hunt = processes.Hunt(os.getpid())
        deadline = time.monotonic() + _HUNT_WITHIN
        # What has ended is reaped in between: the less there is to look at, the
        # sooner those are found who fork and exit at once.
        while hunt.strike() and self.reap() and time.monotonic() < deadline:
            pass

    def reap(self) -> bool:
        """Reaps what has ended; returns whether anything of the tree is left.

        As the subreaper this process inherits every orphan of the app, so having
        no child means that the tree is gone. Where processes end faster than
        they are reaped, this returns in between, with `behind` set.
        """
        self.behind = False
        for _ in range(_REAPED_AT_ONCE):
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    return True
                if ended.si_pid == self.pid:
                    # Only its entry tells what it used without its children.
                    process = processes.find(self.pid)
                    if process is not None:
                        self._cpu_seconds = process.cpu_ticks / _CLOCK_TICKS
                _, status = os.waitpid(ended.si_pid, 0)
            except ChildProcessError:
                return False
            if ended.si_pid == self.pid:
                self.status = os.waitstatus_to_exitcode(status)
        self.behind = True
        return True

    def end_reason(self) -> str:
        """What ended the main process against its will, as `kill_reason` tells; once reaped."""
        if self.status is None:
            return ""
        return kill_reason(
            self.status,
            self._limits,
            pid=self.pid,
            cpu_seconds=self._cpu_seconds,
            since=self._since,
            cgroup=self._cgroup,
        )


def become_subreaper() -> None:
    """From now on orphans of the app become children of this process."""
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def terminate_rest() -> None:
    """Asks all descendants of this process to end."""
    processes.send_below(os.getpid(), signal.SIGTERM, signal.SIGCONT)


def _pipe(on_failure: contextlib.ExitStack, opened: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    on_failure.callback(os.close, read)
    opened.callback(os.close, write)
    os.set_blocking(read, False)
    # Unprivileged users have a quota for large pipes; a small one only wakes us more often.
    with contextlib.suppress(OSError):
        fcntl.fcntl(read, _F_SETPIPE_SZ, PIPE_BYTES)
    return read, write


def _start(
    command: Sequence[str],
    directory: str,
    env: Mapping[str, str],
    streams: tuple[int, int, int],
    confined: _Confined | None,
) -> int:
    """The pid of the new process. Raises OSError, ValueError, StartFailed."""
    found: OSError | None = None
    with _within(directory):
        for file in _candidates(command[0], env):
            try:
                if confined is None:
                    return _spawn(file, command, env, streams)
                return _fork(file, command, env, streams, confined)
            except OSError as error:
                # As execvp does: of several, what cannot be run says more.
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    found = found or error
                elif os.path.exists(file):
                    raise StartFailed(
                        "command_not_found", f"{command[0]}: the program that runs it is not found"
                    ) from error
    raise found or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _spawn(
    file: str, command: Sequence[str], env: Mapping[str, str], streams: tuple[int, int, int]
) -> int:
    # Takes a third of the time of subprocess.Popen; it closes nothing, but what
    # is ours is not inheritable anyway.
    return os.posix_spawn(
        file,
        list(command),
        env,
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in enumerate(streams)],
        setpgroup=0,
        setsigmask=(),
        setsigdef=_IGNORED_HERE,
    )


def _fork(
    file: str,
    command: Sequence[str],
    env: Mapping[str, str],
    streams: tuple[int, int, int],
    confined: _Confined,
) -> int:
    """As `_spawn`, but confined before its first instruction, so with all that it starts."""
    told, tells = os.pipe2(os.O_CLOEXEC)
    with open(told, "rb") as failure:
        try:
            with warnings.catch_warnings():
                # The other threads of this process hold nothing that is needed until exec.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                _become(file, command, env, streams, confined, tells)
        finally:
            os.close(tells)
        code = failure.read()
    if not code:
        return pid
    os.waitpid(pid, 0)
    cause = os.strerror(abs(int(code)))
    if int(code) < 0:
        raise StartFailed("start_error", f"its limits cannot be set: {cause}")
    raise OSError(int(code), cause)


def _become(
    file: str,
    command: Sequence[str],
    env: Mapping[str, str],
    streams: tuple[int, int, int],
    confined: _Confined,
    tells: int,
) -> NoReturn:
    """What a forked process does on its way to the app.

    If it fails, the error number goes to `tells`, negative if it could not be confined.
    """
    code, sign = errno.EINVAL, -1
    try:
        signal.set_wakeup_fd(-1)  # it is the parent's
        for number in _IGNORED_HERE:
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        for theirs, ours in enumerate(streams):
            os.dup2(ours, theirs)
        confined.enter()
        sign = 1
        os.execve(file, list(command), env)
    except OSError as error:
        code = error.errno or code
    finally:
        os.write(tells, str(sign * code).encode())
        os._exit(127)


@contextlib.contextmanager
def _within(directory: str) -> Iterator[None]:
    """Has `directory` as the working directory. Raises StartFailed."""
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        try:
            os.chdir(directory)
        except (OSError, ValueError) as error:
            raise StartFailed("directory_invalid", f"{directory}: cannot be entered") from error
        try:
            yield
        finally:
            os.fchdir(before)
    finally:
        os.close(before)


def _candidates(name: str, env: Mapping[str, str]) -> Iterator[str]:
    if "/" in name:
        yield name
        return
    for directory in os.get_exec_path(env):
        file = os.path.join(directory, name)
        if os.path.exists(file):
            yield file


@dataclass(frozen=True, slots=True)
class _Confined:
    """What binds a process from its beginning: kind, soft and hard limit each; its group."""

    limits: Sequence[tuple[int, int, int]]
    cgroup: Cgroup | None

    @classmethod
    def by(cls, limits: Limits, cgroup: Cgroup | None) -> _Confined | None:
        """None if nothing does. Raises StartFailed for what this process may not give."""
        bounds = []
        if limits.open_files is not None:
            _check(resource.RLIMIT_NOFILE, "open_files", limits.open_files)
            bounds.append((resource.RLIMIT_NOFILE, limits.open_files, limits.open_files))
        if limits.cpu_time is not None:
            # At the first, SIGXCPU says what it is; at the second the kernel kills.
            seconds = math.ceil(limits.cpu_time)
            _check(resource.RLIMIT_CPU, "cpu_time", seconds + 1)
            bounds.append((resource.RLIMIT_CPU, seconds, seconds + 1))
        return cls(bounds, cgroup) if bounds or cgroup is not None else None

    def enter(self) -> None:
        """Binds this process. Raises OSError."""
        if self.cgroup is not None:
            self.cgroup.add(0)
        for kind, soft, hard in self.limits:
            resource.setrlimit(kind, (soft, hard))


def _check(kind: int, name: str, asked: int) -> None:
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY and asked > most:
        raise StartFailed(
            "start_error",
            f"the limit {name} is {asked}, but ATT itself may use {most} at most: "
            "lower the limit, or raise that of the server",
        )


def _start_failed(command: Sequence[str], directory: str, error: Exception) -> StartFailed:
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOENT, errno.ENOTDIR):
        return StartFailed("command_not_found", f"{command[0]}: not found")
    if code in (errno.EACCES, errno.ENOEXEC, errno.EISDIR):
        return StartFailed("command_not_executable", f"{command[0]}: {os.strerror(code)}")
    cause = error.strerror if isinstance(error, OSError) else str(error)
    return StartFailed("start_error", f"{command[0]}: {cause}")
