"""The reasons of errors are the same wherever they are written down."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import att_client
from att.v1 import error_reason_pb2
from att_server.core.errors import Reason, RefusalReason
from att_server.rpc.status import CODES

ROOT = Path(__file__).parents[2]
PROTO = (ROOT / "protos/att/v1/error_reason.proto").read_text()
PAGE = (ROOT / "docs/errors.md").read_text()
REASONS = [
    name.removeprefix("ERROR_REASON_")
    for name in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - an enum, not a mapping
    if name != "ERROR_REASON_UNSPECIFIED"
]

# The name that follows from the reason is a class of Python.
RENAMED = {
    "NOT_IMPLEMENTED": "CapabilityNotImplementedError",
    "FILE_NOT_FOUND": "CodeFileNotFoundError",
}

Facts = tuple[str, tuple[str, ...]]


def in_proto() -> dict[str, Facts]:
    """Code and metadata keys of each reason, as its comment ends."""
    text = re.sub(r"\n *// ?", " ", PROTO)
    found = re.findall(r"\[([A-Z_]+);([^\]]*)\]\s+ERROR_REASON_(\w+) =", text)
    return {name: (code, keys(listed)) for code, listed, name in found}


def in_docs() -> dict[str, Facts]:
    """Code and metadata keys of each reason, by the table in the docs."""
    rows = re.findall(r"^\| ([A-Z_]+) \| ([A-Z_]+) \|([^|]*)\|[^|]+\|$", PAGE, re.MULTILINE)
    return {name: (code, keys(listed)) for name, code, listed in rows}


def keys(listed: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", listed))


def test_core_has_the_reasons_of_the_contract_in_order() -> None:
    assert [reason.value for reason in Reason] == REASONS


def test_the_status_table_says_what_the_contract_says() -> None:
    codes = {reason.value: code.name for reason, code in CODES.items()}
    assert codes == {name: code for name, (code, _) in in_proto().items()}


def test_the_docs_say_what_the_contract_says() -> None:
    assert list(in_docs()) == REASONS
    assert in_docs() == in_proto()


def test_the_docs_list_every_refusal_to_start() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| [^|]+\|$", PAGE, re.MULTILINE)
    assert rows == [reason.value for reason in RefusalReason]


@pytest.mark.parametrize("reason", REASONS)
def test_the_sdk_has_an_exception_for_the_reason(reason: str) -> None:
    name = RENAMED.get(reason) or "".join(map(str.title, reason.split("_"))) + "Error"
    assert issubclass(getattr(att_client, name), att_client.AttError)
