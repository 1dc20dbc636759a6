"""The last start that was refused, in a file for `att doctor` to explain it."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from att_server.core.errors import RefusalReason, StartRefused
from att_server.lock import check_private

NAME = "refused.json"

_OF_A_SECOND = RefusalReason.ALREADY_RUNNING
"""Says nothing of the server that runs."""


def note_refusal(state_dir: Path, refusal: StartRefused) -> None:
    """Keeps it, if the directory is there and ours; what cannot be kept is left out."""
    if refusal.reason is _OF_A_SECOND:
        return
    form = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": refusal.reason,
        "message": refusal.message,
    }
    with contextlib.suppress(OSError, StartRefused):
        check_private(state_dir)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(state_dir / NAME, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(form, file)


def forget_refusal(state_dir: Path) -> None:
    """Forgets it: the server serves."""
    with contextlib.suppress(OSError):
        (state_dir / NAME).unlink(missing_ok=True)
