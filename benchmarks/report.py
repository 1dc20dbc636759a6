"""Writes what a run measured: a Markdown table and JSON, of which `plots.py` makes plots."""

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
from pathlib import Path

from benchmarks.figures import Figure

RESULTS = Path(__file__).with_name("results")


def new_folder(title: str) -> Path:
    """A new directory of `results/`."""
    folder = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{title}"
    folder.mkdir(parents=True)
    return folder


def write(figures: Sequence[Figure], folder: Path) -> Path:
    """Writes the report, in place of one that is there; returns the Markdown file."""
    facts = machine()
    data = [
        {
            **asdict(figure),
            "median": figure.median,
            "peer_medians": figure.peer_medians,
            "ratios": figure.ratios,
            "held": figure.held,
            "ahead_of_it": figure.ahead_of_it,
        }
        for figure in figures
    ]
    return write_files(folder, markdown(figures, facts), {"machine": facts, "figures": data})


def write_files(folder: Path, page: str, data: object) -> Path:
    """Writes a page and its data; returns the page's file."""
    report = folder / "report.md"
    report.write_text(page)
    (folder / "report.json").write_text(json.dumps(data, indent=2) + "\n")
    return report


def plot(report: Path, peers: Path) -> None:
    """Draws the data beside the page, with what `benchmarks.peers` installed for it."""
    python = str(peers.absolute() / "plots" / "bin" / "python")
    data = str(report.with_suffix(".json"))
    subprocess.run([python, "-m", "benchmarks.plots", data], cwd=RESULTS.parents[1], check=True)


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
    """The report as a page: what was missed and who was better stands there like the rest."""
    rows = [
        "| what | ATT | peers, and ATT over each | mark | ahead of ATT | samples |",
        "|---|---|---|---|---|---|",
        *(row(figure) for figure in figures),
    ]
    missing = [
        f"- {figure.name}: {name} {why}."
        for figure in figures
        for name, why in figure.missing.items()
    ]
    note = "Medians. ATT and its peers ran by turns; compare the ratios, not the times."
    told = ["", "Not measured:", "", *missing] if missing else []
    return "\n".join([f"# Benchmark\n\n{described(facts)}\n\n{note}\n", *rows, *told]) + "\n"


def described(facts: dict[str, str]) -> str:
    """The machine in one line."""
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def row(figure: Figure) -> str:
    """One row of the table."""
    peers = [
        f"{name} {number(median)}"
        + (f" ({figure.ratios[name]:.2f} ×)" if name in figure.ratios else "")
        for name, median in figure.peer_medians.items()
    ]
    verdict = {True: " **held**", False: " **missed**", None: ""}[figure.held]
    cells = [
        figure.name,
        f"{number(figure.median)} {figure.unit}",
        " · ".join(peers) or "–",
        f"{figure.mark or '–'}{verdict}",
        ", ".join(figure.ahead_of_it) or "–",
        str(len(figure.samples)),
    ]
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
