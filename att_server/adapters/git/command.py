"""The one way in which git is run: nothing of the caller's environment or settings gets in.

No hook, file-system monitor, filter, helper, pager, editor or prompt runs; only
named transports are used; every command has a deadline and a bound on its
output, and is ended with its whole process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from typing import Self

from att_server.adapters.git.failures import failure_of, redacted
from att_server.core.repository import RepositoryError, RepositoryFailure

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
LETS_GO_WITHIN = timedelta(seconds=5)
"""What may pass until the processes of a killed group are gone and their pipes closed."""
_CLEANS_UP_WITHIN = timedelta(seconds=0.5)
_LOOKS_EVERY = 0.01  # seconds; nothing tells of the end of a grandchild

_CONFIG = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.symlinks", "true"),
    ("core.fileMode", "true"),
    ("core.quotePath", "false"),
    ("core.pager", "cat"),
    ("core.editor", "false"),
    ("core.askPass", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.autocrlf", "false"),
    ("core.safecrlf", "false"),
    ("core.packedGitLimit", "256m"),  # maps of packs count in a limited address space
    ("core.packedGitWindowSize", "32m"),
    ("core.fsync", "objects,derived-metadata,reference"),  # what a journal goes on from
    ("fetch.unpackLimit", "1"),  # one pack is synchronized faster than its objects
    ("protocol.ext.allow", "never"),
    ("gc.auto", "0"),
    ("gc.autoDetach", "false"),
    ("maintenance.auto", "false"),
    ("commit.gpgSign", "false"),
    ("tag.gpgSign", "false"),
    ("push.gpgSign", "false"),
    ("push.followTags", "false"),
    ("push.recurseSubmodules", "no"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("i18n.commitEncoding", "UTF-8"),
    ("advice.detachedHead", "false"),
    ("checkout.workers", "1"),
    ("init.defaultBranch", "main"),
    # A remote that says nothing any more ends also where its watcher was killed.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
)
_SSH = (
    "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 "
    "-o ServerAliveCountMax=4 -o ControlMaster=no -o ControlPath=none"
)
# By SIGTERM or SIGKILL; of a shell or `timeout` around it, as they tell it.
_KILLED = (-15, -9, 128 + 15, 128 + 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSettings:
    """How git is run on this server, for all projects.

    path: where `git`, `ssh` and helpers are looked for. protocols: transports
    that may be used; never `ext`. environ: more variables, such as
    SSH_AUTH_SOCK, over those from scratch. config: settings of git that the
    operator wants, such as `credential.helper`, `http.proxy` or
    `http.<url>.extraHeader`; told through the environment, so no other user
    reads them. local, network: how long a command may take.
    """

    path: str = os.defpath
    protocols: tuple[str, ...] = ("file", "https", "ssh")
    environ: Mapping[str, str] = field(default_factory=dict)
    config: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    local: timedelta = timedelta(minutes=5)
    network: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        if not self.protocols or not all(p.isalnum() and p != "ext" for p in self.protocols):
            raise ValueError("protocols are names of transports, without ext")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitResult:
    """What a command answered. error: its standard error, passwords left out."""

    code: int
    output: bytes
    error: str


class Git:
    """Runs git. Holds nothing; may be shared by all projects."""

    def __init__(self, settings: GitSettings) -> None:
        self.settings = settings

    async def run(
        self,
        *arguments: str,
        directory: Path,
        env: Mapping[str, str] | None = None,
        config: Sequence[tuple[str, str]] = (),
        input: bytes = b"",  # noqa: A002 - as subprocess.run calls it
        network: bool = False,
        max_output: int = MAX_OUTPUT_BYTES,
        memory: int | None = None,
        holding: int | None = None,
        accept: Sequence[int] = (0,),
        take: Callable[[bytes], bool] | None = None,
    ) -> GitResult:
        """Runs `git *arguments` in `directory`; returns when its whole group is gone.

        What is not an option of ours stands behind `--end-of-options` or `--`, or
        is a checked id or name. config: told through the environment. memory: the
        most bytes of addresses it may use. holding: a file descriptor that it
        keeps open, and the lock with it, should this process be killed. accept:
        exit codes that are answers. take: gets the output as it comes, which then is
        neither kept nor bounded; it returns False to have enough, which ends git, and
        never raises.

        Raises RepositoryError for any other code, at the deadline
        (REMOTE_TIMED_OUT with `network`, else TIMED_OUT), for more output than
        `max_output`, and where git is not found. Cancelling kills the group.
        """
        command = ["git", *(part for pair in _CONFIG for part in ("-c", "=".join(pair)))]
        command += ["--no-pager", "--literal-pathspecs", *arguments]
        limit = self.settings.network if network else self.settings.local
        if network:
            # Ends it at its deadline also when this process is killed before.
            command = ["timeout", "-s", "KILL", str(limit.total_seconds() + 5), *command]
        if memory is not None:
            command = ["sh", "-c", f'ulimit -v {memory // 1024} && exec "$@"', "sh", *command]
        late = RepositoryFailure.REMOTE_TIMED_OUT if network else RepositoryFailure.TIMED_OUT
        code, output, error = await self._spawned(
            command,
            directory=directory,
            env=self._environment(env or {}, config),
            input=input,
            limit=limit,
            late=late,
            max_output=max_output,
            holding=holding,
            take=take,
        )
        text = redacted(error.decode(errors="replace"))
        if code not in accept:
            raise RepositoryError(
                RepositoryFailure.INTERRUPTED
                if code in _KILLED
                else failure_of(text, network=network),
                f"git {arguments[0]} ended with {code}: {_last_lines(text)}",
            )
        return GitResult(code=code, output=output, error=text)

    async def _spawned(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        env: Mapping[str, str],
        input: bytes,  # noqa: A002 - as `run` calls it
        limit: timedelta,
        late: RepositoryFailure,
        max_output: int,
        holding: int | None,
        take: Callable[[bytes], bool] | None,
    ) -> tuple[int, bytes, bytes]:
        async with (
            _Pipe(max_output, take=take) as out,
            _Pipe(MAX_ERROR_BYTES, keep_last=True) as err,
        ):
            with _standard_input(input) as stdin, out.writing() as stdout, err.writing() as stderr:
                try:
                    process = await asyncio.create_subprocess_exec(
                        *command,
                        cwd=directory,
                        env=env,
                        stdin=stdin,
                        stdout=stdout,
                        stderr=stderr,
                        start_new_session=True,
                        pass_fds=() if holding is None else (holding,),
                    )
                except OSError as error:
                    raise RepositoryError(
                        RepositoryFailure.GIT_MISSING
                        if directory.is_dir()
                        else RepositoryFailure.NOT_FOUND,
                        f"git could not be run in {directory}: {error.strerror}.",
                    ) from error
            try:
                async with asyncio.timeout(limit.total_seconds()):
                    if enough := not await out.ended():
                        code = 0
                    else:
                        await err.ended()
                        code = await process.wait()
            except TimeoutError as error:
                await _end_group(process)
                raise RepositoryError(
                    late, f"git was ended after {limit.total_seconds():g} s without an answer."
                ) from error
            except BaseException:
                # Cancelled, or it said too much. Otherwise all that wrote have ended.
                await _end_group(process)
                raise
            if enough:
                await _end_group(process)
            return code, bytes(out.data), bytes(err.data)

    def _environment(
        self, env: Mapping[str, str], config: Sequence[tuple[str, str]]
    ) -> dict[str, str]:
        pairs = [*self.settings.config, *config]
        told = {"GIT_CONFIG_COUNT": str(len(pairs))}
        for number, (key, value) in enumerate(pairs):
            told |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return {
            "PATH": self.settings.path,
            "HOME": "/nonexistent",
            "XDG_CONFIG_HOME": "/nonexistent",
            "LC_ALL": "C",
            "LANGUAGE": "",
            "TZ": "UTC",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "false",
            "SSH_ASKPASS": "false",
            "SSH_ASKPASS_REQUIRE": "never",
            "GIT_SSH_COMMAND": _SSH,
            "GIT_EDITOR": "false",
            "GIT_PAGER": "cat",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            **self.settings.environ,
            "GIT_ALLOW_PROTOCOL": ":".join(self.settings.protocols),
            **env,
            **told,
        }


class _End(Enum):
    """Why nothing more is read of what a process writes."""

    CLOSED = auto()
    ENOUGH = auto()
    OVERFLOWN = auto()


class _Pipe(asyncio.Protocol):
    """What a process writes, up to a bound; an async context that owns the pipe."""

    def __init__(
        self,
        limit: int,
        *,
        keep_last: bool = False,
        take: Callable[[bytes], bool] | None = None,
    ) -> None:
        """keep_last: beyond the limit the first bytes go; otherwise it is an error.
        take: gets all instead, until it returns False."""
        self.data = bytearray()
        self._limit = limit
        self._keep_last = keep_last
        self._take = take
        self._ended: asyncio.Future[_End] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        read, self._write = os.pipe()
        loop = asyncio.get_running_loop()
        file = os.fdopen(read, "rb", 0)  # the transport closes it
        self._transport, _ = await loop.connect_read_pipe(lambda: self, file)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()
        # Its error, where there was one, was raised or came second.
        self._ended.cancel()

    @contextlib.contextmanager
    def writing(self) -> Iterator[int]:
        """The end for the process; ours is closed on leaving."""
        try:
            yield self._write
        finally:
            os.close(self._write)

    async def ended(self) -> bool:
        """Returns when all writers closed it; False as soon as `take` has enough.

        Raises OUTPUT_TOO_LARGE.
        """
        how = await asyncio.shield(self._ended)
        if how is _End.OVERFLOWN:
            raise RepositoryError(
                RepositoryFailure.OUTPUT_TOO_LARGE,
                f"git was ended after it answered more than {self._limit:,} bytes.",
            )
        return how is _End.CLOSED

    def data_received(self, data: bytes) -> None:
        if self._take is not None:
            if not self._take(data):
                self._end(_End.ENOUGH)
                self._transport.close()
            return
        self.data += data
        if len(self.data) <= self._limit:
            return
        if self._keep_last:
            del self.data[: -self._limit]
        else:
            self._end(_End.OVERFLOWN)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(_End.CLOSED)

    def _end(self, how: _End) -> None:
        if not self._ended.done():
            self._ended.set_result(how)


@contextlib.contextmanager
def _standard_input(content: bytes) -> Iterator[int]:
    if not content:
        yield asyncio.subprocess.DEVNULL
        return
    with open(os.memfd_create("att-git", os.MFD_CLOEXEC), "w+b") as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Asks the group to end, which lets git remove its locks, and then kills it."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEANS_UP_WITHIN.total_seconds()):
                while True:
                    os.killpg(process.pid, 0)
                    await asyncio.sleep(_LOOKS_EVERY)
    except ProcessLookupError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LETS_GO_WITHIN.total_seconds()):
            await process.wait()


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-400:] or "it said nothing"
