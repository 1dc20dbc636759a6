"""SystemProber: checks of apps on this host."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from att_server.adapters.probes.command import check_command
from att_server.adapters.probes.endpoints import Endpoints, PortNotOwned
from att_server.adapters.probes.grpc import check_grpc
from att_server.adapters.probes.http import check_http
from att_server.adapters.probes.log import LogCheck
from att_server.adapters.probes.outcome import Outcome
from att_server.adapters.probes.tcp import check_tcp
from att_server.core.model import ProbeResult, ProbeTarget
from att_server.core.ports import Clock, CommandRunner, LogStore
from att_server.core.settings import (
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    Probe,
    ProbeKind,
    TcpProbe,
)

HEALTHY = frozenset({"http_ok", "tcp_ok", "command_ok", "grpc_serving", "log_matched"})

_NAMES: dict[type[ProbeKind], str] = {
    HttpProbe: "http",
    TcpProbe: "tcp",
    CommandProbe: "command",
    GrpcProbe: "grpc",
    LogProbe: "log",
}

log = logging.getLogger(__name__)


class SystemProber:
    """Implements `Prober`.

    A check has connections of its own, as a new client of the app would, uses no
    proxy, and ends them with its timeout: however many apps hang, each costs
    one descriptor and no thread.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        logs: LogStore,
        commands: CommandRunner,
        allowed_hosts: frozenset[str] = frozenset(),
    ) -> None:
        """allowed_hosts: what may be asked beside loopback addresses."""
        self._clock = clock
        self._commands = commands
        self._endpoints = Endpoints(allowed_hosts)
        self._log = LogCheck(logs)

    async def probe(self, probe: Probe, target: ProbeTarget) -> ProbeResult:
        """See `Prober`. The reason is one of those that `runtime.proto` lists for the kind."""
        name = _NAMES[type(probe.kind)]
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(probe.timeout.total_seconds()):
                outcome = await self._check(probe, target)
        except PortNotOwned:
            outcome = Outcome(reason="port_owned_by_other_process")
        except TimeoutError:
            outcome = Outcome(reason=f"{name}_timeout")
        except OSError as error:
            log.debug("%s of %s: %s", name, target.project_id, error)
            outcome = Outcome(reason=_without_answer(name))
        except Exception:
            # A check that always ends so must not end the probing of the app.
            log.exception("defect in a %s probe of %s", name, target.project_id)
            outcome = Outcome(reason=_without_answer(name))
        return ProbeResult(
            healthy=outcome.reason in HEALTHY,
            probe=name,
            reason=outcome.reason,
            checked_at=self._clock.now(),
            duration=timedelta(seconds=self._clock.monotonic() - began),
            exit_code=outcome.exit_code,
            http_status=outcome.http_status,
            command=probe.kind.command if isinstance(probe.kind, CommandProbe) else (),
        )

    async def aclose(self) -> None:
        """Ends what still looks. Without effect the second time."""
        await self._log.aclose()
        self._endpoints.close()

    async def _check(self, probe: Probe, target: ProbeTarget) -> Outcome:
        """Raises OSError where there is no answer, TimeoutError, PortNotOwned."""
        match probe.kind:
            case HttpProbe():
                return await check_http(probe.kind, target, self._endpoints)
            case TcpProbe():
                return await check_tcp(probe.kind, target, self._endpoints)
            case CommandProbe():
                return await check_command(probe.kind, target, self._commands, probe.timeout)
            case GrpcProbe():
                return await check_grpc(probe.kind, target, self._endpoints)
            case LogProbe():
                return await self._log.check(probe.kind, target)


def _without_answer(name: str) -> str:
    return "log_not_matched" if name == "log" else f"{name}_error"
