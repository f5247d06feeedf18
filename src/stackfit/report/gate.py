"""What a gate found: on a terminal, as JSON, as GitHub's workflow annotations, as a Markdown summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from stackfit.analysis import Analysis
from stackfit.decision.gate import Finding, Held
from stackfit.report.markdown import markdown_text, table_text
from stackfit.report.rows import ChainRow, chain_rows
from stackfit.report.sarif import finding_rows
from stackfit.report.sources import Sources
from stackfit.report.terminal import direct_text, given_text, line, print_table
from stackfit.text import bytes_text, clean, number_text, size_text
from stackfit.verdict.model import LayoutVerdict, StackNeed, Verdict

__all__ = ["annotations_text", "check_markdown", "gate_json", "print_gate"]

Json = dict[str, Any]
_COLUMNS = (("budget", "left"), ("of", "left"), ("allowed", "right"), ("because", "left"))
_CHECK_COLUMNS = (
    ("layout", "left"), ("stack", "left"), ("size", "right"), ("measured", "right"), ("direct", "right"),
    ("bound", "right"), ("headroom", "right"), ("verdict", "left"), ("because", "left"),
)  # fmt: skip
_CHAIN_ROWS = 40  # of a chain in a summary
_LEVELS = {"exceeds": "error", "may-exceed": "warning", "budget": "error", "growth": "warning"}


def print_gate(
    console: Console, config: str | None, held: Sequence[Held], findings: Iterable[Finding]
) -> None:
    """Budgets, and everything else that fails; nothing where there is neither."""
    if config is not None:
        line(console, f"configuration: {config}")
    if held:
        over = [one for one in held if one.over]
        title = f"budgets: {number_text(len(held) - len(over))} of {number_text(len(held))} kept"
        if over:
            print_table(console, title, list(_COLUMNS), _budget_rows(over))
        else:
            line(console, title)
    failed = [one for one in findings if one.fails]
    if failed:
        line(console, f"fails ({number_text(len(failed))}):", "bold red")
        for one in failed:
            line(console, f"  {one.rule}: {clean(one.subject)}: {one.text}")


def _budget_rows(held: Sequence[Held]) -> list[list[str]]:
    return [
        [
            f"{one.budget.kind} {one.budget.pattern}",
            one.subject,
            bytes_text(one.budget.bytes),
            one.text,
        ]
        for one in held
    ]


def gate_json(
    config: str | None, fail_on: Iterable[str], held: Sequence[Held], baseline: str | None,
    findings: Iterable[Finding],
) -> Json:  # fmt: skip
    """The `gate` object of check's JSON."""
    return {
        "config": config,
        "fail_on": sorted(fail_on),
        "baseline": baseline,
        "budgets": [
            {
                "kind": one.budget.kind,
                "pattern": one.budget.pattern,
                "bytes": one.budget.bytes,
                "at": one.budget.at,
                "subject": one.subject,
                "value": one.value,
                "found": one.found,
                "open": one.open,
                "over": one.over,
            }
            for one in held
        ],
        "failed": [
            {"rule": one.rule, "subject": one.subject, "text": one.text} for one in findings if one.fails
        ],
    }


# ---------------------------------------------------------------- GitHub


def annotations_text(analysis: Analysis, findings: Iterable[Finding]) -> str:
    """Workflow commands, one a line: what fails is an error, what else was found a warning or a notice.

    Source: GitHub documentation, "Workflow commands for GitHub Actions", setting an error message.
    """
    sources = Sources(analysis)
    return "".join(f"{_annotation(analysis, sources, one)}\n" for one in findings)


