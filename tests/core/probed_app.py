"""What tests of health share: probes, settings, and rounds of checks on a fake clock."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from att_server.core.errors import AttError
from att_server.core.model import ProbeResult, RuntimeState
from att_server.core.settings import (
    HttpProbe,
    LogProbe,
    Probe,
    ProbeKind,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)
from tests.core.fake_server import Server

READY = HttpProbe(url="http://127.0.0.1:9/ready")
LIVE = TcpProbe(port=9)
LINE = LogProbe(pattern="listening")
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def settings(
    *,
    readiness: Probe | None = None,
    liveness: Probe | None = None,
    restart: RestartCondition | None = None,
) -> RuntimeSettings:
    return RuntimeSettings(
        command=("serve",),
        readiness=readiness,
        liveness=liveness,
        restart=None if restart is None else RestartPolicy(condition=restart, max_restarts=2),
    )


def ready_probe(
    kind: ProbeKind = READY, *, threshold: int | None = None, deadline: timedelta | None = None
) -> Probe:
    return Probe(kind=kind, threshold=threshold, deadline=deadline)


async def pass_rounds(server: Server, rounds: int = 1, *, probes: int = 1) -> None:
    """Lets every probe of the app check `rounds` times."""
    for _ in range(rounds):
        await server.clock.wait_for_sleepers(probes)
        server.clock.advance(SECOND)
        await server.clock.wait_for_sleepers(probes)


def health(server: Server) -> ProbeResult:
    found = server.runtimes.get("web").health
    assert found is not None
    return found


def state(server: Server) -> RuntimeState:
    return server.runtimes.get("web").state


def reason(server: Server) -> str:
    status = server.runtimes.get("web").status
    assert status is not None
    return status.reason


async def refusal(call: asyncio.Task[object]) -> AttError:
    with pytest.raises(AttError) as refused:
        await call
    return refused.value
