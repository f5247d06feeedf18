#!/usr/bin/env python3
"""Plots of the experiment: the JSON of `stackfit lab experiment --json FILE` → SVG files.

plot_experiment.py FILE DIRECTORY        needs matplotlib (pip install matplotlib)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
# The same input gives the same bytes, and text stays text.
matplotlib.rcParams.update({"svg.hashsalt": "stackfit", "svg.fonttype": "none", "font.size": 9})

from matplotlib import pyplot  # noqa: E402

COLOURS = {"8k": "#b5532a", "4k": "#2a6fb5", "8k-shared": "#7a5aa6", "8k-compaction": "#5c8a3a"}


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)


def children(document: dict[str, Any], path: Path) -> None:
    """Children until memory gives out: bars counted, dots predicted; a row for each mode."""
    rows = [
        row for row in document["rows"]
        if not row["case"]["condition"] and row["case"]["state"] not in ("cycle", "grow")
    ]  # fmt: skip
    figure, axes = pyplot.subplots(2, 1, figsize=(9, 6))
    for axis, mode in zip(axes, ("process", "thread"), strict=True):
        mine = [row for row in rows if row["case"]["mode"] == mode]
        places = sorted({(row["case"]["memory"], row["case"]["state"]) for row in mine})
        kernels = [name for name in COLOURS if any(row["case"]["kernel"] == name for row in mine)]
        for number, kernel in enumerate(kernels):
            width = 0.8 / len(kernels)
            for row in (row for row in mine if row["case"]["kernel"] == kernel):
                x = places.index((row["case"]["memory"], row["case"]["state"])) + (number + 0.5) * width - 0.4
                axis.bar(x, row["children"], width * 0.9, color=COLOURS[kernel])
                axis.plot(x, row["predicted"]["processes"], "o", color="black", markersize=3)
        axis.set_yscale("log")
        axis.set_xticks(range(len(places)), [f"{state}\n{memory} MB" for memory, state in places])
        axis.set_ylabel(f"{mode}es" if mode == "process" else "threads")
        handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLOURS[kernel]) for kernel in kernels]
        dot = pyplot.Line2D([], [], marker="o", color="black", linestyle="", markersize=3)
        axis.legend([*handles, dot], [*kernels, "predicted"], ncols=5, fontsize=8)
    save(figure, path)


def latency(document: dict[str, Any], path: Path) -> None:
    """The slowest forks under the growing reclaim load."""
    rows = [row for row in document["rows"] if row["case"]["state"] in ("cycle", "grow")]
    figure, axis = pyplot.subplots(figsize=(7, 2.6))
    for number, row in enumerate(rows):
        times = row["outcomes"][0]
        for mark, offset in (("p50", -0.2), ("p99", 0.2)):
            axis.barh(
                number + offset, times[mark] / 1000, 0.35, color=COLOURS[row["case"]["kernel"]],
                alpha=0.5 if mark == "p50" else 1,
            )  # fmt: skip
    axis.set_yticks(range(len(rows)), [f"{row['case']['kernel']}, {row['case']['state']}" for row in rows])
    axis.set_xlabel("µs of the guest's time for a fork: p50 (pale) and p99")
    axis.set_xscale("log")
    save(figure, path)


def overflow(document: dict[str, Any], path: Path) -> None:
    """Room for the chain: predicted and counted."""
    rows = [row for row in document["overflows"] if row["measured"] is not None]
    figure, axis = pyplot.subplots(figsize=(7, 2.6))
    for number, row in enumerate(rows):
        axis.barh(number, row["measured"], 0.6, color=COLOURS[row["kernel"]])
        axis.plot(row["predicted"], number, "|", color="black", markersize=12)
    axis.set_yticks(range(len(rows)), [f"{row['kernel']}, {row['context']}" for row in rows])
    axis.set_xlabel("bytes that the module's chain may take (bar: counted, line: predicted)")
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    document = json.loads(options.file.read_text("utf-8"))
    options.directory.mkdir(parents=True, exist_ok=True)
    children(document, options.directory / "children.svg")
    latency(document, options.directory / "latency.svg")
    overflow(document, options.directory / "overflow.svg")


if __name__ == "__main__":
    main()
