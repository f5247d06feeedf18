"""What a person reads in a terminal: tables by rich, plain text without width limits when piped.

Every text is escaped: names come from binaries, reasons from files of others.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stackfit.analysis import Analysis
from stackfit.calls.stated import Stated
from stackfit.image.model import Program
from stackfit.layouts.model import PAGE
from stackfit.measure.model import Seen
from stackfit.report.rows import ChainRow, chain_rows
from stackfit.text import bytes_text, clean, escape, number_text, range_text, size_text
from stackfit.verdict.model import LayoutVerdict, Part, StackNeed, Verdict

__all__ = [
    "given_text", "line", "make_console", "missing_text", "print_chain", "print_check", "print_table",
    "smallest_size", "stated_text",
]  # fmt: skip

_STYLE = {
    Verdict.EXCEEDS: "bold red",
    Verdict.MAY_EXCEED: "red",
    Verdict.UNKNOWN: "yellow",
    Verdict.FITS_IF: "green",
    Verdict.FITS: "bold green",
    Verdict.NOT_ANALYSED: "dim",
}
_CHAIN_ROWS = 12  # of a chain's head and tail each, on the first screen
_ASSUMED_ROWS = 8
_MOST_MODULES = 12  # of those that recordings pass and nobody has given
_CHECK_COLUMNS = [
    ("layout", "left"), ("stack", "left"), ("size", "right"), ("measured", "right"), ("composed", "right"),
    ("direct", "right"), ("bound", "right"), ("headroom", "right"), ("fits to hops", "right"),
    ("verdict", "left"), ("because", "left"),
]  # fmt: skip


def make_console() -> Console:
    """A console for standard output; wide enough for every column when it is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=200, color_system=None)


