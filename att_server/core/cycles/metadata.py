"""MetadataChain: which release is deployed and which was before, as each source says it.

The sources, in the order of belief: the request, the registry of releases, what
the app prints, the provider (a command of the project, or a hook of the
embedder), git. What is believed is told field by field with its source; a
source that knows another id is an event.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from att_server.core.cycles.hook_call import call_hook, takes
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import CycleRequest
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.step import Hooks
from att_server.core.model import Event, Project
from att_server.core.ports import Clock, CommandRunner
from att_server.core.release_metadata import (
    Disagreement,
    MetadataSource,
    NamedRelease,
    ReleaseMetadata,
    ResolvedMetadata,
    logged_metadata,
    registry_metadata,
    release_id_or_none,
    resolve,
)
from att_server.core.releases import DeploymentContext

PROVIDER_TIMEOUT = timedelta(seconds=10)
LOG_LINES = 1_000
"""How far back in the app's log is looked."""
_OUTPUT_BYTES = 64 * 1024

log = logging.getLogger(__name__)

_Ask = Callable[[], Awaitable[ReleaseMetadata]]


class _SourceFailed(Exception):
    """A source could not be asked, or what it said cannot be understood. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the sources said. unavailable: why a source could not be asked, by source."""

    resolved: ResolvedMetadata
    unavailable: Mapping[MetadataSource, str]

    @property
    def release_id(self) -> str:
        """Of the release that is deployed, or is to be; empty: no source knows."""
        return _id(self.resolved.release_id)

    @property
    def previous_release_id(self) -> str:
        """Of the release before that one; empty: no source knows."""
        return _id(self.resolved.previous_release_id)

    @property
    def sources(self) -> dict[str, str]:
        """Who was believed, by field: `CycleResult.release_metadata_source`."""
        fields = {
            "release_id": self.resolved.release_id,
            "previous_release_id": self.resolved.previous_release_id,
        }
        return {name: str(named.source) for name, named in fields.items() if named is not None}

    def events(self, clock: Clock) -> tuple[Event, ...]:
        """What somebody should look at: sources that disagree or could not be asked."""
        return (
            *(_disagreement(each, clock) for each in self.resolved.disagreements),
            *(
                Event(
                    event_type="release.metadata_unavailable",
                    time=clock.now(),
                    reason=source,
                    message=f"The release metadata of {source} is not known: {why}",
                )
                for source, why in self.unavailable.items()
            ),
        )


