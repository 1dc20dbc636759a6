"""How a project is released: the table `[bootstrap]` of `att.toml`, as of the base commit.

What the server's own settings say wins, key by key: they alone may loosen a gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from att_server.core.releases import Retention
from att_server.core.repository import MergeMethod
from att_server.core.rollback_policy import RollbackSettings
from att_server.core.settings import Probe

SETTINGS_FILE = "att.toml"
"""Changing it always needs approval: it holds the gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSettings:
    """The project's tests. Empty `command`: there are none.

    junit: where the command writes JUnit XML, against the top of the tree; the
    word `{junit}` in the command stands for a path of ATT's instead. Empty: nowhere.
    """

    __test__ = False  # Not one of pytest's.

    command: tuple[str, ...] = ()
    timeout: timedelta = timedelta(minutes=10)
    env: Mapping[str, str] = field(default_factory=dict)
    junit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CiSettings:
    """The checks of a commit. Empty `command`: the forge has its own, or there are none.

    initial_poll: the wait before the first look at a forge's checks, at most
    max_poll, which bounds all of them.
    """

    command: tuple[str, ...] = ()
    timeout: timedelta = timedelta(minutes=10)
    initial_poll: timedelta = timedelta(seconds=10)
    max_poll: timedelta = timedelta(seconds=60)
    env: Mapping[str, str] = field(default_factory=dict)


class ForgeKind(StrEnum):
    """Where changes are reviewed, checked and merged."""

    LOCAL = "local"
    """Here, on any git remote."""
    GITHUB = "github"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubSettings:
    """The repository at GitHub, and how it is spoken to.

    repository: as `owner/name`; empty: as the remote's address says. required_checks:
    names that have to pass, beside those that GitHub requires itself. All else only
    the server's own settings may say. token_file: absolute, wins over token_env, the
    variable of the server's environment. The token itself is no setting, and is
    stored nowhere. ca_file: certificates that are trusted instead of the system's.
    """

    repository: str = ""
    required_checks: tuple[str, ...] = ()
    api_url: str = "https://api.github.com"
    token_env: str = "GITHUB_TOKEN"  # noqa: S105 - the name of a variable
    token_file: str = ""
    ca_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalSettings:
    """When a person decides.

    protected_paths: patterns of paths, with `*` within a part and `**` over parts.
    """

    required: bool = False
    timeout: timedelta = timedelta(days=1)
    protected_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSettings:
    """How a release is built, and how long it is kept.

    build: run in the release's directory. shared: paths of the release that are
    links to directories which live across releases. data_version: of the data the
    app writes; min_data_version: the oldest that it reads.
    """

    build: tuple[str, ...] = ()
    build_timeout: timedelta = timedelta(minutes=10)
    env: Mapping[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    retention: Retention = field(default_factory=Retention)
    tries: int = 3
    data_version: int = 0
    min_data_version: int = 0
    metadata_command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSettings:
    """Commands for an external context. Called with project, target and release id.

    arguments: 3, or 2 for a rollback command that takes no release id.
    """

    deploy_command: tuple[str, ...] = ()
    rollback_command: tuple[str, ...] = ()
    rollback_arguments: int = 3
    timeout: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapSettings:
    """Everything that a cycle does by settings.

    base_branch: the remote is not asked for its own default.
    health_check: None: the runtime's readiness probe.
    health_timeout: from the new run's start until it has to be healthy.
    hold_timeout: how long a cycle waits for something outside.
    step_timeout: bounds every step that has no bound of its own.
    """

    base_branch: str = "main"
    create_pr: bool = True
    auto_merge_on_ci_success: bool = True
    merge_method: MergeMethod = MergeMethod.MERGE
    forge: ForgeKind = ForgeKind.LOCAL
    restart_watchdog_retries: int = 3
    restart_watchdog_interval: timedelta = timedelta(seconds=5)
    health_check: Probe | None = None
    health_check_retries: int = 1
    health_check_interval: timedelta = timedelta(seconds=5)
    health_timeout: timedelta = timedelta(seconds=30)
    bake_time: timedelta = timedelta()
    hold_timeout: timedelta = timedelta(hours=24)
    step_timeout: timedelta = timedelta(minutes=10)
    test: TestSettings = field(default_factory=TestSettings)
    ci: CiSettings = field(default_factory=CiSettings)
    approval: ApprovalSettings = field(default_factory=ApprovalSettings)
    rollback: RollbackSettings = field(default_factory=RollbackSettings)
    release: ReleaseSettings = field(default_factory=ReleaseSettings)
    external: ExternalSettings = field(default_factory=ExternalSettings)
    github: GitHubSettings = field(default_factory=GitHubSettings)


class BootstrapSettingsReader(Protocol):
    """Reads what people write about how a project is released."""

    async def at_base(self, project_id: str, content: bytes | None) -> BootstrapSettings:
        """`[bootstrap]` of the base commit's `att.toml`, with the server's own settings over it.

        content: of that `att.toml`; None: the base has none. The server's are read
        anew on each call. Raises SETTINGS_INVALID, naming the file, line and key.
        """
        ...
