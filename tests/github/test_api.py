"""GitHub's refusals, limits and outages: each has a reason of its own, and no token gets out."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.github.access import name_of_remote
from att_server.adapters.github.api import MAX_ANSWER_BYTES, GitHubApi
from att_server.adapters.github.repository import GitHubRepository
from att_server.core.cycles.forge import ForgeError, ForgeRefused, ForgeUnavailable
from att_server.core.cycles.settings import GitHubSettings
from att_server.testing import FakeClock
from tests.contract.git_projects import import_commit
from tests.github.fake import DIES_BEFORE, NAME, TOKEN, FakeGitHub, Fault, Run
from tests.github.tls import TlsServer


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("remote")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", directory], check=True)
    return directory


@pytest.fixture
def fake(remote: Path) -> Iterator[FakeGitHub]:
    with FakeGitHub(remote) as github:
        yield github
        assert github.wrong == []


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def repository(fake: FakeGitHub, clock: FakeClock) -> AsyncIterator[GitHubRepository]:
    api = GitHubApi(clock=clock, environ={"GITHUB_TOKEN": TOKEN})
    yield GitHubRepository(api, GitHubSettings(api_url=fake.url), NAME)
    await api.aclose()


async def error_of(repository: GitHubRepository) -> ForgeError:
    with pytest.raises(ForgeError) as caught:
        await repository.facts()
    assert TOKEN not in str(caught.value)
    return caught.value


# Refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        (Fault(status=401, body={"message": "Bad credentials"}), ForgeUnavailable, "token_refused"),
        (Fault(status=403, body={"message": "No"}), ForgeUnavailable, "token_lacks_permission"),
        (Fault(status=404, body={"message": "No"}), ForgeUnavailable, "repository_not_found"),
        (Fault(status=422, body={"message": "Invalid"}), ForgeRefused, "request_refused"),
        (Fault(status=451, body={"message": "Blocked"}), ForgeRefused, "request_refused"),
        (Fault(status=500, body={"message": "Oops"}), ForgeUnavailable, "forge_failed"),
        (Fault(status=502), ForgeUnavailable, "forge_failed"),
        (Fault(status=503, body=["odd"]), ForgeUnavailable, "forge_failed"),
        (Fault(status=200, body="a page"), ForgeUnavailable, "answer_unreadable"),
        (Fault(status=200, body={"full_name": 7}), ForgeUnavailable, "answer_unreadable"),
        (Fault(status=200), ForgeUnavailable, "answer_unreadable"),
        (Fault(status=200, body=["x" * MAX_ANSWER_BYTES]), ForgeUnavailable, "answer_unreadable"),
        (DIES_BEFORE, ForgeUnavailable, "forge_unreachable"),
    ],
)  # fmt: skip
async def test_every_failure_has_its_reason(
    fake: FakeGitHub,
    repository: GitHubRepository,
    fault: Fault,
    kind: type[ForgeError],
    reason: str,
) -> None:
    fake.fails("GET", NAME, fault)
    error = await error_of(repository)
    assert (type(error), error.reason) == (kind, reason)
    assert (await repository.facts()).full_name == NAME  # nothing of it stays


async def test_a_missing_permission_is_named(
    fake: FakeGitHub, repository: GitHubRepository
) -> None:
    headers = {"X-Accepted-GitHub-Permissions": "pull_requests=write"}
    fake.fails("GET", NAME, Fault(status=403, headers=headers, body={"message": "No"}))
    assert "pull_requests=write" in (await error_of(repository)).message


async def test_a_repository_that_was_renamed_is_named_as_it_is_now(
    fake: FakeGitHub, repository: GitHubRepository
) -> None:
    fake.moved_to = "octo/renamed"
    error = await error_of(repository)
    assert error.reason == "repository_renamed"
    assert "octo/renamed" in error.message


async def test_a_redirect_to_another_host_is_not_followed(
    fake: FakeGitHub, repository: GitHubRepository, remote: Path
) -> None:
    with FakeGitHub(remote) as other:
        fake.fails(
            "GET", NAME, Fault(status=302, headers={"Location": f"{other.url}/repos/{NAME}"})
        )
        assert (await error_of(repository)).reason == "redirect_off_host"
        assert other.seen == []


async def test_a_server_that_is_not_there_is_unreachable(repository: GitHubRepository) -> None:
    api = GitHubApi(clock=FakeClock(), environ={"GITHUB_TOKEN": TOKEN})
    nobody = GitHubSettings(api_url="http://127.0.0.1:1")
    assert (await error_of(GitHubRepository(api, nobody, NAME))).reason == "forge_unreachable"
    await api.aclose()


async def test_no_proxy_of_the_environment_is_given_the_token(
    repository: GitHubRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment names for other programs, nobody has named for this."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert (await repository.facts()).full_name == NAME


# Limits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Fault(status=429, headers={"Retry-After": "90"}, body={"message": "Slow down"}), 90),
        (Fault(status=403, headers={"Retry-After": "7"}, body={"message": "Slow down"}), 7),
        (Fault(status=403, body={"message": "You have exceeded a secondary rate limit"}), 60),
        (Fault(status=429, body={"message": "Too many"}), 60),
        (
            Fault(
                status=403,
                headers={
                    "X-RateLimit-Remaining": "0",
                    "X-RateLimit-Reset": "1700000120",
                    # The client's own clock is years away.
                    "Date": "Tue, 14 Nov 2023 22:13:20 GMT",
                },
                body={"message": "API rate limit exceeded"},
            ),
            120,
        ),
        (Fault(status=429, headers={"Retry-After": "999999999"}, body={"message": "x"}), 3600),
        (Fault(status=429, headers={"Retry-After": "0"}, body={"message": "x"}), 1),
    ],
)
async def test_a_limit_is_kept_to_without_another_request(
    fake: FakeGitHub, repository: GitHubRepository, clock: FakeClock, fault: Fault, seconds: int
) -> None:
    fake.fails("GET", NAME, fault)
    for _ in range(3):
        error = await error_of(repository)
        assert (type(error), error.reason) == (ForgeUnavailable, "rate_limited")
    clock.advance(timedelta(seconds=seconds - 0.5))
    assert (await error_of(repository)).reason == "rate_limited"
    assert fake.count("GET", NAME) == 1
    clock.advance(timedelta(seconds=1))
    assert (await repository.facts()).full_name == NAME


# The token ------------------------------------------------------------------------


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


async def test_a_token_comes_from_a_file_and_is_read_anew(
    fake: FakeGitHub, clock: FakeClock, token_file: Path
) -> None:
    api = GitHubApi(clock=clock, environ={})
    settings = GitHubSettings(api_url=fake.url, token_file=str(token_file))
    repository = GitHubRepository(api, settings, NAME)
    assert (await repository.facts()).full_name == NAME
    token_file.write_text("another")
    assert (await error_of(repository)).reason == "token_refused"
    token_file.write_text(TOKEN)
    assert (await repository.facts()).full_name == NAME
    token_file.unlink()
    assert (await error_of(repository)).reason == "token_missing"
    await api.aclose()


@pytest.mark.parametrize("content", ["", "  \n", "two words", "schl\u00fcssel", "a\nb", "\x00"])
async def test_what_is_no_token_is_refused_before_anything_is_sent(
    fake: FakeGitHub, clock: FakeClock, token_file: Path, content: str
) -> None:
    token_file.write_text(content)
    api = GitHubApi(clock=clock, environ={})
    settings = GitHubSettings(api_url=fake.url, token_file=str(token_file))
    error = await error_of(GitHubRepository(api, settings, NAME))
    assert error.reason == ("token_unreadable" if content.strip() else "token_missing")
    assert fake.seen == []
    await api.aclose()


@pytest.mark.parametrize("mode", [0o640, 0o604])
async def test_a_file_that_others_may_read_is_not_taken(
    fake: FakeGitHub, clock: FakeClock, token_file: Path, mode: int
) -> None:
    token_file.chmod(mode)
    api = GitHubApi(clock=clock, environ={})
    settings = GitHubSettings(api_url=fake.url, token_file=str(token_file))
    assert (await error_of(GitHubRepository(api, settings, NAME))).reason == "token_unreadable"
    await api.aclose()


async def test_the_variable_is_the_one_that_settings_name(
    fake: FakeGitHub, clock: FakeClock
) -> None:
    api = GitHubApi(clock=clock, environ={"OTHER": TOKEN, "GITHUB_TOKEN": "wrong"})
    settings = GitHubSettings(api_url=fake.url, token_env="OTHER")
    assert (await GitHubRepository(api, settings, NAME).facts()).full_name == NAME
    gone = replace(settings, token_env="ABSENT")
    assert (await error_of(GitHubRepository(api, gone, NAME))).reason == "token_missing"
    await api.aclose()


# TLS ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    with TlsServer(tmp_path_factory.mktemp("tls")) as server:
        yield server


async def test_a_certificate_that_nobody_knows_is_refused_unless_it_is_named(
    clock: FakeClock, tls: TlsServer, tmp_path: Path
) -> None:
    api = GitHubApi(clock=clock, environ={"GITHUB_TOKEN": TOKEN})
    settings = GitHubSettings(api_url=tls.url)
    error = await error_of(GitHubRepository(api, settings, NAME))
    assert (type(error), error.reason) == (ForgeUnavailable, "tls_failed")
    known = replace(settings, ca_file=str(tls.certificate))
    assert (await GitHubRepository(api, known, NAME).facts()).full_name == NAME
    missing = replace(settings, ca_file=str(tmp_path / "none"))
    assert (await error_of(GitHubRepository(api, missing, NAME))).reason == "ca_file_unreadable"
    await api.aclose()


# Lists and rules -------------------------------------------------------------------


async def test_all_pages_of_checks_are_read(
    fake: FakeGitHub, repository: GitHubRepository, remote: Path
) -> None:
    commit = import_commit(remote, {"app.py": b"1"}, branch="x", message="x")
    fake.runs = lambda _: [Run(name=f"check {number}") for number in range(250)]
    fake.statuses = lambda _: [(f"context {number}", "success") for number in range(101)]
    assert len(await repository.check_runs(commit)) == 250
    assert len(await repository.statuses(commit)) == 101
    assert fake.count("GET", "/check-runs") == 3
    assert await repository.check_runs("f" * 40) == []  # not seen yet


async def test_rules_and_protection_both_require(
    fake: FakeGitHub, repository: GitHubRepository
) -> None:
    fake.rules = [
        {"type": "deletion", "ruleset_id": 1, "ruleset_source": "octo/app"},
        {
            "type": "required_status_checks",
            "parameters": {
                "required_status_checks": [{"context": "build", "integration_id": 7}],
                "strict_required_status_checks_policy": True,
            },
        },
    ]
    found = await repository.rules("main")
    assert [(check.context, check.app_id) for check in found.required] == [("build", 7)]
    assert not found.merge_queue


async def test_a_plan_without_rules_has_none_and_a_token_without_rights_does_not_open_the_gate(
    fake: FakeGitHub, repository: GitHubRepository
) -> None:
    upgrade = {"message": "Upgrade to GitHub Pro or make this repository public"}
    fake.fails("GET", "/rules/branches/main", Fault(status=403, body=upgrade))
    assert (await repository.rules("main")).required == ()
    fake.fails("GET", "/rules/branches/main", Fault(status=403, body={"message": "Forbidden"}))
    with pytest.raises(ForgeUnavailable) as caught:
        await repository.rules("main")
    assert caught.value.reason == "token_lacks_permission"


# Names of remotes -----------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/octo/app.git",
        "https://github.com/octo/app/",
        "https://somebody:secret@GitHub.com/octo/app",
        "ssh://git@github.com/octo/app.git",
        "ssh://git@ssh.github.com:443/octo/app.git",
        "git@github.com:octo/app.git",
        "github.com:octo/app",
    ],
)
def test_the_repository_is_named_by_the_address_of_the_remote(url: str) -> None:
    assert name_of_remote(url, "https://api.github.com") == "octo/app"


@pytest.mark.parametrize(
    "url",
    [
        "/srv/git/app.git",
        "https://gitlab.com/octo/app.git",
        "https://github.com.evil.example/octo/app.git",
        "git@github.com:octo/app/more.git",
        "https://github.com/app.git",
        "https://github.com/",
        "git@example.com:octo/app.git",
    ],
)
def test_an_address_that_is_not_at_github_names_none(url: str) -> None:
    assert name_of_remote(url, "https://api.github.com") is None


def test_a_server_of_ones_own_names_its_repositories() -> None:
    own = "https://git.example.com/api/v3"
    assert name_of_remote("git@git.example.com:octo/app.git", own) == "octo/app"
    assert name_of_remote("git@github.com:octo/app.git", own) is None
    assert name_of_remote("https://x.ghe.com/octo/app", "https://api.x.ghe.com") == "octo/app"
