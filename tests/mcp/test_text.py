"""What reaches a model of text that others wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_client.mcp.text import cut, cut_front, decoded, one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("tab\tand\nline\r\nend", "tab\tand\nline\r\nend"),
        ("over\rwritten\x08", "overwritten"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
        ("\x1bPq#0\x1b\\c\x1b(Bd\x1b7", "cd"),
        ("\x9b31mc1", "31mc1"),
        ("caf\xe9 \u4e2d \U0001f600", "caf\xe9 \u4e2d \U0001f600"),
        ("a\u202eb\u2066c\u200bd\ufeffe\U000e0041", "abcde"),
        ("\x1b", ""),
        ("\x1b[", ""),
        ("\x1b]0;not ended\nnext", "0;not ended\nnext"),
    ],
)
def test_only_what_can_be_seen_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_nothing_that_drives_a_terminal_stays(text: str) -> None:
    shown = printable(text)
    assert not {c for c in shown if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0} - {"\t", "\n", "\r"}
    assert shown.count("\r") == shown.count("\r\n")
    assert "\n" not in one_line(text)
    shown.encode()


@given(st.binary())
def test_bytes_are_always_text(data: bytes) -> None:
    decoded(data).encode()


def test_what_is_cut_says_so() -> None:
    assert cut("abc", 3) == cut_front("abc", 3) == "abc"
    assert cut("abcdef", 3) == "abc…[3 more]"
    assert cut_front("abcdef", 3) == "[3 before]…def"
