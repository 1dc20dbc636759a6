"""The app's own process: how it is started, signalled and ended with its whole tree."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from att_server.supervisor import processes
from att_server.supervisor.cgroup import Cgroup
from att_server.supervisor.confinement import Confinement
from att_server.supervisor.hunt import Hunt
from att_server.supervisor.kill_reason import kill_reason
from att_server.supervisor.limits import Limits
from att_server.supervisor.start_failure import StartFailed, start_failure

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
        run_as: str = "",
    ) -> None:
        """Starts the command, found over the PATH of `env`. Raises StartFailed.

        cgroup: is where its tree is put. stdin: a descriptor, which stays the
        caller's; None is no input. run_as: the name or number of the user that it
        runs as, with what a login would put into `env` where that lacks it; empty:
        our own. No other descriptor of this process may be
        inheritable, and no other thread may depend on its working directory.
        """
        self._limits = limits or Limits()
        confined = Confinement.by(self._limits, cgroup, run_as)
        user = None if confined is None else confined.user
        if user is not None:
            env = {**user.environment, **env}
        self._cgroup = cgroup
        self._since = time.monotonic()
        self._cpu_seconds = 0.0
        self.status: int | None = None
        self.behind = False
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as opened:
            try:
                self.stdout, out = _pipe(on_failure, opened)
                self.stderr, err = _pipe(on_failure, opened)
                if user is not None:
                    for pipe in (out, err):
                        # Else it could write there, but not open /dev/stderr.
                        with contextlib.suppress(OSError):
                            os.fchown(pipe, user.uid, user.gid)
                if stdin is None:
                    stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                    opened.callback(os.close, stdin)
                self.pid = _start(command, directory, env, (stdin, out, err), confined)
            except (OSError, ValueError) as error:
                raise start_failure(command, error) from error
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
        hunt = Hunt(os.getpid())
        deadline = time.monotonic() + _HUNT_WITHIN
        # What has ended is reaped in between: the less there is to look at, the
        # sooner those are found who fork and exit at once.
        while not hunt.strike() and self.reap() and time.monotonic() < deadline:
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
    confined: Confinement | None,
) -> int:
    """The pid of the new process. Raises OSError, ValueError, StartFailed."""
    found: OSError | None = None
    with _within(directory):
        for file in _candidates(command[0], env):
            try:
                if confined is None:
                    return _spawn(file, command, env, streams)
                return _fork(file, command, directory, env, streams, confined)
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
    directory: str,
    env: Mapping[str, str],
    streams: tuple[int, int, int],
    confined: Confinement,
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
                _become(file, command, directory, env, streams, confined, tells)
        finally:
            os.close(tells)
        told_failure = failure.read().decode()
    if not told_failure:
        return pid
    os.waitpid(pid, 0)
    stage, _, code = told_failure.partition(" ")
    if stage != "execute":
        raise confined.failure(stage, int(code), directory)
    raise OSError(int(code), os.strerror(int(code)))


def _become(
    file: str,
    command: Sequence[str],
    directory: str,
    env: Mapping[str, str],
    streams: tuple[int, int, int],
    confined: Confinement,
    tells: int,
) -> NoReturn:
    """What a forked process does on its way to the app.

    If it fails, the stage and the error number go to `tells`.
    """
    code, stage = errno.EINVAL, "bound"
    try:
        signal.set_wakeup_fd(-1)  # it is the parent's
        for number in _IGNORED_HERE:
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        for theirs, ours in enumerate(streams):
            os.dup2(ours, theirs)
        confined.bound()
        stage = "become_user"
        confined.become_user()
        stage = "enter"
        confined.enter(directory)
        stage = "execute"
        os.execve(file, list(command), env)
    except OSError as error:
        code = error.errno or code
    finally:
        os.write(tells, f"{stage} {code}".encode())
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
