"""Where the files of releases lie: the port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Makes a directory a release; written last. shared: paths that are links."""

    release_id: str
    tree: str
    cycle_id: str
    create_time: datetime
    build: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


class ArtifactStore(Protocol):
    """Keeps `releases/<id>/`, their manifests, `current` and what lives across releases.

    Paths are functions of project and release and never change. Raises AttError
    STORAGE_FULL.
    """

    def directory(self, project_id: str, release_id: str) -> Path:
        """Where the release's files lie, or would."""
        ...

    def data_directory(self, project_id: str) -> Path:
        """What lives across releases: ATT_DATA_DIR."""
        ...

    async def prepare_data(self, project_id: str) -> Path:
        """Makes the data directory where there is none, and returns it."""
        ...

    async def manifest(self, project_id: str, release_id: str) -> Manifest | None:
        """The manifest, None while the directory is no release."""
        ...

    async def link_shared(self, project_id: str, release_id: str, paths: Sequence[str]) -> None:
        """Makes `paths` of the release links into what is shared.

        Raises ValueError for a path that the release's tree holds.
        """
        ...

    async def seal(self, project_id: str, manifest: Manifest) -> None:
        """Writes the manifest whole and at once; from then on it is a release."""
        ...

    async def discard(self, project_id: str, release_id: str) -> None:
        """Removes manifest and directory, in this order; without effect if there is nothing."""
        ...

    async def discard_unsealed(self, project_id: str) -> None:
        """Removes all directories that never became releases, but not the current one.

        Called while no cycle stages.
        """
        ...

    async def staged(self, project_id: str) -> frozenset[str]:
        """The ids of all directories, releases or not."""
        ...

    async def current(self, project_id: str) -> str:
        """The id that `current` names; empty if there is none."""
        ...

    async def switch(self, project_id: str, release_id: str) -> None:
        """Makes `current` name the release, by a rename: it is there at every moment."""
        ...

    async def forget_project(self, project_id: str) -> None:
        """Removes everything of a deleted project."""
        ...
