"""The rules for how a project is released, once for requests and for files.

Paths name fields as `BootstrapSettings` and `CycleRequest` do; see `core/violations.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from att_server.core.branch_names import branch_violation
from att_server.core.cycles.model import CycleRequest
from att_server.core.cycles.settings import (
    ApprovalSettings,
    BootstrapSettings,
    CiSettings,
    ExternalSettings,
    ForgeKind,
    GitHubSettings,
    ReleaseSettings,
    TestSettings,
)
from att_server.core.edit_paths import MAX_PATH_BYTES, parents, path_violation
from att_server.core.repository import MergeMethod
from att_server.core.rollback_policy import RollbackSettings
from att_server.core.settings import Probe
from att_server.core.settings_rules import (
    command_violations,
    environment_violations,
    probe_violations,
)
from att_server.core.violations import (
    DAY,
    MAX_LIMIT,
    MONTH,
    SECOND,
    TEN_MS,
    Violation,
    field_rule,
    number_rule,
    span_rule,
    under,
)

MAX_RETRIES = 1_000
MAX_TRIES = 100
MAX_KEPT = 1_000
MAX_PATTERNS = 1_000
MAX_SHARED = 100
MAX_WINDOW = timedelta(days=365)
MAX_CHECKS = 100
MAX_CHECK_NAME = 255
JUNIT_PLACEHOLDER = "{junit}"
"""Stands in the test command for the path that ATT takes the JUnit XML from."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def violations(settings: BootstrapSettings, *, allowed_hosts: frozenset[str]) -> list[Violation]:
    """Every rule that `settings` break.

    allowed_hosts: names and addresses that a health check may ask, beside this host.
    """
    return list(_of_settings(settings, allowed_hosts))


def request_violations(request: CycleRequest, *, allowed_hosts: frozenset[str]) -> list[Violation]:
    """Every rule that the settings which `request` gives break; what it leaves unset breaks none.

    Of its other fields, nothing is said here. allowed_hosts: as `violations`.
    """
    return list(_of_request(request, allowed_hosts))


def _of_settings(settings: BootstrapSettings, hosts: frozenset[str]) -> Iterator[Violation]:
    yield from field_rule("base_branch", branch_violation(settings.base_branch) or "")
    yield from _of_watching(
        settings.restart_watchdog_retries,
        settings.restart_watchdog_interval,
        settings.health_check,
        settings.health_check_retries,
        settings.health_check_interval,
        settings.bake_time,
        hosts,
    )
    yield from span_rule("health_timeout", settings.health_timeout, TEN_MS, DAY)
    yield from span_rule("hold_timeout", settings.hold_timeout, TEN_MS, MONTH)
    yield from span_rule("step_timeout", settings.step_timeout, TEN_MS, DAY)
    yield from under("test", _of_test(settings.test))
    yield from under("ci", _of_ci(settings.ci))
    yield from under("approval", _of_approval(settings.approval))
    yield from under("rollback", _of_rollback(settings.rollback))
    yield from under("release", _of_release(settings.release))
    yield from under("external", _of_external(settings.external))
    yield from under("github", _of_github(settings.github))
    if settings.forge is ForgeKind.GITHUB:
        yield from _of_a_forge_with_checks(settings)


def _of_request(request: CycleRequest, hosts: frozenset[str]) -> Iterator[Violation]:
    if request.base_branch:
        yield from field_rule("base_branch", branch_violation(request.base_branch) or "")
    for field in ("ci_timeout", "ci_initial_poll", "ci_max_poll"):
        span: timedelta | None = getattr(request, field)
        if span is not None:
            yield from span_rule(field, span, TEN_MS, DAY)
    yield from _of_watching(
        request.restart_watchdog_retries,
        request.restart_watchdog_interval,
        None,
        request.health_check_retries,
        request.health_check_interval,
        request.bake_time,
        hosts,
    )
    if request.health_check_target is not None:
        found = probe_violations(request.health_check_target, allowed_hosts=hosts)
        yield from under("health_check_target", found)
    if request.timeout is not None:
        yield from span_rule("timeout", request.timeout, TEN_MS, MONTH)


