"""Log records as bytes on the wire, with one copy of the lines."""

from __future__ import annotations

from typing import NamedTuple

from att.v1 import log_pb2, log_service_pb2
from att_server.core.model import LogChunk, LogPage, LogRecord
from att_server.rpc import convert
from att_server.rpc.pages import MAX_MESSAGE_BYTES

_LENGTH_DELIMITED = 2
_RECORDS = log_service_pb2.FollowLogsResponse.RECORDS_FIELD_NUMBER
_CHUNK = log_pb2.LogRecord.CHUNK_FIELD_NUMBER
_LINES = log_pb2.LogChunk.LINES_FIELD_NUMBER
_WORTH_A_COPY = 4096
"""Bytes of lines that protobuf encodes sooner than they can be saved from being copied."""


class EncodedRecords(NamedTuple):
    """The `records` field of one message, and the cursor behind it.

    The field has the same number in ReadLogsResponse and FollowLogsResponse; an
    encoded message is the concatenation of its encoded fields.
    """

    data: bytes
    cursor: int


def encode_page(page: LogPage, *, max_bytes: int = MAX_MESSAGE_BYTES) -> tuple[EncodedRecords, ...]:
    """The page's records as the fields of as few messages as hold `max_bytes` bytes each.

    A record that is larger alone is a message of its own. Never empty; behind the
    last one is the page's cursor, which may be behind more than its last record.
    """
    encoded: list[EncodedRecords] = []
    parts: list[bytes] = []
    size, cursor = 0, 0
    for record in page.records:
        added = _record(record)
        weight = sum(map(len, added))
        if parts and size + weight > max_bytes:
            encoded.append(EncodedRecords(b"".join(parts), cursor))
            parts, size = [], 0
        parts += added
        size += weight
        cursor = record.next_sequence
    encoded.append(EncodedRecords(b"".join(parts), page.cursor))
    return tuple(encoded)


def _record(record: LogRecord) -> list[bytes]:
    """One element of `records`, in parts."""
    if not isinstance(record, LogChunk):
        return _field(_RECORDS, [convert.log_record(record).SerializeToString()])
    if len(record.lines) < _WORTH_A_COPY:
        chunk = [convert.log_chunk(record, record.lines).SerializeToString()]
    else:
        # Everything but the lines by protobuf, which would copy them twice.
        fields = convert.log_chunk(record, b"").SerializeToString()
        chunk = [fields, *_field(_LINES, [record.lines])]
    return _field(_RECORDS, _field(_CHUNK, chunk))


def _field(number: int, value: list[bytes]) -> list[bytes]:
    """A length-delimited field whose value is the concatenation of `value`."""
    length = sum(map(len, value))
    return [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(length), *value]


def _varint(number: int) -> bytes:
    """https://protobuf.dev/programming-guides/encoding: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
