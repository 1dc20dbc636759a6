"""Checks of apps by grpc.health.v1."""

from __future__ import annotations

import os

from att_server.adapters.probes.endpoints import Endpoints
from att_server.adapters.probes.outcome import Outcome
from att_server.core.model import ProbeTarget
from att_server.core.settings import GrpcProbe
from att_server.core.settings_rules import split_target

_MAX_MESSAGE = 64 * 1024
_MAX_METADATA = 16 * 1024
_MAX_SOCKET_PATH = 107


async def check_grpc(probe: GrpcProbe, target: ProbeTarget, endpoints: Endpoints) -> Outcome:
    """grpc_serving, grpc_not_serving or grpc_timeout.

    A path after `unix:` is against the project's directory. Raises OSError
    without an answer, and where the server has no such service; PortNotOwned.
    """
    # A server without such probes does not need it.
    from grpc import StatusCode, aio
    from grpc_health.v1 import (  # type: ignore[import-untyped]  # has no types
        health_pb2,
        health_pb2_grpc,
    )

    address, authority = await _address(probe.target, target, endpoints)
    options: list[tuple[str, str | int]] = [
        ("grpc.default_authority", authority),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        # A connection of its own, which ends with the channel.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.max_metadata_size", _MAX_METADATA),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA),
    ]
    async with aio.insecure_channel(address, options=options) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=probe.service)
            )
        except aio.AioRpcError as error:
            if error.code() is StatusCode.DEADLINE_EXCEEDED:
                return Outcome(reason="grpc_timeout")
            raise OSError(f"{error.code().name}: {error.details()}") from error
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return Outcome(reason="grpc_serving" if serving else "grpc_not_serving")


async def _address(given: str, target: ProbeTarget, endpoints: Endpoints) -> tuple[str, str]:
    """Where gRPC is to connect to, names looked up, and what the app is called. Raises OSError."""
    scheme, _, path = given.partition(":")
    if scheme == "unix":
        full = os.path.join(target.directory, path)
        if len(os.fsencode(full)) > _MAX_SOCKET_PATH:
            raise OSError(f"the path of the socket has more than {_MAX_SOCKET_PATH} bytes: {full}")
        return f"unix:{full}", "localhost"
    found = split_target(given)
    if found is None:
        raise OSError(f"{given} is neither host:port nor unix:path")
    host, port = found
    addresses = await endpoints.find(host, port, target)
    family = "ipv6" if ":" in addresses[0] else "ipv4"
    same = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    places = ",".join(
        f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in same
    )
    return f"{family}:{places}", given
