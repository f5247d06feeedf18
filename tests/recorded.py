"""Recordings written from a static chain, as ftrace's stack tracer would show it."""

from __future__ import annotations

from stackfit.analysis import Analysis
from stackfit.verdict.model import ContextNeed

RANDOM_OFFSET = 24  # of do_syscall_64, without the random part


def need_of(analysis: Analysis, title: str) -> ContextNeed:
    """One context's ladder, with its chain."""
    needs = analysis.composer.context_needs(analysis.layouts[0], chains=True)
    return next(need for need in needs if need.context.title == title)


def rows_of(analysis: Analysis, need: ContextNeed) -> list[tuple[str, int, int]]:
    """(symbol, offset, size) of each row, innermost first; functions that end in a tail jump have none."""
    functions, calls = analysis.code.functions, analysis.calls
    assert need.chain is not None and need.start is not None
    rows: list[tuple[str, int, int]] = []
    for link in need.chain.chain:
        if link.site < 0:
            rows.append((functions.names[link.function], 5, 48))
        elif not calls.tail[link.site]:
            back = int(calls.return_address[link.site])
            piece = functions.containing(back - 1)  # a `.cold` piece has a name of its own
            rows.append((functions.names[piece], back - int(functions.address[piece]), link.depth))
    outer: list[tuple[str, int, int]] = []
    above = need.chain.chain[0].function
    for function, _ in reversed(need.start.through):
        site = next(
            site
            for site in range(len(calls))
            if calls.function[site] == function and above in calls.candidate_sets[calls.candidates[site]]
        )
        offset = int(calls.return_address[site]) - int(functions.address[function])
        if not calls.tail[site]:
            size = RANDOM_OFFSET if "syscall_64" in functions.names[function] else int(calls.depth[site])
            outer.append((functions.names[function], offset, size))
        above = function
    entry = ("entry_SYSCALL_64_after_hwframe", 0x3D, 176)
    return [*reversed(rows), *outer, entry]


def text_of(rows: list[tuple[str, int, int]]) -> str:
    """The file that the tracer would print."""
    lines = [f"        Depth    Size   Location    ({len(rows)} entries)", "        -----    ----   --------"]
    for number, (symbol, offset, size) in enumerate(rows):
        depth = sum(one for _, _, one in rows[number:])
        lines.append(f"{number:3})  {depth:7} {size:7}   {symbol}+{offset:#x}/0x1000")
    return "\n".join(lines) + "\n"
