"""MemoryArtifacts: the releases of projects, without files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from att_server.core.cycles.artifacts import Manifest

_ROOT = Path("/state/projects")


class MemoryArtifacts:
    """Implements `ArtifactStore`. A directory is there once something was done with it.

    tree_paths: what the tree of every release holds, so that it cannot be shared.
    """

    def __init__(self, *, tree_paths: Sequence[str] = ()) -> None:
        self.tree_paths = tree_paths
        self._manifests: dict[tuple[str, str], Manifest] = {}
        self._directories: set[tuple[str, str]] = set()
        self._current: dict[str, str] = {}

    def directory(self, project_id: str, release_id: str) -> Path:
        """A path that names nothing."""
        return _ROOT / project_id / "releases" / release_id

    def data_directory(self, project_id: str) -> Path:
        """A path that names nothing."""
        return _ROOT / project_id / "data"

    async def prepare_data(self, project_id: str) -> Path:
        """The same path."""
        return self.data_directory(project_id)

    async def manifest(self, project_id: str, release_id: str) -> Manifest | None:
        """What was sealed."""
        return self._manifests.get((project_id, release_id))

    async def link_shared(self, project_id: str, release_id: str, paths: Sequence[str]) -> None:
        """Raises ValueError for `tree_paths`."""
        self._directories.add((project_id, release_id))
        for path in paths:
            if path in self.tree_paths:
                raise ValueError(f"{path!a} is in the release's tree already")

    async def seal(self, project_id: str, manifest: Manifest) -> None:
        """Keeps the manifest."""
        self._directories.add((project_id, manifest.release_id))
        self._manifests[project_id, manifest.release_id] = manifest

    async def discard(self, project_id: str, release_id: str) -> None:
        """Drops the release."""
        self._manifests.pop((project_id, release_id), None)
        self._directories.discard((project_id, release_id))

    async def discard_unsealed(self, project_id: str) -> None:
        """Drops what has no manifest."""
        for release_id in await self.staged(project_id) - {await self.current(project_id)}:
            if (project_id, release_id) not in self._manifests:
                await self.discard(project_id, release_id)

    async def staged(self, project_id: str) -> frozenset[str]:
        """The ids of what is there."""
        return frozenset(release for project, release in self._directories if project == project_id)

    async def current(self, project_id: str) -> str:
        """What was switched to last."""
        return self._current.get(project_id, "")

    async def switch(self, project_id: str, release_id: str) -> None:
        """Keeps the id. Raises ValueError where there is no such directory."""
        if (project_id, release_id) not in self._directories:
            raise ValueError(f"there is no directory of {release_id}")
        self._current[project_id] = release_id

    async def forget_project(self, project_id: str) -> None:
        """Drops everything of the project."""
        self._current.pop(project_id, None)
        for release_id in await self.staged(project_id):
            await self.discard(project_id, release_id)
