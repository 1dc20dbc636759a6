"""ServerDocument: the keys of `settings.toml`, for all who read one of them.

A slip in a name is told to each: it would open what the key was to close.
"""

from __future__ import annotations

from att_server.adapters.toml_forms import Table


class ServerDocument(Table):
    """The whole file; whoever reads a key says of what form it is."""

    identities: object = None
    project_roots: object = None
    run_as_users: object = None
    bootstrap: object = None
    projects: object = None