def _of_watching(
    watchdog_retries: int | None,
    watchdog_interval: timedelta | None,
    check: Probe | None,
    check_retries: int | None,
    check_interval: timedelta | None,
    bake_time: timedelta | None,
    hosts: frozenset[str],
) -> Iterator[Violation]:
    """What both a request and settings may say; None: it is not said."""
    if watchdog_retries is not None:
        yield from number_rule("restart_watchdog_retries", watchdog_retries, 1, MAX_RETRIES)
    if watchdog_interval is not None:
        yield from span_rule("restart_watchdog_interval", watchdog_interval, TEN_MS, DAY)
    if check is not None:
        yield from under("health_check", probe_violations(check, allowed_hosts=hosts))
    if check_retries is not None:
        yield from number_rule("health_check_retries", check_retries, 1, MAX_RETRIES)
    if check_interval is not None:
        yield from span_rule("health_check_interval", check_interval, TEN_MS, DAY)
    if bake_time is not None:
        yield from span_rule("bake_time", bake_time, timedelta(), DAY)


def _of_test(test: TestSettings) -> Iterator[Violation]:
    yield from _of_command("command", test.command)
    yield from span_rule("timeout", test.timeout, TEN_MS, DAY)
    yield from _of_env(test.env)
    if test.junit:
        yield from field_rule("junit", path_violation(test.junit) or "")
        if any(JUNIT_PLACEHOLDER in word for word in test.command):
            yield ("junit",), f"must not be given where the command has {JUNIT_PLACEHOLDER}"


def _of_ci(ci: CiSettings) -> Iterator[Violation]:
    yield from _of_command("command", ci.command)
    yield from span_rule("timeout", ci.timeout, TEN_MS, DAY)
    yield from span_rule("initial_poll", ci.initial_poll, TEN_MS, DAY)
    yield from span_rule("max_poll", ci.max_poll, TEN_MS, DAY)
    yield from _of_env(ci.env)


def _of_approval(approval: ApprovalSettings) -> Iterator[Violation]:
    yield from span_rule("timeout", approval.timeout, SECOND, MONTH)
    patterns = approval.protected_paths
    if len(patterns) > MAX_PATTERNS:
        yield ("protected_paths",), f"must have at most {MAX_PATTERNS:,} patterns"
        return
    for at, pattern in enumerate(patterns):
        yield from under("protected_paths", _at(at, _pattern_rule(pattern)))


def _of_rollback(rollback: RollbackSettings) -> Iterator[Violation]:
    yield from number_rule("max_attempts", rollback.max_attempts, 1, MAX_RETRIES)
    yield from span_rule("window", rollback.window, SECOND, MAX_WINDOW)


def _of_release(release: ReleaseSettings) -> Iterator[Violation]:
    yield from _of_command("build", release.build)
    yield from span_rule("build_timeout", release.build_timeout, TEN_MS, DAY)
    yield from _of_env(release.env)
    yield from under("shared", _of_shared(release.shared))
    kept = [
        *number_rule("good", release.retention.good, 1, MAX_KEPT),
        *number_rule("bad", release.retention.bad, 1, MAX_KEPT),
    ]
    yield from under("retention", kept)
    yield from number_rule("tries", release.tries, 1, MAX_TRIES)
    yield from number_rule("data_version", release.data_version, 0, MAX_LIMIT)
    yield from number_rule("min_data_version", release.min_data_version, 0, MAX_LIMIT)
    if release.min_data_version > release.data_version:
        yield ("min_data_version",), "must not be above data_version: it could not read its own"
    yield from _of_command("metadata_command", release.metadata_command)


