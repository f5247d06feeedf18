"""The contexts of firmware: reset, exceptions and interrupts, tasks; and the stacks they run on.

Everything is read from the image: where execution starts from its vector table, how large a stack is from the
symbols of its object or of the linker script, which tasks there are from the calls that create them. What
cannot be found is said (`notes`), with how to declare it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from stackfit.contexts.model import Context
from stackfit.layouts.model import Layout, Stack

__all__ = ["Firmware", "fit_layout"]


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


def fit_layout(layout: Layout, firmware: Firmware) -> Layout:
    """The layout with the sizes and tasks of an image. A size that a file of the user's states holds."""
    stacks = []
    for stack in layout.stacks:
        stated = layout.path and stack.sources.get("size") != PLACEHOLDER
        if stack.name == MAIN and firmware.main is not None and not stated:
            size, source = firmware.main
            stack = replace(stack, size=size, sources={**stack.sources, "size": source})
        if stack.name == MAIN and "isr" in stack.nests and stack.sources.get("nests.isr") == PLACEHOLDER:
            nests = {**stack.nests, "isr": firmware.levels}
            sources = {**stack.sources, "nests.isr": firmware.levels_source}
            stack = replace(stack, nests=nests, sources=sources)
        stacks.append(stack)
    names = {stack.name for stack in stacks}
    stacks += [stack for stack in firmware.tasks if stack.name not in names]
    return replace(layout, stacks=tuple(stacks), assumptions=(*layout.assumptions, *firmware.assumptions))


MAIN = "main"  # the stack that the processor starts on, in the presets
PLACEHOLDER = (
    "read from the image"  # the source of a number in a preset that an image's own takes the place of
)
