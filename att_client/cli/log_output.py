"""Log records on stdout: as the app wrote them, or as JSON lines."""

from __future__ import annotations

import json
import os
import select
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import count
from json.encoder import encode_basestring_ascii as quoted
from typing import Protocol, TypeAlias

import att_client
from att_client.cli.output import duration_text, local_time, time_text, to_plain
from att_client.cli.runtime import exit_text
from att_client.cli.terminal import harmless


class LogPrinter(Protocol):
    """Prints records, each as it comes."""

    def print(self, project_id: str, records: Sequence[att_client.LogRecord]) -> None:
        """Prints the records of the project at once; raises BrokenPipeError."""


class JsonLog:
    """Prints one JSON object a line for each line, run marker and gap.

    severities: adds to each line how severe it is. names: adds whose it is.
    """

    def __init__(self, descriptor: int, *, severities: bool, names: bool) -> None:
        self._descriptor = descriptor
        self._severities = _Severities() if severities else None
        self._names = names

    def print(self, project_id: str, records: Sequence[att_client.LogRecord]) -> None:
        name = {"project_id": project_id} if self._names else {}
        parts: list[str] = []
        for record in records:
            if record.chunk is not None:
                head = f'"project_id": {quoted(project_id)}, ' if name else ""
                parts += _chunk_json(record.chunk, head, self._tails(project_id, record))
            elif record.run is not None:
                marker = to_plain(record.run)
                assert isinstance(marker, dict)
                sequence = {"sequence": marker.pop("sequence")}
                parts.append(json.dumps({**name, **sequence, "run": marker}) + "\n")
            elif record.gap is not None:
                parts.append(json.dumps({**name, "gap": to_plain(record.gap)}) + "\n")
        write_all(self._descriptor, "".join(parts).encode())

    def _tails(self, project_id: str, record: att_client.LogRecord) -> list[str]:
        if self._severities is None:
            return []
        return [
            f', "severity": "{to_plain(severity)}"'
            for _, severity in self._severities.read(project_id, record)
        ]


class PlainLog:
    """Prints lines exactly as the app wrote them, and passes markers and gaps to `note`.

    A newline that the log added, because a line was cut or the app had not ended
    it, is left out again. It stays only where something else follows: the other
    stream, another run or app, and on a terminal also a marker or a gap.
    note: None for no notes, and for the very bytes on a terminal too.
    """

    def __init__(self, descriptor: int, note: Callable[[str], None] | None) -> None:
        self._descriptor = descriptor
        self._note = note
        self._on_terminal = os.isatty(descriptor)
        self._open: _Source | None = None

    def print(self, project_id: str, records: Sequence[att_client.LogRecord]) -> None:
        parts: list[bytes] = []
        for record in records:
            chunk = record.chunk
            if chunk is not None:
                source = (project_id, chunk.stream, chunk.run_id)
                if self._open not in (None, source):
                    parts.append(b"\n")
                lines = chunk.lines if _is_ended(chunk) else chunk.lines[:-1]
                if self._on_terminal and self._note is not None:
                    lines = harmless(lines, labelled=False)
                parts.append(lines)
                self._open = None if _is_ended(chunk) else source
            elif self._note is not None:
                if self._open is not None and self._on_terminal:
                    parts.append(b"\n")
                    self._open = None
                write_all(self._descriptor, b"".join(parts))
                parts.clear()
                if text := _note_text(record, local_time):
                    self._note(f"── {text}")
        write_all(self._descriptor, b"".join(parts))


