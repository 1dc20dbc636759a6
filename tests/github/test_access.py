"""Git gets into repositories at GitHub over HTTPS with the token, and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from att_server.adapters.bootstrap_settings import TomlBootstrapSettings
from att_server.adapters.git import Git
from att_server.adapters.git.projects import GitRepositories
from att_server.adapters.github.access import GitHubAccess
from att_server.core.repository import RepositoryError, RepositoryFailure
from tests.contract.git_projects import git, project_at, settings
from tests.github.fake import TOKEN
from tests.github.hub import write_server_settings
from tests.github.tls import TlsServer

OWN = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[TlsServer]:
    with TlsServer(tmp_path) as server:
        server.status = 401
        yield server


async def asked(
    tmp_path: Path,
    host: TlsServer,
    url: str,
    *,
    api: str = "",
    token: str = TOKEN,
    trusted: bool = True,
) -> RepositoryError:
    """How git fails that looks at the remote. trusted: whatever git is told, by its host."""
    checkout, state = tmp_path / "checkout", tmp_path / "state"
    checkout.mkdir()
    state.mkdir(mode=0o700)
    git(checkout, "init", "-q", "-b", "main")
    git(checkout, "remote", "add", "origin", url)
    told = f"api_url = '{api or host.url}/api/v3'\nca_file = '{host.certificate}'"
    write_server_settings(state, f"[bootstrap.github]\n{told}\n")
    access = GitHubAccess(TomlBootstrapSettings(state), {"GITHUB_TOKEN": token})
    config = (("http.sslCAInfo", str(host.certificate)),) if trusted else ()
    repositories = GitRepositories(Git(settings(config=config)), state, access=access)
    repository = await repositories.of(project_at(checkout))
    with pytest.raises(RepositoryError) as caught:
        await repository.remote_branch("main")
    assert TOKEN not in caught.value.message
    assert OWN.split()[1] not in caught.value.message
    return caught.value


async def test_a_repository_of_the_host_is_asked_for_with_the_token(
    tmp_path: Path, host: TlsServer
) -> None:
    error = await asked(tmp_path, host, f"{host.url}/octo/app.git", trusted=False)
    assert host.seen[0]["authorization"] == OWN
    assert error.failure is RepositoryFailure.REMOTE_AUTHENTICATION


async def test_without_a_token_git_goes_without(tmp_path: Path, host: TlsServer) -> None:
    error = await asked(tmp_path, host, f"{host.url}/octo/app.git", token="")
    assert host.seen
    assert not any("authorization" in seen for seen in host.seen)
    assert error.failure is RepositoryFailure.REMOTE_AUTHENTICATION


async def test_another_host_gets_no_token(tmp_path: Path, host: TlsServer) -> None:
    await asked(tmp_path, host, f"{host.url}/octo/app.git", api="https://git.example.com")
    assert host.seen
    assert not any("authorization" in seen for seen in host.seen)


async def test_what_an_address_holds_is_used_instead(tmp_path: Path, host: TlsServer) -> None:
    access = GitHubAccess(TomlBootstrapSettings(tmp_path), {"GITHUB_TOKEN": TOKEN})
    assert await access("web", "https://person:own@github.com/octo/app.git") == ()
    assert await access("web", "ssh://git@github.com/octo/app.git") == ()
    assert await access("web", "git@github.com:octo/app.git") == ()
    assert await access("web", "/srv/git/app.git") == ()
    assert await access("web", "https://github.com/octo/app.git") != ()


async def test_a_redirect_does_not_take_the_token_along(tmp_path: Path, host: TlsServer) -> None:
    host.status = 302
    host.headers = {"Location": f"https://localhost:{host.port}/elsewhere/info/refs"}
    await asked(tmp_path, host, f"{host.url}/octo/app.git")
    assert host.seen[0]["authorization"] == OWN
    away = [seen for seen in host.seen if seen["host"].startswith("localhost")]
    assert away
    assert not any("authorization" in seen for seen in away)
