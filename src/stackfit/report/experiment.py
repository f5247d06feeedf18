"""lab build and lab experiment for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from stackfit.lab.build import Built, built_json
from stackfit.lab.claims import Claim
from stackfit.lab.experiment import Row, StormRow
from stackfit.lab.overflow import OverflowRow
from stackfit.report.terminal import line, print_table
from stackfit.text import bytes_text, clean, number_text

__all__ = ["experiment_json", "experiment_tables", "print_built", "print_experiment"]

Table = tuple[str, tuple[tuple[str, str], ...], list[list[str]]]  # title, columns (name, side), rows

_RECLAIM = ("allocstall", "pgscan_direct", "pgsteal_direct", "pgscan_kswapd", "pgsteal_kswapd", "pswpout")


def print_built(console: Console, built: Built) -> None:
    line(
        console,
        f"{built.name}: Linux {clean(built.release)}, {number_text(built.objects)} files compiled"
        f" in {built.seconds:.0f} s by {clean(built.compiler)}"
        f" (-j{built.jobs}{', ccache' if built.cache else ''})",
    )
    line(console, f"{built.directory}")


def print_experiment(
    console: Console,
    rows: Sequence[Row],
    storm: Sequence[StormRow],
    overflows: Sequence[OverflowRow],
    claims: Sequence[Claim],
) -> None:
    for number, (title, columns, cells) in enumerate(experiment_tables(rows, storm, overflows)):
        if number:
            line(console, "")
        print_table(console, title, list(columns), cells)
    for claim in claims:
        line(console, "")
        line(console, f"“{claim.text}”: {claim.answer}", "bold")
        line(console, f"  {claim.why}")


def experiment_tables(
    rows: Sequence[Row], storm: Sequence[StormRow], overflows: Sequence[OverflowRow]
) -> list[Table]:
    """What was predicted and what came of it, a table for each part that was run."""
    forks = [_fork_row(row) for row in rows if not row.case.reclaim]
    reclaims = [_reclaim_row(row) for row in rows if row.case.reclaim]
    counters = tuple((name, "right") for name in _RECLAIM)
    tables: list[Table] = [
        (
            "children until memory gives out: prediction and outcome",
            (("kernel", "left"), ("MB", "right"), ("state", "left"), ("children", "left"),
             ("free kB", "right"), ("predicted", "right"), ("counted", "right"), ("off", "right"),
             ("stopped by", "left"), ("fork p50", "right"), ("p99", "right")),
            forks,
        ),
        (
            "reclaim load, per 1 000 forks: predicted / counted",
            (("kernel", "left"), ("MB", "right"), ("load", "left"), ("runs", "right"), *counters,
             ("OOM killer at", "right"), ("fork p99", "right")),
            reclaims,
        ),
        (
            "deepest under interrupts",
            (("kernel", "left"), ("tracer", "left"), ("task", "right"), ("hardirq", "right"),
             ("softirq", "right"), ("interrupts", "right"), ("kernel says", "left")),
            [_storm_row(row) for row in storm],
        ),
        (
            "overflow: bytes below the module's handler at which the stack is left",
            (("kernel", "left"), ("context", "left"), ("stack", "left"), ("predicted", "right"),
             ("counted", "right"), ("difference", "right"), ("noticed by", "left")),
            [_overflow_row(row) for row in overflows],
        ),
    ]  # fmt: skip
    return [table for table in tables if table[2]]


def _fork_row(row: Row) -> list[str]:
    case, predicted = row.case, row.predicted
    counts = sorted(one.children for one in row.outcomes)
    return [
        case.kernel,
        str(case.memory),
        case.state + (f", {case.condition}" if case.condition else ""),
        case.mode,
        number_text(row.outcomes[0].free_before_kb),
        f"{number_text(predicted.processes)} ({_order(predicted.failed_order)})",
        _span(counts) + f" ({_order(row.order)})",
        f"{row.off:+.0%}",
        row.outcomes[0].stopped + (f", {clean(row.outcomes[0].caller)}" if row.outcomes[0].caller else ""),
        _microseconds(row.outcomes[0].p50),
        _microseconds(row.outcomes[0].p99),
    ]


def _span(counts: Sequence[int]) -> str:
    middle = number_text(counts[len(counts) // 2])
    return middle if counts[0] == counts[-1] else f"{middle} ({counts[0]} to {counts[-1]})"


def _order(order: int | None) -> str:
    return "—" if order is None else f"order {order}"


def _microseconds(nanoseconds: int | None) -> str:
    return "—" if nanoseconds is None else f"{nanoseconds / 1000:.0f} µs"


def _reclaim_row(row: Row) -> list[str]:
    cells = [
        f"{_middle(row.predicted.rates.get(name, (0,)))} / {_middle(row.rates(name))}" for name in _RECLAIM
    ]
    ended = sorted(one.children for one in row.outcomes if one.order is not None)
    return [
        row.case.kernel,
        str(row.case.memory),
        row.case.state,
        str(len(row.outcomes)),
        *cells,
        f"{len(ended)} ({ended[0]} to {ended[-1]})" if ended else "0",
        _microseconds(row.outcomes[0].p99),
    ]


def _middle(rates: Sequence[float]) -> str:
    middle = f"{rates[len(rates) // 2]:.0f}"
    return middle if rates[0] == rates[-1] else f"{middle} ({rates[0]:.0f} to {rates[-1]:.0f})"


def _storm_row(row: StormRow) -> list[str]:
    return [
        row.storm.kernel,
        "on" if row.storm.traced else "off",
        bytes_text(row.traced if row.storm.traced else row.deepest),
        bytes_text(row.hardirq),
        bytes_text(row.softirq),
        number_text(row.interrupts),
        clean("; ".join(row.complaints)) or "nothing",
    ]


def _overflow_row(row: OverflowRow) -> list[str]:
    return [
        row.kernel,
        row.context,
        row.stack,
        bytes_text(row.predicted),
        bytes_text(row.measured),
        "—" if row.measured is None else f"{row.predicted - row.measured:+d} B",
        clean("; ".join(row.noticed)) or "nothing",
    ]


def experiment_json(
    kernels: Sequence[Built],
    rows: Sequence[Row],
    storm: Sequence[StormRow],
    overflows: Sequence[OverflowRow],
    claims: Sequence[Claim],
) -> dict[str, Any]:
    return {
        "schema": "stackfit.experiment/1",
        "kernels": [built_json(one) for one in kernels],
        "rows": [
            {
                "case": {**asdict(row.case), "name": row.case.name},
                "predicted": asdict(row.predicted),
                "first": None if row.first is None else asdict(row.first),
                "outcomes": [asdict(one) for one in row.outcomes],
                "children": row.children,
                "order": row.order,
                "off": round(row.off, 4) if row.children else None,
            }
            for row in rows
        ],
        "storms": [asdict(row) for row in storm],
        "overflows": [asdict(row) for row in overflows],
        "claims": [asdict(one) for one in claims],
    }
