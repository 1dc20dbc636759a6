"""`python -m att_server`: arguments, logging, signals, exit codes.

Exit codes: 0 the server was asked to end and did, or the backup or restore is
done; 1 it failed; 2 it refused to start or was called wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from att_server.config import LOG_LEVELS, Config, resolve_state_dir
from att_server.core.errors import StartRefused
from att_server.sd_notify import notify
from att_server.server_log import FORMAT

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

_STATE_DIR_HELP = "default: ATT_STATE_DIR, else as XDG"

log = logging.getLogger("att_server")

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the first argument says, by default serve, and returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words else ""
    if command == "backup":
        return _backup(words[1:])
    if command == "restore":
        return _restore(words[1:])
    return _run_server(words[1:] if command == "serve" else words)


# Serve ----------------------------------------------------------------------


def _run_server(arguments: Sequence[str]) -> int:
    given = _serve_parser().parse_args(arguments)
    try:
        config = Config.resolve(
            state_dir=given.state_dir,
            listen=given.listen,
            log_level=given.log_level,
            environ=os.environ,
            probe_hosts=given.probe_host,
        )
        logging.basicConfig(level=config.log_level.upper(), stream=sys.stderr, format=FORMAT)
        asyncio.run(_serve(config, as_json=given.json))
    except StartRefused as refusal:
        _tell_failed(refusal.reason, refusal.message, as_json=given.json)
        return EXIT_REFUSED
    except Exception:
        log.exception("the server failed")
        return EXIT_FAILED
    return 0


async def _serve(config: Config, *, as_json: bool) -> None:
    """Runs the server; the first signal ends it in good order, the second at once."""
    # Here, because it takes most of the start-up: a wrong argument is told before.
    from att_server import app

    def ready(target: str) -> None:
        log.info("version %s serves on %s", version("att-control"), target)
        _tell_ready(target, config.log_path, as_json=as_json)
        notify("READY=1", config.environ)

    running = asyncio.create_task(app.run(config, ready))
    loop = asyncio.get_running_loop()

    def end() -> None:
        for number in _ENDING_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        log.info("ends, as asked by a signal")
        notify("STOPPING=1", config.environ)
        running.cancel()

    for number in _ENDING_SIGNALS:
        loop.add_signal_handler(number, end)
    # Not awaited itself, which would not tell its cancellation from this one's.
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()


def _tell_ready(target: str, log_path: Path, *, as_json: bool) -> None:
    """The one line on stdout, for whoever started the server and waits for it."""
    line = f"att: ready on {target}, log in {log_path}"
    if as_json:
        line = json.dumps({"ready": {"target": target, "log": str(log_path)}})
    _print(line)


def _serve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="att serve", usage="%(prog)s [options]", description="Serves ATT."
    )
    parser.add_argument("--state-dir", metavar="DIR", help=_STATE_DIR_HELP)
    parser.add_argument("--listen", metavar="unix:PATH", help="default: att.sock in the directory")
    parser.add_argument(
        "--probe-host",
        metavar="HOST",
        action="append",
        default=[],
        help="a host that probes may reach beside the loopback; may be repeated "
        "(also ATT_PROBE_HOSTS, separated by commas)",
    )
    parser.add_argument("--json", action="store_true", help="say ready or refused in JSON")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")
    return parser


# Backup and restore ---------------------------------------------------------


def _backup(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="att backup",
        description="Writes a backup of the state directory, also while the server runs.",
    )
    parser.add_argument("file", metavar="FILE.tar.gz", help="the archive to make; must not exist")
    parser.add_argument("--state-dir", metavar="DIR", help=_STATE_DIR_HELP)
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    given = parser.parse_args(arguments)

    from att_server import backup

    def work() -> None:
        made = backup.make(
            resolve_state_dir(given.state_dir, os.environ), Path(given.file).absolute()
        )
        if given.json:
            _print(json.dumps({"backup": made.form()}))
        else:
            _print(
                f"att: {made.archive} holds {made.projects} projects of {made.state_dir} and "
                f"{made.log_bytes:,} bytes of their logs, in {made.archive_bytes:,} bytes. It "
                "holds the apps' settings with their environment: keep it as private as the "
                "state directory."
            )

    return _done(work, as_json=given.json)


def _restore(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="att restore",
        description="Makes a state directory from a backup. The server that then serves it "
        "starts what it would start after a reboot.",
    )
    parser.add_argument("file", metavar="FILE.tar.gz", help="an archive that `att backup` made")
    parser.add_argument(
        "--state-dir", metavar="DIR", help=f"must be empty or not exist; {_STATE_DIR_HELP}"
    )
    parser.add_argument("--stopped", action="store_true", help="have no app start by itself")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    given = parser.parse_args(arguments)

    from att_server import restore

    def work() -> None:
        made = restore.restore(
            Path(given.file).absolute(),
            resolve_state_dir(given.state_dir, os.environ),
            stopped=given.stopped,
        )
        if given.json:
            _print(json.dumps({"restored": made.form()}))
        else:
            _print(
                f"att: {made.state_dir} holds {made.projects} projects as of "
                f"{made.backup_time.isoformat(timespec='seconds')}; {made.meant_to_run} of their "
                "apps are meant to run, which `att serve` treats as after a reboot. Every log has "
                "a new log_id: clients read anew."
            )

    return _done(work, as_json=given.json)


def _done(work: Callable[[], None], *, as_json: bool) -> int:
    """Does `work` and returns the exit code; SIGTERM ends it as Ctrl-C does, tidily."""
    from att_server.archive import BackupError

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format=FORMAT)
    try:
        work()
    except (BackupError, StartRefused) as error:
        _tell_failed(error.reason, error.message, as_json=as_json)
        return EXIT_FAILED
    except Exception as error:
        log.exception("a defect")
        words = f"{type(error).__name__}: {error}. Nothing was left behind."
        _tell_failed("INTERNAL", words, as_json=as_json)
        return EXIT_FAILED
    except KeyboardInterrupt:
        _tell_failed("INTERRUPTED", "Interrupted; nothing was left behind.", as_json=as_json)
        return EXIT_INTERRUPTED
    return 0


# Words ----------------------------------------------------------------------


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the program's output


def _tell_failed(reason: str, message: str, *, as_json: bool) -> None:
    line = f"att: {reason}: {message}"
    if as_json:
        line = json.dumps({"error": {"reason": reason, "message": message}})
    print(line, file=sys.stderr)  # noqa: T201 - the program's output


if __name__ == "__main__":
    sys.exit(main())
