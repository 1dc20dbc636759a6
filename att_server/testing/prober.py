"""FakeProber: apps are as healthy as a test says."""

from __future__ import annotations

from dataclasses import replace

from att_server.core.model import HttpProbe, ProbeResult
from att_server.core.ports import Clock
from att_server.testing.clock import FakeClock


class FakeProber:
    """Implements `Prober`; every check has the outcome that was set last, by URL.

    A URL for which none was set does not answer: `http_error`.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """clock: tells when a check was made; by default a clock of its own."""
        self._clock = FakeClock() if clock is None else clock
        self._outcomes: dict[str, ProbeResult] = {}
        self.probed: list[tuple[str, int]] = []
        """The URL and pid of every check so far."""

    def set(self, url: str, *, healthy: bool, reason: str = "", status: int | None = None) -> None:
        """Sets the outcome of the checks of `url`.

        reason, status: by default http_ok and 200, or http_status and 503.
        """
        self._outcomes[url] = ProbeResult(
            healthy=healthy,
            probe="http",
            reason=reason or ("http_ok" if healthy else "http_status"),
            http_status=status or (200 if healthy else None if reason else 503),
            checked_at=self._clock.now(),
        )

    async def probe(self, probe: HttpProbe, *, pid: int) -> ProbeResult:
        """The outcome set for the probe's URL, checked now."""
        self.probed.append((probe.url, pid))
        now = self._clock.now()
        outcome = self._outcomes.get(probe.url)
        if outcome is None:
            return ProbeResult(healthy=False, probe="http", reason="http_error", checked_at=now)
        return replace(outcome, checked_at=now)

    async def aclose(self) -> None:
        """Without effect."""
