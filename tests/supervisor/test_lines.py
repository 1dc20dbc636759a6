"""From reads to whole lines."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_server.supervisor.lines import LineAssembler, count_lines
from att_server.supervisor.segment import (
    FLAG_PARTIAL,
    FLAG_UNTERMINATED,
    MAX_LINE_BYTES,
    MAX_PAYLOAD_BYTES,
)


def original(blobs: list[tuple[bytes, int]]) -> bytes:
    """The bytes that the app wrote: without the newlines that are ours."""
    return b"".join(blob[:-1] if flags else blob for blob, flags in blobs)


@given(line=st.binary(max_size=300), count=st.integers(0, 400), rest=st.binary(max_size=50))
def test_all_newlines_are_counted(line: bytes, count: int, rest: bytes) -> None:
    blob = (line + b"\n") * count + rest
    assert count_lines(blob) == sum(byte == 10 for byte in blob)


@given(reads=st.lists(st.binary(max_size=50) | st.sampled_from([b"\n", b"a\nb", b"\n\n"])))
def test_blobs_are_whole_lines_and_keep_every_byte(reads: list[bytes]) -> None:
    lines = LineAssembler()
    blobs = [blob for read in reads for blob in lines.feed(read)]
    assert all(flags == 0 and blob.endswith(b"\n") for blob, flags in blobs)
    assert lines.pending == (original(blobs) != b"".join(reads))
    blobs += lines.flush()
    assert original(blobs) == b"".join(reads)
    assert not lines.pending
    assert lines.flush() == []


@pytest.mark.parametrize("read_size", [1000, 65_535, 65_536, 65_537, 262_144])
@pytest.mark.parametrize(
    "length", [65_534, 65_535, 65_536, 131_069, 131_070, 131_071, 131_072, 300_000]
)
def test_a_line_is_cut_only_beyond_its_limit(length: int, read_size: int) -> None:
    text = b"before\n" + b"x" * length + b"\nafter\n"
    lines = LineAssembler()
    blobs = [
        blob
        for start in range(0, len(text), read_size)
        for blob in lines.feed(text[start : start + read_size])
    ]
    assert original(blobs) == text
    assert all(0 < len(blob) <= MAX_PAYLOAD_BYTES and blob[-1] == 10 for blob, _ in blobs)
    partial = [flags for _, flags in blobs if flags == FLAG_PARTIAL]
    assert len(partial) == max(0, length - 1) // MAX_LINE_BYTES


@pytest.mark.parametrize("text", [b"x", b"x" * 500 + b"\n", b"x" * 70_000 + b"\n\n"])
def test_a_read_of_what_there_is_room_for_is_one_blob_at_most(text: bytes) -> None:
    lines = LineAssembler()
    stream = text * (1 + 400_000 // len(text))
    blobs = []
    while stream:
        read, stream = stream[: lines.room], stream[lines.room :]
        made = lines.feed(read)
        assert len(made) <= 1
        blobs += made
    blobs += lines.flush()
    assert original(blobs) == text * (1 + 400_000 // len(text))


def test_bytes_without_newline_wait_until_they_are_asked_for() -> None:
    lines = LineAssembler()
    assert lines.feed(b"prompt> ") == []
    assert lines.pending
    assert lines.flush() == [(b"prompt> \n", FLAG_UNTERMINATED)]
    assert lines.feed(b"answer\n") == [(b"answer\n", 0)]


def test_a_line_of_50_mib_takes_no_more_memory_than_a_read() -> None:
    read = b"x" * 262_144
    lines = LineAssembler()
    kept = 0
    tracemalloc.start()
    try:
        for _ in range(200):
            kept += sum(len(blob) - 1 for blob, _ in lines.feed(read))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kept += sum(len(blob) - 1 for blob, _ in lines.flush())
    assert kept == 200 * len(read)
    assert peak < 4 * len(read)
