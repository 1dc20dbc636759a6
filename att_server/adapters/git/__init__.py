"""Git, as cycles use it: one hardened way to run it, and what is done with it."""

from att_server.adapters.git.checkout import inspect_checkout
from att_server.adapters.git.command import Git, GitSettings
from att_server.adapters.git.repository import GitRepository

__all__ = ["Git", "GitRepository", "GitSettings", "inspect_checkout"]
