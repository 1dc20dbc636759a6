"""`python -m att_server`: arguments, logging, signals, exit codes.

Exit codes: 0 the server was asked to end and did, 1 it failed, 2 it refused to
start or was called wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence

from att_server.config import LOG_LEVELS, Config
from att_server.core.errors import StartRefused

EXIT_FAILED = 1
EXIT_REFUSED = 2

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until a signal comes and returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        config = Config.resolve(
            state_dir=given.state_dir,
            listen=given.listen,
            log_level=given.log_level,
            environ=os.environ,
        )
        _log_to_stderr(config.log_level)
        asyncio.run(_serve(config, as_json=given.json))
    except StartRefused as refusal:
        _tell_refused(refusal, as_json=given.json)
        return EXIT_REFUSED
    except Exception:
        logging.getLogger(__name__).exception("the server failed")
        return EXIT_FAILED
    return 0


async def _serve(config: Config, *, as_json: bool) -> None:
    """Runs the server; the first signal ends it in good order, the second at once."""
    # Here, because it takes most of the start-up: a wrong argument is told before.
    from att_server import app

    running = asyncio.create_task(
        app.run(config, lambda target: _tell_ready(target, as_json=as_json))
    )
    loop = asyncio.get_running_loop()

    def end() -> None:
        for number in _ENDING_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        running.cancel()

    for number in _ENDING_SIGNALS:
        loop.add_signal_handler(number, end)
    # Not awaited itself, which would not tell its cancellation from this one's.
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()


def _tell_ready(target: str, *, as_json: bool) -> None:
    """The one line on stdout, for whoever started the server and waits for it."""
    line = json.dumps({"ready": {"target": target}}) if as_json else f"att: ready on {target}"
    print(line, flush=True)  # noqa: T201 - the program's output


def _tell_refused(refusal: StartRefused, *, as_json: bool) -> None:
    line = f"att: {refusal.reason}: {refusal.message}"
    if as_json:
        line = json.dumps({"error": {"reason": refusal.reason, "message": refusal.message}})
    print(line, file=sys.stderr)  # noqa: T201 - the program's output


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="att serve", usage="%(prog)s [options]", description="Serves ATT."
    )
    parser.add_argument("command", nargs="?", choices=["serve"], default="serve")
    parser.add_argument("--state-dir", metavar="DIR", help="default: ATT_STATE_DIR, else as XDG")
    parser.add_argument("--listen", metavar="unix:PATH", help="default: att.sock in the directory")
    parser.add_argument("--json", action="store_true", help="say ready or refused in JSON")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")
    return parser


if __name__ == "__main__":
    sys.exit(main())
