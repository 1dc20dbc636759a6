"""Several logs as one, blocking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from att_client import log_merge
from att_client.log_merge import ProjectBatch, ProjectItem
from att_client.log_messages import follow_response
from att_client.sync.background_loop import BackgroundLoop


class LogMerge:
    """The logs of several projects, by time, and everything that comes.

    `for project_id, item in merge` and `for project_id, batch in merge.batches()`, as
    with `att_client.LogMerge`.
    """

    def __init__(self, loop: BackgroundLoop, merge: log_merge.LogMerge) -> None:
        self._loop = loop
        self._merge = merge

    @property
    def cursors(self) -> Mapping[str, int]:
        """Where to go on in each project, behind what was given out last.

        A project of which nothing was heard yet is not there.
        """
        return self._merge.cursors

    def __iter__(self) -> Iterator[ProjectItem]:
        for project_id, log, page in self._loop.iterate(self._merge._new_loop):
            for item in log.items(page):
                yield ProjectItem(project_id, item)

    def batches(self) -> Iterator[ProjectBatch]:
        """The records by time, as those of `att_client.LogMerge.batches`."""
        for project_id, log, page in self._loop.iterate(self._merge._new_loop):
            log.go_to(page.cursor)
            yield ProjectBatch(project_id, follow_response(page))

    def close(self) -> None:
        """Closes the calls. A loop that still waits raises ClosedError."""
        self._loop.close(self._merge.aclose)