def _annotation(analysis: Analysis, sources: Sources, finding: Finding) -> str:
    level = "error" if finding.fails else _LEVELS.get(finding.rule, "notice")
    if level == "error" and not finding.fails:
        level = "warning"  # found, but the project has not asked to fail on it
    properties = {"title": f"stackfit: {finding.rule}"}
    rows = sorted(finding_rows(analysis, finding), key=lambda row: -row.depth)
    addresses = [sources.entry(finding.function)] if finding.function >= 0 else map(sources.address, rows)
    place = next((found for address in addresses if (found := sources.line(address)) is not None), None)
    if place is not None:
        properties |= {"file": place.file, "line": str(place.line)}
    settings = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{level} {settings}::{_data(clean(f'{finding.subject}: {finding.text}'))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def check_markdown(analysis: Analysis, held: Sequence[Held], findings: Sequence[Finding]) -> str:
    """A summary for a pull request or a job's page: verdicts and budgets, what fails, chains to open."""
    program = analysis.program
    kernel = program.images[0]
    release = f", Linux {kernel.release}" if kernel.release else ""
    failed = [one for one in findings if one.fails]
    parts = [
        "## Stack sizes",
        "",
        markdown_text(f"{program.path}: {program.machine.value}{release}, {given_text(program)}"),
        "",
    ]
    if failed:
        parts += [f"**{number_text(len(failed))} failed:**", ""]
        parts += [f"- {one.rule}: {markdown_text(f'{one.subject}: {one.text}')}" for one in failed]
        parts.append("")
    shown = [
        (layout, need)
        for layout in analysis.verdicts
        for need in layout.stacks
        if need.verdict is not Verdict.NOT_ANALYSED or need.stack.runs
    ]
    parts.append(table_text(_CHECK_COLUMNS, [_check_row(*one) for one in shown]))
    parts.append("`≥`: open items may add to it; `—`: not known.\n")
    if held:
        over = [one for one in held if one.over]
        parts += [f"**Budgets: {number_text(len(held) - len(over))} of {number_text(len(held))} kept**", ""]
        parts += [table_text(_COLUMNS, _budget_rows(over))] if over else []
    for layout, need in shown:
        rows = chain_rows(analysis, need.worst, need.chain)
        if rows and need.worst is not None:
            parts += _chain(f"{layout.layout.name} · {need.stack.name}", need, rows)
    return "\n".join(parts)


def _check_row(layout: LayoutVerdict, need: StackNeed) -> list[str]:
    return [
        layout.layout.name + (" (hypothetical)" if need.hypothetical else ""),
        need.stack.name,
        size_text(need.stack.size),
        bytes_text(need.measured),
        direct_text(need),
        "none" if need.bound is None else bytes_text(need.bound, need.lower_bound),
        bytes_text(need.headroom),
        need.verdict.value,
        need.why,
    ]


def _chain(title: str, need: StackNeed, rows: list[ChainRow]) -> list[str]:
    """The largest frames of a chain that is long, in its order; else all of it."""
    kept = sorted(rows, key=lambda row: -row.depth)[:_CHAIN_ROWS]
    shown = [row for row in rows if any(row is one for one in kept)]
    left = len(rows) - len(shown)
    columns = (("total", "right"), ("depth", "right"), ("function", "left"), ("module", "left"), ("", "left"))
    body = table_text(
        columns,
        [
            [
                number_text(row.total),
                number_text(row.depth),
                row.function,
                row.module or "",
                " ".join(
                    text
                    for text in (
                        "" if row.kind in ("direct", "end", "entry") else row.kind,
                        "" if row.evidence == "proved" else f"({row.evidence})",
                    )
                    if text
                ),
            ]
            for row in shown
        ],
    )
    assert need.worst is not None
    of = "a chain above the size" if need.verdict is Verdict.MAY_EXCEED else "the worst chain"
    more = [f"… {number_text(left)} smaller frames", ""] if left else []
    summary = f"<summary>{title}: {of}, {len(rows)} frames</summary>"
    return [
        "<details>",
        summary,
        "",
        markdown_text(need.worst.context.title),
        "",
        body,
        *more,
        "</details>",
        "",
    ]
