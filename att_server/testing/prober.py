"""FakeProber: apps are as healthy as a test says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from att_server.core.model import ProbeResult, ProbeTarget
from att_server.core.ports import Clock
from att_server.core.settings import (
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    Probe,
    ProbeKind,
    TcpProbe,
)
from att_server.testing.clock import FakeClock

_OUTCOMES: dict[type[ProbeKind], tuple[str, str, str]] = {
    HttpProbe: ("http", "http_ok", "http_error"),
    TcpProbe: ("tcp", "tcp_ok", "tcp_refused"),
    CommandProbe: ("command", "command_ok", "command_error"),
    GrpcProbe: ("grpc", "grpc_serving", "grpc_error"),
    LogProbe: ("log", "log_matched", "log_not_matched"),
}


class FakeProber:
    """Implements `Prober`; every check has the outcome that was set last for what it checks.

    What none was set for does not answer: `http_error`, `tcp_refused`,
    `command_error`, `grpc_error`, `log_not_matched`.

    probed: every check so far, and of which run.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """clock: tells when a check was made; by default a clock of its own."""
        self._clock = FakeClock() if clock is None else clock
        self._outcomes: dict[ProbeKind, ProbeResult] = {}
        self._answers_flow = asyncio.Event()
        self._answers_flow.set()
        self.probed: list[tuple[Probe, ProbeTarget]] = []

    def set(
        self,
        checked: ProbeKind | str,
        *,
        healthy: bool,
        reason: str = "",
        status: int | None = None,
    ) -> None:
        """Sets the outcome of the checks of `checked`; a text is the URL of an HTTP probe.

        reason: by default the kind's of a success, or `http_status` and the
        kind's own of a failure. status: by default 200, or 503.
        """
        kind = HttpProbe(url=checked) if isinstance(checked, str) else checked
        name, good, bad = _OUTCOMES[type(kind)]
        http_status = None
        if name == "http":
            bad = "http_status"
            http_status = status or (200 if healthy else None if reason else 503)
        self._outcomes[kind] = ProbeResult(
            healthy=healthy,
            probe=name,
            reason=reason or (good if healthy else bad),
            http_status=http_status,
            checked_at=self._clock.now(),
        )

    def hold_answers(self) -> None:
        """Checks hang, until `release_answers`."""
        self._answers_flow.clear()

    def release_answers(self) -> None:
        """Checks that hang get the outcome that is set now."""
        self._answers_flow.set()

    async def probe(self, probe: Probe, target: ProbeTarget) -> ProbeResult:
        """The outcome set for what the probe checks, checked now."""
        self.probed.append((probe, target))
        await self._answers_flow.wait()
        now = self._clock.now()
        outcome = self._outcomes.get(probe.kind)
        if outcome is None:
            name, _, bad = _OUTCOMES[type(probe.kind)]
            outcome = ProbeResult(healthy=False, probe=name, reason=bad, checked_at=now)
        command = probe.kind.command if isinstance(probe.kind, CommandProbe) else ()
        return replace(outcome, checked_at=now, command=command)

    async def aclose(self) -> None:
        """Without effect."""
