"""Writes what a run measured: a Markdown table, JSON, and plots where matplotlib is there."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from benchmarks.figures import Figure

RESULTS = Path(__file__).with_name("results")


def write(figures: Sequence[Figure], *, title: str) -> Path:
    """Writes the report into a new directory of `results/`; returns the Markdown file."""
    folder = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{title}"
    folder.mkdir(parents=True)
    facts = machine()
    report = folder / "report.md"
    report.write_text(markdown(figures, facts))
    data = {"machine": facts, "figures": [{**asdict(f), "ratio": f.ratio} for f in figures]}
    (folder / "report.json").write_text(json.dumps(data, indent=2) + "\n")
    if find_spec("matplotlib"):
        plot(figures, folder / "ratios.png")
    return report


def machine() -> dict[str, str]:
    """What a reader has to know of the machine, and the commit that was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=RESULTS.parent,
    )
    return {
        "time": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit.stdout.strip() or "none",
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": str(os.cpu_count()),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "fsync of 4 KiB": f"{number(fsync_time())} ms",
    }


def fsync_time() -> float:
    """Milliseconds, median: what every durable write pays at least, where the state lies."""
    samples = []
    with tempfile.TemporaryFile() as file:
        for _ in range(21):
            file.write(bytes(4096))
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            samples.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(samples)


def markdown(figures: Sequence[Figure], facts: dict[str, str]) -> str:
    """The report as a page."""
    rows = [
        "| what | ATT | peer | ratio | mark | samples |",
        "|---|---|---|---|---|---|",
        *(row(figure) for figure in figures),
    ]
    told = ", ".join(f"{key} {value}" for key, value in facts.items())
    note = "Medians. ATT and the peer ran by turns; compare the ratio, not the times."
    return "\n".join([f"# Benchmark\n\n{told}\n\n{note}\n", *rows]) + "\n"


def row(figure: Figure) -> str:
    """One row of the table."""
    peer, ratio = "–", "–"
    if figure.peer_median is not None and figure.ratio is not None:
        peer = f"{number(figure.peer_median)} {figure.unit} ({figure.peer})"
        ratio = f"{figure.ratio:.2f} ×"
    att = f"{number(figure.median)} {figure.unit}"
    cells = [figure.name, att, peer, ratio, figure.mark or "–", str(len(figure.samples))]
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plot(figures: Sequence[Figure], file: Path) -> None:
    """Bars of ATT over its peer, a line at 1."""
    import matplotlib.figure

    compared = [figure for figure in figures if figure.ratio]
    chart = matplotlib.figure.Figure(figsize=(8, 1 + 0.5 * len(compared)), layout="constrained")
    axes = chart.subplots()
    axes.barh(
        [f"{figure.name}\nover {figure.peer}" for figure in compared],
        [figure.ratio or 0 for figure in compared],
    )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("ratio of medians, ATT over peer (less is better)")
    chart.savefig(file)
