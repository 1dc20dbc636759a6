"""The gRPC server: every service of the contract, health and reflection, on a unix socket."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2  # type: ignore[import-untyped]  # has no types
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # has no types
    reflection,
    reflection_pb2,
)

from att_server.core.errors import RefusalReason, StartRefused
from att_server.core.events import EventManager
from att_server.core.logs import LogManager
from att_server.core.projects import ProjectManager
from att_server.core.runtimes import RuntimeManager
from att_server.rpc.boundary import Boundary, Context, Handler
from att_server.rpc.call import Service
from att_server.rpc.event_service import EventService
from att_server.rpc.handlers import SERVICES, contract_handlers, generic_handler, write_all
from att_server.rpc.log_service import LogService
from att_server.rpc.project_service import ProjectService
from att_server.rpc.runtime_service import RuntimeService
from att_server.rpc.server_service import ServerIdentity, ServerService

MAX_REQUEST_BYTES = 4 << 20
_CLOSE_GRACE = timedelta(seconds=1)

_OPTIONS: tuple[tuple[str, int], ...] = (
    # A port belongs to one server; sharing it would hand calls to another.
    ("grpc.so_reuseport", 0),
    # Bounds what one connection can open, and with it a flood of resets, and is
    # far above one client that follows every project: gRPC clients queue calls
    # above it without a word.
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
    # Equal, because between the two gRPC refuses at random.
    ("grpc.max_metadata_size", 8192),
    ("grpc.absolute_max_metadata_size", 8192),
    # Who connects and says nothing is disconnected.
    ("grpc.server_handshake_timeout_ms", 5000),
    ("grpc.http2.settings_timeout", 5000),
    # Clients may check on an idle connection every 10 s. The server does not: the
    # kernel reports the end of a peer on the same host.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""Differs from v1alpha in its name only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Managers:
    """What the services act on."""

    projects: ProjectManager
    runtimes: RuntimeManager
    logs: LogManager
    events: EventManager


class RpcServer:
    """Serves the contract on one socket: `start`, then `stop`, once each."""

    def __init__(
        self,
        *,
        managers: Managers,
        identity: ServerIdentity,
        principal: str,
        probe_hosts: frozenset[str] = frozenset(),
        new_error_id: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        """principal: who every caller of the socket is, such as `local:1000`.
        probe_hosts: what probes may ask, beside this host.

        Has to be made on the running event loop that serves.
        """
        services: list[Service] = [
            ProjectService(managers.projects, probe_hosts),
            RuntimeService(managers.runtimes, managers.logs, probe_hosts),
            LogService(managers.logs),
            EventService(managers.events),
        ]
        services.append(ServerService(identity, services))
        self._boundary = Boundary(new_error_id=new_error_id)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(
            [
                *contract_handlers(services, boundary=self._boundary, principal=principal),
                *self._standard_handlers(),
            ]
        )

    async def start(self, socket_path: Path) -> None:
        """Serves on `socket_path`, which only its owner may connect to.

        The caller holds the state directory: gRPC replaces a socket that is
        there, alive or not. Raises StartRefused.
        """
        try:
            self._server.add_insecure_port(f"unix:{socket_path}")
            os.chmod(socket_path, 0o600)
        except (OSError, RuntimeError) as error:
            raise StartRefused(
                RefusalReason.LISTENER_NOT_ALLOWED,
                f"Cannot listen on {socket_path}: {error}. Choose another --listen.",
            ) from error
        for service in SERVICES:
            await self._health.set(service.full_name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def stop(self, grace: timedelta) -> None:
        """Ends streams with SHUTTING_DOWN at once, other calls after `grace`, then listens no more.

        Health says NOT_SERVING from the first moment on.
        """
        await self._health.enter_graceful_shutdown()
        await self._boundary.drain(grace)
        await self._server.stop(_CLOSE_GRACE.total_seconds())

    def _standard_handlers(self) -> list[grpc.GenericRpcHandler]:
        """grpc.health.v1, and reflection under both of its names."""
        checks: dict[str, Handler] = {
            method: getattr(self._health, method) for method in ("Check", "Watch")
        }
        names = [
            *(service.full_name for service in SERVICES),
            health.SERVICE_NAME,
            reflection.SERVICE_NAME,
            _REFLECTION_V1,
        ]
        reflector = reflection.aio.ReflectionServicer(names)

        async def reflect(requests: Any, context: Context) -> None:
            await write_all(reflector.ServerReflectionInfo(requests, context), context)

        reflecting = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        return [
            generic_handler(
                health_pb2.DESCRIPTOR.services_by_name["Health"], checks, boundary=self._boundary
            ),
            *(
                generic_handler(
                    reflecting,
                    {"ServerReflectionInfo": reflect},
                    boundary=self._boundary,
                    name=name,
                )
                for name in (reflection.SERVICE_NAME, _REFLECTION_V1)
            ),
        ]
