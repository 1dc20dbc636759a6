"""The token for GitHub: read at each use where the settings point to, and kept nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from att_server.adapters.regular_file import NotReadable, read_own_file
from att_server.core.cycles.forge import ForgeUnavailable
from att_server.core.cycles.settings import GitHubSettings

MAX_TOKEN_BYTES = 4096


def read_token(settings: GitHubSettings, environ: Mapping[str, str]) -> str:
    """The token. environ: of the server. Raises ForgeUnavailable, which never holds any of it."""
    if settings.token_file:
        where = f"the file {settings.token_file}"
        token = _of_file(Path(settings.token_file))
    else:
        where = f"the variable {settings.token_env} of the server's environment"
        token = environ.get(settings.token_env, "").strip()
    if not token:
        raise ForgeUnavailable(
            "token_missing",
            f"There is no token for GitHub in {where}. Start the server with one, or name a file "
            "with token_file in [bootstrap.github] of its settings.toml.",
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ForgeUnavailable("token_unreadable", f"What is in {where} is no token of GitHub's.")
    return token


def _of_file(path: Path) -> str:
    try:
        return read_own_file(path, max_bytes=MAX_TOKEN_BYTES).decode("ascii").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except NotReadable as error:
        problem = str(error)
    except UnicodeDecodeError:
        problem = "holds no token of GitHub's"
    raise ForgeUnavailable("token_unreadable", f"The token's file {path} {problem}.")
