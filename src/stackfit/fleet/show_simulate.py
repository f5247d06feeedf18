"""A grid of simulations for people, and as JSON (stackfit.fleet-simulate/1 in docs/schemas)."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Console

from stackfit.fleet.simulate import MEASURES, Cell, Grid, Spread, numbers_of
from stackfit.machine.model import Run
from stackfit.report.terminal import line, print_table
from stackfit.text import clean, number_text

__all__ = ["grid_json", "print_grid"]

Json = dict[str, Any]
_PAGE_KB = 4


def grid_json(grid: Grid) -> Json:
    """The document of `fleet simulate --json`."""
    return {
        "schema": "stackfit.fleet-simulate/1",
        "seeds": grid.seeds,
        "scenarios": [
            {
                "name": scenario.name,
                "description": scenario.description,
                "era": None if scenario.memory is None else scenario.era.name,
                "era_evidence": None if scenario.memory is None else scenario.era.evidence,
                "assumptions": list(_assumptions(grid, scenario.name)),
            }
            for scenario in grid.scenarios
        ],
        "cells": [_cell(cell) for cell in grid.cells],
        "runs": [
            {
                "scenario": cell.scenario,
                "layout": cell.layout,
                "seed": run.seed,
                "stopped_by": run.stopped_by,
                "failed_order": run.failed_order,
                "failed_what": run.failed_what,
                **numbers_of(run),
            }
            for cell in grid.cells
            for run in cell.runs
        ],
    }


def _cell(cell: Cell) -> Json:
    return {
        "scenario": cell.scenario,
        "layout": cell.layout,
        "runs": len(cell.runs),
        "failed": [{"seed": seed, "cause": cause} for seed, cause in cell.failed],
        "stopped_by": [
            {"stopped_by": how, "failed_order": order, "failed_what": what, "runs": count}
            for (how, order, what), count in _endings(cell)
        ],
        "spread": {measure: _spread(cell.spread.get(measure)) for measure in MEASURES},
        "against_first": _spread(cell.against),
        "evidence": "assumed",
    }


def _spread(spread: Spread | None) -> Json | None:
    return None if spread is None else asdict(spread)


def _endings(cell: Cell) -> list[tuple[tuple[str, int | None, str | None], int]]:
    """How runs ended, the most frequent first."""
    counts = Counter((run.stopped_by, run.failed_order, run.failed_what) for run in cell.runs)
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


def _assumptions(grid: Grid, scenario: str) -> dict[str, None]:
    runs: list[Run] = [run for cell in grid.cells if cell.scenario == scenario for run in cell.runs]
    return dict.fromkeys(text for run in runs for text in run.assumptions)


def print_grid(console: Console, grid: Grid) -> None:
    """A table of each scenario: median, and the least to the greatest of all seeds."""
    seeds = f"seeds 0 to {grid.seeds - 1}" if grid.seeds > 1 else "seed 0"
    line(console, f"{seeds}: the median run, and in brackets the least and the greatest of all")
    for scenario in grid.scenarios:
        cells = [cell for cell in grid.cells if cell.scenario == scenario.name]
        if scenario.memory is not None:
            _print_memory(console, scenario.name, cells)
        if scenario.storm is not None:
            _print_storm(console, scenario.name, cells)
    for cell in grid.cells:
        for cause, count in Counter(cause for _, cause in cell.failed).items():
            line(console, f"not run: {cell.scenario} on {cell.layout}, {count} seeds: {cause}", "yellow")
    for text in dict.fromkeys(
        one for scenario in grid.scenarios for one in _assumptions(grid, scenario.name)
    ):
        line(console, f"  assumed: {text}", style="dim")


def _print_memory(console: Console, name: str, cells: list[Cell]) -> None:
    columns = [
        ("layout", "left"), ("runs", "right"), ("children", "right"), ("more than the first layout", "right"),
        ("stopped by", "left"), ("free then, kB", "right"), ("stacks, kB", "right"), ("stalls", "right"),
        ("scanned", "right"), ("migrated", "right"), ("fork p99, µs", "right"),
    ]  # fmt: skip
    rows = [
        [
            clean(cell.layout),
            number_text(len(cell.runs)),
            _text(cell, "processes"),
            "—" if cell.against is None else _spread_text(cell.against, signed=True),
            _ending_text(cell),
            _text(cell, "free_pages", _PAGE_KB),
            _text(cell, "stack_bytes", 1 / 1024),
            _text(cell, "stalls"),
            _text(cell, "scanned"),
            _text(cell, "migrated"),
            _text(cell, "fork_p99"),
        ]
        for cell in cells
    ]
    print_table(console, f"{name}: processes and memory", columns, rows)


def _print_storm(console: Console, name: str, cells: list[Cell]) -> None:
    columns = [
        ("layout", "left"), ("runs", "right"), ("overflows", "right"),
        ("chance of one per hour", "right"), ("at most (95 %)", "right"),
    ]  # fmt: skip
    rows = []
    for cell in cells:
        chance, high = cell.spread.get("overflow_chance"), cell.spread.get("overflow_chance_high")
        rows.append([
            clean(cell.layout),
            number_text(len(cell.runs)),
            _text(cell, "overflows"),
            "open" if chance is None
            else f"{chance.median:.2g} ({chance.least:.2g} to {chance.greatest:.2g})",
            "—" if high is None else f"{high.greatest:.2g}",
        ])  # fmt: skip
    print_table(console, f"{name}: stacks under interrupts", columns, rows)


def _text(cell: Cell, measure: str, factor: float = 1) -> str:
    spread = cell.spread.get(measure)
    return "—" if spread is None else _spread_text(spread, factor)


def _spread_text(spread: Spread, factor: float = 1, signed: bool = False) -> str:
    def text(value: float) -> str:
        sign = "+" if signed and value > 0 else ""
        return sign + number_text(round(value * factor))

    if spread.least == spread.greatest:
        return text(spread.median)
    return f"{text(spread.median)} ({text(spread.least)} to {text(spread.greatest)})"


def _ending_text(cell: Cell) -> str:
    endings = _endings(cell)
    if not endings:
        return "—"
    (how, order, what), count = endings[0]
    text = how if order is None else f"order {order}, {clean(what or '')}"
    return text if len(endings) == 1 else f"{text}: {count} of {len(cell.runs)}"
