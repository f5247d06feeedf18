"""check --through: the worst chain that passes a module or a function, and what it leaves.

What the vendor of a binary-only module asks: how deep is the kernel when it calls us, and how much of each
stack is left below?
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from stackfit.analysis import Analysis
from stackfit.bounds.model import Bound, Limits
from stackfit.bounds.solve import Solver
from stackfit.image.model import InputError
from stackfit.report.rows import module_of
from stackfit.report.terminal import print_table
from stackfit.report.text import bytes_text, clean, number_text

__all__ = ["Through", "print_through", "through"]

_NOT_THROUGH = -(1 << 30)  # frame of a function outside: a chain that does not pass stays far below zero


@dataclass(frozen=True)
class Through:
    """`own`: deepest chain that starts in it (function, bytes). `stacks`: per layout and stack the need of
    the worst known chain through it (None: no known chain leads there)."""

    subject: str
    members: int
    own: Bound
    own_function: int
    called_directly: bool
    stacks: tuple[tuple[str, str, int, int | None, str], ...]  # layout, stack, size, need, context


def through(analysis: Analysis, subject: str) -> Through:
    """The answer for a module's or a function's name. InputError when there is neither."""
    functions = analysis.code.functions
    images = [index for index, image in enumerate(analysis.program.images) if image.module == subject]
    if images:
        inside = np.isin(functions.image, images) & (functions.parent < 0) & ~functions.piece
    else:
        inside = np.zeros(len(functions), np.bool_)
        inside[functions.named(subject)] = True
    members = np.flatnonzero(inside)
    if not members.size:
        names = [image.module for image in analysis.program.images if image.module]
        near = difflib.get_close_matches(subject, [*names, *functions.names], 3)
        hint = f" (near: {', '.join(near)})" if near else ""
        raise InputError(analysis.program.images[0].path, f"no module or function {subject}{hint}")
    composer = analysis.composer
    user = composer.user
    values = user.values[0, user.exceptions][members]
    deepest = int(members[int(np.argmax(values))])
    limits = analysis.applied.limits
    only = Limits(
        frame=np.where(inside, user.values[0, user.exceptions], _NOT_THROUGH).astype(np.int32),
        times=limits.times,
        cut=np.where(inside, np.maximum(user.values[0, user.exceptions], 0), np.where(limits.cut >= 0, -1, limits.cut)).astype(np.int32),
        open_frame=limits.open_frame,
        shift=limits.shift,
    )
    solver = Solver(analysis.edges, only, user.exceptions, 0)
    stacks = []
    for layout in analysis.verdicts:
        for need in layout.stacks:
            if need.direct is None or need.worst is None:
                continue
            worst, context = None, ""
            for one in composer.context_needs(layout.layout):
                if one.stack != need.stack.name or one.start is None:
                    continue
                for start in one.context.starts:
                    value = int(solver.values[0, solver.exceptions][start.entry])
                    if value < 0:
                        continue
                    total = one.entry_bytes - one.start.bytes + start.bytes + value
                    if worst is None or total > worst:
                        worst, context = total, one.context.title
            others = sum(part.total for part in need.parts) - next(
                part.total for part in need.parts if part.name == need.worst.context.title
            )
            stacks.append((layout.layout.name, need.stack.name, need.stack.size, None if worst is None else worst + others, context))
    edges = analysis.edges
    owner = np.repeat(np.arange(len(functions)), np.diff(edges.first))
    direct = bool((inside[edges.callee] & ~inside[owner]).any())
    return Through(subject, int(members.size), user.bound(deepest), deepest, direct, tuple(stacks))


def print_through(console: Console, analysis: Analysis, result: Through) -> None:
    """Terminal form of the answer."""
    functions = analysis.code.functions
    console.out(f"{clean(result.subject)}: {number_text(result.members)} functions", highlight=False)
    console.out(
        f"adds at most {bytes_text(result.own.upper)} below the call into it (open items aside), by"
        f" {clean(functions.names[result.own_function])}",
        highlight=False,
    )
    for link in result.own.chain:
        module = module_of(analysis, link.function)
        console.out(f"    {link.total:>7} {link.depth:>6}  {clean(functions.names[link.function])}" + (f" [{clean(module)}]" if module else ""), highlight=False)
    if not result.called_directly:
        console.out("no direct call leads into it: the kernel reaches it through pointers, which are open", highlight=False)
    console.out("", highlight=False)
    rows = []
    for layout, stack, size, need, context in result.stacks:
        if need is None:
            rows.append([layout, stack, bytes_text(size), "—", "—", "no known chain leads through it"])
        else:
            rows.append([layout, stack, bytes_text(size), f"≥ {bytes_text(need)}", bytes_text(size - need), clean(context)])
    print_table(
        console,
        "the worst known chain through it",
        [("layout", "left"), ("stack", "left"), ("size", "right"), ("need", "right"), ("headroom", "right"), ("context", "left")],
        rows,
    )
