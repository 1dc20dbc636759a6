"""Starts, stops and shows apps."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from att_client._proto.att.v1 import (
    GetRuntimeRequest,
    GetRuntimeResponse,
    HealthCheck,
    ListRuntimesRequest,
    ListRuntimesResponse,
    Probe,
    ProbeHealthRequest,
    ProbeHealthResponse,
    RestartRuntimeRequest,
    RestartRuntimeResponse,
    Runtime,
    RuntimeSettings,
    SignalRuntimeRequest,
    SignalRuntimeResponse,
    StartRuntimeRequest,
    StartRuntimeResponse,
    StartWait,
    StopRuntimeRequest,
    StopRuntimeResponse,
    WatchRuntimesRequest,
)
from att_client.paging import Pager
from att_client.runtime_watch import RuntimeWatch
from att_client.transport import Service, Transport, present

# What the server takes where a request leaves the wait open.
_START_TIMEOUT = timedelta(seconds=30)
# A project's own `stop_grace` is not known here; the contract's bound of every wait is.
_LONGEST_WAIT = timedelta(hours=1)
_PROBE_TIMEOUT = timedelta(minutes=1)


class Runtimes:
    """The apps: at most one running per project."""

    def __init__(self, transport: Transport, timeout: timedelta) -> None:
        self._transport = transport
        self._timeout = timeout
        self._service = Service(transport, "RuntimeService", timeout)

    async def start(
        self,
        project_id: str,
        *,
        wait: Literal["started", "ready"] = "started",
        timeout: timedelta | None = None,
        runtime: RuntimeSettings | None = None,
        request_id: str | None = None,
    ) -> Runtime:
        """Starts the app; one that runs with the same specification is returned as it is.

        wait: until its process runs, or until its readiness probe holds.
        timeout: bounds that wait; None is 30 s, at most 1 hour. The app runs on.
        runtime: wins over the project's settings for this start, key by key.
        request_id: makes a repetition by the caller safe; None is a new one.
        Raises RuntimeStartFailedError, RuntimeNotReadyError, CommandNotFoundError,
        RuntimeSpecConflictError, ProjectNotFoundError, and other AttErrors.
        """
        response = await self._service.call(
            StartRuntimeRequest(
                project_id=project_id,
                runtime=runtime,
                wait=_start_wait(wait),
                timeout=timeout,
                request_id=request_id or uuid.uuid4().hex,
            ),
            StartRuntimeResponse,
            timeout=self._deadline(_or(timeout, _START_TIMEOUT)),
        )
        return present(response.runtime)

    async def stop(
        self,
        project_id: str,
        *,
        grace: timedelta | None = None,
        request_id: str | None = None,
    ) -> Runtime:
        """Stops the app and returns when its whole process tree is gone.

        grace: the time between SIGTERM and SIGKILL; None is the project's
            `stop_grace`, 0 kills at once. At most 1 hour.
        A stopped app is returned as it is. Raises ProjectNotFoundError,
        SupervisorUnreachableError. Cancelling does not take the stop back.
        """
        response = await self._service.call(
            StopRuntimeRequest(
                project_id=project_id, grace=grace, request_id=request_id or uuid.uuid4().hex
            ),
            StopRuntimeResponse,
            timeout=self._deadline(_or(grace, _LONGEST_WAIT)),
        )
        return present(response.runtime)

    async def restart(
        self,
        project_id: str,
        *,
        wait: Literal["started", "ready"] = "started",
        timeout: timedelta | None = None,
        grace: timedelta | None = None,
        runtime: RuntimeSettings | None = None,
        request_id: str | None = None,
    ) -> Runtime:
        """Stops and starts the app: two runs, one log. As `stop` and then `start`."""
        response = await self._service.call(
            RestartRuntimeRequest(
                project_id=project_id,
                runtime=runtime,
                wait=_start_wait(wait),
                timeout=timeout,
                grace=grace,
                request_id=request_id or uuid.uuid4().hex,
            ),
            RestartRuntimeResponse,
            timeout=self._deadline(_or(grace, _LONGEST_WAIT) + _or(timeout, _START_TIMEOUT)),
        )
        return present(response.runtime)

    async def get(self, project_id: str) -> Runtime:
        """The app as it is now. Raises ProjectNotFoundError."""
        response = await self._service.call(
            GetRuntimeRequest(project_id=project_id), GetRuntimeResponse
        )
        return present(response.runtime)

    def list(self, *, page_size: int = 0) -> Pager[ListRuntimesResponse, Runtime]:
        """The apps of all projects by project id; page_size: 1 to 1,000, 0 is 50."""

        async def fetch(page_token: str) -> ListRuntimesResponse:
            return await self._service.call(
                ListRuntimesRequest(page_size=page_size, page_token=page_token),
                ListRuntimesResponse,
            )

        return Pager(fetch, lambda page: page.runtimes)

    def watch(
        self,
        *,
        project_ids: Sequence[str] = (),
        after_revision: int = 0,
        progress_interval: timedelta | None = None,
        max_elapsed: timedelta | None = None,
    ) -> RuntimeWatch:
        """The states of these apps, empty for all, and every change that comes.

        after_revision: what is known already, such as the `revision` of a page;
            0 gives every state first.
        progress_interval, max_elapsed: as for `Logs.follow`. The loop raises
        ProjectNotFoundError, and what else AttError names.
        """
        if isinstance(project_ids, str):
            raise TypeError("`project_ids` is a list of ids.")
        asked = WatchRuntimesRequest(
            project_ids=[*project_ids],
            after_revision=after_revision,
            progress_interval=progress_interval,
        )
        return RuntimeWatch(self._transport, asked, max_elapsed)

    async def probe(
        self, project_id: str, probe: Probe | None = None, *, timeout: timedelta | None = None
    ) -> HealthCheck:
        """Checks the app once, now; that it is not healthy is an answer and no error.

        probe: None is the project's readiness probe, else whether its process runs.
        timeout: bounds the call; None is 1 minute more than the check's own, or 1 minute.
        Raises ProjectNotFoundError, FieldInvalidError.
        """
        check = None if probe is None else probe.timeout
        response = await self._service.call(
            ProbeHealthRequest(project_id=project_id, probe=probe),
            ProbeHealthResponse,
            timeout=_or(timeout, _PROBE_TIMEOUT + _or(check, timedelta(0))),
        )
        return present(response.health)

    async def signal(
        self, project_id: str, number: int, *, request_id: str | None = None
    ) -> Runtime:
        """Sends a signal to the app's main process.

        number: 1 to 64, such as `signal.SIGHUP`; SIGKILL and SIGSTOP are refused.
        request_id: makes a repetition by the caller safe; None is a new one.
        Raises RuntimeNotRunningError, ProjectNotFoundError, FieldInvalidError.
        """
        response = await self._service.call(
            SignalRuntimeRequest(
                project_id=project_id, signal=number, request_id=request_id or uuid.uuid4().hex
            ),
            SignalRuntimeResponse,
        )
        return present(response.runtime)

    def _deadline(self, wait: timedelta) -> timedelta:
        return wait + self._timeout


def _or(duration: timedelta | None, default: timedelta) -> timedelta:
    # One out of bounds is for the server to refuse, not for the deadline to hit; gRPC
    # takes a deadline that it cannot count to for one that has passed.
    return default if duration is None else min(max(duration, timedelta(0)), _LONGEST_WAIT)


def _start_wait(wait: str) -> StartWait:
    if wait not in ("started", "ready"):
        raise ValueError(f'wait is "started" or "ready", not {wait!r}.')
    return StartWait.READY if wait == "ready" else StartWait.STARTED
