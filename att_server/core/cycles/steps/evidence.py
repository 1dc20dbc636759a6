"""What steps tell of an app that failed: its last lines, and how its run ended."""

from __future__ import annotations

from att_server.core.cycles.runtime import Deployments
from att_server.core.model import ProbeResult, RunExit

_LINES = 200
_MAX_BYTES = 64 * 1024


async def app_tail(deployments: Deployments, project_id: str) -> bytes:
    """The end of the app's log, at most 64 KiB, from the beginning of a line."""
    lines = await deployments.recent_lines(project_id, _LINES)
    tail: list[bytes] = []
    size = 0
    for line in reversed(lines):
        line = line.rstrip(b"\n") + b"\n"
        size += len(line)
        if size > _MAX_BYTES:
            break
        tail.append(line)
    return b"".join(reversed(tail))


def exit_evidence(ended: RunExit | None) -> dict[str, str]:
    """How a run ended; empty if it did not, or nobody knows."""
    if ended is None:
        return {}
    evidence = {"ran_seconds": f"{ended.duration.total_seconds():g}"}
    if ended.exit_code is not None:
        evidence["exit_code"] = str(ended.exit_code)
    if ended.signal is not None:
        evidence["signal"] = str(ended.signal)
    if ended.start_error is not None:
        evidence["start_error"] = ended.start_error
    return evidence


def check_evidence(check: ProbeResult | None) -> dict[str, str]:
    """What the last check found; empty if there was none."""
    if check is None:
        return {}
    evidence = {"probe": check.probe, "check_reason": check.reason}
    if check.http_status is not None:
        evidence["http_status"] = str(check.http_status)
    if check.exit_code is not None:
        evidence["check_exit_code"] = str(check.exit_code)
    return evidence
