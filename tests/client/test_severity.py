"""How severe the lines of real programs are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

import att_client
from att_client import LogChunk, LogLine, LogRecord, LogSeverity, LogStream, SeverityReader
from att_client.severity import severity_of

UNSPECIFIED = LogSeverity.UNSPECIFIED
DEBUG, INFO, WARNING = LogSeverity.DEBUG, LogSeverity.INFO, LogSeverity.WARNING
ERROR, CRITICAL = LogSeverity.ERROR, LogSeverity.CRITICAL

STATED = [
    # NeMo Agent Toolkit 1.9
    (INFO, "2026-11-22 23:38:39 - INFO     - nat.cli.commands.start:192 - Starting NAT ..."),
    (WARNING, "2026-11-23 06:09:33 - WARNING  - nat.front_ends.x:139 - Dask is not installed"),
    (ERROR, "2026-11-23 06:09:34 - ERROR    - nat.runtime.runner:246 - Error running workflow"),
    (CRITICAL, "2026-11-23 06:09:34 - CRITICAL - nat:1 - INFO - out of everything"),
    (DEBUG, "2026-11-23 06:09:34 - DEBUG    - nat:1 - message"),
    (WARNING, "site-packages/nat/x.py:25: AuthlibDeprecationWarning: authlib.jose is deprecated"),
    (ERROR, "Error: No such option '--config'. Did you mean '--config_file'?"),
    # uvicorn, with and without a date, and coloured
    (INFO, '2026-11-22 23:38:39 - INFO:     127.0.0.1:5 - "GET /health HTTP/1.1" 200 OK'),
    (WARNING, "2026-11-23 06:09:33 - WARNING:  Current configuration will not reload"),
    (ERROR, "2026-11-23 06:09:33 - ERROR:    [Errno 98] error while attempting to bind"),
    (INFO, "INFO:     Started server process [8107]"),
    (ERROR, "ERROR:    Exception in ASGI application"),
    (INFO, "\x1b[32mINFO\x1b[0m:     Application startup complete."),
    # Python logging
    (WARNING, "WARNING:root:watch out"),
    (CRITICAL, "CRITICAL:app.db:gone"),
    (ERROR, "2026-01-31 12:00:00,123 - app.module - ERROR - failed"),
    (INFO, "2026-01-31 12:00:00,123 INFO app.module: done"),
    (DEBUG, "2026-01-31 12:00:00,123 [DEBUG] app: details"),
    (ERROR, "[2026-01-31 12:00:00,123] ERROR in app: Exception on / [GET]"),
    # loguru, structlog, slog, tracing, log4j, nginx, gunicorn
    (INFO, "2026-01-31 12:00:00.123 | INFO     | app:main:7 - hello"),
    (INFO, "2026-01-31 12:00:00.123 | SUCCESS  | app:main:7 - done"),
    (WARNING, "2026-01-31 12:00:00 [warning  ] careful  key=1"),
    (INFO, "2009/11/10 23:00:00 INFO hello count=3"),
    (ERROR, "2026-01-31T12:00:00.000001Z ERROR app::http: refused"),
    (WARNING, "[2026-01-31T12:00:00Z WARN  app] careful"),
    (DEBUG, "12:00:00.123 [main] DEBUG c.e.App - started"),
    (ERROR, "2026/01/31 12:00:00 [error] 31#31: *1 open() failed"),
    (INFO, "[2026-01-31 12:00:00 +0000] [123] [INFO] Listening at: http://127.0.0.1:8000"),
    # JSON and logfmt
    (ERROR, '{"time": "2026-01-31T12:00:00Z", "level": "error", "msg": "no"}'),
    (WARNING, '{"severity":"WARNING","message":"careful"}'),
    (INFO, '{"level":30,"time":1,"msg":"pino"}'),
    (CRITICAL, '{"msg": "the \\"level\\": \\"info\\" is a lie", "levelname": "CRITICAL"}'),
    (INFO, 'time="2026-01-31T12:00:00Z" level=info msg="level=error"'),
    (WARNING, 'level="warn" msg=x'),
    # klog, syslog
    (INFO, "I0131 12:00:00.000000       1 main.go:7] started"),
    (ERROR, "E0131 12:00:00.000000       1 main.go:7] failed"),
    (ERROR, "<3>disk failing"),
    (DEBUG, "<191>Jan 31 12:00:00 host app: details"),
]

NOT_STATED = [
    "",
    "hello",
    "Traceback (most recent call last):",
    '  File "/srv/app.py", line 26, in echo',
    "ValueError: there is no text to answer",
    "    ERROR in column 3",
    "INFORMATIONAL purposes only",
    "Errors were found",
    "ERROR-prone",
    "Warning signs",
    "2026-11-23 06:09:34 - something else",
    "level of water: 3",
    '{"message": "no level here"}',
    '{"level": "high"}',
    "x=1 y=2",
    "<b>bold</b>",
    "I0131 is a part number",
    "debug: true",
]


@pytest.mark.parametrize(("severity", "text"), STATED)
def test_a_line_that_states_its_severity_has_it(severity: LogSeverity, text: str) -> None:
    assert severity_of(text) is severity
    assert severity_of(text + "\r") is severity


@pytest.mark.parametrize("text", NOT_STATED)
def test_other_lines_state_none(text: str) -> None:
    assert severity_of(text) is UNSPECIFIED


HOSTILE = [
    "x" * 65_535,
    "{" + '"' * 65_000,
    'a="x" ' * 10_000,
    "a= " * 20_000,
    'a="' + "\\" * 65_000,
    "12:00:00" + " -" * 30_000,
    "12:00:00 " + "a" * 65_000,
    "[" * 65_000,
    "\x1b[" * 30_000,
    "\x1b[" + "1;" * 30_000,
    "a:1: " + "W" * 65_000,
    "a" * 65_000 + ":1: Warning: x",
]


@pytest.mark.timeout(20)  # where a form backtracks over the line it takes hours
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_line_made_to_take_long_states_none(text: str) -> None:
    assert severity_of(text) is UNSPECIFIED


def lines(text: str, *, stream: LogStream = LogStream.STDERR, run_id: str = "1") -> list[LogLine]:
    return list(_lines(text, stream, run_id, partial=False))


def _lines(text: str, stream: LogStream, run_id: str, *, partial: bool) -> Iterator[LogLine]:
    chunk = LogChunk(
        first_sequence=0,
        line_count=text.count("\n"),
        time=datetime.now(UTC),
        stream=stream,
        run_id=run_id,
        lines=text.encode(),
        partial=partial,
    )
    for item in att_client.log_items([LogRecord(chunk=chunk)]):
        assert isinstance(item, LogLine)
        yield item


TRACEBACK = """\
2026-11-23 06:09:34 - INFO:     before
2026-11-23 06:09:34 - ERROR    - nat.front_ends.fastapi.runner:233 - Interactive execution failed
Traceback (most recent call last):
  File "echo_workflow/register.py", line 26, in echo
    raise ValueError("there is no text to answer")
    ~~~~~^^^^^^^^^^^^^^^^^^^^^^