def print_table(
    console: Console,
    title: str,
    columns: list[tuple[str, str]],
    rows: list[list[str]],
    styles: list[str] | None = None,
) -> None:
    """A table; `columns` are (name, "left" or "right"), `styles` one a row. Cells are text, never markup."""
    rows = [[clean(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        _print_plain(console, title, columns, rows)
        return
    heading = Text(clean(title), style="italic") if title else None
    table = Table(title=heading, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=side == "right")
    for number, row in enumerate(rows):
        table.add_row(*(Text(cell) for cell in row), style=styles[number] if styles else None)
    console.print(table)
    console.print()


def _print_plain(console: Console, title: str, columns: list[tuple[str, str]], rows: list[list[str]]) -> None:
    widths = [max([len(name), *(len(row[index]) for row in rows)]) for index, (name, _) in enumerate(columns)]
    if title:
        line(console, title)
    for row in [[name for name, _ in columns], *rows]:
        cells = [
            cell.rjust(width) if side == "right" else cell.ljust(width)
            for cell, width, (_, side) in zip(row, widths, columns, strict=True)
        ]
        console.out("  ".join(cells).rstrip(), highlight=False)
    console.out("", highlight=False)


def line(console: Console, text: str, style: str = "") -> None:
    """One line of text."""
    text = escape(text)
    if console.is_terminal:
        console.print(Text(text, style=style))
    else:
        console.out(text, highlight=False)


def print_check(console: Console, analysis: Analysis, command: list[str]) -> None:
    """The first screen of `check`: verdict table, worst chains, open items, assumptions."""
    _print_head(console, analysis)
    shown = [
        (layout, need)
        for layout in analysis.verdicts
        for need in layout.stacks
        if need.verdict is not Verdict.NOT_ANALYSED or need.stack.runs
    ]
    styles = [_STYLE[need.verdict] for _, need in shown]
    print_table(console, "", _CHECK_COLUMNS, [_check_row(layout, need) for layout, need in shown], styles)
    _print_notes(console, analysis)
    _print_recorded(console, analysis)
    for layout in analysis.verdicts:
        for need in layout.stacks:
            if need.chain is not None:
                _print_stack(console, analysis, layout.layout.name, need)
    _print_open(console, analysis, command)
    _print_assumed(console, analysis)


def _print_head(console: Console, analysis: Analysis) -> None:
    program = analysis.program
    kernel = program.images[0]
    line(
        console,
        f"{program.path}: {kernel.machine.value}"
        + (f", Linux {kernel.release}" if kernel.release else "")
        + f", {number_text(len(analysis.code.functions))} functions, {given_text(program)}",
    )
    for witness in analysis.witnesses:
        wrong = len(witness.disagreements)
        line(
            console,
            f"{witness.name} states a depth at {number_text(witness.defined)} of {number_text(witness.sites)}"
            f" call sites: {number_text(witness.equal)} equal"
            + (f", {number_text(wrong)} not (--json lists them)" if wrong else ""),
        )
    for one in analysis.stated:
        line(console, stated_text(one))
    for warning in analysis.warnings:
        line(console, f"warning: {warning}", "yellow")
    line(console, "")


def stated_text(stated: Stated) -> str:
    """What a compiler said, in one line: how much of it there is here, how much is equal."""
    kinds = stated.usage.kinds
    compared, equal = sum(one.compared for one in kinds), sum(one.equal for one in kinds)
    rows = sum(one.rows for one in kinds)
    text = (
        f"{stated.name} states {number_text(rows)} frames, {number_text(compared)} of functions with a frame"
        f" here: {number_text(equal)} equal"
    )
    if compared > equal:
        text += f", {number_text(compared - equal)} not (frames --witness lists them)"
    if stated.calls:
        found = stated.calls - len(stated.missing)
        text += f"; {number_text(found)} of {number_text(stated.calls)} calls are here"
    return text


def given_text(program: Program) -> str:
    """How many images besides the kernel; of objects, how many."""
    count = len(program.images) - (not program.objects)
    if not count:
        return "no modules given"
    return f"{number_text(count)} {'object' if program.objects else 'module'}{'s' if count > 1 else ''}"


def _check_row(layout: LayoutVerdict, need: StackNeed) -> list[str]:
    return [
        layout.layout.name + (" *" if need.hypothetical else ""),
        need.stack.name,
        size_text(need.stack.size),
        bytes_text(need.measured),
        bytes_text(need.composed),
        direct_text(need),
        "none" if need.bound is None else bytes_text(need.bound, need.lower_bound),
        bytes_text(need.headroom),
        "—" if need.fits_hops is None else str(need.fits_hops),
        need.verdict.value,
        need.why,
    ]


def direct_text(need: StackNeed) -> str:
    """The need at direct: a range where the deepest chain found is not the bound."""
    return range_text(need.found, need.direct, need.lower_bound)


def _print_notes(console: Console, analysis: Analysis) -> None:
    if any(layout.hypothetical for layout in analysis.verdicts):
        line(
            console,
            "* hypothetical: the kernel switches stacks where this layout has none: a plain call here",
        )
    skipped = sorted(
        {
            need.stack.name
            for layout in analysis.verdicts
            for need in layout.stacks
            if need.verdict is Verdict.NOT_ANALYSED
        }
    )
    if skipped:
        line(console, f"not analysed (entry code only, or no handler in this kernel): {', '.join(skipped)}")
    line(console, "")


def _print_recorded(console: Console, analysis: Analysis) -> None:
    """What the ladder's lower rungs rest on, and where recordings contradict the analysis."""
    if not analysis.recordings:
        return
    ran = analysis.exercised
    line(
        console,
        f"measured and composed: {number_text(len(analysis.traces))} chains and"
        f" {number_text(sum(ran.counts.values()))} distinct calls recorded,"
        f" {number_text(ran.counts[Seen.OPEN])} of them at open sites",
    )
    for layout in analysis.verdicts:
        for need in layout.stacks:
            if need.measured_by:
                where = f"{layout.layout.name} {need.stack.name}"
                deeper = (
                    need.composed is not None and need.measured is not None and need.measured > need.composed
                )
                more = ", deeper than composed: not all of its calls were recorded" if deeper else ""
                line(console, f"  {where}: {bytes_text(need.measured)} by {need.measured_by}{more}")
    if analysis.traces.missing:
        line(console, missing_text(analysis.traces.missing))
    found = analysis.defects(analysis.composer.context_needs(analysis.layouts[0]))
    for text in found:
        line(console, f"defect: {text}", "bold red")
    line(console, "")


def missing_text(missing: Mapping[str, int]) -> str:
    """What recordings pass and nobody has given."""
    names = ", ".join(clean(f"{module} ({count})") for module, count in list(missing.items())[:_MOST_MODULES])
    more = f" and {len(missing) - _MOST_MODULES} more" if len(missing) > _MOST_MODULES else ""
    return f"modules that were not given, with places recorded in them: {names}{more}; open here (--modules)"


def _print_stack(console: Console, analysis: Analysis, layout: str, need: StackNeed) -> None:
    line(
        console, f"{layout} · {need.stack.name}: {direct_text(need)} of {size_text(need.stack.size)}", "bold"
    )
    for part in need.parts:
        line(console, _part_text(part))
    smallest = smallest_size(need, need.direct)
    aside = " (open items aside)" if need.open else ""
    if smallest is not None:
        line(console, f"  smallest size sufficient at direct: {size_text(smallest)}{aside}")
    advice = analysis.advice(need)
    if advice is not None:
        line(
            console,
            f"  allocate {bytes_text(advice.bytes)}: bound {bytes_text(advice.bound)} + margin"
            f" {analysis.margin.text}, to a multiple of {advice.unit} B",
        )
    fitting = need.fitting
    if fitting.contexts > 1:
        line(
            console,
            f"  of {number_text(fitting.contexts)} contexts that start here,"
            f" each by its own direct bound{aside}:"
            f" {number_text(fitting.alone[0])} fit alone,"
            f" {number_text(fitting.nested[0])} with all that may nest on top",
        )
    rows = chain_rows(analysis, need.worst, need.chain)
    if rows and need.worst is not None:
        of = "the chain above the size" if need.verdict is Verdict.MAY_EXCEED else "worst chain"
        line(console, f"  {of}: {need.worst.context.title}{_gap(need)}")
        print_chain(console, rows)
    line(console, "")


def _part_text(part: Part) -> str:
    times = f" × {part.times}" if part.times > 1 else ""  # noqa: RUF001
    source = f"  [{part.source}]" if part.source else ""
    return f"  {range_text(part.found, part.bytes, False):>12}{times}  {part.name}{source}"


def _gap(need: StackNeed) -> str:
    if need.chain is None or need.chain.upper == need.chain.found:
        return ""
    gap = bytes_text(need.chain.upper - need.chain.found)
    return f" (deepest concrete chain found; the bound is {gap} above it)"


def smallest_size(need: StackNeed, value: int | None) -> int | None:
    """The smallest size that holds `value`: whole pages, a power of two of them for a contiguous stack; a
    multiple of the stack's unit."""
    if value is None:
        return None
    if need.stack.unit != PAGE:
        return -(-value // need.stack.unit) * need.stack.unit
    pages = -(-value // PAGE)
    if need.stack.allocation == "contiguous":
        pages = 1 << (pages - 1).bit_length()
    return max(pages, 1) * PAGE


def print_chain(console: Console, rows: list[ChainRow], whole: bool = False) -> None:
    """A chain's rows; the middle of a long one is left out unless `whole`."""
    shown = rows
    left_out = 0
    if not whole and len(rows) > 2 * _CHAIN_ROWS + 3:
        left_out = len(rows) - 2 * _CHAIN_ROWS
        shown = rows[:_CHAIN_ROWS] + rows[-_CHAIN_ROWS:]
    for index, row in enumerate(shown):
        if left_out and index == _CHAIN_ROWS:
            line(console, f"      … {left_out} frames (stackfit check --json has them)")
        where = f" [{row.module}]" if row.module else ""
        how = "" if row.kind in ("direct", "end", "entry") else f"  {row.kind}"
        evidence = "" if row.evidence == "proved" else f" ({row.evidence})"
        line(console, f"    {row.total:>7} {row.depth:>6}  {clean(row.function)}{where}{how}{evidence}")


def _print_open(console: Console, analysis: Analysis, command: list[str]) -> None:
    counts: dict[str, int] = {}
    for layout in analysis.verdicts:
        for need in layout.stacks:
            if need.verdict is not Verdict.NOT_ANALYSED:
                for reason, count in need.open.counts:
                    counts[reason] = max(counts.get(reason, 0), count)
    if not counts:
        return
    line(console, "Open (the greatest number below any one stack):", "bold")
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        line(console, f"  {number_text(count):>7}  {reason}")
    line(console, f"  list them: {shlex.join(['stackfit', 'calls', *command, '--open'])}")
    line(console, "")


def _print_assumed(console: Console, analysis: Analysis) -> None:
    assumed = list(
        dict.fromkeys(text for one in analysis.verdicts for need in one.stacks for text in need.assumed)
    )
    if not assumed:
        return
    line(console, f"Assumed ({len(assumed)}; --json lists every reason):", "bold")
    for text in assumed[:_ASSUMED_ROWS]:
        line(console, f"  {text}")
    if len(assumed) > _ASSUMED_ROWS:
        line(console, f"  … {len(assumed) - _ASSUMED_ROWS} more")
