"""What `[bootstrap]` may say in `att.toml` and in the server's own file, and which of them wins."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from att_server.adapters.bootstrap_settings import TomlBootstrapSettings
from att_server.core.cycles.in_force import with_request
from att_server.core.cycles.model import CycleRequest
from att_server.core.cycles.settings import (
    ApprovalSettings,
    BootstrapSettings,
    BootstrapSettingsReader,
    CiSettings,
    ExternalSettings,
    ForgeKind,
    GitHubSettings,
    ReleaseSettings,
    TestSettings,
)
from att_server.core.cycles.settings_rules import request_violations
from att_server.core.errors import AttError, Reason
from att_server.core.releases import Retention
from att_server.core.repository import MergeMethod
from att_server.core.rollback_policy import RollbackSettings
from att_server.core.settings import CommandProbe, HttpProbe, Probe, TcpProbe
from att_server.testing.settings import FakeBootstrapSettings

PAGE = (Path(__file__).parents[2] / "docs" / "att-toml.md").read_text()
NOWHERE: frozenset[str] = frozenset()
SECOND, MINUTE, HOUR, DAY = (
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)

EVERY_KEY = """
[runtime]
command = ["python", "app.py"]
[notify]
command = ["tell"]
[log]
max_age = "7d"

[bootstrap]
base_branch = "trunk"
create_pr = false
auto_merge_on_ci_success = false
merge_method = "squash"
restart_watchdog_retries = 5
restart_watchdog_interval = "250ms"
health_check = { http = "http://127.0.0.1:8000/health", timeout = "1s" }
health_check_retries = 4
health_check_interval = "2s"
health_timeout = "1m"
bake_time = "5m"
hold_timeout = "2h"
step_timeout = "3m"

[bootstrap.test]
command = ["pytest", "-q"]
timeout = "20m"
env = { CI = "1" }
junit = "build/junit.xml"

[bootstrap.ci]
command = ["./ci.sh"]
timeout = "30m"
initial_poll = "1s"
max_poll = "10s"
env = { STRICT = "yes" }

[bootstrap.approval]
required = true
timeout = "12h"
protected_paths = ["migrations/**", "*.lock"]

[bootstrap.rollback]
on_deploy_failure = true
on_restart_watchdog_failure = false
on_health_failure = false
allow_unproven_target = true
max_attempts = 1
window = "7d"

[bootstrap.release]
build = ["make", "release"]
build_timeout = "15m"
env = { MODE = "release" }
shared = ["data", "var/cache"]
keep_good = 7
keep_bad = 2
tries = 2
data_version = 4
min_data_version = 3
metadata_command = ["./metadata"]

