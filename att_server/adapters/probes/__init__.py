"""Checks of apps from outside: one module a kind, and who owns a port."""

from att_server.adapters.probes.prober import SystemProber

__all__ = ["SystemProber"]
