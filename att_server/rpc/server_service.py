"""ServerService on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor

from att.v1 import server_service_pb2 as pb
from att_server.rpc import capabilities, convert_time
from att_server.rpc.call import Answer, Call, Service, Streaming, Unary
from att_server.rpc.handlers import implemented_capabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """Which server this is: its version, and this start of it."""

    version: str
    instance_id: str
    start_time: datetime
    epoch: int
    pid: int
    state_dir: Path
    release_id: str = ""


class ServerService:
    """Says what the server is and can do."""

    def __init__(self, identity: ServerIdentity, services: Sequence[Service]) -> None:
        """services: all others, which the capabilities are taken from."""
        self._identity = identity
        self._capabilities = sorted(
            [*implemented_capabilities([*services, self]), *capabilities.OFFERED]
        )

    @property
    def descriptor(self) -> ServiceDescriptor:
        return pb.DESCRIPTOR.services_by_name["ServerService"]

    def methods(self) -> Mapping[str, Unary | Streaming]:
        return {"GetServerInfo": self._get_info}

    async def _get_info(self, _request: pb.GetServerInfoRequest, call: Call) -> Answer:
        identity = self._identity
        return pb.GetServerInfoResponse(
            version=identity.version,
            instance_id=identity.instance_id,
            capabilities=self._capabilities,
            start_time=convert_time.timestamp(identity.start_time),
            epoch=identity.epoch,
            pid=identity.pid,
            state_dir=str(identity.state_dir),
            principal=call.principal,
            release_id=identity.release_id,
        )
