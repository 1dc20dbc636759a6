"""What a measurement gives: samples of ATT and of a peer, taken by turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Figure:
    """One row of the report.

    samples, peer_samples: one value a round, in `unit`; less is better unless
    `higher_is_better`. mark: what performance asks for, in words; empty: nothing.
    """

    name: str
    unit: str
    mark: str = ""
    peer: str = ""
    higher_is_better: bool = False
    samples: list[float] = field(default_factory=list)
    peer_samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of ATT's samples."""
        return statistics.median(self.samples)

    @property
    def peer_median(self) -> float | None:
        """The median of the peer's samples; None without a peer."""
        return statistics.median(self.peer_samples) if self.peer_samples else None

    @property
    def ratio(self) -> float | None:
        """ATT's median over the peer's; None without a peer."""
        return self.median / self.peer_median if self.peer_median else None


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` (0 to 1) of them do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
