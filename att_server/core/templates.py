"""Templates: what fills the directory of a new project."""

from __future__ import annotations

from pathlib import Path

from att_server.core.errors import AttError, Reason, field_invalid
from att_server.core.model import EventFilter
from att_server.core.ports import StateStore, TemplateStore


class Templates:
    """Knows the templates, and from which one a project was made."""

    def __init__(self, *, store: TemplateStore, events: StateStore) -> None:
        self._store = store
        self._events = events

    def check(self, name: str, path: str) -> None:
        """Returns if the template exists and `path` could be filled.

        Raises FIELD_INVALID, which lists the templates, or PROJECT_PATH_INVALID.
        """
        known = self._store.names()
        if name not in known:
            raise field_invalid("template", f"must be one of: {', '.join(known)}")
        if not Path(path).is_absolute():
            raise AttError(
                Reason.PROJECT_PATH_INVALID,
                f"{path!r} is not an absolute path. Give the whole path of the directory to make.",
                path=path,
            )

    async def fill(self, name: str, directory: Path) -> None:
        """Fills `directory`, which is empty or absent; without effect if that was done already.

        Raises PROJECT_PATH_INVALID, STORAGE_FULL; nothing is left behind then.
        """
        await self._store.fill(name, directory)

    async def used(self, project_id: str) -> str:
        """The template that the project was made from; empty if it was none."""
        events, _ = await self._events.list_events(
            EventFilter(project_id=project_id, event_types=("project.created",)),
            cursor=0,
            limit=1,
            tail=True,
        )
        return events[0].attributes.get("template", "") if events else ""
