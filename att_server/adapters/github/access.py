"""Which repository a remote is, and how git gets into it with the token of the API."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from att_server.adapters.git.remotes import GitConfig
from att_server.adapters.github.token import read_token
from att_server.core.cycles.forge import ForgeUnavailable
from att_server.core.cycles.settings import BootstrapSettingsReader
from att_server.core.errors import AttError

_OF_GITHUB = frozenset({"github.com", "www.github.com", "ssh.github.com"})
_NAME = r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+"
_SCP_LIKE = re.compile(r"(?:[^@/]*@)?(?P<host>[^:/]+):/?(?P<path>.*)")


def name_of_remote(url: str, api_url: str) -> str | None:
    """`owner/name` of a remote's address; None if the API at `api_url` does not serve its host."""
    if "://" in url:
        parts = urlsplit(url)
        host, path = parts.hostname or "", parts.path
    elif scp := _SCP_LIKE.fullmatch(url):
        host, path = scp["host"], scp["path"]
    else:
        return None
    api = (urlsplit(api_url).hostname or "").lower()
    host = host.lower()
    served = host == api or f"api.{host}" == api
    if not (served or (host in _OF_GITHUB and api == "api.github.com")):
        return None
    name = path.strip("/").removesuffix(".git")
    return name if re.fullmatch(_NAME, name) else None


class GitHubAccess:
    """Has git use the token for remotes over HTTPS at the host that the API serves.

    Which token, the server's own settings say, as they are at each command. An address
    that holds a name or password is left to them; without a token, git goes without.
    """

    def __init__(self, settings: BootstrapSettingsReader, environ: Mapping[str, str]) -> None:
        """environ: of the server, where tokens may be."""
        self._settings = settings
        self._environ = environ

    async def __call__(self, project_id: str, url: str) -> GitConfig:
        """What git is told, through its environment alone."""
        parts = urlsplit(url)
        if parts.scheme != "https" or "@" in parts.netloc:
            return ()
        try:
            # Where tokens are, the base has no say in.
            github = (await self._settings.at_base(project_id, None)).github
            if name_of_remote(url, github.api_url) is None:
                return ()
            token = read_token(github, self._environ)
        except (AttError, ForgeUnavailable):
            return ()
        secret = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        place = f"http.https://{parts.netloc}/"
        told = [(f"{place}.extraHeader", f"Authorization: Basic {secret}")]
        if github.ca_file:
            told.append((f"{place}.sslCAInfo", github.ca_file))
        return told
