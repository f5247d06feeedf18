"""A grid of simulations: every scenario on each of its layouts, with each seed, and how far the runs lie
apart.

Seeds stand for chance within the model (placement, order of what is touched), not for how well the model
meets a machine: docs/machine.md has that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stackfit.fleet.run import Progress, Workers, run_all
from stackfit.image.model import InputError
from stackfit.layouts.model import Layout
from stackfit.machine.model import Run
from stackfit.machine.scenario import Scenario
from stackfit.machine.simulate import simulate

__all__ = ["MEASURES", "Cell", "Grid", "Spread", "numbers_of", "simulate_grid", "spread_of"]

MEASURES = (  # of a run that are compared; None where the scenario has none
    "processes",
    "free_pages",
    "stack_bytes",
    "stalls",
    "scanned",
    "kswapd_scanned",
    "compactions",
    "migrated",
    "fork_p50",
    "fork_p99",
    "overflows",
    "overflow_chance",
    "overflow_chance_high",
)
_MOST_RUNS = 1_000_000


@dataclass(frozen=True)
class Spread:
    """Of one number over runs. `q1`, `median`, `q3` are numbers of runs, never between two: the median the
    upper one of an even number. `deviation`: standard deviation, n - 1 below; None of one run."""

    runs: int
    least: float
    q1: float
    median: float
    q3: float
    greatest: float
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Cell:
    """One scenario on one layout. `runs` in the order of their seeds; `spread` by measure. `against`:
    processes more than on the scenario's first layout with the same seed; None for that layout itself or
    without processes."""

    scenario: str
    layout: str
    runs: tuple[Run, ...]
    failed: tuple[tuple[int, str], ...]  # (seed, why)
    spread: Mapping[str, Spread]
    against: Spread | None


@dataclass(frozen=True)
class Grid:
    scenarios: tuple[Scenario, ...]
    seeds: int
    cells: tuple[Cell, ...]  # by scenario, then by layout, as they were given

    @property
    def failed(self) -> int:
        """Runs that could not be made."""
        return sum(len(cell.failed) for cell in self.cells)


@dataclass(frozen=True)
class _Task:
    scenario: Scenario
    layout: Layout
    seed: int
    samples: bool


def _run(task: _Task) -> Run:
    run = simulate(task.scenario, task.layout, task.seed)
    return run if task.samples else replace(run, samples=())


def simulate_grid(
    scenarios: Sequence[tuple[Scenario, Sequence[Layout]]],
    seeds: int,
    workers: Workers,
    progress: Progress,
    samples: bool = False,
) -> Grid:
    """Every scenario on each of its layouts, seeds 0 to `seeds` - 1. `samples`: keep each run's course too.

    InputError: a name comes twice, more than a million runs, or the workers cannot be had.
    """
    _distinct([scenario.name for scenario, _ in scenarios], "scenario")
    for scenario, layouts in scenarios:
        _distinct([layout.name for layout in layouts], f"{scenario.name}: layout")
    tasks = [
        _Task(scenario, layout, seed, samples)
        for scenario, layouts in scenarios
        for layout in layouts
        for seed in range(seeds)
    ]
    if len(tasks) > _MOST_RUNS:
        raise InputError("--seeds", f"{len(tasks)} runs in all, at most {_MOST_RUNS}")
    outcomes = sorted(run_all(_run, tasks, workers, progress), key=lambda one: one.index)
    cells: list[Cell] = []
    for scenario, layouts in scenarios:
        first: Mapping[int, int] | None = None
        for layout in layouts:
            mine, outcomes = outcomes[:seeds], outcomes[seeds:]
            runs = tuple(one.value for one in mine if one.value is not None)
            failed = tuple((seed, one.error) for seed, one in enumerate(mine) if one.error is not None)
            cells.append(
                Cell(scenario.name, layout.name, runs, failed, _spreads(runs), _against(first, runs))
            )
            if first is None and scenario.memory is not None:
                first = {run.seed: run.processes for run in runs}
    return Grid(tuple(scenario for scenario, _ in scenarios), seeds, tuple(cells))


def _distinct(names: list[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(name, f"{what} given twice")


def numbers_of(run: Run) -> dict[str, float | None]:
    """The measures of one run."""
    values: dict[str, float | None] = dict.fromkeys(MEASURES)
    if run.before_buddyinfo:  # the scenario has memory
        values |= {
            "processes": run.processes,
            "free_pages": run.free_pages,
            "stack_bytes": run.stack_bytes,
            "stalls": run.reclaim.stalls,
            "scanned": run.reclaim.scanned,
            "kswapd_scanned": run.reclaim.kswapd_scanned,
            "compactions": run.compaction.runs,
            "migrated": run.compaction.migrated,
            "fork_p50": run.fork_latency.p50,
            "fork_p99": run.fork_latency.p99,
        }
    if run.storm is not None:
        values["overflows"] = sum(one.overflows for one in run.storm.stacks)
    if run.chance is not None:
        values["overflow_chance"] = run.chance.chance
        values["overflow_chance_high"] = run.chance.high
    return values


def _spreads(runs: Sequence[Run]) -> dict[str, Spread]:
    """Measures that every run has: where one has none (an estimate that is open) the others would mislead."""
    numbers = [numbers_of(run) for run in runs]
    found = {}
    for measure in MEASURES:
        values = [one[measure] for one in numbers]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            found[measure] = spread_of(known)
    return found


def _against(first: Mapping[int, int] | None, runs: Sequence[Run]) -> Spread | None:
    if first is None:
        return None
    more = [float(run.processes - first[run.seed]) for run in runs if run.seed in first]
    return spread_of(more) if more else None


def spread_of(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    return Spread(
        runs=count,
        least=float(ordered[0]),
        q1=float(ordered[(count - 1) // 4]),
        median=float(ordered[count // 2]),
        q3=float(ordered[-1 - (count - 1) // 4]),
        greatest=float(ordered[-1]),
        mean=float(ordered.mean()),
        deviation=float(ordered.std(ddof=1)) if count > 1 else None,
    )
