"""The gRPC server: every service of the contract, health and reflection, on a unix socket."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2  # type: ignore[import-untyped]  # has no types
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # has no types
    reflection,
    reflection_pb2,
)

from att_server.core.bootstrap import BootstrapManager
from att_server.core.code import CodeManager
from att_server.core.dry_runs import DryRuns
from att_server.core.errors import RefusalReason, StartRefused, not_implemented
from att_server.core.events import EventManager
from att_server.core.listeners import TcpListener
from att_server.core.log_keeper import LogKeeper
from att_server.core.logs import LogManager
from att_server.core.projects import ProjectManager
from att_server.core.release_list import ReleaseList
from att_server.core.runtimes import RuntimeManager
from att_server.rpc.access import Access, Rule
from att_server.rpc.bootstrap_service import BootstrapService
from att_server.rpc.boundary import Boundary, Context
from att_server.rpc.call import Service
from att_server.rpc.code_service import CodeService
from att_server.rpc.event_service import EventService
from att_server.rpc.handlers import SERVICES, contract_handlers, generic_handler, write_all
from att_server.rpc.limits import Limits
from att_server.rpc.listener import SocketFile
from att_server.rpc.log_service import LogService
from att_server.rpc.project_service import ProjectService
from att_server.rpc.runtime_service import RuntimeService
from att_server.rpc.server_service import ServerIdentity, ServerService
from att_server.rpc.tls import ServerTls
from att_server.rpc.transport_options import NETWORK_OPTIONS, SOCKET_OPTIONS

_CLOSE_GRACE = timedelta(seconds=1)
_RENEWAL_GRACE = timedelta(seconds=5)
"""How long calls on connections that are ended may take; what acts comes to its end anyway."""

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""Differs from v1alpha in its name only."""

_log = logging.getLogger(__name__)

