"""What a person reads in a terminal: tables by rich, plain text without width limits when piped."""

from __future__ import annotations

import shlex
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stackfit.analysis import Analysis
from stackfit.layouts.model import PAGE
from stackfit.report.rows import ChainRow, chain_rows
from stackfit.report.text import bytes_text, clean, number_text, size_text
from stackfit.verdict.model import StackNeed, Verdict

__all__ = ["make_console", "print_chain", "print_check", "print_table"]

_STYLE = {
    Verdict.EXCEEDS: "bold red",
    Verdict.MAY_EXCEED: "red",
    Verdict.UNKNOWN: "yellow",
    Verdict.FITS_IF: "green",
    Verdict.FITS: "bold green",
    Verdict.NOT_ANALYSED: "dim",
}
_CHAIN_ROWS = 12  # of a chain's head and tail each, on the first screen


def make_console() -> Console:
    """A console for standard output; wide enough for every column when it is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=200, color_system=None)


def print_table(console: Console, title: str, columns: list[tuple[str, str]], rows: list[list[str]]) -> None:
    """A table; `columns` are (name, "left" or "right"). Cells are text, never markup."""
    if not console.is_terminal:
        widths = [max([len(name), *(len(row[index]) for row in rows)]) for index, (name, _) in enumerate(columns)]
        if title:
            console.out(title, highlight=False)
        for row in [[name for name, _ in columns], *rows]:
            cells = [
                cell.rjust(width) if side == "right" else cell.ljust(width)
                for cell, width, (_, side) in zip(row, widths, columns, strict=True)
            ]
            console.out("  ".join(cells).rstrip(), highlight=False)
        console.out("", highlight=False)
        return
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=side == "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    console.print()


def _line(console: Console, text: str, style: str = "") -> None:
    if console.is_terminal:
        console.print(Text(text, style=style))
    else:
        console.out(text, highlight=False)


def _need_cell(need: StackNeed, value: int | None) -> str:
    return bytes_text(value, need.lower_bound)


def print_check(console: Console, analysis: Analysis, command: list[str]) -> None:
    """The first screen of `check`: verdict table, worst chains, open items, assumptions."""
    kernel = analysis.program.images[0]
    modules = len(analysis.program.images) - 1
    _line(
        console,
        f"{clean(kernel.path)}: {kernel.machine.value}"
        + (f", Linux {clean(kernel.release)}" if kernel.release else "")
        + f", {number_text(len(analysis.code.functions))} functions"
        + (f", {number_text(modules)} modules" if modules else ", no modules given"),
    )
    for witness in analysis.witnesses:
        wrong = len(witness.disagreements)
        _line(
            console,
            f"{witness.name} states a depth at {number_text(witness.defined)} of {number_text(witness.sites)} call sites:"
            f" {number_text(witness.equal)} equal" + (f", {number_text(wrong)} not (--json lists them)" if wrong else ""),
        )
    for warning in analysis.warnings:
        _line(console, f"warning: {clean(warning)}", "yellow")
    console.out("")
    rows: list[list[str]] = []
    for layout in analysis.verdicts:
        for need in layout.stacks:
            if need.verdict is Verdict.NOT_ANALYSED and not need.stack.runs:
                continue
            rows.append(
                [
                    layout.layout.name + (" *" if need.hypothetical else ""),
                    need.stack.name,
                    size_text(need.stack.size),
                    bytes_text(need.measured),
                    bytes_text(need.composed),
                    _need_cell(need, need.direct),
                    _need_cell(need, need.bound) if need.bound is not None else "none",
                    bytes_text(need.headroom) if need.headroom is not None else "—",
                    "—" if need.fits_hops is None else str(need.fits_hops),
                    need.verdict.value,
                    need.why,
                ]
            )
    columns = [
        ("layout", "left"), ("stack", "left"), ("size", "right"), ("measured", "right"), ("composed", "right"),
        ("direct", "right"), ("bound", "right"), ("headroom", "right"), ("fits to hops", "right"),
        ("verdict", "left"), ("because", "left"),
    ]  # fmt: skip
    print_table(console, "", columns, rows)
    if any(layout.hypothetical for layout in analysis.verdicts):
        _line(console, "* hypothetical: the kernel switches stacks where this layout has none; the switch is a plain call here")
    skipped = sorted(
        {need.stack.name for layout in analysis.verdicts for need in layout.stacks if need.verdict is Verdict.NOT_ANALYSED}
    )
    if skipped:
        _line(console, f"not analysed (entry code only, or no handler in this kernel): {', '.join(skipped)}")
    console.out("")
    for layout in analysis.verdicts:
        for need in layout.stacks:
            if need.chain is not None:
                _print_stack(console, analysis, layout.layout.name, need)
    _print_open(console, analysis, command)


def _print_stack(console: Console, analysis: Analysis, layout: str, need: StackNeed) -> None:
    _line(console, f"{layout} · {need.stack.name}: {_need_cell(need, need.direct)} of {size_text(need.stack.size)}", "bold")
    for part in need.parts:
        times = f" × {part.times}" if part.times > 1 else ""
        _line(console, f"  {bytes_text(part.bytes):>12}{times}  {clean(part.name)}" + (f"  [{part.source}]" if part.source else ""))
    smallest = smallest_size(need, need.direct)
    if smallest is not None:
        _line(console, f"  smallest size sufficient at direct: {size_text(smallest)}" + (" (open items aside)" if need.open else ""))
    rows = chain_rows(analysis, need.worst, need.chain)
    if rows and need.worst is not None:
        _line(console, f"  worst chain: {clean(need.worst.context.title)}" + _gap(need))
        print_chain(console, rows)
    console.out("")


def _gap(need: StackNeed) -> str:
    if need.chain is None or need.chain.upper == need.chain.found:
        return ""
    return f" (deepest concrete chain found; the bound is {bytes_text(need.chain.upper - need.chain.found)} above it)"


def smallest_size(need: StackNeed, value: int | None) -> int | None:
    """The smallest size that holds `value`: whole pages, a power of two of them for a contiguous stack."""
    if value is None:
        return None
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
            _line(console, f"      … {left_out} frames (stackfit check --json has them)")
        where = f" [{clean(row.module)}]" if row.module else ""
        how = "" if row.kind in ("direct", "end", "entry") else f"  {row.kind}"
        evidence = "" if row.evidence == "proved" else f" ({row.evidence})"
        _line(console, f"    {row.total:>7} {row.depth:>6}  {clean(row.function)}{where}{how}{evidence}")


def _print_open(console: Console, analysis: Analysis, command: list[str]) -> None:
    counts: dict[str, int] = {}
    assumed: dict[str, None] = {}
    for layout in analysis.verdicts:
        for need in layout.stacks:
            for reason, count in need.open.counts:
                if need.verdict is not Verdict.NOT_ANALYSED:
                    counts[reason] = max(counts.get(reason, 0), count)
            assumed.update(dict.fromkeys(need.assumed))
    if counts:
        _line(console, "Open (the greatest number below any one stack):", "bold")
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            _line(console, f"  {number_text(count):>7}  {clean(reason)}")
        _line(console, f"  list them: {shlex.join(['stackfit', 'calls', *command, '--open'])}")
        console.out("")
    if assumed:
        _line(console, f"Assumed ({len(assumed)}; --json lists every reason):", "bold")
        for text in list(assumed)[:8]:
            _line(console, f"  {clean(text)}")
        if len(assumed) > 8:
            _line(console, f"  … {len(assumed) - 8} more")
