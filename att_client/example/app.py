"""A small agent app: answers questions over HTTP and prints what it does.

    python app.py --port 8765 --rate 5

GET  /health   200 when it serves, 503 before (`--slow-start`), and 503 for as long as
               the file that KNOWLEDGE names is not in ATT_DATA_DIR
GET  /version  {"version", "run_id", "pid"}
POST /ask      {"question"} → {"answer", "steps"}; try "what is 6 * 7"
GET  /printed  what this process has printed so far, for each stream: the number
               of lines and the SHA-256 of their bytes, newlines included

It prints as agent apps do: Python logging, JSON lines and tracebacks of many
lines, on both streams. Exit codes: 0 after SIGTERM or SIGINT, 1 after a crash,
2 for wrong arguments. It needs nothing but Python.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import logging
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = "1.0.0"

# A file without which it cannot answer, in ATT_DATA_DIR; empty: none. Where nobody sets
# that variable, as in its tests, it is not asked for: a change can look good and fail live.
KNOWLEDGE = ""

MAX_QUESTION_BYTES = 10_000
TICK = 0.01  # seconds between two bursts of steady lines


# What was printed -----------------------------------------------------------


class Printer:
    """Writes whole lines to both streams and keeps count of them.

    Safe to use from several threads. A line is counted and written under one
    lock, so `printed()` never disagrees with the order of the bytes.
    """

    def __init__(self, stdout: int = 1, stderr: int = 2) -> None:
        self._descriptors = {"stdout": stdout, "stderr": stderr}
        self._counts = {"stdout": 0, "stderr": 0}
        self._hashes = {"stdout": hashlib.sha256(), "stderr": hashlib.sha256()}
        self._lock = threading.Lock()

    def write(self, stream: str, lines: bytes) -> None:
        """Writes `lines`, each ended by a newline, to "stdout" or "stderr"."""
        with self._lock:
            self._counts[stream] += lines.count(b"\n")
            self._hashes[stream].update(lines)
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._descriptors[stream], rest) :]

    def printed(self) -> dict[str, dict[str, int | str]]:
        """The lines so far: {"stdout": {"lines": 3, "sha256": "…"}, "stderr": …}."""
        with self._lock:
            return {
                stream: {"lines": count, "sha256": self._hashes[stream].hexdigest()}
                for stream, count in self._counts.items()
            }


class PrinterHandler(logging.Handler):
    """Prints log records as text on stderr, or as JSON on stdout."""

    def __init__(self, printer: Printer, *, as_json: bool) -> None:
        super().__init__()
        self._printer = printer
        self._as_json = as_json
        self.setFormatter(
            logging.Formatter("%(asctime)s - %(levelname)-7s - %(name)s:%(lineno)d - %(message)s")
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record; a traceback goes with it, in as many lines as it has."""
        if self._as_json:
            fields = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
            }
            self._printer.write("stdout", json.dumps(fields, ensure_ascii=False).encode() + b"\n")
        else:
            self._printer.write("stderr", self.format(record).encode() + b"\n")


# The agent ------------------------------------------------------------------

_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def calculate(expression: str) -> float:
    """The value of `expression`, of numbers, + - * / and parentheses.

    Raises ValueError for anything else, ZeroDivisionError where it is due.
    """

    def value(node: ast.AST) -> float:
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(operand))
        raise ValueError(f"cannot calculate {expression!r}")

    try:
        return value(ast.parse(expression.strip(), mode="eval"))
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"cannot calculate {expression!r}") from error


def answer(question: str) -> tuple[str, list[str]]:
    """An answer to `question`, and the steps that led to it."""
    words = question.strip().rstrip("?").strip()
    start, _, rest = words.lower().partition(" ")
    steps = [f"read the question: {len(words)} characters"]
    if words.lower().startswith("what is "):
        expression = words[len("what is ") :]
        steps.append(f"use the calculator on {expression!r}")
        return f"{calculate(expression):g}", steps
    if start == "reverse":
        steps.append("use the reverser")
        return words[len("reverse ") :][::-1], steps
    if start == "count":
        steps.append("use the counter")
        return f"{len(rest.split())} words", steps
    steps.append("no tool fits")
    return "Ask me `what is 6 * 7`, `reverse TEXT` or `count TEXT`.", steps


def missing_knowledge() -> str:
    """The path of the knowledge that is not there; empty if none is missing."""
    directory = os.environ.get("ATT_DATA_DIR")
    if not (KNOWLEDGE and directory) or Path(directory, KNOWLEDGE).exists():
        return ""
    return os.path.join(directory, KNOWLEDGE)


# HTTP -----------------------------------------------------------------------


class AppServer(ThreadingHTTPServer):
    """The app's HTTP server on loopback; `ready` decides what /health says."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, printer: Printer) -> None:
        super().__init__(("127.0.0.1", port), AppHandler)
        self.printer = printer
        self.ready = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Logs what a handler raised, on the counted streams; called by the server."""
        log = logging.getLogger("example.http")
        log.error("a request failed", exc_info=sys.exception())