_WATCHES_HEALTH = Rule.reading("grpc.health.v1.Health/Watch")
_REFLECTS = Rule.reading("grpc.reflection.v1.ServerReflection/ServerReflectionInfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Managers:
    """What the services act on."""

    projects: ProjectManager
    runtimes: RuntimeManager
    logs: LogManager
    log_keeper: LogKeeper
    events: EventManager
    bootstrap: BootstrapManager
    dry_runs: DryRuns
    releases: ReleaseList
    code: CodeManager


class RpcServer:
    """Serves the contract on one socket: `start`, then `stop`, once each."""

    def __init__(
        self,
        *,
        managers: Managers,
        identity: ServerIdentity,
        access: Access,
        limits: Limits,
        probe_hosts: frozenset[str] = frozenset(),
    ) -> None:
        """limits: how long readers are waited for. probe_hosts: what probes may ask, beside
        this host.

        Has to be made on the running event loop that serves.
        """
        services: list[Service] = [
            ProjectService(managers.projects, probe_hosts),
            RuntimeService(managers.runtimes, managers.logs, probe_hosts),
            LogService(managers.logs, managers.log_keeper),
            EventService(managers.events),
            BootstrapService(managers.bootstrap, managers.dry_runs, managers.releases, probe_hosts),
            CodeService(managers.code),
        ]
        services.append(ServerService(identity, services))
        self._services = services
        self._access = access
        self._limits = limits
        self._health = health.aio.HealthServicer()
        self._fronts: list[_Front] = []
        self._on_socket: _OnSocket | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(
        self,
        socket_path: Path,
        *,
        epoch: int,
        network: Sequence[TcpListener] = (),
        tls: ServerTls | None = None,
    ) -> Sequence[str]:
        """Serves on `socket_path`, which only its owner may connect to, and on the network.

        Returns the targets for clients, the socket's first. A socket that is there is
        replaced, alive or not: the caller holds the state directory. Raises StartRefused.
        """
        self._on_socket = self._bound(socket_path, epoch)
        targets = [f"unix:{socket_path}"]
        if network:
            targets += _listen(self._front(NETWORK_OPTIONS).server, network, tls)
        for service in SERVICES:
            await self._health.set(service.full_name, health_pb2.HealthCheckResponse.SERVING)
        for front in self._fronts:
            await front.server.start()
        with _listening_on(str(socket_path)):
            self._on_socket.file.show()
        return targets

    async def stop(self, grace: timedelta) -> None:
        """Ends streams with SHUTTING_DOWN at once, other calls after `grace`, then listens no more.

        Health says NOT_SERVING from the first moment on.
        """
        self._stopping = True
        await self._health.enter_graceful_shutdown()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await asyncio.gather(*(front.boundary.drain(grace) for front in self._fronts))
        seconds = _CLOSE_GRACE.total_seconds()
        await asyncio.gather(*(front.server.stop(seconds) for front in self._fronts))
        if self._on_socket is not None:
            self._on_socket.file.remove()

    def _front(
        self,
        options: Sequence[tuple[str, int]],
        abandoned: Callable[[], None] = lambda: None,
    ) -> _Front:
        """A server of gRPC that serves everything and listens nowhere yet."""
        boundary = Boundary(
            new_error_id=lambda: secrets.token_hex(6),
            write_within=self._limits.write_within,
            abort_within=self._limits.abort_within,
            abandoned=abandoned,
        )
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers(
            [
                *contract_handlers(self._services, boundary=boundary, access=self._access),
                *self._standard_handlers(boundary),
            ]
        )
        front = _Front(server=server, boundary=boundary)
        self._fronts.append(front)
        return front

    def _bound(self, path: Path, epoch: int) -> _OnSocket:
        """A server of gRPC behind a socket that nobody sees yet. Raises StartRefused."""
        ends = count(1)

        def abandoned() -> None:
            # At the end of the server many may not take theirs: it ends without that.
            is_due = next(ends) % self._limits.abandoned == 0 and not self._stopping
            if is_due and (self._renewing is None or self._renewing.done()):
                self._renewing = asyncio.create_task(self._renew(path, epoch))

        with _listening_on(str(path)):
            file = SocketFile(path, epoch)
            front = self._front(SOCKET_OPTIONS, abandoned)
            front.server.add_insecure_port(file.address)
        return _OnSocket(front=front, file=file)

    async def _renew(self, path: Path, epoch: int) -> None:
        """Serves the socket anew and ends the connections of before.

        On these lie too many calls whose end nobody takes. Nothing tells which
        connections they are, and gRPC keeps what waits for them as long as these last.
        Other callers come again, as at the end of a server.
        """
        before = self._on_socket
        if before is None:
            return
        _log.warning("many readers on the socket take nothing: its connections are ended")
        try:
            after = self._bound(path, epoch)
            await after.front.server.start()
            after.file.show()
        except (OSError, StartRefused) as error:
            _log.error("the socket cannot be served anew: %s", error)
            return
        self._on_socket = after
        before.front.boundary.end_streams()
        await before.front.server.stop(_RENEWAL_GRACE.total_seconds())
        self._fronts.remove(before.front)
        before.file.remove()

    def _standard_handlers(self, boundary: Boundary) -> list[grpc.GenericRpcHandler]:
        """grpc.health.v1, reflection under both of its names, and what nobody knows.

        Only a check of health is answered to whoever asks.
        """
        names = [
            *(service.full_name for service in SERVICES),
            health.SERVICE_NAME,
            reflection.SERVICE_NAME,
            _REFLECTION_V1,
        ]
        access = self._access
        reflector = reflection.aio.ReflectionServicer(names)

        async def watch(request: Any, context: Context) -> None:
            async with access.stream(_WATCHES_HEALTH, None, context):
                await self._health.Watch(request, context)

        async def reflect(requests: Any, context: Context) -> None:
            async with access.stream(_REFLECTS, None, context):
                await write_all(reflector.ServerReflectionInfo(requests, context), context)

        reflecting = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        return [
            generic_handler(
                health_pb2.DESCRIPTOR.services_by_name["Health"],
                {"Check": self._health.Check, "Watch": watch},
                boundary=boundary,
            ),
            *(
                generic_handler(
                    reflecting,
                    {"ServerReflectionInfo": reflect},
                    boundary=boundary,
                    name=name,
                )
                for name in (reflection.SERVICE_NAME, _REFLECTION_V1)
            ),
            _Unknown(access, boundary),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Front:
    """A server of gRPC, with a boundary of its own: it can end by itself."""

    server: grpc.aio.Server
    boundary: Boundary


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnSocket:
    front: _Front
    file: SocketFile


class _Unknown(grpc.GenericRpcHandler):
    """Answers every other method with NOT_IMPLEMENTED, to callers that are let in."""

    def __init__(self, access: Access, boundary: Boundary) -> None:
        self._access = access
        self._boundary = boundary

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        name = handler_call_details.method.removeprefix("/")

        async def refuse(_requests: Any, context: Context) -> None:
            await self._access.check(Rule.reading(name), context)
            raise not_implemented(name)

        handler: Any = self._boundary.streaming(name, refuse)
        return grpc.stream_stream_rpc_method_handler(handler)


def _listen(
    server: grpc.aio.Server, network: Sequence[TcpListener], tls: ServerTls | None
) -> Iterator[str]:
    """Has the server listen on each, and gives the targets for clients."""
    for listener in network:
        with _listening_on(listener.address):
            if tls is None:
                port = server.add_insecure_port(listener.address)
            else:
                port = server.add_secure_port(listener.address, tls.credentials())
        address = replace(listener, port=port).address
        yield address if tls is not None else f"tcp:{address}"


@contextmanager
def _listening_on(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise StartRefused(
            RefusalReason.LISTENER_NOT_ALLOWED,
            f"Cannot listen on {where}: {error}. Another process may have it; choose another "
            "--listen.",
        ) from error
