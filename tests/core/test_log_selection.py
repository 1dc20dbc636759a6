"""What a filter selects of a log's records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from att.severity import Severity, hint_of, severity_of
from att_server.core.log_selection import Gathering, LinePattern, LineSelection, LogFilter
from att_server.core.model import (
    GapReason,
    LogChunk,
    LogGap,
    LogRecord,
    LogStream,
    RunStarted,
)
from tests.client.test_severity import NOT_STATED, STATED

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def chunk(
    first: int,
    *lines: bytes,
    stream: LogStream = LogStream.STDOUT,
    run_id: str = "run",
    time: datetime = NOW,
    partial: bool = False,
) -> LogChunk:
    return LogChunk(
        first_sequence=first,
        line_count=len(lines),
        time=time,
        stream=stream,
        run_id=run_id,
        lines=b"\n".join([*lines, b""]),
        partial=partial,
    )


def gathered(
    selected: LogFilter,
    records: Sequence[LogRecord],
    *,
    max_lines: int = 1000,
    max_bytes: int = 1 << 20,
) -> Gathering:
    page = Gathering(LineSelection(selected), cursor=0, max_lines=max_lines, max_bytes=max_bytes)
    page.add_all(records)
    return page


def lines_of(records: Sequence[LogRecord]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for record in records:
        if isinstance(record, LogChunk):
            lines = record.lines.split(b"\n")[:-1]
            assert len(lines) == record.line_count
            offsets = record.offsets or range(record.line_count)
            found += [(record.first_sequence + n, x) for n, x in zip(offsets, lines, strict=True)]
            assert record.next_sequence == found[-1][0] + 1
    return found


# Patterns -------------------------------------------------------------------

PARTS = [r"\A", r"\z", r"\b", r"\s", r"\S", r"\W", r"\C", r"\n", r"\x00", r"\pL", "[[:^alpha:]]"]
PARTS += ["a", "b", "ab", "a|b", "^", "$", ".", "[^a]", "x*", "(?:a|)", "b+", "(a)", "[ab]{2}", "ä"]
PARTS += ["(?i)A", "(?s).", "(?-m:^)", "(?m:$)", "[^b]*a", "(?U)a*"]
CHARACTERS = (b"a", b"b", b"A", b" ", b"\0", b"\xff", b"\xc3\xa4", b"x")

patterns = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("".join)
texts = st.lists(st.sampled_from(CHARACTERS), max_size=6).map(b"".join)
blobs = st.lists(texts, min_size=1, max_size=12)


@given(patterns, blobs)
@example("^$", [b"", b"a", b""])
@example(r"[^x]*a", [b"b", b"b", b"a"])
@example(r"\z", [b"a", b"b"])
@example(r"\Q^a", [b"^a", b"a"])
def test_lines_are_found_in_many_at_once_as_in_each_alone(pattern: str, lines: list[bytes]) -> None:
    import re2

    try:
        alone = re2.compile(pattern.encode())
    except re2.error:
        with pytest.raises(ValueError, match="RE2"):
            LinePattern(pattern)
        return
    wanted = [index for index, line in enumerate(lines) if alone.search(line) is not None]
    blob = b"\n".join([*lines, b""])
    assert LinePattern(pattern).matching(blob) == wanted
    assert LinePattern(pattern).may_match(blob) or not wanted


def test_a_line_keeps_its_number_when_those_around_it_are_left_out() -> None:
    page = gathered(
        LogFilter(pattern="o"),
        [chunk(5, b"one", b"1", b"two", b"3", b"4"), chunk(10, b"no", b"so")],
    )
    assert lines_of(page.records) == [(5, b"one"), (7, b"two"), (10, b"no"), (11, b"so")]
    first, second = page.records
    assert isinstance(first, LogChunk)
    assert isinstance(second, LogChunk)
    assert (first.offsets, second.offsets) == ((0, 2), ())
    assert page.cursor == 12


def test_the_flags_are_about_the_last_line_if_that_is_selected() -> None:
    (kept,) = gathered(LogFilter(pattern="a"), [chunk(0, b"b", b"a", partial=True)]).records
    (cut,) = gathered(LogFilter(pattern="b"), [chunk(0, b"b", b"a", partial=True)]).records
    assert isinstance(kept, LogChunk)
    assert isinstance(cut, LogChunk)
    assert (kept.partial, cut.partial) == (True, False)


# Streams, runs, times -------------------------------------------------------


def test_streams_runs_and_times_select_together() -> None:
    out, err = LogStream.STDOUT, LogStream.STDERR
    later = NOW + timedelta(seconds=1)
    records: list[LogRecord] = [
        RunStarted(sequence=0, time=NOW, run_id="one", command=("x",), pid=1),
        chunk(1, b"1", stream=out, run_id="one"),
        chunk(2, b"2", stream=err, run_id="one", time=later),
        LogGap(first_sequence=3, count=2, reason=GapReason.DAMAGED),
        chunk(5, b"5", stream=err, run_id="two", time=later),
    ]

    def kept(selected: LogFilter) -> list[int]:
        return [record.first_sequence for record in gathered(selected, records).records]

    assert kept(LogFilter(streams=frozenset([err]))) == [0, 2, 3, 5]
    assert kept(LogFilter(run_id="one")) == [0, 1, 2, 3]
    assert kept(LogFilter(start_time=later)) == [2, 3, 5]
    assert kept(LogFilter(end_time=later)) == [0, 1]
    assert kept(LogFilter(streams=frozenset([err]), run_id="two", start_time=later)) == [3, 5]


def test_what_comes_too_late_ends_the_page() -> None:
    late = NOW + timedelta(seconds=1)
    page = gathered(LogFilter(end_time=late), [chunk(0, b"a"), chunk(1, b"b", time=late)])
    assert page.ended
    assert page.selection.past
    assert page.cursor == 1


# Bounds ---------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(1, 30), blobs)
def test_pages_of_any_size_hold_the_same_lines(
    max_lines: int, max_bytes: int, lines: list[bytes]
) -> None:
    records = [chunk(index * 2, line, b"ab") for index, line in enumerate(lines)]
    whole = lines_of(gathered(LogFilter(pattern="a"), records).records)
    found: list[tuple[int, bytes]] = []
    cursor = 0
    while cursor < records[-1].next_sequence:
        left: list[LogRecord] = [
            record.slice(max(cursor, record.first_sequence), record.next_sequence)
            for record in records
            if record.next_sequence > cursor
        ]
        page = gathered(LogFilter(pattern="a"), left, max_lines=max_lines, max_bytes=max_bytes)
        part = lines_of(page.records)
        assert len(part) <= max_lines
        found += part
        assert page.cursor > cursor
        cursor = page.cursor
    assert found == whole


# Severity -------------------------------------------------------------------


@pytest.mark.parametrize("least", [s for s in Severity if s])
@pytest.mark.parametrize("text", [text for _, text in STATED] + NOT_STATED)
def test_the_hint_is_found_wherever_the_severity_is_stated(least: Severity, text: str) -> None:
    if severity_of(text) >= least:
        assert re.search(hint_of(least), text)


PIECES = ["W", "E", "F", "0131 12:00:00", "<3>", "[", "]", "error", "Warn", "ING", ": ", "\x1b[1m"]
MORE_PIECES = ['{"level":', '"', "50", "level=", "fatal", "12:00:00 ", "INFO", " "]


@given(st.lists(st.sampled_from([*PIECES, *MORE_PIECES]), max_size=5).map("".join))
def test_the_hint_is_found_in_lines_of_all_forms(text: str) -> None:
    for least in (Severity.WARNING, Severity.ERROR, Severity.CRITICAL):
        if severity_of(text) >= least:
            assert re.search(hint_of(least), text)


LOG: list[LogRecord] = [
    RunStarted(sequence=0, time=NOW, run_id="run", command=("x",), pid=1),
    chunk(1, b"INFO: fine", b"ERROR: no", stream=LogStream.STDERR),
    chunk(3, b"Traceback (most recent call last):", stream=LogStream.STDERR),
    chunk(4, b"hello", b"WARNING: hm"),
    chunk(6, b"ValueError: x", b"INFO: fine", b"more", stream=LogStream.STDERR),
    chunk(9, b"on"),
    chunk(10, b"on", run_id="next"),
]


def test_lines_that_state_nothing_have_the_severity_of_those_before() -> None:
    def kept(least: Severity) -> list[int]:
        return [n for n, _ in lines_of(gathered(LogFilter(min_severity=least), LOG).records)]

    assert kept(Severity.ERROR) == [2, 3, 6]
    assert kept(Severity.WARNING) == [2, 3, 5, 6, 9]
    assert kept(Severity.CRITICAL) == []
    assert kept(Severity.DEBUG) == [1, 2, 3, 5, 6, 7, 8, 9]


def test_severity_and_pattern_select_together() -> None:
    both = LogFilter(min_severity=Severity.WARNING, pattern="^[TVo]")
    assert [n for n, _ in lines_of(gathered(both, LOG).records)] == [3, 6, 9]


@pytest.mark.parametrize("at", range(11))
@pytest.mark.parametrize("split", [0, 2, 5])
def test_a_look_back_tells_what_a_line_inherits(at: int, split: int) -> None:
    least = LogFilter(min_severity=Severity.WARNING)
    whole = [found for found in lines_of(gathered(least, LOG).records) if found[0] >= at]

    def part(start: int, stop: int) -> list[LogRecord]:
        return [
            record.slice(max(start, record.first_sequence), min(stop, record.next_sequence))
            if isinstance(record, LogChunk)
            else record
            for record in LOG
            if record.first_sequence < stop and record.next_sequence > start
        ]

    selection = LineSelection(least)
    if not selection.look_back(part(min(split, at), at), at):
        selection.look_back(part(0, min(split, at)), at)
    page = Gathering(selection, cursor=at, max_lines=100, max_bytes=1000)
    page.add_all(part(at, 11))
    assert lines_of(page.records) == whole


def test_the_rest_of_a_line_that_was_cut_states_nothing() -> None:
    records = [chunk(0, b"INFO: begins", partial=True), chunk(1, b"ERROR: is its end", b"x")]
    assert lines_of(gathered(LogFilter(min_severity=Severity.ERROR), records).records) == []