class LabelledLog:
    """Prints lines behind what is known of them. Markers and gaps go to `note`.

    names: of the projects, as far as they are known, for one column; empty: no
        column. A line that is printed in pieces is put together again.
    """

    def __init__(
        self,
        descriptor: int,
        note: Callable[[str], None],
        *,
        names: Sequence[str] | None,
        times: bool,
        severities: bool,
        coloured: bool,
    ) -> None:
        self._descriptor = descriptor
        self._note = note
        self._shown = partial(harmless, labelled=True) if os.isatty(descriptor) else bytes
        self._names = None if names is None else ProjectNames(names, coloured=coloured)
        self._times = times
        self._severities = _Severities() if severities else None
        self._coloured = coloured
        self._open: _Source | None = None

    def print(self, project_id: str, records: Sequence[att_client.LogRecord]) -> None:
        parts: list[bytes] = []
        for record in records:
            if record.chunk is not None:
                self._add(parts, project_id, record, record.chunk)
                continue
            self._close(parts)
            write_all(self._descriptor, b"".join(parts))
            parts.clear()
            if text := _note_text(record, time_text if self._times else local_time):
                self._note(f"── {text}" if self._names is None else f"── {project_id}: {text}")
        write_all(self._descriptor, b"".join(parts))

    def _add(
        self,
        parts: list[bytes],
        project_id: str,
        record: att_client.LogRecord,
        chunk: att_client.LogChunk,
    ) -> None:
        source = (project_id, chunk.stream, chunk.run_id)
        goes_on = self._open == source
        if not goes_on:
            self._close(parts)
        label = b"" if self._names is None else self._names.label(project_id)
        if self._times:
            label += b"" if chunk.time is None else time_text(chunk.time).encode() + b" "
        if self._severities is None:
            lines = self._shown(chunk.lines[:-1]).replace(b"\n", b"\n" + label)
            parts.append(lines if goes_on else label + lines)
        else:
            texts = [
                self._colour(
                    severity,
                    (b"" if goes_on and not n else _label(severity)) + self._shown(line.data),
                )
                for n, (line, severity) in enumerate(self._severities.read(project_id, record))
            ]
            parts.append((b"" if goes_on else label) + (b"\n" + label).join(texts))
        self._open = source
        if _is_ended(chunk):
            self._close(parts)

    def _close(self, parts: list[bytes]) -> None:
        if self._open is not None:
            parts.append(b"\n")
            self._open = None

    def _colour(self, severity: att_client.LogSeverity, text: bytes) -> bytes:
        code = _COLOURS.get(severity) if self._coloured else None
        return text if code is None else b"\x1b[%dm%b\x1b[0m" % (code, text)


class ProjectNames:
    """The column with the project that a line is of: as wide as the longest, each in its colour."""

    def __init__(self, names: Sequence[str], *, coloured: bool) -> None:
        self._width = max(map(len, names), default=0)
        self._coloured = coloured
        self._labels: dict[str, bytes] = {}
        for name in names:
            self.label(name)

    def label(self, name: str) -> bytes:
        """What stands before a line of the project."""
        if name not in self._labels:
            self._width = max(self._width, len(name))
            label = f"{name:<{self._width}} |"
            if self._coloured:
                code = _NAME_COLOURS[len(self._labels) % len(_NAME_COLOURS)]
                label = f"\x1b[{code}m{label}\x1b[0m"
            self._labels[name] = f"{label} ".encode()
        return self._labels[name]


class _Severities:
    """How severe the lines of each project are, taken in order."""

    def __init__(self) -> None:
        self._readers: dict[str, att_client.SeverityReader] = {}

    def read(
        self, project_id: str, record: att_client.LogRecord
    ) -> Iterator[tuple[att_client.LogLine, att_client.LogSeverity]]:
        """The record's lines, each with its severity."""
        reader = self._readers.setdefault(project_id, att_client.SeverityReader())
        for line in att_client.log_items([record]):
            if isinstance(line, att_client.LogLine):
                yield line, reader.read(line)


_Source: TypeAlias = tuple[str, att_client.LogStream, str]

# Cyan, yellow, green, magenta, blue, and the same bright: red is for errors.
_NAME_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_COLOURS = {
    att_client.LogSeverity.DEBUG: 2,
    att_client.LogSeverity.WARNING: 33,
    att_client.LogSeverity.ERROR: 31,
    att_client.LogSeverity.CRITICAL: 35,
}


def _label(severity: att_client.LogSeverity) -> bytes:
    return f"{severity.name or '' if severity else '-':<9}".encode()


def _is_ended(chunk: att_client.LogChunk) -> bool:
    """Whether the app ended the last line itself, and in this chunk."""
    return not (chunk.partial or chunk.unterminated)


def _note_text(record: att_client.LogRecord, shown: Callable[[datetime], str]) -> str:
    """What a marker or a gap says. shown: how a time is, as those of lines are."""
    if record.run is not None:
        return _marker_text(record.run, shown)
    return _gap_text(record.gap) if record.gap is not None else ""


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data`, past Python's buffers; raises OSError, of which BrokenPipeError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Another process that has the terminal or pipe too does not want to wait.
            select.select([], [descriptor], [])


def _chunk_json(chunk: att_client.LogChunk, name: str, more: Sequence[str]) -> list[str]:
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
        f'{{{name}"sequence": {first + offset}{head}{quoted(text)}{tail}}}\n'
        for text, tail, offset in zip(texts, tails, offsets, strict=False)
    ]


def _base64(line: bytes, text: str) -> str:
    if text.encode() == line:
        return ""
    return f', "line_base64": "{b64encode(line).decode()}"'


def _marker_text(marker: att_client.RunMarker, shown: Callable[[datetime], str]) -> str:
    time = "" if marker.time is None else shown(marker.time)
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
