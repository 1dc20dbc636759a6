"""The fast reading of log messages gives what the generated classes give."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from att.v1 import log_pb2, log_service_pb2
from att_client import LogBatch, LogPage
from att_client.log_messages import follow_response, parse_page, parse_read_response

_INT64 = st.integers(-(2**63), 2**63 - 1)
_INT32 = st.integers(-(2**31), 2**31 - 1)
_TIME = st.fixed_dictionaries(
    {"seconds": st.integers(0, 4_000_000_000), "nanos": st.sampled_from([0, 1000, 999_999_000])}
)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=5)


def _maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def _one(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.just({}), *(st.fixed_dictionaries({key: value}) for key, value in fields.items())
    )


_CHUNK = _maybe(
    first_sequence=_INT64,
    line_count=_INT32,
    time=_TIME,
    stream=st.sampled_from([0, 1, 2]),
    run_id=_TEXT,
    lines=st.binary(max_size=20),
    partial=st.booleans(),
    unterminated=st.booleans(),
    sequence_offsets=st.lists(_INT32, max_size=3),
).map(lambda fields: log_pb2.LogChunk(**fields))
_ENDED = st.builds(
    lambda cause, fields: log_pb2.RunEnded(**cause, **fields),
    _one(exit_code=_INT32, signal=_INT32, start_error=_TEXT, supervisor_lost=st.booleans()),
    _maybe(duration=_TIME, reason=_TEXT),
)
_STARTED = _maybe(command=st.lists(_TEXT, max_size=3), pid=_INT32, release_id=_TEXT).map(
    lambda fields: log_pb2.RunStarted(**fields)
)
_RUN = st.builds(
    lambda fields, marker: log_pb2.RunMarker(**fields, **marker),
    _maybe(sequence=_INT64, time=_TIME, run_id=_TEXT),
    _one(started=_STARTED, ended=_ENDED),
)
_GAP = _maybe(
    first_sequence=_INT64,
    count=_INT64,
    reason=st.sampled_from([0, 1, 5, 6]),
    lost_lines=_INT64,
).map(lambda fields: log_pb2.LogGap(**fields))
_RECORD = _one(chunk=_CHUNK, run=_RUN, gap=_GAP).map(lambda kind: log_pb2.LogRecord(**kind))
_PAGE: dict[str, st.SearchStrategy[Any]] = {
    "records": st.lists(_RECORD, max_size=4),
    "cursor": _INT64,
    "start_cursor": _INT64,
    "end_cursor": _INT64,
    "log_id": _TEXT,
}


@given(_maybe(**_PAGE, bound_run_id=_TEXT))
def test_a_message_of_a_follow_is_read_alike(fields: dict[str, Any]) -> None:
    data = log_service_pb2.FollowLogsResponse(**fields).SerializeToString()
    assert follow_response(parse_page(data)) == LogBatch.parse(data)


@given(_maybe(**_PAGE, truncated=st.booleans(), skipped=_INT64, has_more=st.booleans()))
def test_a_page_is_read_alike(fields: dict[str, Any]) -> None:
    data = log_service_pb2.ReadLogsResponse(**fields).SerializeToString()
    assert parse_read_response(data) == LogPage.parse(data)


def test_every_field_of_the_contract_is_read() -> None:
    # What is added to the contract has to be added to the reading too.
    fields = {
        message.name: [field.name for field in message.fields]
        for message in (
            log_pb2.LogRecord.DESCRIPTOR,
            log_pb2.LogChunk.DESCRIPTOR,
            log_pb2.RunMarker.DESCRIPTOR,
            log_pb2.RunStarted.DESCRIPTOR,
            log_pb2.RunEnded.DESCRIPTOR,
            log_pb2.LogGap.DESCRIPTOR,
            log_service_pb2.FollowLogsResponse.DESCRIPTOR,
            log_service_pb2.ReadLogsResponse.DESCRIPTOR,
        )
    }
    page = ["records", "cursor", "start_cursor", "end_cursor"]
    assert fields == {
        "LogRecord": ["chunk", "run", "gap"],
        "LogChunk": [
            "first_sequence",
            "line_count",
            "time",
            "stream",
            "run_id",
            "lines",
            "partial",
            "unterminated",
            "sequence_offsets",
        ],
        "RunMarker": ["sequence", "time", "run_id", "started", "ended"],
        "RunStarted": ["command", "pid", "release_id"],
        "RunEnded": ["exit_code", "signal", "start_error", "supervisor_lost", "duration", "reason"],
        "LogGap": ["first_sequence", "count", "reason", "lost_lines"],
        "FollowLogsResponse": [*page, "log_id", "bound_run_id"],
        "ReadLogsResponse": [*page, "truncated", "skipped", "has_more", "log_id"],
    }
