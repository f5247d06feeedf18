"""The HTML report of a comparison: decision table, the article's claims, analysis, simulations."""

from __future__ import annotations

from collections.abc import Sequence

from stackfit.decision.model import Answer, Claim, Comparison
from stackfit.report.compare import decision_rows
from stackfit.report.html_check import analysed, kernel_facts
from stackfit.report.html_model import Cell, Grid, Page, Prose, Section
from stackfit.report.html_simulate import scenario_section

__all__ = ["comparison_page"]

_TONES = {Answer.HOLDS: "good", Answer.IN_PART: "doubt", Answer.FAILS: "bad", Answer.OPEN: "faint"}


def comparison_page(comparison: Comparison, claims: Sequence[Claim]) -> Page:
    """The report of `compare`."""
    names = [layout.name for layout in comparison.layouts]
    sections = [Section("decision", "Decision table", (_decision(comparison),))]
    if claims:
        sections.append(Section("claims", "Claims of “4K Stacks in 2.6”", (_claims(comparison, claims),)))
    found = analysed(comparison.analysis) if comparison.analysis is not None else None
    if found is not None:
        sections += found.sections
    else:
        sections.append(Section("verdicts", "Does it fit?", (Prose(("No image given: open.",)),)))
    scenarios = list({id(one.scenario): one.scenario for one in comparison.outcomes}.values())
    for number, scenario in enumerate(scenarios):
        runs = [run for one in comparison.outcomes if one.scenario is scenario for run in one.runs]
        sections.append(scenario_section(scenario, runs, f"scenario-{number}"))
    facts = (
        kernel_facts(comparison.analysis) if comparison.analysis is not None else (("image", "none given"),)
    )
    return Page(
        "Comparison", " against ".join(names), facts, tuple(sections), found.data if found is not None else {}
    )


def _decision(comparison: Comparison) -> Grid:
    columns = (
        ("question", "left"),
        *((one.name, "left") for one in comparison.layouts),
        ("evidence", "left"),
    )
    rows: list[tuple[str | Cell, ...]] = []
    groups = []
    for title, found in decision_rows(comparison):
        groups.append(len(rows))
        rows.append((title,))
        for question, answers, evidence in found:
            heading = Cell(question.strip(), "sub" if question.startswith(" ") else "")
            rows.append((heading, *answers, Cell(evidence, "faint")))
    return Grid("", columns, tuple(rows), frozenset(groups))


def _claims(comparison: Comparison, claims: Sequence[Claim]) -> Grid:
    before, after = comparison.layouts[0].name, comparison.layouts[-1].name
    rows = tuple(
        (
            f"“{one.quote}”",
            Cell(one.answer.value, _TONES[one.answer]),
            one.text,
            one.evidence,
            Cell(one.rule, "faint"),
        )
        for one in claims
    )
    columns = (
        ("claim", "left"),
        ("answer", "short"),
        ("number", "left"),
        ("evidence", "short"),
        ("by this rule", "left"),
    )
    return Grid(f"For {before} (before) and {after} (after)", columns, rows)