class AppHandler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: AppServer

    def do_GET(self) -> None:
        """Answers /health, /version and /printed."""
        match self.path.partition("?")[0]:
            case "/health":
                self._answer_health()
            case "/version":
                run_id = os.environ.get("ATT_RUN_ID", "")
                self._answer(
                    HTTPStatus.OK, {"version": VERSION, "run_id": run_id, "pid": os.getpid()}
                )
            case "/printed":
                self._answer(HTTPStatus.OK, self.server.printer.printed())
            case _:
                self._answer(HTTPStatus.NOT_FOUND, {"error": f"no page {self.path}"})

    def do_POST(self) -> None:
        """Answers /ask."""
        if self.path != "/ask":
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"no page {self.path}"})
            return
        try:
            question = self._question()
            text, steps = answer(question)
        except (ValueError, ZeroDivisionError) as error:
            logging.getLogger("example.agent").warning("cannot answer", exc_info=True)
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
            return
        log = logging.getLogger("example.steps")
        for step in [*steps, f"answer: {text}"]:
            log.info(step)
        self._answer(HTTPStatus.OK, {"answer": text, "steps": steps})

    def _answer_health(self) -> None:
        missing = missing_knowledge()
        if not self.server.ready.is_set():
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "starting"})
        elif missing:
            logging.getLogger("example.agent").error("there is no knowledge at %s", missing)
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"status": f"{missing} is missing"})
        else:
            self._answer(HTTPStatus.OK, {"status": "ok"})

    def _question(self) -> str:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= MAX_QUESTION_BYTES:
            raise ValueError(f"send 1 to {MAX_QUESTION_BYTES} bytes of JSON")
        body = json.loads(self.rfile.read(length))
        if not isinstance(body, dict) or not isinstance(body.get("question"), str):
            raise ValueError('send {"question": "…"}')
        return str(body["question"])

    def _answer(self, status: HTTPStatus, body: object) -> None:
        content = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 as http.server has it
        """Keeps http.server from printing past the printer."""


# Output to watch ------------------------------------------------------------


def print_record(number: int) -> None:
    """Prints one log record of an agent at work; every sixtieth has a traceback."""
    agent = logging.getLogger("example.agent")
    step, part = divmod(number, 3)
    if part == 0:
        logging.getLogger("example.steps").info("step %d: thinking", step)
    elif part == 1:
        logging.getLogger("example.steps").info("step %d: calling the tool “search”", step)
    elif step % 20:
        agent.info("step %d: the tool took %d ms", step, step % 97)
    else:
        try:
            raise TimeoutError(f"the tool “search” gave no answer in step {step}")
        except TimeoutError:
            agent.exception("step %d failed, going on without the tool", step)


def print_steadily(rate: float, stop: threading.Event, crash_at: float | None) -> None:
    """Prints `rate` log records a second until `stop`; 0: none.

    Raises RuntimeError when the monotonic clock reaches `crash_at`.
    """
    start, done = time.monotonic(), 0
    while not stop.wait(TICK if rate else 0.1):
        now = time.monotonic()
        if crash_at is not None and now >= crash_at:
            raise RuntimeError("this crash was asked for with --crash-after")
        while done < (now - start) * rate:
            print_record(done)
            done += 1


def flood(printer: Printer, count: int) -> None:
    """Prints `count` lines of 100 bytes on stdout as fast as it can, in blocks."""
    for first in range(0, count, 640):
        block = (f"{n:>12} {'x' * 86}\n" for n in range(first, min(first + 640, count)))
        printer.write("stdout", "".join(block).encode())


def leave_daemon_child(seconds: float) -> None:
    """Leaves a process that outlives this one and prints ten lines a second.

    It is in a session of its own, as a daemon is. Its lines are its own: this
    process does not count them.
    """
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in range(int(seconds * 10)):
        os.write(1, f"daemon child {os.getpid()} line {number}\n".encode())
        time.sleep(0.1)
    os._exit(0)


# The process ----------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; exits with 2 where they are wrong."""
    parser = argparse.ArgumentParser(description="The example app of ATT.")
    env = os.environ
    option = parser.add_argument
    option("--port", type=int, default=int(env.get("PORT", "8765")), help="0: any free port")
    option("--rate", type=float, default=1, help="log records a second (default 1, 0: none)")
    option("--flood", type=int, default=0, metavar="N", help="first print N lines at once")
    option("--slow-start", type=float, default=0, metavar="S", help="be healthy after S seconds")
    option("--crash-after", type=float, metavar="S", help="crash after S seconds")
    option("--daemon-child", type=float, default=0, metavar="S", help="leave a child for S seconds")
    option("--printed-file", type=Path, metavar="FILE", help="at the end, write /printed here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the app until SIGTERM, SIGINT or a crash; returns the exit code."""
    options = parse(arguments)
    printer = Printer()
    root = logging.getLogger("example")
    root.setLevel(logging.INFO)
    root.addHandler(PrinterHandler(printer, as_json=False))
    steps = logging.getLogger("example.steps")
    steps.addHandler(PrinterHandler(printer, as_json=True))
    steps.propagate = False

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    if options.daemon_child:
        leave_daemon_child(options.daemon_child)

    code = 0
    try:
        with AppServer(options.port, printer) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            root.info("version %s serves on port %d", VERSION, server.server_address[1])
            flood(printer, options.flood)
            began = time.monotonic()
            crash_at = None if options.crash_after is None else began + options.crash_after
            if options.slow_start:
                threading.Timer(options.slow_start, server.ready.set).start()
            else:
                server.ready.set()
            print_steadily(options.rate, stop, crash_at)
            server.shutdown()
        root.info("stopped as asked")
    except (OSError, RuntimeError):
        root.exception("the app crashed")
        code = 1
    if options.printed_file:
        partial = options.printed_file.with_suffix(".tmp")
        partial.write_text(json.dumps(printer.printed()))
        partial.replace(options.printed_file)
    return code


if __name__ == "__main__":
    sys.exit(main())
