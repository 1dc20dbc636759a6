"""Log records on stdout: as the app wrote them, or as JSON lines."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from json.encoder import encode_basestring_ascii as quoted

import att_client
from att_client.cli.output import duration_text, local_time, time_text, to_plain
from att_client.cli.runtime import exit_text


class JsonLog:
    """Prints one JSON object a line for each line, run marker and gap.

    severities: adds to each line how severe it is.
    """

    def __init__(self, descriptor: int, severities: att_client.SeverityReader | None) -> None:
        self._descriptor = descriptor
        self._severities = severities

    def print(self, records: Sequence[att_client.LogRecord]) -> None:
        """Prints the records at once; raises BrokenPipeError."""
        parts: list[str] = []
        for record in records:
            if record.chunk is not None:
                parts += _chunk_json(record.chunk, self._tails(record))
            elif record.run is not None:
                marker = to_plain(record.run)
                assert isinstance(marker, dict)
                sequence = marker.pop("sequence")
                parts.append(json.dumps({"sequence": sequence, "run": marker}) + "\n")
            elif record.gap is not None:
                parts.append(json.dumps({"gap": to_plain(record.gap)}) + "\n")
        write_all(self._descriptor, "".join(parts).encode())

    def _tails(self, record: att_client.LogRecord) -> list[str]:
        if self._severities is None:
            return []
        return [
            f', "severity": "{to_plain(severity)}"'
            for _, severity in read_severities(self._severities, record)
        ]


class PlainLog:
    """Prints lines exactly as the app wrote them, and passes markers and gaps to `note`.

    A newline that the log added, because a line was cut or the app had not ended
    it, is left out again. It stays only where something else follows: the other
    stream or another run, and on a terminal also a marker or a gap.
    """

    def __init__(self, descriptor: int, note: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._note = note
        self._open: tuple[att_client.LogStream, str] | None = None

    def print(self, records: Sequence[att_client.LogRecord]) -> None:
        """Prints the records at once; raises BrokenPipeError."""
        parts: list[bytes] = []
        for record in records:
            chunk = record.chunk
            if chunk is not None:
                source = (chunk.stream, chunk.run_id)
                if self._open not in (None, source):
                    parts.append(b"\n")
                ended = not (chunk.partial or chunk.unterminated)
                parts.append(chunk.lines if ended else chunk.lines[:-1])
                self._open = None if ended else source
                continue
            if self._open is not None and os.isatty(self._descriptor):
                parts.append(b"\n")
                self._open = None
            write_all(self._descriptor, b"".join(parts))
            parts.clear()
            if text := _note_text(record):
                self._note(text)
        write_all(self._descriptor, b"".join(parts))


class SeverityLog:
    """Prints lines behind their severity, in its colour where `coloured`.

    Markers and gaps go to `note`. A line that is printed in pieces is put together
    again.
    """

    def __init__(self, descriptor: int, note: Callable[[str], None], *, coloured: bool) -> None:
        self._descriptor = descriptor
        self._note = note
        self._coloured = coloured
        self._severities = att_client.SeverityReader()
        self._open: tuple[att_client.LogStream, str] | None = None

    def print(self, records: Sequence[att_client.LogRecord]) -> None:
        """Prints the records at once; raises BrokenPipeError."""
        parts: list[bytes] = []
        for record in records:
            if record.chunk is None:
                self._close(parts)
                write_all(self._descriptor, b"".join(parts))
                parts.clear()
                if text := _note_text(record):
                    self._note(text)
                continue
            for line, severity in read_severities(self._severities, record):
                source = (line.stream, line.run_id)
                goes_on = self._open == source
                if not goes_on:
                    self._close(parts)
                label = b"" if goes_on else _label(severity)
                parts.append(self._colour(severity, label + line.data))
                self._open = source
                if not (line.partial or line.unterminated):
                    self._close(parts)
        write_all(self._descriptor, b"".join(parts))

    def _close(self, parts: list[bytes]) -> None:
        if self._open is not None:
            parts.append(b"\n")
            self._open = None

    def _colour(self, severity: att_client.LogSeverity, text: bytes) -> bytes:
        code = _COLOURS.get(severity) if self._coloured else None
        return text if code is None else b"\x1b[%dm%b\x1b[0m" % (code, text)


_COLOURS = {
    att_client.LogSeverity.DEBUG: 2,
    att_client.LogSeverity.WARNING: 33,
    att_client.LogSeverity.ERROR: 31,
    att_client.LogSeverity.CRITICAL: 35,
}


def _label(severity: att_client.LogSeverity) -> bytes:
    return f"{severity.name or '' if severity else '-':<9}".encode()


def read_severities(
    reader: att_client.SeverityReader, record: att_client.LogRecord
) -> Iterator[tuple[att_client.LogLine, att_client.LogSeverity]]:
    """The record's lines, each with its severity."""
    for line in att_client.log_items([record]):
        if isinstance(line, att_client.LogLine):
            yield line, reader.read(line)


def _note_text(record: att_client.LogRecord) -> str:
    if record.run is not None:
        return f"── {_marker_text(record.run)}"
    return f"── {_gap_text(record.gap)}" if record.gap is not None else ""


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data`, past Python's buffers; raises BrokenPipeError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _chunk_json(chunk: att_client.LogChunk, more: Sequence[str]) -> list[str]:
    time = "" if chunk.time is None else time_text(chunk.time)
    head = (
        f', "time": "{time}", "stream": "{to_plain(chunk.stream)}", '
        f'"run_id": {quoted(chunk.run_id)}, "line": '
    )
    first = chunk.first_sequence
    offsets = chunk.sequence_offsets or count()
    try:
        texts = chunk.lines.decode().split("\n")
    except UnicodeDecodeError:
        lines = chunk.lines.split(b"\n")
        texts = [line.decode(errors="replace") for line in lines]
        tails = [_base64(line, text) for line, text in zip(lines, texts, strict=True)]
    else:
        tails = [""] * len(texts)
    # The blob ends with a newline: what lies behind it is no line.
    del texts[-1], tails[-1]
    if more:
        tails = [tail + fields for tail, fields in zip(tails, more, strict=True)]
    if chunk.partial:
        tails[-1] += ', "partial": true'
    if chunk.unterminated:
        tails[-1] += ', "unterminated": true'
    return [
        f'{{"sequence": {first + offset}{head}{quoted(text)}{tail}}}\n'
        for text, tail, offset in zip(texts, tails, offsets, strict=False)
    ]


def _base64(line: bytes, text: str) -> str:
    if text.encode() == line:
        return ""
    return f', "line_base64": "{b64encode(line).decode()}"'


def _marker_text(marker: att_client.RunMarker) -> str:
    time = local_time(marker.time)
    if marker.started is not None:
        return f"run {marker.run_id} started {time}, pid {marker.started.pid}"
    end = marker.ended
    took = "" if end is None or end.duration is None else f" after {duration_text(end.duration)}"
    return f"run {marker.run_id} ended {time}{took}: {exit_text(end)}"


def _gap_text(gap: att_client.LogGap) -> str:
    last = gap.first_sequence + gap.count - 1
    return (
        f"{gap.count} records are missing, {gap.first_sequence} to {last}: {to_plain(gap.reason)}"
    )