[bootstrap.external]
deploy_command = ["./deploy"]
rollback_command = ["./rollback"]
rollback_arguments = 2
timeout = "5m"
"""

AT_GITHUB = """
[bootstrap]
forge = "github"
[bootstrap.github]
repository = "octo/app"
required_checks = ["test", "lint / python 3.11"]
"""

AT_GITHUB_SERVER = """
[bootstrap.github]
api_url = "https://git.example.com/api/v3"
token_env = "FORGE_TOKEN"
token_file = "/etc/att/token"
ca_file = "/etc/att/ca.pem"
"""

ALL = BootstrapSettings(
    base_branch="trunk",
    create_pr=False,
    auto_merge_on_ci_success=False,
    merge_method=MergeMethod.SQUASH,
    restart_watchdog_retries=5,
    restart_watchdog_interval=timedelta(milliseconds=250),
    health_check=Probe(kind=HttpProbe(url="http://127.0.0.1:8000/health"), timeout=SECOND),
    health_check_retries=4,
    health_check_interval=2 * SECOND,
    health_timeout=MINUTE,
    bake_time=5 * MINUTE,
    hold_timeout=2 * HOUR,
    step_timeout=3 * MINUTE,
    test=TestSettings(
        command=("pytest", "-q"), timeout=20 * MINUTE, env={"CI": "1"}, junit="build/junit.xml"
    ),
    ci=CiSettings(
        command=("./ci.sh",),
        timeout=30 * MINUTE,
        initial_poll=SECOND,
        max_poll=10 * SECOND,
        env={"STRICT": "yes"},
    ),
    approval=ApprovalSettings(
        required=True, timeout=12 * HOUR, protected_paths=("migrations/**", "*.lock")
    ),
    rollback=RollbackSettings(
        on_deploy_failure=True,
        on_restart_watchdog_failure=False,
        on_health_failure=False,
        allow_unproven_target=True,
        max_attempts=1,
        window=7 * DAY,
    ),
    release=ReleaseSettings(
        build=("make", "release"),
        build_timeout=15 * MINUTE,
        env={"MODE": "release"},
        shared=("data", "var/cache"),
        retention=Retention(good=7, bad=2),
        tries=2,
        data_version=4,
        min_data_version=3,
        metadata_command=("./metadata",),
    ),
    external=ExternalSettings(
        deploy_command=("./deploy",),
        rollback_command=("./rollback",),
        rollback_arguments=2,
        timeout=5 * MINUTE,
    ),
)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path


async def read(
    state_dir: Path,
    base: str | bytes | None = None,
    *,
    server: str | None = None,
    project_id: str = "web",
    allowed_hosts: frozenset[str] = NOWHERE,
) -> BootstrapSettings:
    path = state_dir / "settings.toml"
    if server is not None:
        path.write_text(server)
        path.chmod(0o600)
    reader: BootstrapSettingsReader = TomlBootstrapSettings(state_dir, allowed_hosts=allowed_hosts)
    return await reader.at_base(project_id, base.encode() if isinstance(base, str) else base)


async def refusal(state_dir: Path, base: str | bytes | None = None, **given: Any) -> AttError:
    with pytest.raises(AttError) as error:
        await read(state_dir, base, **given)
    assert error.value.reason is Reason.SETTINGS_INVALID
    return error.value


# What is read -----------------------------------------------------------------


async def test_every_key_is_read(state_dir: Path) -> None:
    assert await read(state_dir, EVERY_KEY) == ALL
    found = await read(state_dir, AT_GITHUB, server=AT_GITHUB_SERVER)
    assert found == ALL_AT_GITHUB


def test_the_example_leaves_no_setting_at_its_default() -> None:
    """So that a setting that is added has to be added to the tests and to the page."""
    both = [unchanged(each, BootstrapSettings()) for each in (ALL, ALL_AT_GITHUB)]
    assert set(both[0]) & set(both[1]) == set()


ALL_AT_GITHUB = BootstrapSettings(
    forge=ForgeKind.GITHUB,
    github=GitHubSettings(
        repository="octo/app",
        required_checks=("test", "lint / python 3.11"),
        api_url="https://git.example.com/api/v3",
        token_env="FORGE_TOKEN",
        token_file="/etc/att/token",
        ca_file="/etc/att/ca.pem",
    ),
)


def unchanged(value: Any, default: Any, path: str = "") -> Iterator[str]:
    for field in fields(value):
        mine, its = getattr(value, field.name), getattr(default, field.name)
        if is_dataclass(its):
            yield from unchanged(mine, its, f"{path}{field.name}.")
        elif mine == its:
            yield f"{path}{field.name}"


@pytest.mark.parametrize("base", [None, b"", b"[runtime]\ncommand = ['x']", b"[bootstrap]"])
async def test_without_settings_the_defaults_hold(state_dir: Path, base: bytes | None) -> None:
    assert await read(state_dir, base) == BootstrapSettings()


@pytest.mark.parametrize("method", list(MergeMethod))
async def test_a_merge_method_is_read_by_its_name(state_dir: Path, method: MergeMethod) -> None:
    settings = await read(state_dir, f"bootstrap.merge_method = '{method.value}'")
    assert settings.merge_method is method


# Who wins ---------------------------------------------------------------------


async def test_the_server_wins_over_the_base_key_by_key_and_the_project_over_both(
    state_dir: Path,
) -> None:
    base = """
        [bootstrap]
        bake_time = "1s"
        hold_timeout = "1s"
        step_timeout = "1s"
        health_check = { tcp = 80 }
        [bootstrap.test]
        command = ["true"]
        env = { A = "base", B = "base", C = "base" }
        [bootstrap.approval]
        protected_paths = ["a"]
    """
    server = """
        [bootstrap]
        hold_timeout = "2s"
        step_timeout = "2s"
        [bootstrap.test]
        env = { B = "server", C = "server" }
        [bootstrap.approval]
        protected_paths = ["b"]
        [projects.web.bootstrap]
        step_timeout = "3s"
        health_check = { command = ["check"] }
        [projects.web.bootstrap.test]
        env = { C = "project" }
        [projects.web.bootstrap.approval]
        required = true
        [projects.other.bootstrap]
        bake_time = "9s"
    """
    settings = await read(state_dir, base, server=server)
    assert settings == BootstrapSettings(
        bake_time=SECOND,
        hold_timeout=2 * SECOND,
        step_timeout=3 * SECOND,
        health_check=Probe(kind=CommandProbe(command=("check",))),
        test=TestSettings(command=("true",), env={"A": "base", "B": "server", "C": "project"}),
        approval=ApprovalSettings(required=True, protected_paths=("b",)),
    )
    other = await read(state_dir, base, project_id="other")
    assert (other.bake_time, other.step_timeout) == (9 * SECOND, 2 * SECOND)
    assert other.health_check == Probe(kind=TcpProbe(port=80))


async def test_the_server_alone_can_take_a_gate_away(state_dir: Path) -> None:
    base = "bootstrap.approval.required = true\nbootstrap.test.command = ['false']"
    server = "[projects.web.bootstrap]\napproval.required = false\ntest.command = []"
    settings = await read(state_dir, base, server=server)
    assert not settings.approval.required
    assert settings.test.command == ()


async def test_the_servers_file_is_read_anew_on_each_call(state_dir: Path) -> None:
    for seconds in (1, 2):
        settings = await read(state_dir, server=f"bootstrap.bake_time = '{seconds}s'")
        assert settings.bake_time == timedelta(seconds=seconds)
    (state_dir / "settings.toml").unlink()
    assert await read(state_dir) == BootstrapSettings()


# What is refused --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "rule"),
    [
        ("[bootstrp]", "bootstrp", "is unknown; is 'bootstrap' meant?"),
        ("[bootstrap]\nbake = '1s'", "bootstrap.bake", "is unknown; is 'bake_time' meant?"),
        (
            "[bootstrap.tests]",
            "bootstrap.tests",
            "is unknown; is 'test' meant?",
        ),
        (
            "[bootstrap.test]\ncomand = ['x']",
            "bootstrap.test.comand",
            "is unknown; is 'command' meant?",
        ),
        ("[bootstrap.release]\nretention = 3", "bootstrap.release.retention", "is unknown"),
        (
            "[bootstrap.health_check]\ntcp = 80\ninterval = '1s'",
            "bootstrap.health_check.interval",
            "is unknown",
        ),
        ("bootstrap = 3", "bootstrap", "is not a table"),
        ("bootstrap.ci = 3", "bootstrap.ci", "is not a table"),
        ("bootstrap.health_check = {}", "bootstrap.health_check", "must say what to check"),
        ("bootstrap.create_pr = 1", "bootstrap.create_pr", "should be a valid boolean"),
        ("bootstrap.test.command = 'pytest'", "bootstrap.test.command", "is not an array"),
        ("bootstrap.test.env.A = 1", "bootstrap.test.env.A", "should be a valid string"),
        ("bootstrap.ci.timeout = 10", "bootstrap.ci.timeout", "is not a duration"),
        ("bootstrap.merge_method = 'sqash'", "bootstrap.merge_method", "is 'squash' meant?"),
        ("bootstrap.forge = 'gitub'", "bootstrap.forge", "is 'github' meant?"),
        ("bootstrap.github.repository = 'app'", "bootstrap.github.repository", "owner and name"),
        ("bootstrap.github.repository = 'a/..'", "bootstrap.github.repository", "owner and name"),
        (
            "bootstrap.github.required_checks = ['ok', ' no']",
            "bootstrap.github.required_checks.1",
            "must be a check's name",
        ),
        ("bootstrap.base_branch = '-x'", "bootstrap.base_branch", "begins with a hyphen"),
        ("bootstrap.base_branch = ''", "bootstrap.base_branch", "is empty"),
        (
            "bootstrap.restart_watchdog_retries = 0",
            "bootstrap.restart_watchdog_retries",
            "must be 1 to 1,000",
        ),
        (
            "bootstrap.health_check_retries = 1001",
            "bootstrap.health_check_retries",
            "must be 1 to 1,000",
        ),
        (
            "bootstrap.restart_watchdog_interval = '9ms'",
            "bootstrap.restart_watchdog_interval",
            "must be 10ms to 1d",
        ),
        (
            "bootstrap.health_check_interval = '0s'",
            "bootstrap.health_check_interval",
            "must be 10ms to 1d",
        ),
        ("bootstrap.bake_time = '25h'", "bootstrap.bake_time", "must be 0s to 1d"),
        ("bootstrap.health_timeout = '0s'", "bootstrap.health_timeout", "must be 10ms to 1d"),
        ("bootstrap.hold_timeout = '31d'", "bootstrap.hold_timeout", "must be 10ms to 30d"),
        ("bootstrap.step_timeout = '0s'", "bootstrap.step_timeout", "must be 10ms to 1d"),
        ("bootstrap.test.timeout = '0s'", "bootstrap.test.timeout", "must be 10ms to 1d"),
        ("bootstrap.test.command = ['']", "bootstrap.test.command.0", "must name a program"),
        ("bootstrap.test.env.ATT_X = ''", "bootstrap.test.env.ATT_X", "begins with ATT_"),
        ("bootstrap.test.junit = '../x.xml'", "bootstrap.test.junit", "has a part . or .."),
        ("bootstrap.test.junit = '.GIT/x'", "bootstrap.test.junit", "takes for .git"),
        (
            "bootstrap.test = {command = ['t', '--x={junit}'], junit = 'a.xml'}",
            "bootstrap.test.junit",
            "must not be given where the command has {junit}",
        ),
        ("bootstrap.ci.initial_poll = '1ms'", "bootstrap.ci.initial_poll", "must be 10ms to 1d"),
        ("bootstrap.ci.max_poll = '2d'", "bootstrap.ci.max_poll", "must be 10ms to 1d"),
        ("bootstrap.approval.timeout = '1ms'", "bootstrap.approval.timeout", "must be 1s to 30d"),
        (
            "bootstrap.approval.protected_paths = ['ok', '/etc/*']",
            "bootstrap.approval.protected_paths.1",
            "must be against the top of the tree",
        ),
        (
            "bootstrap.approval.protected_paths = ['a**']",
            "bootstrap.approval.protected_paths.0",
            "must have ** as a whole part only",
        ),
        ("bootstrap.rollback.max_attempts = 0", "bootstrap.rollback.max_attempts", "must be 1 to"),
        ("bootstrap.rollback.window = '366d'", "bootstrap.rollback.window", "must be 1s to 365d"),
        ("bootstrap.release.keep_good = 0", "bootstrap.release.keep_good", "must be 1 to 1,000"),
        ("bootstrap.release.keep_bad = 1001", "bootstrap.release.keep_bad", "must be 1 to 1,000"),
        ("bootstrap.release.tries = 0", "bootstrap.release.tries", "must be 1 to 100"),
        ("bootstrap.release.shared = ['/x']", "bootstrap.release.shared.0", "is absolute"),
        ("bootstrap.release.shared = ['a', 'a']", "bootstrap.release.shared.1", "is given twice"),
        (
            "bootstrap.release.shared = ['a/b', 'a']",
            "bootstrap.release.shared.0",
            "lies below another one",
        ),
        (
            "bootstrap.release.min_data_version = 1",
            "bootstrap.release.min_data_version",
            "must not be above data_version",
        ),
        (
            "bootstrap.external.rollback_arguments = 4",
            "bootstrap.external.rollback_arguments",
            "must be 2 to 3",
        ),
        (
            "bootstrap.health_check.http = 'http://169.254.169.254/'",
            "bootstrap.health_check.http",
            "must name localhost",
        ),
        (
            "bootstrap.health_check = {grpc = 'localhost:1', service = \"a\\nb\"}",
            "bootstrap.health_check.service",
            "printable characters",
        ),
    ],
)
async def test_a_mistake_names_its_key_wherever_it_is(
    state_dir: Path, text: str, key: str, rule: str
) -> None:
    error = await refusal(state_dir, f"# one\n{text}")
    assert error.metadata["path"] == "att.toml"
    assert error.metadata["key"] == key
    assert int(error.metadata["line"]) == text.count("\n") + 2
    assert rule in error.message
    server = text.replace("bootstrap.", "projects.web.bootstrap.").replace(
        "[bootstrap]", "[projects.web.bootstrap]"
    )
    if server == text:
        return
    error = await refusal(state_dir, server=server)
    assert error.metadata["path"] == str(state_dir / "settings.toml")
    assert error.metadata["key"] == f"projects.web.{key}"


@pytest.mark.parametrize("key", ["api_url", "token_env", "token_file", "ca_file"])
async def test_who_is_given_which_token_only_the_server_says(state_dir: Path, key: str) -> None:
    text = f"[bootstrap.github]\nrepository = 'octo/app'\n{key} = 'https://x'"
    error = await refusal(state_dir, text)
    assert (error.metadata["key"], error.metadata["line"]) == (f"bootstrap.github.{key}", "3")
    assert "settings.toml" in error.message


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("api_url", "http://git.example.com", "must begin with https://"),
        ("api_url", "https://user:canary@git.example.com", "must be a URL of a host"),
        ("api_url", "https://git.example.com/?q", "must be a URL of a host"),
        ("api_url", "git.example.com", "must be a URL"),
        ("api_url", "https://[x", "must be a URL"),
        ("token_env", "ghp_canary-token", "must be the name of a variable"),
        ("token_env", "", "must be the name of a variable"),
        ("token_file", "token", "must be an absolute path"),
        ("ca_file", "~/ca.pem", "must be an absolute path"),
    ],
)
async def test_a_mistake_in_what_only_the_server_says_names_its_key(
    state_dir: Path, key: str, value: str, rule: str
) -> None:
    error = await refusal(state_dir, server=f"[bootstrap.github]\n{key} = '{value}'")
    assert error.metadata["key"] == f"bootstrap.github.{key}"
    assert rule in error.message
    assert "canary" not in error.message


async def test_checks_that_would_not_run_are_refused_and_not_left_out(state_dir: Path) -> None:
    error = await refusal(state_dir, "bootstrap = {forge = 'github', ci = {command = ['x']}}")
    assert error.metadata["key"] == "bootstrap.ci.command"
    error = await refusal(
        state_dir, "bootstrap = {forge = 'github', merge_method = 'fast_forward'}"
    )
    assert error.metadata["key"] == "bootstrap.merge_method"


async def test_a_mistake_of_one_file_is_that_files_also_where_both_speak(state_dir: Path) -> None:
    base = "[bootstrap.ci]\ntimeout = '1s'\nmax_poll = '0s'"
    error = await refusal(state_dir, base, server="[bootstrap.ci]\ntimeout = '0s'")
    assert (error.metadata["path"], error.metadata["line"]) == (
        str(state_dir / "settings.toml"),
        "2",
    )
    error = await refusal(state_dir, base, server="[bootstrap.ci]\ntimeout = '5s'")
    assert (error.metadata["path"], error.metadata["line"]) == ("att.toml", "3")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[bootsrap]", "bootsrap"),
        ("[runtime]", "runtime"),
        ("[projects.web]\nbake_time = '1s'", "projects.web.bake_time"),
        ("[projects.other.bootstrp]", "projects.other.bootstrp"),
        ("projects = 1", "projects"),
        ("projects.web = 1", "projects.web"),
    ],
)
async def test_the_servers_file_has_tables_of_its_own_only(
    state_dir: Path, text: str, key: str
) -> None:
    error = await refusal(state_dir, server=text)
    assert error.metadata["key"] == key


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("[bootstrap", "line 1"),
        (b"# \xff", "line 1: not UTF-8"),
        ("a = 1\na = 2", "line 2"),
        ("x=" + "[" * 5000, "nested too deeply"),
    ],
)
async def test_a_file_that_is_no_toml_is_refused(
    state_dir: Path, base: str | bytes, words: str
) -> None:
    error = await refusal(state_dir, base)
    assert words in error.message
    assert error.message.startswith("att.toml: ")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o777])
async def test_a_file_of_the_server_that_others_may_use_is_refused(
    state_dir: Path, mode: int
) -> None:
    await read(state_dir, server="")
    (state_dir / "settings.toml").chmod(mode)
    error = await refusal(state_dir)
    assert f"{mode:04o}" in error.message
    assert "chmod 600" in error.message


async def test_a_file_of_the_server_that_is_anothers_is_refused(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await read(state_dir, server="")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert f"belongs to the user {owner}, not to {owner + 1}" in (await refusal(state_dir)).message


async def test_what_stands_in_for_the_servers_file_is_refused(state_dir: Path) -> None:
    path = state_dir / "settings.toml"
    os.mkfifo(path, 0o600)
    assert "is not a file" in (await refusal(state_dir)).message
    path.unlink()
    path.mkdir()
    assert "is not a file" in (await refusal(state_dir)).message
    path.rmdir()
    await read(state_dir, server="")
    path.write_bytes(b"#" * ((1 << 20) + 1))
    assert "more than 1,048,576 bytes" in (await refusal(state_dir)).message


async def test_no_value_is_repeated_in_an_error(state_dir: Path) -> None:
    for text in (
        "bootstrap.test.env.ATT_KEY = 'canary'",
        "bootstrap.ci.timeout = 'canary'",
        "bootstrap.test.command = ['', 'canary']",
    ):
        assert "canary" not in (await refusal(state_dir, text)).message


# Over the settings --------------------------------------------------------------


async def test_what_a_request_gives_wins_and_what_it_leaves_stays() -> None:
    assert with_request(ALL, CycleRequest()) == ALL
    request = CycleRequest(
        base_branch="next",
        create_pr=True,
        auto_merge_on_ci_success=True,
        ci_timeout=SECOND,
        ci_initial_poll=2 * SECOND,
        ci_max_poll=3 * SECOND,
        rollback_on_deploy_failure=False,
        rollback_on_restart_watchdog_failure=True,
        rollback_on_health_failure=True,
        restart_watchdog_retries=1,
        restart_watchdog_interval=4 * SECOND,
        health_check_target=Probe(kind=TcpProbe(port=1)),
        health_check_retries=2,
        health_check_interval=5 * SECOND,
        bake_time=timedelta(),
    )
    assert with_request(ALL, request) == replace(
        ALL,
        base_branch="next",
        create_pr=True,
        auto_merge_on_ci_success=True,
        ci=replace(ALL.ci, timeout=SECOND, initial_poll=2 * SECOND, max_poll=3 * SECOND),
        rollback=replace(
            ALL.rollback,
            on_deploy_failure=False,
            on_restart_watchdog_failure=True,
            on_health_failure=True,
        ),
        restart_watchdog_retries=1,
        restart_watchdog_interval=4 * SECOND,
        health_check=Probe(kind=TcpProbe(port=1)),
        health_check_retries=2,
        health_check_interval=5 * SECOND,
        bake_time=timedelta(),
    )


@pytest.mark.parametrize("settings", [False, True])
@pytest.mark.parametrize("request_", [None, False, True])
def test_a_request_can_ask_for_an_approval_and_not_forgo_one(
    settings: bool, request_: bool | None
) -> None:
    given = replace(ALL, approval=replace(ALL.approval, required=settings))
    both = with_request(given, CycleRequest(require_approval=request_))
    assert both.approval.required is (settings or request_ is True)


def test_a_request_keeps_to_the_rules_of_the_files() -> None:
    assert request_violations(CycleRequest(), allowed_hosts=NOWHERE) == []
    request = CycleRequest(
        base_branch="-x",
        ci_timeout=timedelta(),
        ci_initial_poll=-SECOND,
        ci_max_poll=2 * DAY,
        restart_watchdog_retries=0,
        restart_watchdog_interval=timedelta(milliseconds=9),
        health_check_target=Probe(kind=HttpProbe(url="http://example.org/")),
        health_check_retries=1001,
        health_check_interval=timedelta(),
        bake_time=2 * DAY,
        timeout=timedelta(),
    )
    broken = [path for path, _ in request_violations(request, allowed_hosts=NOWHERE)]
    assert sorted(broken) == sorted(
        [
            ("base_branch",),
            ("ci_timeout",),
            ("ci_initial_poll",),
            ("ci_max_poll",),
            ("restart_watchdog_retries",),
            ("restart_watchdog_interval",),
            ("health_check_target", "http", "url"),
            ("health_check_retries",),
            ("health_check_interval",),
            ("bake_time",),
            ("timeout",),
        ]
    )


async def test_the_fake_gives_what_a_test_wants() -> None:
    fake = FakeBootstrapSettings({"web": ALL})
    reader: BootstrapSettingsReader = fake
    assert await reader.at_base("web", b"x") == ALL
    assert await reader.at_base("other", None) == BootstrapSettings()
    assert fake.contents == [b"x", None]
    fake.settings["web"] = AttError(Reason.SETTINGS_INVALID, "wrong")
    with pytest.raises(AttError):
        await reader.at_base("web", None)


# The page -----------------------------------------------------------------------


async def test_the_examples_of_the_page_are_read(state_dir: Path) -> None:
    _, base, server = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert (await read(state_dir, base)).approval.protected_paths == ("migrations/**", "*.lock")
    assert (await read(state_dir, base, server=server)).approval.required


async def test_the_page_has_every_key_with_its_default(state_dir: Path) -> None:
    """Writing down every default that the page names changes nothing."""
    texts, keys = {"": "", " of the server": ""}, []
    for table, whose, section in re.findall(
        r"^### \[(bootstrap[a-z.]*)\]( of the server)?.*?$(.*?)(?=^##)",
        PAGE,
        re.MULTILINE | re.DOTALL,
    ):
        texts[whose] += f"[{table}]\n"
        for key, default in re.findall(
            r"^\| `([a-z_]+)` \| [^|]+ \| ([^|]+) \|", section, re.MULTILINE
        ):
            keys.append((table, key))
            if default.startswith("`"):
                texts[whose] += f"{key} = {default.strip('`')}\n"
    assert await read(state_dir, texts[""], server=texts[" of the server"]) == BootstrapSettings()
    table, known = "", []
    every = EVERY_KEY.partition("[log]")[2] + AT_GITHUB + AT_GITHUB_SERVER
    for line in every.splitlines()[2:]:
        if line.startswith("["):
            table = line.strip("[]")
        elif line:
            known.append((table, line.partition(" = ")[0]))
    assert sorted(keys) == sorted(known)