ValueError: there is no text to answer
2026-11-23 06:09:34 - INFO:     after
"""


def test_the_lines_of_a_traceback_have_the_severity_of_their_header() -> None:
    reader = SeverityReader()
    assert [reader.read(line) for line in lines(TRACEBACK)] == [INFO, *[ERROR] * 6, INFO]


def test_the_other_stream_and_another_run_inherit_nothing() -> None:
    reader = SeverityReader()

    def read(text: str, stream: LogStream, run_id: str) -> LogSeverity:
        (line,) = lines(text + "\n", stream=stream, run_id=run_id)
        return reader.read(line)

    assert read("ERROR: no", LogStream.STDERR, "1") is ERROR
    assert read("printed", LogStream.STDOUT, "1") is UNSPECIFIED
    assert read("more of it", LogStream.STDERR, "1") is ERROR
    assert read("a new run", LogStream.STDERR, "2") is UNSPECIFIED


def test_the_rest_of_a_line_that_was_cut_is_no_line_of_its_own() -> None:
    reader = SeverityReader()
    (head,) = _lines("INFO: a long line\n", LogStream.STDOUT, "1", partial=True)
    (rest,) = _lines("ERROR: is just in its text\n", LogStream.STDOUT, "1", partial=False)
    (after,) = _lines("ERROR: for real\n", LogStream.STDOUT, "1", partial=False)
    assert [reader.read(line) for line in (head, rest, after)] == [INFO, INFO, ERROR]
