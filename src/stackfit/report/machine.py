"""Runs of the machine for people and as JSON (stackfit.simulate/1 in docs/schemas)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from stackfit.machine.interrupts import StackUse
from stackfit.machine.model import Run
from stackfit.machine.overflow import Chance
from stackfit.machine.scenario import Scenario
from stackfit.report.terminal import line, print_table
from stackfit.text import bytes_text, clean, number_text

__all__ = ["chance_text", "print_simulation", "simulation_json", "spread", "stopped_text"]

Json = dict[str, Any]
_PAGE_KB = 4
_MANY = {"process": "processes", "thread": "threads"}


# JSON


def simulation_json(scenario: Scenario, runs: Sequence[Run]) -> Json:
    """The document of `simulate SCENARIO --json`."""
    return {
        "schema": "stackfit.simulate/1",
        "scenario": scenario.name,
        "description": scenario.description,
        "era": None if scenario.memory is None else scenario.era.name,
        "era_evidence": None if scenario.memory is None else scenario.era.evidence,
        "runs": [run_json(run, scenario.memory is not None) for run in runs],
    }


def run_json(run: Run, has_memory: bool) -> Json:
    """One run; without memory everything that concerns children is null."""
    memory: Json = {
        "mode": run.mode,
        "processes": run.processes,
        "forks": run.forks,
        "stopped_by": run.stopped_by,
        "failed_order": run.failed_order,
        "failed_what": run.failed_what,
        "before": {"free_pages": run.before_free_pages, "buddyinfo": list(run.before_buddyinfo)},
        "free_pages": run.free_pages,
        "buddyinfo": list(run.buddyinfo),
        "reclaim": {
            "scanned": run.reclaim.scanned,
            "stolen": run.reclaim.stolen,
            "stalls": run.reclaim.stalls,
            "swapped": run.reclaim.swapped,
            "kswapd_scanned": run.reclaim.kswapd_scanned,
            "kswapd_stolen": run.reclaim.kswapd_stolen,
        },
        "compaction": {
            "runs": run.compaction.runs,
            "deferred": run.compaction.deferred,
            "scanned": run.compaction.scanned,
            "free_scanned": run.compaction.free_scanned,
            "migrated": run.compaction.migrated,
        },
        "samples": [
            {
                "forks": one.forks,
                "processes": one.processes,
                "free_pages": one.free_pages,
                "buddyinfo": list(one.buddyinfo),
                "scanned": one.scanned,
                "kswapd_scanned": one.kswapd_scanned,
                "migrated": one.migrated,
            }
            for one in run.samples
        ],
        "fork_latency": {"p50": run.fork_latency.p50, "p99": run.fork_latency.p99},
        "stack_bytes": run.stack_bytes,
        "contiguous": [
            {
                "what": one.what,
                "order": one.order,
                "least_order": one.least_order,
                "per_child": one.per_child,
            }
            for one in run.contiguous
        ],
    }
    if not has_memory:
        memory = dict.fromkeys(memory)
    storm = run.storm
    return {
        "layout": run.layout,
        "seed": run.seed,
        **memory,
        "overflows": None if storm is None else sum(one.overflows for one in storm.stacks),
        "stacks": None if storm is None else [_use_json(one) for one in storm.stacks],
        "overflow_chance": None if run.chance is None else chance_json(run.chance),
        "evidence": run.evidence,
        "assumptions": list(run.assumptions),
    }


def _use_json(use: StackUse) -> Json:
    return {
        "stack": use.name,
        "size": use.size,
        "usable": use.usable,
        "greatest": use.greatest,
        "chain": None if use.chain is None else [[part.name, part.bytes] for part in use.chain.parts],
        "overflows": use.overflows,
        "overflow_chain": [[part.name, part.bytes] for part in use.overflow_chains[0].parts]
        if use.overflow_chains
        else None,
    }


def chance_json(chance: Chance) -> Json:
    """The chance of an overflow per hour; null where there is no estimate, `high` then limits it."""
    return {
        "per_hour": chance.chance,
        "low": chance.low,
        "high": chance.high,
        "method": chance.method,
        "evidence": chance.evidence,
        "reason": chance.reason or None,
    }


# terminal


def print_simulation(console: Console, scenario: Scenario, runs: Sequence[Run]) -> None:
    """A row for each layout; with several seeds the median, and what the runs span."""
    line(console, f"{scenario.name}: {scenario.description}", style="bold")
    by_layout: dict[str, list[Run]] = {}
    for run in runs:
        by_layout.setdefault(run.layout, []).append(run)
    if scenario.memory is not None:
        _print_memory(console, by_layout)
    if scenario.storm is not None:
        _print_storm(console, by_layout)
    if scenario.memory is not None and scenario.era.assumption:
        line(console, f"Assumed: {scenario.era.assumption}.", style="yellow")
    for text in runs[0].assumptions:
        if text != scenario.era.assumption:
            line(console, f"  assumed: {clean(text)}", style="dim")


def _print_memory(console: Console, by_layout: dict[str, list[Run]]) -> None:
    columns = [
        ("layout", "left"), ("children", "right"), ("stopped by", "left"), ("free then", "right"),
        ("stacks", "right"), ("direct reclaim", "right"), ("kswapd", "right"), ("compaction", "right"),
        ("fork p50 … p99", "right"),
    ]  # fmt: skip
    rows = []
    for name, found in by_layout.items():
        run = sorted(found, key=lambda one: one.processes)[len(found) // 2]
        reclaim, compaction = run.reclaim, run.compaction
        rows.append([
            clean(name),
            f"{spread([one.processes for one in found])} {_MANY[run.mode]}",
            stopped_text(run),
            f"{number_text(run.free_pages * _PAGE_KB)} kB",
            f"{number_text(run.stack_bytes // 1024)} kB",
            f"{number_text(reclaim.stalls)} stalls, {number_text(reclaim.scanned)} scanned",
            f"{number_text(reclaim.kswapd_scanned)} scanned",
            f"{number_text(compaction.runs)} runs, {number_text(compaction.migrated)} migrated",
            "—" if run.fork_latency.p50 is None
            else f"{run.fork_latency.p50:.0f} … {run.fork_latency.p99:.0f} µs",
        ])  # fmt: skip
    print_table(console, "Processes and memory", columns, rows)
    for name, found in by_layout.items():
        blocks = ", ".join(map(str, found[0].contiguous))
        line(console, f"Blocks above order 0 of a fork, {clean(name)}: {clean(blocks) or 'none'}")


def _print_storm(console: Console, by_layout: dict[str, list[Run]]) -> None:
    columns = [
        ("layout", "left"), ("stack", "left"), ("usable", "right"), ("deepest seen", "right"),
        ("overflows", "right"), ("chain", "left"),
    ]  # fmt: skip
    rows, chances, first = [], [], 0
    for name, found in by_layout.items():
        storm, chance = found[0].storm, found[0].chance
        assert storm is not None and chance is not None
        first = found[0].seed
        for use in storm.stacks:
            chain = use.overflow_chains[0] if use.overflow_chains else use.chain
            rows.append([
                clean(name), clean(use.name), bytes_text(use.usable), bytes_text(use.greatest),
                number_text(use.overflows), "—" if chain is None else clean(str(chain)),
            ])  # fmt: skip
        chances.append(f"Chance of an overflow per hour, {clean(name)}: {chance_text(chance)}")
    print_table(console, f"Stacks under interrupts (seed {first})", columns, rows)
    for text in chances:
        line(console, text)


def stopped_text(run: Run) -> str:
    """Why no more children were made."""
    if run.failed_order is not None:
        return f"order {run.failed_order}, {clean(run.failed_what or '')}"
    return {"limit": "as many as wanted", "end": "end of the scenario"}.get(run.stopped_by, run.stopped_by)


def chance_text(chance: Chance) -> str:
    """`3.7e-05 (3.6e-05 … 3.8e-05), assumed`; an upper limit where there is no estimate."""
    if chance.chance is None:
        return f"open, at most {chance.high:.2g}: {clean(chance.reason)}"
    if chance.high == 0:
        return f"0: the depths stated do not add up to a stack ({chance.method}, {chance.evidence})"
    if chance.low == chance.high == chance.chance:
        return f"{chance.chance:.2g} ({chance.method}, {chance.evidence})"
    return f"{chance.chance:.2g} ({chance.low:.2g} … {chance.high:.2g}; {chance.method}, {chance.evidence})"


def spread(found: Sequence[int]) -> str:
    """Median of the runs, and least to greatest where they differ."""
    ordered = sorted(found)
    middle = number_text(ordered[len(ordered) // 2])
    if ordered[0] == ordered[-1]:
        return middle
    return f"{middle} ({number_text(ordered[0])} to {number_text(ordered[-1])})"
