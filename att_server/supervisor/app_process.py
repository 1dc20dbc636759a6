"""The app's own process: how it is started, signalled and ended with its whole tree."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from att_server.supervisor import processes

PIPE_BYTES = 256 * 1024
_F_SETPIPE_SZ = 1031
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


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
    """

    def __init__(self, command: Sequence[str], directory: str, env: Mapping[str, str]) -> None:
        """Starts the command, found over the PATH of `env`. Raises StartFailed."""
        with contextlib.ExitStack() as opened:
            self.stdout, out = _pipe(opened)
            self.stderr, err = _pipe(opened)
            try:
                self._child = subprocess.Popen(
                    command,
                    cwd=directory,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    process_group=0,
                )
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                os.close(self.stdout)
                os.close(self.stderr)
                raise _start_failed(command, directory, error) from error
        self.pid = self._child.pid
        # The process is ours to reap, so even a dead one still has its entry.
        process = processes.find(self.pid)
        self.ticks = 0 if process is None else process.ticks
        self.status: int | None = None

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

    def reap(self) -> bool:
        """Reaps what has ended; returns whether anything of the tree is left.

        As the subreaper this process inherits every orphan of the app, so having
        no child means that the tree is gone.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.status = os.waitstatus_to_exitcode(status)
                self._child.returncode = self.status


def become_subreaper() -> None:
    """From now on orphans of the app become children of this process."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def terminate_rest() -> None:
    """Asks all descendants of this process to end."""
    processes.send_below(os.getpid(), signal.SIGTERM)
    processes.send_below(os.getpid(), signal.SIGCONT)


def kill_rest() -> None:
    """Ends all descendants of this process.

    One that forks meanwhile can leave a child behind, which then is ours: call
    again until nothing is left.
    """
    processes.send_below(os.getpid(), signal.SIGKILL)


def _pipe(opened: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    opened.callback(os.close, write)
    os.set_blocking(read, False)
    # Unprivileged users have a quota for large pipes; a small one only wakes us more often.
    with contextlib.suppress(OSError):
        fcntl.fcntl(read, _F_SETPIPE_SZ, PIPE_BYTES)
    return read, write


def _start_failed(command: Sequence[str], directory: str, error: Exception) -> StartFailed:
    code = error.errno if isinstance(error, OSError) else None
    if not os.path.isdir(directory) or not os.access(directory, os.X_OK):
        return StartFailed("directory_invalid", f"{directory}: cannot be entered")
    if code in (errno.ENOENT, errno.ENOTDIR):
        return StartFailed("command_not_found", f"{command[0]}: not found")
    if code in (errno.EACCES, errno.ENOEXEC, errno.EISDIR):
        return StartFailed("command_not_executable", f"{command[0]}: {os.strerror(code)}")
    return StartFailed("start_error", f"{command[0]}: {error}")
