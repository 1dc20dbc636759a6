"""The stock Python example, against scripted answers of a server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from typing import Any

import grpc
import grpc_testing
import pytest

from att.v1 import log_pb2, log_service_pb2, runtime_pb2, runtime_service_pb2
from examples.stock_python import att_logs
from tests.server_process import PATIENCE

LOG_SERVICE = log_service_pb2.DESCRIPTOR.services_by_name["LogService"]
RUNTIME_SERVICE = runtime_service_pb2.DESCRIPTOR.services_by_name["RuntimeService"]
GET = RUNTIME_SERVICE.methods_by_name["GetRuntime"]
READ = LOG_SERVICE.methods_by_name["ReadLogs"]
FOLLOW = LOG_SERVICE.methods_by_name["FollowLogs"]


@pytest.fixture
def channel() -> Any:
    return grpc_testing.channel([LOG_SERVICE, RUNTIME_SERVICE], grpc_testing.strict_real_time())


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def lines(first: int, *texts: str) -> log_pb2.LogRecord:
    blob = "".join(f"{text}\n" for text in texts).encode()
    chunk = log_pb2.LogChunk(first_sequence=first, line_count=len(texts), lines=blob)
    return log_pb2.LogRecord(chunk=chunk)


def ended(sequence: int, run_id: str) -> log_pb2.LogRecord:
    marker = log_pb2.RunMarker(
        sequence=sequence, run_id=run_id, ended=log_pb2.RunEnded(exit_code=0)
    )
    return log_pb2.LogRecord(run=marker)


def printed(records: Iterator[log_pb2.LogRecord]) -> list[str]:
    return [line for record in records for line in att_logs.text(record)]


class Follower:
    """Follows the run `r1` on a thread of its own; `line()` waits for the next line."""

    def __init__(self, channel: Any, thread: ThreadPoolExecutor) -> None:
        self._lines: Queue[str] = Queue()
        self.done: Future[None] = thread.submit(self._run, channel)
        _, _, rpc = channel.take_unary_unary(GET)
        runtime = runtime_pb2.Runtime(run_id="r1")
        answer = runtime_service_pb2.GetRuntimeResponse(runtime=runtime)
        rpc.terminate(answer, (), grpc.StatusCode.OK, "")

    def _run(self, channel: Any) -> None:
        for record in att_logs.follow(channel, "web"):
            for line in att_logs.text(record):
                self._lines.put(line)

    def line(self) -> str:
        return self._lines.get(timeout=PATIENCE)


def end(rpc: Any, code: grpc.StatusCode) -> None:
    rpc.terminate((), code, "")


def test_reading_goes_from_page_to_page_until_there_is_no_more(
    channel: Any, thread: ThreadPoolExecutor
) -> None:
    done: Future[list[str]] = thread.submit(lambda: printed(att_logs.read(channel, "web")))
    _, first, rpc = channel.take_unary_unary(READ)
    page = log_service_pb2.ReadLogsResponse(records=[lines(0, "a", "b")], cursor=2, has_more=True)
    rpc.terminate(page, (), grpc.StatusCode.OK, "")
    _, second, rpc = channel.take_unary_unary(READ)
    rpc.terminate(
        log_service_pb2.ReadLogsResponse(records=[lines(2, "c")], cursor=3),
        (),
        grpc.StatusCode.OK,
        "",
    )
    assert done.result(10) == ["0 a", "1 b", "2 c"]
    assert [first.start.cursor, second.start.cursor] == [0, 2]


def test_following_resumes_behind_what_was_received_until_the_run_has_ended(
    channel: Any, thread: ThreadPoolExecutor
) -> None:
    follower = Follower(channel, thread)
    _, first, rpc = channel.take_unary_stream(FOLLOW)
    rpc.send_initial_metadata(())
    rpc.send_response(log_service_pb2.FollowLogsResponse(records=[lines(0, "a", "b")], cursor=2))
    assert [follower.line(), follower.line()] == ["0 a", "1 b"]
    end(rpc, grpc.StatusCode.UNAVAILABLE)
    _, second, rpc = channel.take_unary_stream(FOLLOW)
    rpc.send_initial_metadata(())
    gap = log_pb2.LogGap(
        first_sequence=2, count=3, reason=log_pb2.LogGapReason.LOG_GAP_REASON_DAMAGED
    )
    records = [log_pb2.LogRecord(gap=gap), ended(5, "r0"), lines(6, "c"), ended(7, "r1")]
    rpc.send_response(log_service_pb2.FollowLogsResponse(records=records, cursor=8))
    assert follower.line() == "2 -- 3 missing: LOG_GAP_REASON_DAMAGED"
    assert follower.line() == "5 -- run r0 ended"
    assert follower.line() == "6 c"
    assert follower.line() == "7 -- run r1 ended"
    assert not follower.done.done()
    end(rpc, grpc.StatusCode.OK)
    follower.done.result(10)
    assert [first.start.cursor, second.start.cursor] == [0, 2]
    assert {first.until_run_id, second.until_run_id} == {"r1"}


def test_following_reports_every_failure_but_an_absent_server(
    channel: Any, thread: ThreadPoolExecutor
) -> None:
    follower = Follower(channel, thread)
    _, _, rpc = channel.take_unary_stream(FOLLOW)
    rpc.send_initial_metadata(())
    end(rpc, grpc.StatusCode.NOT_FOUND)
    with pytest.raises(grpc.RpcError) as caught:
        follower.done.result(10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
