"""Which contexts start on a stack of a layout, and what can be on top of them. All sizes are bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stackfit.contexts.model import Context, Start
from stackfit.image.model import InputError
from stackfit.layouts.model import INTERRUPTED, Layout, Stack

__all__ = ["NO_SWITCH", "Item", "Nested", "Placement", "check_layout", "place"]

MOST_EXCEPTIONS = 8  # nested: each is a layer of values over the whole program
NO_SWITCH: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Item:
    """A context as it starts on a stack: `frame` bytes of entry frame, then one of `starts`.

    `kernel`: it interrupts kernel code, so nothing in it returns to user mode. `plain`: context kinds whose
    stack switch the layout does not have, so that it is a plain call ("hardirq", "softirq"). `open`: why
    what runs here is not known, else "".
    """

    context: Context
    frame: int
    starts: tuple[Start, ...]
    kernel: bool
    plain: frozenset[str] = NO_SWITCH
    open: str = ""


@dataclass(frozen=True)
class Nested:
    """Contexts of one kind that can be on top, `times` of them at once; each is one of `items`."""

    kind: str
    times: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Placement:
    """What starts on the empty stack, and what nests on it (exceptions aside: they are call sites)."""

    items: tuple[Item, ...]
    nested: tuple[Nested, ...]
    exceptions: int


def check_layout(layout: Layout) -> None:
    """InputError when a layout lets more exceptions nest on one context than are computed."""
    for stack in layout.stacks:
        times = stack.nests.get("exception", 0)
        if times > MOST_EXCEPTIONS:
            cause = f"stack.{stack.name}.nests.exception: {times} (at most {MOST_EXCEPTIONS} are computed)"
            raise InputError(layout.path or layout.name, cause)


def place(layout: Layout, stack: Stack, contexts: list[Context]) -> Placement:
    """What can be on one stack of a layout at once."""
    plain = _plain_softirq(layout, stack)
    items = tuple(item for context in contexts for item in _starting(layout, stack, context, plain))
    nested: list[Nested] = []
    for kind, times in sorted(stack.nests.items()):
        if kind == "exception" or not times:
            continue
        on_top = tuple(
            item
            for context in contexts
            if context.kind == kind
            for item in _nesting(layout, stack, context, plain)
        )
        if on_top:
            nested.extend(_levels(kind, times, on_top))
    if not items and nested and nested[0].kind == "isr" and nested[0].times == 1:
        # A stack that handlers have for themselves: one of them is the first.
        items, nested = nested[0].items, nested[1:]
    return Placement(items, tuple(nested), stack.nests.get("exception", 0))


def _levels(kind: str, times: int, on_top: tuple[Item, ...]) -> Iterator[Nested]:
    """Firmware's handlers by priority: of one priority one is active, whose priority is not known each once.

    Others, and where a layout lets fewer nest than there are priorities: the worst of all, so often.
    """
    groups: dict[tuple[int, str], list[Item]] = {}
    for item in on_top:
        context = item.context
        groups.setdefault((context.level, "" if context.level >= 0 else context.name), []).append(item)
    if kind != "isr" or times < len(groups):
        yield Nested(kind, times, on_top)
        return
    for _, members in sorted(groups.items()):
        yield Nested(kind, 1, tuple(members))


def _plain_softirq(layout: Layout, stack: Stack) -> frozenset[str]:
    """Softirqs without a stack of their own run where they are called, unless the layout nests them."""
    here = layout.target("softirq", user=False) == INTERRUPTED
    return frozenset(("softirq",)) if here and not stack.nests.get("softirq", 0) else NO_SWITCH


def _starting(layout: Layout, stack: Stack, context: Context, plain: frozenset[str]) -> Iterator[Item]:
    if not context.interrupt:
        if context.kind == "isr" and context.stack == stack.name and stack.nests.get("isr", 0):
            return  # as above
        if context.stack == stack.name if context.stack else context.kind in stack.runs:
            yield Item(context, context.frame_user, context.starts, False, plain, context.open)
        return
    user = layout.target(context.interrupt, user=True)
    kernel = layout.target(context.interrupt, user=False)
    if kernel == stack.name:
        if context.kind == "isr" and stack.nests.get("isr", 0):
            return  # on top of what starts here
        if context.kind == "softirq":
            yield Item(context, 0, context.starts, True, plain, context.open)
        elif context.switched or context.behind:
            yield Item(context, 0, context.switched, True, plain, context.behind)
        else:
            yield Item(context, context.frame_kernel, context.starts, True, plain, context.open)
    elif user == stack.name and context.kind != "softirq":  # softirqs run on the way out of an interrupt
        yield Item(context, context.frame_user, context.starts, False, plain, context.open)


def _nesting(layout: Layout, stack: Stack, context: Context, plain: frozenset[str]) -> Iterator[Item]:
    """What of an interrupting context is on `stack` when it hits there."""
    if context.stack and context.stack != stack.name:
        return
    where = layout.target(context.interrupt, user=False) if context.interrupt else INTERRUPTED
    frame = 0 if context.kind == "softirq" else context.frame_kernel
    if where == INTERRUPTED and context.kind == "hardirq":
        yield Item(context, frame, context.starts, True, plain | {"hardirq"}, context.open)
    elif where in (INTERRUPTED, stack.name):
        yield Item(context, frame, context.starts, True, plain, context.open)
    elif context.kind == "hardirq":  # all up to its switch; hardware switches for the others
        yield Item(context, frame, context.interrupted or context.starts, True, plain, context.open)
