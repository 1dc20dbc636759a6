"""TomlIdentities: who calls with which certificate, by the server's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from att_server.adapters.server_settings import ServerSetting
from att_server.core.identity import Caller
from att_server.core.ports import Clock

if TYPE_CHECKING:
    from att_server.adapters.identity_schema import Identity


class TomlIdentities:
    """The tables `[identities."URI"]` of `settings.toml` in the state directory."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        none: Mapping[str, Identity] = {}
        self._identities = ServerSetting(state_dir, clock, _parsed, none)

    async def caller(self, uri: str) -> Caller | None:
        """Who calls with the certificate of exactly this URI; None: nobody that is known.

        Raises SETTINGS_INVALID with path, line and key.
        """
        identity = (await self._identities.value()).get(uri)
        if identity is None:
            return None
        return Caller(
            principal=f"token:{identity.owner}" if identity.owner else f"cert:{uri}",
            role=identity.role,
            projects=None if identity.projects is None else frozenset(identity.projects),
        )


def _parsed(document: Mapping[str, Any]) -> Mapping[str, Identity]:
    from att_server.adapters import identity_schema

    return identity_schema.identities(document)
