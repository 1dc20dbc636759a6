"""SupervisorDriver: apps under supervisors, which are processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import timedelta
from pathlib import Path

from att_server.adapters.control_client import (
    SupervisorLost,
)
from att_server.adapters.supervisor_jobs import SETTLES_WITHIN, SupervisorJobs
from att_server.adapters.supervisor_link import (
    SupervisorLink,
    newest,
    not_running,
    unreachable,
)
from att_server.adapters.supervisor_recovery import SupervisorRecovery
from att_server.adapters.supervisor_spec import spec_of
from att_server.adapters.supervisor_usage import SupervisorUsage
from att_server.adapters.zygote_client import ZygoteClient
from att_server.core.errors import AttError, Reason
from att_server.core.model import RunSpec, RunStatus, Usage
from att_server.core.ports import Clock, RuntimeListener
from att_server.supervisor import processes
from att_server.supervisor.own_log import OWN_LOG
from att_server.supervisor.state import LOCK_FILE, STARTING, SUPERVISORS, State

ANSWERS_WITHIN = timedelta(seconds=5)
"""A supervisor that takes longer is UNKNOWN until it answers."""
STARTS_WITHIN = timedelta(seconds=30)
"""Includes settling what an earlier supervisor left."""
ASKS_AGAIN = timedelta(seconds=10)
"""Between two looks whether supervisors that have nothing to tell still answer."""


class SupervisorDriver:
    """Implements `RuntimeDriver`. All methods on one event loop."""

    def __init__(
        self,
        state_dir: Path,
        *,
        epoch: int,
        clock: Clock,
        boot_id: str | None = None,
        answers_within: timedelta = ANSWERS_WITHIN,
        asks_again: timedelta = ASKS_AGAIN,
        zygote: ZygoteClient | None = None,
    ) -> None:
        """epoch: higher than that of every server before. boot_id: None is the host's.

        zygote: of another owner, who closes it; None: the driver has its own.
        """
        self._projects_dir = state_dir / "projects"
        self._epoch = epoch
        self._clock = clock
        self._boot_id = processes.boot_id() if boot_id is None else boot_id
        self._answers_within = answers_within
        self._zygote = ZygoteClient() if zygote is None else zygote
        self._owns_zygote = zygote is None
        self._jobs = SupervisorJobs(self._zygote, boot_id=self._boot_id)
        self._recovery = SupervisorRecovery(
            jobs=self._jobs, clock=clock, answers_within=answers_within, asks_again=asks_again
        )
        self._usage = SupervisorUsage(clock)
        self._links: dict[str, SupervisorLink] = {}
        self._listener: RuntimeListener | None = None
        # Supervisors that wait for a start, by project id: directory and connection.
        self._waiting: dict[str, tuple[Path, socket.socket]] = {}

    @property
    def zygote_pid(self) -> int:
        """The process that supervisors are forked from, 0 if there is none now."""
        return self._zygote.pid

    # RuntimeDriver ----------------------------------------------------------

    async def adopt(
        self, projects: Mapping[str, str], listener: RuntimeListener
    ) -> Mapping[str, RunStatus]:
        """See `RuntimeDriver`. A supervisor that does not answer in time is UNKNOWN."""
        links = [self._link(project_id, log_id) for project_id, log_id in projects.items()]
        found = await asyncio.to_thread(_newest_of_each, links)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._zygote.open())
            for link, item in zip(links, found, strict=True):
                state = None if item is None else item[1]
                link.learn(state)
                if item is not None and (state is None or not state.ended):
                    group.create_task(self._recovery.adopt(link))
        self._listener = listener
        self._recovery.keep_asking(lambda: list(self._links.values()))
        return {link.project_id: link.status for link in links if link.status is not None}

    @contextlib.asynccontextmanager
    async def prepared(self, project_id: str, log_id: str) -> AsyncIterator[None]:
        """See `RuntimeDriver`."""
        link = self._link(project_id, log_id)
        if link.state is None or link.state.ended:
            directory = self._new_directory(link)
            with contextlib.suppress(OSError):  # then the start tries, and says so
                self._waiting[project_id] = directory, await self._jobs.run(directory, log_id)
        try:
            yield
        finally:
            _, connection = self._waiting.pop(project_id, (None, None))
            if connection is not None:
                connection.close()

    async def start(self, spec: RunSpec, *, after_loss: bool = False) -> RunStatus:
        """See `RuntimeDriver`."""
        link = self._link(spec.project_id, spec.log_id)
        try:
            directory, _ = self._waiting.get(spec.project_id) or (self._new_directory(link), None)
            self._write_spec(link, spec, directory, after_loss=after_loss)
            # A zygote that was killed may take a request along that it had not
            # read. A second try is harmless: only one can take the writer lock,
            # and it first settles what the first try may have begun.
            running = await self._launch(link, directory, spec.secrets) or await self._launch(
                link, directory, spec.secrets
            )
        except OSError as error:
            raise _not_prepared(link, error) from error
        if not running:
            raise _no_supervisor(spec.project_id, "it was killed")
        status = link.status
        assert status is not None  # its state is known
        return status

    async def start_now(self, project_id: str) -> RunStatus | None:
        """See `RuntimeDriver`."""
        link = self._links.get(project_id)
        if link is None:
            return None
        while not link.settled:
            try:
                await link.call("start_now")
                break
            except SupervisorLost:
                await self._await_known(link)
        return link.status

    async def stop(self, project_id: str, grace: timedelta | None) -> RunStatus | None:
        """See `RuntimeDriver`."""
        link = self._links.get(project_id)
        if link is None:
            return None
        seconds = None if grace is None else grace.total_seconds()
        while not link.settled:
            try:
                await link.call_at_length("stop", grace=seconds)
                break
            except SupervisorLost:
                await self._await_known(link)
        return link.status

    async def set_ready(self, project_id: str, run_id: str, *, ready: bool = True) -> None:
        """See `RuntimeDriver`. Raises SUPERVISOR_UNREACHABLE."""
        link = self._links.get(project_id)
        if link is not None:
            with contextlib.suppress(SupervisorLost):
                await link.call("ready", run_id=run_id, ready=ready)

    async def fail(self, project_id: str, run_id: str, reason: str) -> None:
        """See `RuntimeDriver`."""
        link = self._links.get(project_id)
        if link is not None:
            with contextlib.suppress(SupervisorLost):
                await link.call("fail", run_id=run_id, reason=reason)

    async def usage(self, project_ids: Collection[str]) -> Mapping[str, Usage]:
        """See `RuntimeDriver`."""
        # Of all: whose share of a processor is asked for next is not known.
        states = {
            link.project_id: link.state
            for link in self._links.values()
            if link.state is not None and not link.state.ended
        }
        found = await self._usage.measure(states)
        return {name: usage for name, usage in found.items() if name in project_ids}

    async def signal(self, project_id: str, number: int) -> None:
        """See `RuntimeDriver`. Raises SUPERVISOR_UNREACHABLE."""
        link = self._links.get(project_id)
        if link is None or link.settled:
            raise not_running(project_id)
        try:
            await link.call("signal", number=number)
        except SupervisorLost as error:
            raise not_running(project_id) from error

    async def forget(self, project_id: str) -> None:
        """See `RuntimeDriver`."""
        link = self._links.pop(project_id, None)
        if link is not None:
            link.let_go()
            await asyncio.to_thread(_remove, link.directory)

    async def aclose(self) -> None:
        """See `RuntimeDriver`."""
        for link in self._links.values():
            link.let_go()
        await self._recovery.aclose()
        if self._owns_zygote:
            await self._zygote.aclose()

    # Commands ---------------------------------------------------------------

    async def _await_known(self, link: SupervisorLink) -> None:
        """Returns when a lost connection is there again, or the end of the app is recorded.

        Raises SUPERVISOR_UNREACHABLE.
        """
        try:
            async with asyncio.timeout(SETTLES_WITHIN.total_seconds()):
                while link.client is None and not link.settled:
                    await link.changed.wait(link.changed.count)
        except TimeoutError as error:
            raise unreachable(link.project_id, "cannot be reached") from error

    # Supervisors ------------------------------------------------------------

    def _link(self, project_id: str, log_id: str) -> SupervisorLink:
        link = self._links.get(project_id)
        if link is None or link.log_id != log_id:
            link = self._links[project_id] = SupervisorLink(
                project_id,
                log_id,
                self._projects_dir / project_id,
                epoch=self._epoch,
                boot_id=self._boot_id,
                answers_within=self._answers_within,
                on_status=self._on_status,
                on_growth=self._on_growth,
                on_lost=self._on_lost,
            )
        return link

    def _new_directory(self, link: SupervisorLink) -> Path:
        """A directory for a new supervisor, which is not there yet."""
        return link.directory / SUPERVISORS / self._clock.new_id()

    def _write_spec(
        self, link: SupervisorLink, spec: RunSpec, directory: Path, *, after_loss: bool
    ) -> None:
        """Makes the directory and writes down what the supervisor is asked. Raises OSError."""
        os.makedirs(directory, mode=0o700)
        spec_of(
            spec,
            directory.name,
            epoch=self._epoch,
            after_loss=after_loss,
            before=link.state,
        ).save(str(directory))

    async def _launch(
        self, link: SupervisorLink, directory: Path, secrets: Mapping[str, str]
    ) -> bool:
        """Whether there is a supervisor whose app runs or failed; False: it was killed before.

        Raises OSError, AttError.
        """
        _, connection = self._waiting.pop(link.project_id, (None, None))
        if connection is None:
            connection = await self._jobs.run(directory, link.log_id)
        client = link.new_client()
        try:
            await client.open(connection, first={"secrets": dict(secrets)})
            async with asyncio.timeout(STARTS_WITHIN.total_seconds()):
                while True:
                    count = link.changed.count
                    state = link.state_of(directory.name)
                    if state is not None and state.state != STARTING:
                        return True
                    if link.client is not client:
                        break
                    await link.changed.wait(count)
        except TimeoutError as error:
            link.mark_silent()
            raise unreachable(link.project_id, "did not start the app in time") from error
        if link.refusal is not None:
            raise _no_supervisor(link.project_id, link.refusal)
        return False

    # Told by links ----------------------------------------------------------

    def _on_status(self, project_id: str, status: RunStatus) -> None:
        if self._listener is not None:
            self._listener.run_changed(project_id, status)

    def _on_growth(self, project_id: str) -> None:
        if self._listener is not None:
            self._listener.log_grew(project_id)

    def _on_lost(self, link: SupervisorLink) -> None:
        # A supervisor that recorded the end of its app goes; any other was lost.
        if link.state is not None and not link.state.ended:
            self._recovery.begin(link)


def _newest_of_each(links: list[SupervisorLink]) -> list[tuple[Path, State | None] | None]:
    return [newest(link.directory, link.log_id) for link in links]


def _no_supervisor(project_id: str, cause: str) -> AttError:
    return AttError(
        Reason.SUPERVISOR_UNREACHABLE,
        f"No supervisor could be started for {project_id!r}: {cause}. Mend that and call again.",
        project_id=project_id,
        cause=cause,
    )


def _not_prepared(link: SupervisorLink, error: OSError) -> AttError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        path = error.filename or link.directory  # an open file has no name to tell
        return AttError(
            Reason.STORAGE_FULL,
            f"There is no space left to write {path}. Free some and call again.",
            path=path,
        )
    cause = error.strerror or type(error).__name__
    return _no_supervisor(
        link.project_id, f"{error.filename}: {cause}" if error.filename else cause
    )


def _remove(project: Path) -> None:
    shutil.rmtree(project / SUPERVISORS, ignore_errors=True)
    for name in (LOCK_FILE, OWN_LOG, f"{OWN_LOG}.1"):
        with contextlib.suppress(OSError):
            (project / name).unlink()
