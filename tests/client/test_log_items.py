"""A line is its text, and knows the rest when asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_client import LogChunk, LogLine, LogRecord, LogStream, ProtocolError, log_items


def _lines(*lines: bytes, **fields: object) -> list[LogLine]:
    blob = b"".join(line + b"\n" for line in lines)
    chunk = LogChunk(first_sequence=7, line_count=len(lines), lines=blob, **fields)  # type: ignore[arg-type]  # by name
    items = list(log_items([LogRecord(chunk=chunk)]))
    assert all(isinstance(item, LogLine) for item in items)
    return [item for item in items if isinstance(item, LogLine)]


@given(st.lists(st.binary().map(lambda data: data.replace(b"\n", b"")), min_size=1))
def test_data_is_what_the_app_wrote_and_text_its_decoding(lines: list[bytes]) -> None:
    found = _lines(*lines)
    assert [line.data for line in found] == lines
    assert found == [line.decode(errors="replace") for line in lines]
    assert [line.sequence for line in found] == list(range(7, 7 + len(lines)))


def test_only_newlines_end_lines() -> None:
    assert _lines(b"a\rb\x0bc\x0c\x1c\x85\0", "x\u2028y".encode(), b"") == [
        "a\rb\x0bc\x0c\x1c\ufffd\0",
        "x\u2028y",
        "",
    ]


def test_flags_describe_the_last_line() -> None:
    lines = _lines(b"a", b"b", partial=True, unterminated=True, stream=LogStream.STDERR)
    assert [line.partial for line in lines] == [False, True]
    assert [line.unterminated for line in lines] == [False, True]
    assert lines[0].stream is LogStream.STDERR


def test_a_filtered_chunk_has_the_numbers_that_it_names() -> None:
    lines = _lines(b"a", b"b", sequence_offsets=[0, 5])
    assert [(line.sequence, line.cursor) for line in lines] == [(7, 8), (12, 13)]


def test_a_line_that_is_kept_does_not_keep_its_neighbours() -> None:
    line = _lines(b"x" * 1000, b"y" * 1000)[0]
    assert not any(
        isinstance(value, bytes | list) and value
        for value in (getattr(line._chunk, name) for name in line._chunk.__slots__)
    )


@pytest.mark.parametrize(
    ("count", "blob", "offsets"),
    [
        (2, b"a\n", []),
        (1, b"a\nb\n", []),
        (1, b"a", []),
        (1, b"a\nb", []),
        (2, b"a\nb\n", [0]),
        (2, b"\xff\n", []),
    ],
)
def test_a_chunk_that_is_not_what_it_says_is_refused(
    count: int, blob: bytes, offsets: list[int]
) -> None:
    chunk = LogChunk(line_count=count, lines=blob, sequence_offsets=offsets)
    with pytest.raises(ProtocolError):
        list(log_items([LogRecord(chunk=chunk)]))
