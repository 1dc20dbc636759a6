"""Who is let in: the parts of access control, wired, and checked before anything is begun."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import timedelta

from att_server.core.audit import AuditLog
from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.errors import AttError, RefusalReason, StartRefused
from att_server.core.identity import Caller, Role, TokenStore
from att_server.core.listeners import NetworkTerms
from att_server.core.ports import Clock, StateStore
from att_server.core.tokens import TokenManager
from att_server.rpc.access import Access
from att_server.rpc.auth import Authentication, Certificates
from att_server.rpc.limits import CallLimits, Limits
from att_server.rpc.tls import ServerTls

_ANONYMOUS = Caller(principal="loopback", role=Role.VIEWER)
_WARN_EVERY = timedelta(minutes=10)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessParts:
    """What decides on every call. tls: None without TLS."""

    access: Access
    audit: AuditLog
    tokens: TokenManager
    network: NetworkTerms
    tls: ServerTls | None
    clock: Clock

    @classmethod
    async def prepare(
        cls,
        *,
        store: StateStore,
        tokens: TokenStore,
        clock: Clock,
        stored: Bell,
        limits: Limits,
        network: NetworkTerms,
        certificates: Certificates | None,
    ) -> AccessParts:
        """The parts. certificates: knows those of clients; None: nobody has one that counts.

        Raises StartRefused for listeners whose terms do not hold.
        """
        manager = TokenManager(tokens=tokens, events=store, clock=clock)
        network.check(any_token=await manager.any_valid(), uid=os.geteuid())
        tls = None if network.tls is None else ServerTls(network.tls)
        if network.tls is None or network.tls.client_ca is None:
            certificates = None
        elif certificates is not None:
            try:
                await certificates.caller("")
            except AttError as error:
                raise StartRefused(RefusalReason.CONFIG_INVALID, error.message) from error
        audit = AuditLog(store=store, clock=clock, stored=stored)
        access = Access(
            authentication=Authentication(
                local=Caller(principal=f"local:{os.getuid()}", role=Role.OPERATOR),
                tokens=manager,
                certificates=certificates,
                anonymous=_ANONYMOUS if network.no_auth else None,
            ),
            limits=CallLimits(clock, limits),
            audit=audit,
        )
        return cls(
            access=access, audit=audit, tokens=manager, network=network, tls=tls, clock=clock
        )

    async def open(self, background: Background) -> None:
        """Ends what the server before has left open, and begins to store what comes."""
        await self.audit.open()
        background.start("audit", self.audit.run)
        background.start("uses of tokens", self.tokens.keep_uses)
        if self.network.no_auth and self.network.listeners:
            background.start("warning", self._warn)

    async def settle(self) -> None:
        """Stores what is due, as far as it can be."""
        await self.audit.settle()
        await self.tokens.flush_uses()

    async def _warn(self) -> None:
        while True:
            log.critical("every user of this host can read everything: --insecure-loopback-no-auth")
            await self.clock.sleep(_WARN_EVERY)
