"""How records are packed into messages."""

from __future__ import annotations

from datetime import UTC, datetime

from att.v1 import log_service_pb2
from att_server.core.model import (
    GapReason,
    LogBounds,
    LogChunk,
    LogGap,
    LogPage,
    LogRecord,
    LogStream,
    RunStarted,
)
from att_server.rpc.log_wire import encode_page

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


def page(*records: LogRecord, cursor: int | None = None) -> LogPage:
    end = records[-1].next_sequence if cursor is None else cursor
    bounds = LogBounds(log_id="l", start=0, end=end)
    return LogPage(records=records, cursor=end, bounds=bounds)


def test_encoded_records_are_a_prefix_of_either_response() -> None:
    records: list[LogRecord] = [
        RunStarted(sequence=0, time=NOW, run_id="run", command=("a",), pid=1),
        lines(1, 3),
        LogGap(first_sequence=4, count=6, reason=GapReason.DAMAGED),
    ]
    (encoded,) = encode_page(page(*records))
    assert encoded.cursor == 10
    for response in (log_service_pb2.ReadLogsResponse, log_service_pb2.FollowLogsResponse):
        tail = response(cursor=10, end_cursor=12, log_id="l")
        whole = response.FromString(encoded.data + tail.SerializeToString())
        assert [r.WhichOneof("record") for r in whole.records] == ["run", "chunk", "gap"]
        assert (whole.cursor, whole.end_cursor, whole.log_id) == (10, 12, "l")


def test_a_page_that_selected_nothing_is_a_message_with_its_cursor() -> None:
    (encoded,) = encode_page(page(cursor=7))
    assert (encoded.data, encoded.cursor) == (b"", 7)


def test_the_last_message_is_behind_what_was_not_selected() -> None:
    parts = encode_page(page(*(lines(n, 1) for n in range(50)), cursor=99), max_bytes=500)
    assert len(parts) > 1
    assert parts[-1].cursor == 99
    assert all(part.cursor <= 50 for part in parts[:-1])


def test_many_short_lines_become_messages_that_clients_accept() -> None:
    records = [lines(n, 1, size=1) for n in range(2000)]
    encoded = encode_page(page(*records), max_bytes=20_000)
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
    encoded = encode_page(page(lines(0, 1), lines(1, 100, size=600), lines(101, 1)), max_bytes=1000)
    assert [part.cursor for part in encoded] == [1, 101, 102]
