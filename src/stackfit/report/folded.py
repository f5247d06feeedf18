"""Worst chains as folded stacks, bytes as the weight: for flamegraph.pl, inferno and speedscope.

A line is `root;frame;frame BYTES`; the viewer adds up what stands below each frame, so that a frame is as
wide as the stack that it and all below it take, and each root as wide as its context's need.
"""

from __future__ import annotations

from collections.abc import Iterator

from stackfit.analysis import Analysis
from stackfit.report.rows import ChainRow, chain_rows
from stackfit.text import clean

__all__ = ["folded_text"]


def folded_text(analysis: Analysis) -> str:
    """Of every stack of every layout its need as far as chains were found, of every context of the first
    layout its deepest direct chain; in that order."""
    return "".join(f"{line}\n" for line in _lines(analysis))


def _lines(analysis: Analysis) -> Iterator[str]:
    for layout in analysis.verdicts:
        for need in layout.stacks:
            rows = chain_rows(analysis, need.worst, need.chain)
            if not rows or need.worst is None:
                continue
            root = f"{layout.layout.name} {need.stack.name}"
            yield from _chain([root], rows)
            for part in need.parts:
                if part.found and part.name != need.worst.context.title:
                    yield _line([root, part.name], part.found * part.times)
    for context in analysis.composer.context_needs(analysis.layouts[0], chains=True):
        title = context.context.title + (f" on {context.stack}" if context.stack else "")
        yield from _chain([title], chain_rows(analysis, context, context.chain))


def _chain(above: list[str], rows: list[ChainRow]) -> Iterator[str]:
    frames = list(above)
    for row in rows:
        frames.append(row.function + (f"_[{row.module}]" if row.module else ""))
        if row.depth:  # a frame of nothing, which ended in a tail jump, is on the way to the next
            yield _line(frames, row.depth)


def _line(frames: list[str], size: int) -> str:
    return f"{';'.join(clean(frame).replace(';', ':') for frame in frames)} {size}"
