"""The `att` command. It uses nothing of att_client but its public names."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs `att` with the arguments of this process and exits with its code."""
    from att_client.cli.app import run

    sys.exit(run(sys.argv[1:]))
