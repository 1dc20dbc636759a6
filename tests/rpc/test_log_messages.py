"""How records are packed into messages."""

from __future__ import annotations

from datetime import UTC, datetime

from att.v1 import log_service_pb2
from att_server.core.model import GapReason, LogChunk, LogGap, LogRecord, LogStream, RunStarted
from att_server.rpc.log_wire import encode_records

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def lines(first: int, count: int, size: int = 10) -> LogChunk:
    return LogChunk(
        first_sequence=first,
        line_count=count,
        time=NOW,
        stream=LogStream.STDOUT,
        run_id="0" * 26,
        lines=(b"x" * (size - 1) + b"\n") * count,
    )


def test_encoded_records_are_a_prefix_of_either_response() -> None:
    records: list[LogRecord] = [
        RunStarted(sequence=0, time=NOW, run_id="run", command=("a",), pid=1),
        lines(1, 3),
        LogGap(first_sequence=4, count=6, reason=GapReason.DAMAGED),
    ]
    (encoded,) = encode_records(records)
    assert encoded.cursor == 10
    for response in (log_service_pb2.ReadLogsResponse, log_service_pb2.FollowLogsResponse):
        tail = response(cursor=10, end_cursor=12, log_id="l")
        whole = response.FromString(encoded.data + tail.SerializeToString())
        assert [r.WhichOneof("record") for r in whole.records] == ["run", "chunk", "gap"]
        assert (whole.cursor, whole.end_cursor, whole.log_id) == (10, 12, "l")


def test_nothing_is_encoded_as_no_message() -> None:
    assert encode_records([]) == ()


def test_many_short_lines_become_messages_that_clients_accept() -> None:
    records = [lines(n, 1, size=1) for n in range(2000)]
    encoded = encode_records(records, max_bytes=20_000)
    assert len(encoded) > 1
    assert all(len(part.data) <= 20_000 for part in encoded)
    cursor = 0
    for part in encoded:
        for record in log_service_pb2.FollowLogsResponse.FromString(part.data).records:
            assert record.chunk.first_sequence == cursor
            cursor += 1
        assert part.cursor == cursor
    assert cursor == 2000


def test_a_record_above_the_bound_is_a_message_alone() -> None:
    encoded = encode_records([lines(0, 1), lines(1, 100, size=600), lines(101, 1)], max_bytes=1000)
    assert [part.cursor for part in encoded] == [1, 101, 102]