class MetadataChain:
    """Asks the sources. A source that fails or hangs is one that does not know."""

    def __init__(
        self,
        *,
        journal: CycleJournal,
        deployments: Deployments,
        runner: CommandRunner,
        clock: Clock,
        hooks: Hooks,
        inherited_env: Mapping[str, str],
    ) -> None:
        """Raises ValueError for a provider that cannot be called with a project's id."""
        self._journal = journal
        self._deployments = deployments
        self._runner = runner
        self._clock = clock
        self._provider = hooks.release_metadata_provider
        self._env = dict(inherited_env)
        if self._provider is not None and not takes(self._provider, 1):
            raise ValueError("a release metadata provider takes one argument, the project's id")

    async def before_change(
        self,
        project: Project,
        request: CycleRequest,
        settings: BootstrapSettings,
        *,
        base_commit: str = "",
    ) -> Metadata:
        """For a cycle that deploys: what it will deploy, and what is deployed until then.

        What app, provider and git call the present release is the one before, once
        the cycle has deployed. base_commit: HEAD of the base; empty: not known.
        """
        external = request.deployment_context is DeploymentContext.EXTERNAL

        async def asked_for() -> ReleaseMetadata:
            return ReleaseMetadata(
                release_id=request.requested_release_id if external else "",
                previous_release_id=request.previous_release_id,
            )

        async def registry() -> ReleaseMetadata:
            releases = await self._journal.releases(project.project_id)
            return registry_metadata(releases, deployed_release_id="")

        async def git() -> ReleaseMetadata:
            return ReleaseMetadata(previous_release_id=base_commit)

        return await self._ask(
            {
                MetadataSource.REQUEST: asked_for,
                MetadataSource.REGISTRY: registry,
                MetadataSource.RUNTIME_LOGS: _present_is_previous(self._logs(project)),
                MetadataSource.PROVIDER: _present_is_previous(self._provided(project, settings)),
                MetadataSource.GIT: git,
            },
            lazy=False,
        )

    async def of_deployed(
        self,
        project: Project,
        request: CycleRequest,
        settings: BootstrapSettings,
        *,
        deployed_release_id: str,
        head: str = "",
        parent: str = "",
        lazy: bool = False,
    ) -> Metadata:
        """For a rollback: what is deployed, and what was before it.

        head, parent: what git says of both; empty: not known. lazy: asks no
        further than to the first source that knows the release before, which is
        all that a rollback needs; the answer is the same.
        """

        async def asked_for() -> ReleaseMetadata:
            return ReleaseMetadata(previous_release_id=request.previous_release_id)

        async def registry() -> ReleaseMetadata:
            releases = await self._journal.releases(project.project_id)
            return registry_metadata(releases, deployed_release_id=deployed_release_id)

        async def git() -> ReleaseMetadata:
            return ReleaseMetadata(release_id=head, previous_release_id=parent)

        return await self._ask(
            {
                MetadataSource.REQUEST: asked_for,
                MetadataSource.REGISTRY: registry,
                MetadataSource.RUNTIME_LOGS: self._logs(project),
                MetadataSource.PROVIDER: self._provided(project, settings),
                MetadataSource.GIT: git,
            },
            lazy=lazy,
        )

    async def _ask(self, sources: Mapping[MetadataSource, _Ask], *, lazy: bool) -> Metadata:
        answers: dict[MetadataSource, ReleaseMetadata] = {}
        unavailable: dict[MetadataSource, str] = {}
        for source, ask in sources.items():
            try:
                answers[source] = await ask()
            except _SourceFailed as error:
                log.warning("release metadata of %s: %s", source, error)
                unavailable[source] = str(error)
            else:
                if lazy and answers[source].previous_release_id:
                    break
        return Metadata(resolved=resolve(answers), unavailable=unavailable)

    def _logs(self, project: Project) -> _Ask:
        async def ask() -> ReleaseMetadata:
            lines = await self._deployments.recent_lines(project.project_id, LOG_LINES)
            return logged_metadata(lines)

        return ask

    def _provided(self, project: Project, settings: BootstrapSettings) -> _Ask:
        """The embedder's hook where there is one, else the project's command."""

        async def ask() -> ReleaseMetadata:
            if self._provider is not None:
                return await self._from_hook(self._provider, project.project_id)
            if settings.release.metadata_command:
                return await self._from_command(project, settings)
            return ReleaseMetadata()

        return ask

    async def _from_hook(
        self, provider: Callable[[str], object], project_id: str
    ) -> ReleaseMetadata:
        try:
            answer = await call_hook(provider, project_id, timeout=PROVIDER_TIMEOUT)
        except TimeoutError as error:
            raise _SourceFailed(f"it took more than {PROVIDER_TIMEOUT.seconds} s") from error
        except Exception as error:
            raise _SourceFailed(f"it raised {type(error).__name__}: {error}") from error
        if not isinstance(answer, Mapping):
            raise _SourceFailed(f"it returned {type(answer).__name__}, not a mapping")
        return ReleaseMetadata(
            release_id=_checked_id(answer, "release_id"),
            previous_release_id=_checked_id(answer, "previous_release_id"),
        )

    async def _from_command(self, project: Project, settings: BootstrapSettings) -> ReleaseMetadata:
        """What the command prints, as an app would: `release_id=ID`, `previous_release_id=ID`."""
        result = await self._runner.run(
            settings.release.metadata_command,
            directory=project.path,
            env={**self._env, **settings.release.env, "ATT_PROJECT_ID": project.project_id},
            timeout=PROVIDER_TIMEOUT,
            output_bytes=_OUTPUT_BYTES,
        )
        if result.exit_code != 0:
            how = result.start_error or (
                f"it took more than {PROVIDER_TIMEOUT.seconds} s"
                if result.timed_out
                else f"it ended with exit code {result.exit_code}"
                if result.exit_code is not None
                else f"it was ended by signal {result.signal}"
            )
            raise _SourceFailed(f"{settings.release.metadata_command[0]}: {how}")
        return logged_metadata(result.output.splitlines())


def _present_is_previous(ask: _Ask) -> _Ask:
    async def asked() -> ReleaseMetadata:
        return ReleaseMetadata(previous_release_id=(await ask()).release_id)

    return asked


def _checked_id(answer: Mapping[object, object], name: str) -> str:
    given = answer.get(name)
    if given is None or given == "":
        return ""
    found = release_id_or_none(given) if isinstance(given, str) else None
    if found is None:
        raise _SourceFailed(f"what it returned as {name} is no id of a release")
    return found


def _id(named: NamedRelease | None) -> str:
    return "" if named is None else named.release_id


def _disagreement(each: Disagreement, clock: Clock) -> Event:
    return Event(
        event_type="release.metadata_disagreement",
        time=clock.now(),
        reason=each.field,
        message=(
            f"{each.other.source} says that {each.field} is {each.other.release_id}; "
            f"{each.believed.source} says {each.believed.release_id} and is believed"
        ),
        attributes={
            "field": each.field,
            "believed": each.believed.release_id,
            "believed_source": each.believed.source,
            "other": each.other.release_id,
            "other_source": each.other.source,
        },
    )
