"""What a measurement gives: samples of ATT and of its peers, taken by turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

ATT = "ATT"


@dataclass(slots=True, kw_only=True)
class Figure:
    """One row of the report.

    mark: what performance asks for, in words; empty: nothing.
    limit: the mark as a number, for ATT's median; or with `limit_of`, a peer, as so many
        times that peer's median and `allowance`. Less is better unless `higher_is_better`.
    samples: one value a round, in `unit`. peers: the same of each peer.
    missing: why a peer has no samples.
    """

    name: str
    unit: str
    mark: str = ""
    limit: float | None = None
    limit_of: str = ""
    allowance: float = 0.0
    higher_is_better: bool = False
    samples: list[float] = field(default_factory=list)
    peers: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Adds a sample of ATT or of a peer."""
        (self.samples if name == ATT else self.peers.setdefault(name, [])).append(value)

    @property
    def median(self) -> float:
        """The median of ATT's samples."""
        return statistics.median(self.samples)

    @property
    def peer_medians(self) -> dict[str, float]:
        """The median of each peer."""
        return {name: statistics.median(samples) for name, samples in self.peers.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """ATT's median over each peer's; of a peer whose median is 0 there is none."""
        return {name: self.median / median for name, median in self.peer_medians.items() if median}

    @property
    def ahead_of_it(self) -> list[str]:
        """The peers that are better than ATT, the best first."""
        medians = self.peer_medians
        better = [
            name
            for name, median in medians.items()
            if (median > self.median if self.higher_is_better else median < self.median)
        ]
        return sorted(better, key=medians.__getitem__, reverse=self.higher_is_better)

    @property
    def held(self) -> bool | None:
        """Whether the mark is held; None where it is no number, or was not measured."""
        limit = self.limit
        if limit is not None and self.limit_of:
            of = self.peer_medians.get(self.limit_of)
            limit = None if of is None else limit * of + self.allowance
        if limit is None:
            return None
        return self.median >= limit if self.higher_is_better else self.median <= limit


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` (0 to 1) of them do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
