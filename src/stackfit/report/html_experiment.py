"""The page of `lab experiment --html`: what was predicted beside what the kernels did."""

from __future__ import annotations

from collections.abc import Sequence

from stackfit.lab.build import Built
from stackfit.lab.claims import Claim
from stackfit.lab.experiment import Row, StormRow
from stackfit.lab.overflow import OverflowRow
from stackfit.report.experiment import experiment_tables
from stackfit.report.html_model import Block, Grid, Page, Section, Series, bars
from stackfit.text import clean

__all__ = ["experiment_page"]


def experiment_page(
    kernels: Sequence[Built],
    rows: Sequence[Row],
    storm: Sequence[StormRow],
    overflows: Sequence[OverflowRow],
    claims: Sequence[Claim],
) -> Page:
    """Claims first, then a chart of counts, then every table that the terminal has."""
    answers = Grid(
        "Claims of “4K Stacks in 2.6”",
        (("claim", "left"), ("answer", "short"), ("because", "left")),
        tuple((one.text, one.answer, one.why) for one in claims),
    )
    tables = tuple(
        Grid(title, columns, tuple(tuple(cells) for cells in lines))
        for title, columns, lines in experiment_tables(rows, storm, overflows)
    )
    counted = dict.fromkeys(row.case.kernel for row in rows if not row.case.reclaim)
    charts: list[Block] = [_counts(kernel, rows) for kernel in counted]
    built = ", ".join(f"{clean(one.name)} (Linux {clean(one.release)})" for one in kernels)
    sections = [Section("claims", "Claims", (answers,))] if claims else []
    if charts:
        sections.append(Section("counts", "How many fit", tuple(charts)))
    sections.append(Section("runs", "Predicted and counted", tables))
    facts = (("kernels", built or "none built"), ("cases", str(len(rows))))
    return Page("Experiment", "one-page and two-page stacks, from one source", facts, tuple(sections))


def _counts(kernel: str, rows: Sequence[Row]) -> Block:
    """Children of each case of one kernel, predicted and counted."""
    mine = [row for row in rows if row.case.kernel == kernel and not row.case.reclaim]
    names = [
        f"{row.case.memory} MB {row.case.state} {row.case.mode} {row.case.condition}".strip() for row in mine
    ]
    return bars(
        f"counts-{kernel}",
        f"{kernel}: children until memory gives out",
        names,
        [
            Series("predicted", [row.predicted.processes for row in mine]),
            Series("counted", [row.children for row in mine]),
        ],
        "children",
        "; ".join(
            f"{name}: {row.predicted.processes} predicted, {row.children} counted"
            for name, row in zip(names, mine, strict=True)
        ),
    )
