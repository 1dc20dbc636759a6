"""An app that answers gRPC in some way: `python grpc_app.py WAY ADDRESS`; prints its port.

WAY: `serving`, `not-serving`, `unhealthy-part` (all but the service `part` serve),
`bare` (no health service), `hanging` (its health service never answers).
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no types


class Hanging(health.HealthServicer):  # type: ignore[misc]  # its base has no types
    def Check(self, request: object, context: grpc.ServicerContext) -> None:  # noqa: N802 - its name
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(60)


def main() -> None:
    way, address = sys.argv[1:]
    server = grpc.server(ThreadPoolExecutor(4))
    servicer = Hanging() if way == "hanging" else health.HealthServicer()
    if way != "bare":
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    states = health_pb2.HealthCheckResponse
    servicer.set("", states.NOT_SERVING if way == "not-serving" else states.SERVING)
    servicer.set("part", states.NOT_SERVING)
    port = server.add_insecure_port(address)
    server.start()
    print(port, flush=True)
    server.wait_for_termination(60)


if __name__ == "__main__":
    main()
