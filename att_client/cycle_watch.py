"""Watches a release cycle over every interruption: its latest state is never missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from att_client._proto.att.v1 import Cycle, CycleState, WatchCycleRequest, WatchCycleResponse
from att_client.decode import decoder
from att_client.errors import ProtocolError
from att_client.resume import Watch
from att_client.transport import Transport


class CycleWatch(Watch[WatchCycleResponse, Cycle]):
    """A cycle's states as they change: `async for cycle in watch`. Resumes itself.

    The first comes at once, the last is ENDED, and then the loop ends. States in
    between may be passed over, the latest never is. Leaving the loop closes the
    call; a later loop goes on behind the last state that was given out.
    """

    def __init__(
        self, transport: Transport, asked: WatchCycleRequest, max_elapsed: timedelta | None
    ) -> None:
        super().__init__(
            transport,
            "/att.v1.BootstrapService/WatchCycle",
            parse=decoder(WatchCycleResponse),
            progress_interval=asked.progress_interval,
            max_elapsed=max_elapsed,
        )
        self._asked = asked
        self._end_revision: int | None = None
        self.revision = asked.after_revision
        """Where to go on."""

    def _request(self) -> WatchCycleRequest | None:
        # After the last state only the stream's own end was lost.
        if self.revision == self._end_revision:
            return None
        return replace(self._asked, after_revision=self.revision)

    def _accept(self, message: WatchCycleResponse) -> Cycle | None:
        """The state in a message of the server; None if it only reports progress."""
        cycle = message.cycle
        if cycle is None:
            return None
        if cycle.revision < self.revision:
            raise ProtocolError(
                f"The revision of cycle {cycle.cycle_id} fell from {self.revision} to "
                f"{cycle.revision}."
            )
        # A server may not know which state was the last to arrive.
        is_news = cycle.revision > self.revision
        self.revision = cycle.revision
        if cycle.state is CycleState.ENDED:
            self._end_revision = cycle.revision
        return cycle if is_news else None
