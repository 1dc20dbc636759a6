"""The wire form of errors, whatever is in them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from att_server.core.errors import AttError, FieldViolation, Reason
from att_server.rpc.status import MAX_MESSAGE_BYTES, MAX_TRAILER_BYTES, escape, wire_error

TEXTS = st.text(st.characters(exclude_categories=()), max_size=3000)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_wire_form(reason: Reason) -> None:
    wire = wire_error(AttError(reason, "no"))
    assert ("att-reason", reason.value) in wire.trailers
    assert wire.message == "no"


def test_a_known_delay_is_told_as_retry_info() -> None:
    error = AttError(Reason.RATE_LIMITED, "later", retry_delay=timedelta(seconds=1.5), limit=3)
    status = status_pb2.Status.FromString(
        dict(wire_error(error).trailers)["grpc-status-details-bin"]
    )
    retry = error_details_pb2.RetryInfo()
    assert status.details[-1].Unpack(retry)
    assert retry.retry_delay.ToTimedelta() == timedelta(seconds=1.5)


@given(TEXTS, st.integers(min_value=0, max_value=MAX_MESSAGE_BYTES))
def test_escaped_text_is_short_printable_and_utf8(text: str, max_bytes: int) -> None:
    shown = escape(text, max_bytes)
    assert len(shown.encode()) <= max_bytes
    assert all(c.isprintable() or c == "\n" for c in shown)


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=100))
def test_plain_text_is_not_changed(text: str) -> None:
    assert escape(text) == text


def test_cut_text_keeps_its_beginning_and_its_end() -> None:
    shown = escape("The app ended. " + "x" * 5000 + " ValueError: last words")
    assert shown.startswith("The app ended. ")
    assert shown.endswith(" ValueError: last words")


@given(
    TEXTS,
    st.dictionaries(st.from_regex(r"[a-z_]{1,40}", fullmatch=True), TEXTS, max_size=40),
    st.lists(st.tuples(TEXTS, TEXTS), max_size=40),
)
def test_any_error_fits_into_the_trailers_of_a_call(
    message: str, metadata: dict[str, str], violations: list[tuple[str, str]]
) -> None:
    error = AttError(
        Reason.FIELD_INVALID,
        message,
        violations=[FieldViolation(field=f, description=d) for f, d in violations],
    )
    error.metadata = metadata
    trailers = dict(wire_error(error).trailers)
    assert sum(len(key) + len(value) for key, value in trailers.items()) <= MAX_TRAILER_BYTES
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert len(status.details) == (2 if violations else 1)
