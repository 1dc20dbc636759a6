"""Answers are read by the C decoder as the generated classes would read them."""

from __future__ import annotations

from typing import Any

import betterproto2
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from att_client._proto.att import v1
from att_client._proto.att.v1 import GetRuntimeResponse, ListProjectsResponse
from att_client.decode import decoder

ANSWERS = sorted(name for name in vars(v1) if name.endswith("Response"))

_TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
_VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=5),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    # Beyond what this contract names, too.
    FieldDescriptor.TYPE_ENUM: st.integers(0, 12),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_STRING: _TEXT,
}
_TIMES = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
_DEPTH = 3


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_alike(name: str) -> None:
    made: type[betterproto2.Message] = getattr(v1, name)
    decode = decoder(made)

    @settings(max_examples=20)
    @given(_messages(Default().FindMessageTypeByName(f"att.v1.{name}"), _DEPTH))
    def check(message: Any) -> None:
        data = message.SerializeToString()
        assert decode(data) == made.parse(data)

    check()


def test_what_is_no_message_is_an_error() -> None:
    with pytest.raises(DecodeError):
        decoder(GetRuntimeResponse)(b"\xff")


def test_a_time_beyond_all_years_is_an_error() -> None:
    answer = _made(ListProjectsResponse)
    answer.projects.add().create_time.seconds = 1 << 60
    with pytest.raises(OverflowError):
        decoder(ListProjectsResponse)(answer.SerializeToString())


def _made(kind: type[betterproto2.Message]) -> Any:
    return GetMessageClass(Default().FindMessageTypeByName(f"att.v1.{kind.__name__}"))()


def _messages(kind: Descriptor, depth: int) -> st.SearchStrategy[Any]:
    """Messages of a kind, with any of its fields set, to some depth."""
    if kind.full_name in _TIMES:
        fields = {"seconds": st.integers(0, 4_000_000_000), "nanos": st.integers(0, 999_999_999)}
        return st.fixed_dictionaries(fields).map(lambda given: GetMessageClass(kind)(**given))
    fields = {
        field.name: _field(field, depth)
        for field in kind.fields
        if field.message_type is None or depth
    }
    return st.fixed_dictionaries({}, optional=fields).map(
        lambda given: GetMessageClass(kind)(**given)
    )


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name
        return st.dictionaries(_TEXT, _value(entry["value"], depth), max_size=2)
    single = _value(field, depth)
    return st.lists(single, max_size=2) if field.is_repeated else single


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is None:
        return _VALUES[field.type]
    return _messages(field.message_type, depth - 1)
