"""What `[bootstrap]` may say, as pydantic models; imported where a cycle needs its settings.

Here are the names and forms of TOML. What values may be is for
`core/cycles/settings_rules.py` to say, as it does for requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, InstanceOf

from att_server.adapters.server_document import ServerDocument
from att_server.adapters.settings_schema import CheckTable
from att_server.adapters.toml_forms import (
    Duration,
    Table,
    TomlKey,
    Violations,
    Words,
    one_of,
    valid,
)
from att_server.core.cycles import settings_rules
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
from att_server.core.releases import Retention
from att_server.core.repository import MergeMethod
from att_server.core.rollback_policy import RollbackSettings
from att_server.core.settings import Probe
from att_server.core.violations import SettingPath


def bootstrap_settings(
    table: Mapping[str, Any], allowed_hosts: frozenset[str]
) -> BootstrapSettings:
    """The settings of a table `[bootstrap]`. Raises Violations, with keys relative to it.

    allowed_hosts: what a health check may ask, beside this host.
    """
    settings = valid(_Bootstrap, table).settings()
    found = settings_rules.violations(settings, allowed_hosts=allowed_hosts)
    if found:
        raise Violations([(_key(path), rule) for path, rule in found])
    return settings


def base_table(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table `[bootstrap]` of an `att.toml`, unchecked. Raises Violations.

    It may not say where a token is, nor who is to get it: whoever can push to the
    base could else have any variable or file of the server sent anywhere.
    """
    table = valid(_BaseDocument, document).bootstrap
    github = table.get("github")
    own = [key for key in _SERVERS_OWN if isinstance(github, dict) and key in github]
    if own:
        rule = "is for the server's own settings alone, settings.toml in its state directory"
        raise Violations([(("bootstrap", "github", key), rule) for key in own])
    return table


def server_tables(
    document: Mapping[str, Any],
) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """The tables of the server's settings for all projects, and by project id, unchecked.

    Raises Violations.
    """
    tables = valid(_ServerDocument, document)
    return tables.bootstrap, {name: own.bootstrap for name, own in tables.projects.items()}


# Tables ---------------------------------------------------------------------

_SERVERS_OWN = ("api_url", "token_env", "token_file", "ca_file")
_ForgeKind = Annotated[InstanceOf[ForgeKind], BeforeValidator(one_of(ForgeKind))]
_MergeMethod = Annotated[InstanceOf[MergeMethod], BeforeValidator(one_of(MergeMethod))]


class _Test(Table):
    command: Words | None = None
    timeout: Duration | None = None
    env: dict[str, str] | None = None
    junit: str | None = None


class _Ci(Table):
    command: Words | None = None
    timeout: Duration | None = None
    initial_poll: Duration | None = None
    max_poll: Duration | None = None
    env: dict[str, str] | None = None


class _Approval(Table):
    required: bool | None = None
    timeout: Duration | None = None
    protected_paths: Words | None = None


class _Rollback(Table):
    on_deploy_failure: bool | None = None
    on_restart_watchdog_failure: bool | None = None
    on_health_failure: bool | None = None
    allow_unproven_target: bool | None = None
    max_attempts: int | None = None
    window: Duration | None = None


class _Release(Table):
    build: Words | None = None
    build_timeout: Duration | None = None
    env: dict[str, str] | None = None
    shared: Words | None = None
    keep_good: int | None = None
    keep_bad: int | None = None
    tries: int | None = None
    data_version: int | None = None
    min_data_version: int | None = None
    metadata_command: Words | None = None

    def settings(self) -> ReleaseSettings:
        given = self.given()
        kept = {"good": given.pop("keep_good", None), "bad": given.pop("keep_bad", None)}
        retention = Retention(**{name: value for name, value in kept.items() if value is not None})
        return ReleaseSettings(retention=retention, **given)


class _External(Table):
    deploy_command: Words | None = None
    rollback_command: Words | None = None
    rollback_arguments: int | None = None
    timeout: Duration | None = None


class _GitHub(Table):
    repository: str | None = None
    required_checks: Words | None = None
    api_url: str | None = None
    token_env: str | None = None
    token_file: str | None = None
    ca_file: str | None = None


class _Bootstrap(Table):
    base_branch: str | None = None
    create_pr: bool | None = None
    auto_merge_on_ci_success: bool | None = None
    merge_method: _MergeMethod | None = None
    forge: _ForgeKind | None = None
    restart_watchdog_retries: int | None = None
    restart_watchdog_interval: Duration | None = None
    health_check: CheckTable | None = None
    health_check_retries: int | None = None
    health_check_interval: Duration | None = None
    health_timeout: Duration | None = None
    bake_time: Duration | None = None
    hold_timeout: Duration | None = None
    step_timeout: Duration | None = None
    test: _Test = _Test()
    ci: _Ci = _Ci()
    approval: _Approval = _Approval()
    rollback: _Rollback = _Rollback()
    release: _Release = _Release()
    external: _External = _External()
    github: _GitHub = _GitHub()

    def settings(self) -> BootstrapSettings:
        given = self.given() | {
            "test": TestSettings(**self.test.given()),
            "ci": CiSettings(**self.ci.given()),
            "approval": ApprovalSettings(**self.approval.given()),
            "rollback": RollbackSettings(**self.rollback.given()),
            "release": self.release.settings(),
            "external": ExternalSettings(**self.external.given()),
            "github": GitHubSettings(**self.github.given()),
        }
        if self.health_check is not None:
            given["health_check"] = _probe(self.health_check)
        return BootstrapSettings(**given)


class _BaseDocument(Table):
    """An `att.toml` at the base: a table with a slip in its name would open the gates."""

    runtime: object = None  # read elsewhere
    notify: object = None  # same
    log: object = None  # same
    bootstrap: dict[str, Any] = Field(default_factory=dict)


class _ProjectTables(Table):
    bootstrap: dict[str, Any] = Field(default_factory=dict)


class _ServerDocument(ServerDocument):
    bootstrap: dict[str, Any] = Field(default_factory=dict)
    projects: dict[str, _ProjectTables] = Field(default_factory=dict)


def _probe(check: CheckTable) -> Probe:
    probe = Probe(kind=check.kind())
    return probe if check.timeout is None else replace(probe, timeout=check.timeout)


_KEYS: Mapping[SettingPath, TomlKey] = {
    ("release", "retention", "good"): ("release", "keep_good"),
    ("release", "retention", "bad"): ("release", "keep_bad"),
}
"""The key of each field that has another name or place here."""


def _key(path: SettingPath) -> TomlKey:
    """The key that says what the rules call `path`."""
    match path:
        case ("health_check", "grpc", "service"):
            return ("health_check", "service")
        case ("health_check", kind, _, *rest) if kind not in ("interval", "timeout"):
            return ("health_check", kind, *rest)
        case _:
            return _KEYS.get(path, path)
