"""The format on disk. It is read by other releases: the bytes here must not change."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_server.supervisor.segment import (
    FRAME_HEADER_BYTES,
    NO_RUN,
    SEGMENT_HEADER_BYTES,
    FrameKind,
    Head,
    SegmentHeader,
    encode_frame,
    find_frame,
    frame_at,
    frames_in,
    run_to_bytes,
    run_to_text,
    segment_name,
    segment_sequences,
)

RUN = bytes(range(16))


def frame(sequence: int, lines: bytes) -> bytes:
    count = lines.count(b"\n")
    header = encode_frame(
        FrameKind.LINES,
        lines,
        first_sequence=sequence,
        count=count,
        time_ns=5,
        run=RUN,
        stream=2,
        flags=1,
    )
    return header + lines


def test_a_frame_has_the_bytes_that_other_releases_know() -> None:
    assert frame(7, b"a\nb\n").hex(" ", 4) == (
        "41546631 c076954d 04000000 02000000 07000000 00000000 05000000 00000000 "
        "00010203 04050607 08090a0b 0c0d0e0f 01020100 610a620a"
    )


def test_a_segment_header_has_the_bytes_that_other_releases_know() -> None:
    header = SegmentHeader(log_id="01JLOG00000000000000000000", first_sequence=3, created_ns=9)
    data = header.encode()
    assert data.hex(" ", 8) == (
        "4154545345470001 30314a4c4f473030 3030303030303030 3030303030303030 "
        "3030000000000000 0300000000000000 0900000000000000 70192b0800000000"
    )
    assert len(data) == SEGMENT_HEADER_BYTES
    assert SegmentHeader.decode(data) == header


def test_a_head_of_another_release_is_read() -> None:
    head = Head.decode(
        b'{"version":1,"log_id":"L","start":1,"next":2,"reserved":3,"boot_id":"b",'
        b'"segment":1,"offset":64,"from_the_future":true}'
    )
    assert head == Head(log_id="L", start=1, next=2, reserved=3, boot_id="b", segment=1, offset=64)
    assert Head.decode(replace(head, run="0" * 25 + "1", time_ns=4).encode()) == replace(
        head, run="0" * 25 + "1", time_ns=4
    )


@pytest.mark.parametrize("size", range(SEGMENT_HEADER_BYTES))
def test_a_torn_segment_header_is_none(size: int) -> None:
    header = SegmentHeader(log_id="L", first_sequence=0, created_ns=0)
    assert SegmentHeader.decode(header.encode()[:size]) is None


def test_frames_are_read_up_to_the_first_that_is_not_whole() -> None:
    data = frame(0, b"a\n") + frame(1, b"b\nc\n") + frame(3, b"d\n")
    for size in range(len(data)):
        whole = [offset for offset, _ in frames_in(data[:size], 0, 0)]
        assert whole == [0, 54, 110][: (size >= 54) + (size >= 110)]


def test_a_flipped_bit_anywhere_ends_the_frames() -> None:
    data = frame(0, b"a\n") + frame(1, b"b\n")
    for position in range(54, len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            # The last byte of a header is padding, but checked all the same.
            assert [offset for offset, _ in frames_in(broken, 0, 0)] == [0]


def test_a_frame_that_does_not_follow_ends_the_frames() -> None:
    assert len(list(frames_in(frame(0, b"a\n") + frame(2, b"b\n"), 0, 0))) == 1
    assert list(frames_in(frame(5, b"a\n"), 0, 0)) == []


@given(garbage=st.binary(max_size=80), lines=st.binary(max_size=20))
def test_the_next_whole_frame_is_found_behind_garbage(garbage: bytes, lines: bytes) -> None:
    wanted = frame(9, lines + b"\n")
    data = garbage + b"ATf1" + frame(3, b"too old\n") + wanted
    at = find_frame(data, 0, 9)
    assert at == len(data) - len(wanted)
    found = frame_at(data, at)
    assert found is not None
    assert found.total_size == len(wanted) == FRAME_HEADER_BYTES + found.size
    assert find_frame(data, 0, 10) is None


@given(run=st.binary(min_size=16, max_size=16))
def test_a_run_id_is_the_same_as_text_and_as_bytes(run: bytes) -> None:
    text = run_to_text(run)
    assert text == "" if run == NO_RUN else run_to_bytes(text) == run


@pytest.mark.parametrize("text", ["", "01J", "8" + "0" * 25, "0" * 25 + "U", "0" * 25 + "a"])
def test_what_is_no_run_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="run id"):
        run_to_bytes(text)


def test_only_segments_are_taken_for_segments() -> None:
    names = [segment_name(200), segment_name(3), "head.json", "1.seg", "x" * 20 + ".seg"]
    assert segment_sequences([*names, segment_name(3) + ".damaged"]) == [3, 200]
