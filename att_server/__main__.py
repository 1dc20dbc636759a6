"""`python -m att_server`: arguments, logging, signals, exit codes.

Exit codes: 0 the server was asked to end and did, or the command is done; 1 it
failed; 2 it refused to start or was called wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from att_server.command_failed import CommandFailed
from att_server.config import LOG_LEVELS, Config, resolve_state_dir
from att_server.core.errors import AttError, StartRefused
from att_server.last_refusal import forget_refusal, note_refusal
from att_server.lock import make_private
from att_server.sd_notify import notify
from att_server.server_log import log_to_stderr
from att_server.token_command import STATE_DIR_HELP

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130


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
    if command in ("init", "token", "tokens"):
        return _tokens(words)
    if command == "launch":
        return _launch(words[1:])
    return _run_server(words[1:] if command == "serve" else words)


# Launch ---------------------------------------------------------------------


def _launch(words: Sequence[str]) -> int:
    """Becomes the launcher, once everything is known to be right; else returns the exit code."""
    given = _serve_parser(
        "att launch", "Keeps the server of the right release running."
    ).parse_args(words)
    try:
        config = _config(given)
        make_private(config.state_dir)
    except StartRefused as refusal:
        _tell_failed(refusal.reason, refusal.message, as_json=given.json)
        return EXIT_REFUSED
    options = [*words]
    if given.state_dir is None:
        options += ["--state-dir", str(config.state_dir)]
    paths = [str(config.state_dir), str(config.socket_path)]
    return os.execv(sys.executable, [sys.executable, "-m", "att_server.launcher", *paths, *options])


# Serve ----------------------------------------------------------------------


def _run_server(arguments: Sequence[str]) -> int:
    given = _serve_parser("att serve", "Serves ATT.").parse_args(arguments)
    try:
        config = _config(given)
        log_to_stderr(config.log_level)
        asyncio.run(_serve(config, as_json=given.json))
    except StartRefused as refusal:
        _tell_failed(refusal.reason, refusal.message, as_json=given.json)
        with contextlib.suppress(StartRefused):
            note_refusal(resolve_state_dir(given.state_dir, os.environ), refusal)
        return EXIT_REFUSED
    except Exception:
        log.exception("the server failed")
        return EXIT_FAILED
    return 0


async def _serve(config: Config, *, as_json: bool) -> None:
    """Runs the server; the first signal ends it in good order, the second at once."""
    # Here, because it takes most of the start-up: a wrong argument is told before. Nothing
    # of what is loaded is garbage, and to look for some takes a sixth of the time.
    gc.disable()
    from att_server import process

    gc.freeze()
    gc.enable()

    on_stderr = logging.getLogger().handlers[0]

    def ready(targets: Sequence[str]) -> None:
        forget_refusal(config.state_dir)
        # What start-up made stays: a collection that goes through it all, as now and then one
        # would, stops every follower for 50 ms and more.
        gc.freeze()
        log.info("version %s serves on %s", version("att-control"), ", ".join(targets))
        _tell_ready(targets, config.log_path, as_json=as_json)
        notify("READY=1", config.environ)
        if config.launch:
            # What comes is in the server's own log; the launcher keeps how it began.
            logging.getLogger().removeHandler(on_stderr)

    running = asyncio.create_task(process.run(config, ready))
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


def _tell_ready(targets: Sequence[str], log_path: Path, *, as_json: bool) -> None:
    """The one line on stdout, for whoever started the server and waits for it."""
    line = f"att: ready on {', '.join(targets)}, log in {log_path}"
    if as_json:
        ready = {"target": targets[0], "targets": [*targets], "log": str(log_path)}
        line = json.dumps({"ready": ready})
    _print(line)


def _config(given: argparse.Namespace) -> Config:
    return Config.resolve(
        state_dir=given.state_dir,
        listen=given.listen,
        log_level=given.log_level,
        environ=os.environ,
        probe_hosts=given.probe_host,
        take_over=given.take_over,
        is_spare=given.spare,
        has_spare=not given.no_spare,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        tls_client_ca=given.tls_client_ca,
        no_auth=given.insecure_loopback_no_auth,
        allow_root=given.allow_root,
    )


def _serve_parser(prog: str, words: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, usage="%(prog)s [options]", description=words)
    parser.add_argument("--state-dir", metavar="DIR", help=STATE_DIR_HELP)
    parser.add_argument(
        "--listen",
        metavar="unix:PATH|HOST:PORT",
        action="append",
        default=[],
        help="where to listen; may be repeated; the socket is att.sock in the directory unless a "
        "unix:PATH says otherwise",
    )
    parser.add_argument(
        "--tls-cert", metavar="FILE", help="the certificate of HOST:PORT, with its chain (PEM)"
    )
    parser.add_argument("--tls-key", metavar="FILE", help="its key (PEM, mode 0600)")
    parser.add_argument(
        "--tls-client-ca",
        metavar="FILE",
        help="have clients show a certificate that this CA has signed (PEM)",
    )
    parser.add_argument(
        "--insecure-loopback-no-auth",
        action="store_true",
        help="let every user of this host read everything, by 127.0.0.1 in clear text",
    )
    parser.add_argument(
        "--allow-root", action="store_true", help="listen on HOST:PORT as root all the same"
    )
    parser.add_argument(
        "--probe-host",
        metavar="HOST",
        action="append",
        default=[],
        help="a host that probes may reach beside the loopback; may be repeated "
        "(also ATT_PROBE_HOSTS, separated by commas)",
    )
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="have the server that runs make way, live; it goes on if this one cannot serve",
    )
    parser.add_argument(
        "--no-spare",
        action="store_true",
        help="have no second process under `att launch`, which takes some 70 MB and serves at once "
        "where this one is killed",
    )
    parser.add_argument("--spare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="say ready or refused in JSON")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")
    return parser


# Commands without a server --------------------------------------------------


def _backup(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="att backup",
        description="Writes a backup of the state directory, also while the server runs.",
    )
    parser.add_argument("file", metavar="FILE.tar.gz", help="the archive to make; must not exist")
    parser.add_argument("--state-dir", metavar="DIR", help=STATE_DIR_HELP)
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
                f"{made.log_bytes + made.file_bytes:,} bytes of their logs, releases and data, in "
                f"{made.archive_bytes:,} bytes. It "
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
        "--state-dir", metavar="DIR", help=f"must be empty or not exist; {STATE_DIR_HELP}"
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
                f"a new log_id: clients read anew. {made.ended_cycles} cycles were on their way, "
                "and are over."
            )

    return _done(work, as_json=given.json)


def _tokens(words: Sequence[str]) -> int:
    from att_server import token_command

    work, as_json = token_command.task(words)
    return _done(work, as_json=as_json)


def _done(work: Callable[[], None], *, as_json: bool) -> int:
    """Does `work` and returns the exit code; SIGTERM ends it as Ctrl-C does, tidily."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log_to_stderr("warning")
    try:
        work()
    except (AttError, CommandFailed, StartRefused) as error:
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
