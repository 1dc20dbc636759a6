"""A change is kept as it was given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_server.core.cycles.change import decode_change, encode_change
from att_server.core.repository import Change, DeleteFile, FileEdit, Patch, SetMode, WriteFile

PATHS = st.text(st.characters(codec=None), max_size=30)
EDITS: st.SearchStrategy[list[FileEdit]] = st.lists(
    st.one_of(
        st.builds(
            WriteFile,
            path=PATHS,
            content=st.binary(),
            executable=st.sampled_from([None, True, False]),
        ),
        st.builds(DeleteFile, path=PATHS),
        st.builds(SetMode, path=PATHS, executable=st.booleans()),
    )
)


@given(st.one_of(EDITS, st.builds(Patch, diff=st.binary())))
def test_a_change_is_read_as_it_was_written(change: Change) -> None:
    assert decode_change(encode_change(change)) == change


def test_contents_take_no_more_room_than_they_have() -> None:
    change = [WriteFile(path="large", content=bytes(1_000_000))]
    assert len(encode_change(change)) < 1_000_200


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"{}",
        b"[]",
        b'{"patch": 3}\nab',
        b'{"patch": -1}\n',
        b'{"patch": "x"}\n',
        b'{"edits": [{"write": "a"}]}\n',
        b'{"edits": [{"write": "a", "size": 9}]}\nabc',
        b'{"edits": 1}\n',
        b"\xff",
    ],
)
def test_what_is_no_change_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match="not a change"):
        decode_change(stored)