def _of_external(external: ExternalSettings) -> Iterator[Violation]:
    yield from _of_command("deploy_command", external.deploy_command)
    yield from _of_command("rollback_command", external.rollback_command)
    yield from number_rule("rollback_arguments", external.rollback_arguments, 2, 3)
    yield from span_rule("timeout", external.timeout, TEN_MS, DAY)


def _of_github(github: GitHubSettings) -> Iterator[Violation]:
    if github.repository and not _REPOSITORY.fullmatch(github.repository):
        yield ("repository",), "must be the repository's owner and name, as in octo/app"
    yield from under("required_checks", _of_names(github.required_checks))
    yield from field_rule("api_url", _api_url_rule(github.api_url))
    if not _VARIABLE.fullmatch(github.token_env):
        yield ("token_env",), "must be the name of a variable, as in GITHUB_TOKEN: never the token"
    for field, path in (("token_file", github.token_file), ("ca_file", github.ca_file)):
        if path and not (path.startswith("/") and path.isprintable()):
            yield (field,), "must be an absolute path"


def _of_names(names: Sequence[str]) -> Iterator[Violation]:
    if len(names) > MAX_CHECKS:
        yield (), f"must have at most {MAX_CHECKS} names"
        return
    for at, name in enumerate(names):
        plain = name.isprintable() and name == name.strip()
        fits = 0 < len(name) <= MAX_CHECK_NAME and plain
        yield from _at(at, "" if fits else "must be a check's name, as GitHub shows it")


def _of_a_forge_with_checks(settings: BootstrapSettings) -> Iterator[Violation]:
    """What is of no use, or of none that is meant, where GitHub checks and merges."""
    if settings.ci.command:
        rule = 'is of no use with forge = "github", whose own checks count; see [bootstrap.test]'
        yield ("ci", "command"), rule
    if settings.merge_method is MergeMethod.FAST_FORWARD:
        yield ("merge_method",), "must be merge or squash with GitHub, which merges no other way"


def _api_url_rule(text: str) -> str:
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        return "must be a URL"
    if not host or url.username is not None or url.query or url.fragment or port == 0:
        return "must be a URL of a host and a path only, as in https://github.example.com/api/v3"
    if not text.isprintable() or " " in text:
        return "must be a URL without spaces"
    if url.scheme == "https" or (url.scheme == "http" and host in _LOOPBACK):
        return ""
    return "must begin with https://: the token is sent there"


def _of_command(field: str, words: Sequence[str]) -> Iterator[Violation]:
    yield from under(field, command_violations(words))


def _of_env(env: Mapping[str, str]) -> Iterator[Violation]:
    yield from under("env", environment_violations(env))


def _of_shared(paths: Sequence[str]) -> Iterator[Violation]:
    if len(paths) > MAX_SHARED:
        yield (), f"must have at most {MAX_SHARED} paths"
        return
    for at, path in enumerate(paths):
        rule = path_violation(path) or ""
        if not rule and path in paths[:at]:
            rule = "is given twice"
        if not rule and any(parent in paths for parent in parents(path)):
            rule = "lies below another one, which is a link already"
        yield from _at(at, rule)


def _pattern_rule(pattern: str) -> str:
    """The rule that a pattern of paths breaks; empty if it does not."""
    if not pattern or len(pattern.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        return f"must be a pattern of 1 to {MAX_PATH_BYTES:,} bytes"
    if not pattern.isprintable():
        return "must have printable characters only"
    if pattern.startswith("/") or "\\" in pattern:
        return "must be against the top of the tree, with its parts separated by /"
    for part in pattern.split("/"):
        if part in {"", ".", ".."}:
            return "must have no part that is empty, . or .."
        if "**" in part and part != "**":
            return "must have ** as a whole part only, as in docs/**"
    return ""


def _at(position: int, rule: str) -> Iterator[Violation]:
    if rule:
        yield (position,), rule
