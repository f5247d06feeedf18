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

_MOST = 16 << 20  # characters


def folded_text(analysis: Analysis) -> tuple[str, int]:
    """Of every stack of every layout its need as far as chains were found; of the first layout's contexts
    their deepest direct chains, the deepest first, until the text has 16 MiB (each line repeats those above
    it, and viewers read all of them). With it the number of contexts left out."""
    lines = list(_stack_lines(analysis))
    size, left = sum(map(len, lines)), 0
    needs = analysis.composer.context_needs(analysis.layouts[0], chains=True)
    for need in sorted(needs, key=lambda one: -(one.found or 0)):
        title = need.context.title + (f" on {need.stack}" if need.stack else "")
        more = list(_chain([title], chain_rows(analysis, need, need.chain)))
        size += sum(map(len, more))
        if size > _MOST:
            left += 1
        else:
            lines += more
    return "".join(f"{line}\n" for line in lines), left


def _stack_lines(analysis: Analysis) -> Iterator[str]:
    for layout in analysis.verdicts:
        for need in layout.stacks:
            rows = chain_rows(analysis, need.worst, need.chain)
            if not rows or need.worst is None:
                continue
            root = f"{layout.layout.name} {need.stack.name}"
            yield from _chain([root], rows)
            # The reserves stand first, then the worst context, whose chain that is.
            own = bool(need.stack.reserve_base) + bool(need.stack.reserve_top)
            for number, part in enumerate(need.parts):
                if part.found and number != own:
                    yield _line([root, part.name], part.found * part.times)


def _chain(above: list[str], rows: list[ChainRow]) -> Iterator[str]:
    frames = list(above)
    for row in rows:
        frames.append(row.function + (f"_[{row.module}]" if row.module else ""))
        if row.depth:  # a frame of nothing, which ended in a tail jump, is on the way to the next
            yield _line(frames, row.depth)


def _line(frames: list[str], size: int) -> str:
    return f"{';'.join(clean(frame).replace(';', ':') for frame in frames)} {size}"
