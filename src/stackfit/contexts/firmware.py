"""The contexts of firmware: reset, exceptions and interrupts, tasks; and the stacks they run on.

Everything is read from the image: where execution starts from its vector table, how large a stack is from the
symbols of its object or of the linker script, which tasks there are from the calls that create them. What
cannot be found is said (`notes`), with how to declare it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from stackfit.calls.model import CallKind, Calls
from stackfit.contexts.model import Context, Start
from stackfit.frames.model import Frames, StackKind
from stackfit.image.memory import Memory
from stackfit.isa.code import Code
from stackfit.layouts.model import Layout, Stack

__all__ = ["Firmware", "fit_layout", "own_stack", "reset_starts", "stack_below", "switched_starts"]


def stack_below(
    memory: Memory, top: int, symbols: bool = True, others: Iterable[int] = ()
) -> tuple[int, str] | None:
    """(bytes, source) of the stack whose top that is: down to the limit that the linker script names (of the
    main one alone: `symbols`), the size of its object, the top of one of the `others`, or the room there is
    before other data. None: nothing says."""
    limit = memory.symbol(*_STACK_LIMITS) if symbols else None
    if limit is not None and 0 < top - limit < _LARGEST:
        return top - limit, "linker script symbols"
    known = memory.object(top - 4)
    if known is not None and known[1] + known[2] == top:
        return known[2], f"symbol {known[0]}"
    near = max((other for other in others if other < top), default=0)
    section = memory.section(top - 4)
    if near and section is not None and section.address <= near:
        return top - near, f"from its top {top:#x} down to that of the next stack"
    if others and section is not None and not section.data.size:  # the lowest of several in one section
        return top - section.address, f"section {section.name}"
    for one in memory.sections:
        if one.end == top and "stack" in one.name and not one.data.size:
            return one.size, f"section {one.name}"
    below = [section.end for section in memory.sections if section.writable and section.end <= top]
    size = top - max(below) if below else 0
    if 0 < size < _LARGEST:
        return size & ~7, f"from the initial stack pointer {top:#x} down to the end of static data"
    return None


_LARGEST = 1 << 24  # bytes of a stack
# Names that linker scripts give to the lowest address of the stack.
_STACK_LIMITS = (
    "__StackLimit", "__stack_limit", "_sstack", "__stack_start", "_stack_start", "_stack_bottom",
    "__stack_bottom", "__stack_bottom__", "__stack_start__",
)  # fmt: skip


@dataclass(frozen=True)
class Firmware:
    """What starts to run in a firmware image.

    `levels`: how many interrupts can be on top of one another. `main`: bytes of the stack that the processor
    starts on, with what says so; None: not known. `tasks`: a stack for each task. `assumptions`: what is
    taken for granted; `notes`: what was not found.
    """

    contexts: tuple[Context, ...]
    levels: int
    levels_source: str
    main: tuple[int, str] | None
    tasks: tuple[Stack, ...]
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def reset_starts(calls: Calls, entry: int) -> tuple[Start, ...]:
    """The entry, and what it calls once it has set the stack pointer: at its depth on that stack."""
    starts = [Start(entry)]
    for site in range(len(calls)):
        if int(calls.function[site]) == entry and int(calls.kind[site]) == CallKind.STACK_SWITCH:
            number = int(calls.candidates[site])
            depth = int(calls.depth[site])
            for callee in calls.candidate_sets[number] if number >= 0 else ():
                starts.append(Start(callee, depth, ((entry, depth),)))
    return tuple(dict.fromkeys(starts))


def switched_starts(calls: Calls, frames: Frames, code: Code, function: int) -> tuple[Start, ...]:
    """What a handler calls on the stack that it switches to before it pushes anything; none where it pushes
    first. Its own frame there counts, also where it calls nothing."""
    starts = []
    own = np.flatnonzero((calls.function == function) & (calls.kind == CallKind.STACK_SWITCH))
    for site in own.tolist():
        number, depth = int(calls.candidates[site]), int(calls.depth[site])
        if int(calls.under[site]) or number < 0:
            return ()
        starts += [Start(one, depth, ((function, depth),)) for one in calls.candidate_sets[number]]
    rows = slice(int(code.first[function]), int(code.first[function + 1]))
    other = frames.depth[rows][frames.stack[rows] == StackKind.OTHER_STACK]
    deepest = int(other.max()) if other.size else 0
    if starts and deepest > max(start.bytes for start in starts):
        return ()
    return tuple(dict.fromkeys(starts))


def own_stack(name: str, known: tuple[int, str], unit: int) -> Stack:
    """A stack that one handler, or those of one mode, have for themselves."""
    size, source = known
    return Stack(name=name, per="system", size=size, allocation="static", unit=unit, sources={"size": source})


def fit_layout(layout: Layout, firmware: Firmware) -> Layout:
    """The layout with the sizes and tasks of an image. A size that a file of the user's states holds."""
    stacks = []
    unknown: tuple[str, ...] = ()
    for stack in layout.stacks:
        stated = layout.path and stack.sources.get("size") != PLACEHOLDER
        if stack.name == MAIN and firmware.main is not None and not stated:
            size, source = firmware.main
            stack = replace(stack, size=size, sources={**stack.sources, "size": source})
        elif stack.name == MAIN and stack.sources.get("size") == PLACEHOLDER:
            unknown = (
                f"the main stack's size was not found: {stack.size} B are taken, declare [stack.main]",
            )
        if stack.name == MAIN and "isr" in stack.nests and stack.sources.get("nests.isr") == PLACEHOLDER:
            nests = {**stack.nests, "isr": firmware.levels}
            sources = {**stack.sources, "nests.isr": firmware.levels_source}
            stack = replace(stack, nests=nests, sources=sources)
        stacks.append(stack)
    names = {stack.name for stack in stacks}
    stacks += [stack for stack in firmware.tasks if stack.name not in names]
    return replace(
        layout, stacks=tuple(stacks), assumptions=(*layout.assumptions, *firmware.assumptions, *unknown)
    )


MAIN = "main"  # the stack that the processor starts on, in the presets
PLACEHOLDER = (
    "read from the image"  # the source of a number in a preset that an image's own takes the place of
)
