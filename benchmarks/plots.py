"""`python -m benchmarks.plots RESULTS/report.json`: draws what a run measured, beside its data.

It needs matplotlib (`requirements/bench-plots.txt`) and nothing of ATT.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Chart

ATT_COLOUR, PEER_COLOUR = "tab:blue", "tab:gray"


def main() -> None:
    file = Path(sys.argv[1])
    data = json.loads(file.read_text())
    if "series" in data:
        draw_series(data["series"], file.with_name("scale.png"))
    else:
        draw_figures([f for f in data["figures"] if f["peers"]], file.with_name("peers.png"))


def draw_figures(figures: list[dict[str, Any]], file: Path) -> None:
    """One panel a figure, one bar a subject, the best on top; its range over all rounds."""
    chart = Chart(figsize=(9, 1 + 1.6 * len(figures)), layout="constrained")
    panels = chart.subplots(len(figures), 1, squeeze=False)[:, 0]
    for panel, figure in zip(panels, figures, strict=True):
        samples = {"ATT": figure["samples"], **figure["peers"]}
        medians = {"ATT": figure["median"], **figure["peer_medians"]}
        names = sorted(medians, key=medians.__getitem__, reverse=figure["higher_is_better"])
        panel.barh(
            names,
            [medians[name] for name in names],
            xerr=[
                [medians[name] - min(samples[name]) for name in names],
                [max(samples[name]) - medians[name] for name in names],
            ],
            color=[ATT_COLOUR if name == "ATT" else PEER_COLOUR for name in names],
        )
        panel.invert_yaxis()
        if min(medians.values()) > 0:
            panel.set_xscale("log")
            panel.set_xlim(left=min(medians.values()) / 3)
        better = "more" if figure["higher_is_better"] else "less"
        panel.set_title(f"{figure['name']}, in {figure['unit']} ({better} is better)", fontsize=9)
    chart.savefig(file)


def draw_series(series: list[dict[str, Any]], file: Path) -> None:
    """One panel a series, both axes logarithmic; a dashed line grows as its size does."""
    rows = (len(series) + 1) // 2
    chart = Chart(figsize=(11, 1 + 3 * rows), layout="constrained")
    panels = chart.subplots(rows, 2, squeeze=False).flat
    for panel, one in zip(panels, series, strict=False):
        sizes = [point["size"] for point in one["points"]]
        medians = [point["median"] for point in one["points"]]
        panel.plot(sizes, medians, marker="o", color=ATT_COLOUR)
        panel.plot(sizes, [medians[0] * size / sizes[0] for size in sizes], "--", color=PEER_COLOUR)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(one["of"])
        panel.set_ylabel(one["unit"])
        panel.set_title(one["name"], fontsize=9)
    chart.savefig(file)


if __name__ == "__main__":
    main()
