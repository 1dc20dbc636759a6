"""Reads and follows an app's log with stock gRPC: no SDK of ATT, no asyncio.

    python att_logs.py TARGET PROJECT [--follow] [--cursor N]

It needs `grpcio`, and the package `att` (the generated stubs) or your own stubs
of `protos/att/v1`. TARGET is what gRPC takes, such as `unix:/path/att.sock`.
Every line is printed behind its sequence number; a restart of the server is
survived by resuming at the cursor, so no line is missed and none comes twice.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator

import grpc

from att.v1 import (
    log_pb2,
    log_service_pb2,
    log_service_pb2_grpc,
    runtime_service_pb2,
    runtime_service_pb2_grpc,
)

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between two attempts to resume
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


def read(channel: grpc.Channel, project_id: str, cursor: int = 0) -> Iterator[log_pb2.LogRecord]:
    """What the log holds from `cursor` on, page by page. Raises grpc.RpcError."""
    stub = log_service_pb2_grpc.LogServiceStub(channel)
    more = True
    while more:
        request = log_service_pb2.ReadLogsRequest(project_id=project_id, limit=10_000)
        request.start.cursor = cursor
        page = stub.ReadLogs(request, timeout=30)
        yield from page.records
        cursor, more = page.cursor, page.has_more


def follow(channel: grpc.Channel, project_id: str, cursor: int = 0) -> Iterator[log_pb2.LogRecord]:
    """What the log holds from `cursor` on, and what is added, until the app's run has ended.

    Resumes for as long as the server is unavailable. Raises grpc.RpcError for
    every other failure.
    """
    runtimes = runtime_service_pb2_grpc.RuntimeServiceStub(channel)
    asked = runtime_service_pb2.GetRuntimeRequest(project_id=project_id)
    run_id = runtimes.GetRuntime(asked, timeout=30).runtime.run_id
    stub = log_service_pb2_grpc.LogServiceStub(channel)
    pause = FIRST_PAUSE
    while True:
        request = log_service_pb2.FollowLogsRequest(project_id=project_id, until_run_id=run_id)
        request.start.cursor = cursor
        batches = stub.FollowLogs(request)
        try:
            for batch in batches:
                yield from batch.records
                cursor = batch.cursor  # behind what was just handed on
                pause = FIRST_PAUSE
            return  # only when the run has ended and all of it was sent
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
        finally:
            batches.cancel()
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, LONGEST_PAUSE)


def text(record: log_pb2.LogRecord) -> Iterator[str]:
    """A record as lines for people, each behind its sequence number."""
    kind = record.WhichOneof("record")
    if kind == "chunk":
        lines = record.chunk.lines.decode(errors="replace").split("\n")[:-1]
        for sequence, line in enumerate(lines, record.chunk.first_sequence):
            yield f"{sequence} {line}"
    elif kind == "run":
        yield f"{record.run.sequence} -- run {record.run.run_id} {record.run.WhichOneof('marker')}"
    elif kind == "gap":
        reason = log_pb2.LogGapReason.Name(record.gap.reason)
        yield f"{record.gap.first_sequence} -- {record.gap.count} missing: {reason}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Prints the log of a project.")
    parser.add_argument("target")
    parser.add_argument("project")
    parser.add_argument("--cursor", type=int, default=0)
    parser.add_argument("--follow", action="store_true", help="until the app's run has ended")
    arguments = parser.parse_args()
    source = follow if arguments.follow else read
    with grpc.insecure_channel(arguments.target, options=CHANNEL_OPTIONS) as channel:
        try:
            for record in source(channel, arguments.project, arguments.cursor):
                for line in text(record):
                    print(line, flush=True)
        except grpc.RpcError as error:
            # Every error of ATT names its reason in this plain trailer too.
            trailers = {item.key: item.value for item in error.trailing_metadata() or ()}
            reason = trailers.get("att-reason", error.code().name)
            print(reason, error.details(), sep=": ", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
