"""The `att` command. It uses nothing of att_client but its public names."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Runs `att` with the arguments of this process and exits with its code."""
    _open_streams()
    if sys.argv[1:3] == ["mcp", "serve"]:
        # An agent's client waits for the first answer: only what serves it is loaded.
        from att_client.cli.mcp import run_serve

        sys.exit(run_serve(sys.argv[3:]))

    gc.disable()  # Nothing of what is loaded is garbage.
    from att_client.cli.app import run

    gc.enable()
    gc.freeze()
    sys.exit(run(sys.argv[1:]))


def _open_streams() -> None:
    """Has what was closed by the caller read and write nothing: no socket may take its number."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w"))
