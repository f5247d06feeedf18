"""Bounds put on a layout's stacks: what each must hold, and whether it does.

A stack's need is: its reserves, the worst context that starts on it (entry frame included), and what the
layout lets nest on top: exceptions at their sites, and interrupts with what they leave here before they
switch to a stack of their own — everything, where the layout has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.model import Bound
from stackfit.bounds.solve import Solver
from stackfit.calls.model import CallKind, Calls, Evidence, Reason, Rung
from stackfit.contexts.model import Context, Start
from stackfit.frames.model import Frames
from stackfit.isa.code import Code
from stackfit.layouts.model import INTERRUPTED, Layout, Stack
from stackfit.verdict.limits import AppliedLimits
from stackfit.verdict.model import ContextNeed, LayoutVerdict, OpenItems, Part, StackNeed, Verdict

__all__ = ["Composer"]

UNLISTED = "recursion without a budget, counted once"
OPEN_FRAME = "frame of unknown size"


@dataclass(frozen=True)
class _Item:
    """A context as it starts on a stack: `size` bytes of entry frame, then one of `starts`."""

    context: Context
    size: int
    starts: tuple[Start, ...]
    interrupts: bool  # it interrupts kernel code: nothing on it returns to user mode


class Composer:
    """Needs and verdicts for one analysed program.

    `user` bounds chains of what starts from user mode or as a thread, `kernel` those of what interrupts the
    kernel; both know up to `exceptions` nested exceptions and up to `hops` indirect calls.
    """

    def __init__(
        self,
        code: Code,
        frames: Frames,
        calls: Calls,
        contexts: list[Context],
        applied: AppliedLimits,
        user: Solver,
        kernel: Solver,
        hops: int,
    ) -> None:
        self.code = code
        self.frames = frames
        self.calls = calls
        self.contexts = contexts
        self.applied = applied
        self.user = user
        self.kernel = kernel
        self.hops = hops
        self._reach: dict[tuple[int, bool], NDArray[np.bool_]] = {}
        open_sites = calls.open
        self._open_function = calls.function[open_sites]
        self._open_reason = calls.reason[open_sites]

    # ------------------------------------------------------------ public

    def judge(self, layout: Layout) -> LayoutVerdict:
        """Every stack of a layout."""
        stacks = tuple(self._stack(layout, stack) for stack in layout.stacks)
        return LayoutVerdict(layout, any(need.hypothetical for need in stacks), stacks)

    def context_needs(self, layout: Layout) -> list[ContextNeed]:
        """The ladder of every context, on the stack where it starts in this layout."""
        needs: list[ContextNeed] = []
        for stack in layout.stacks:
            exceptions = int(stack.nests.get("exception", 0))
            for item in self._items(layout, stack):
                needs.append(self._context_need(item, stack.name, exceptions))
        placed = {(need.context.kind, need.context.name, need.context.abi) for need in needs}
        for context in self.contexts:
            if context.open and (context.kind, context.name, context.abi) not in placed:
                needs.append(_open_need(context, ""))
        return needs

    # ------------------------------------------------------------ what starts where

    def _items(self, layout: Layout, stack: Stack) -> list[_Item]:
        items: list[_Item] = []
        for context in self.contexts:
            if not context.interrupt:
                if context.kind in stack.runs:
                    items.append(_Item(context, context.frame_user, context.starts, False))
                continue
            user = layout.target(context.interrupt, user=True)
            kernel = layout.target(context.interrupt, user=False)
            if kernel == stack.name:
                if context.kind == "softirq":
                    items.append(_Item(context, 0, context.starts, True))
                elif context.switched and context.kind == "hardirq":
                    items.append(_Item(context, 0, context.switched, True))
                else:
                    items.append(_Item(context, context.frame_kernel, context.starts, True))
            if user == stack.name and user != kernel and context.kind != "softirq":
                items.append(_Item(context, context.frame_user, context.starts, False))
        return items

    def _solver(self, item: _Item) -> Solver:
        return self.kernel if item.interrupts else self.user

    def _value(self, item: _Item, start: Start, hops: int, exceptions: int) -> int:
        solver = self._solver(item)
        below = int(solver.values[hops, min(exceptions, solver.exceptions)][start.entry])
        own = start.bytes
        return item.size + max(own, start.bytes + below)

    def _worst(self, item: _Item, hops: int, exceptions: int) -> tuple[int, Start] | None:
        best: tuple[int, Start] | None = None
        for start in item.starts:
            value = self._value(item, start, hops, exceptions)
            if best is None or value > best[0]:
                best = value, start
        return best

    # ------------------------------------------------------------ one stack

    def _stack(self, layout: Layout, stack: Stack) -> StackNeed:
        items = self._items(layout, stack)
        known = [item for item in items if item.starts]
        if not items:
            return _nothing(stack, "what runs on this stack is entry code that is not modelled")
        exceptions = int(stack.nests.get("exception", 0))
        nested = self._nested(layout, stack)
        if not known:
            reasons = Counter(item.context.open for item in items)
            return _nothing(stack, "; ".join(reasons), OpenItems(tuple(sorted(reasons.items()))))
        worst = max(known, key=lambda item: (self._worst(item, 0, exceptions) or (0, None))[0])
        value, start = self._worst(worst, 0, exceptions) or (0, worst.starts[0])
        parts = [
            *(
                Part(name, size, source=str(stack.sources.get(key, "")))
                for name, key, size in (
                    ("reserved at the base", "reserve_base", stack.reserve_base),
                    ("reserved at the top", "reserve_top", stack.reserve_top),
                )
                if size
            ),
            Part(worst.context.title, value),
            *(part for part, _ in nested),
        ]
        direct = sum(part.total for part in parts)
        hops: list[int | None] = []
        for hop in range(self.hops + 1):
            base = max((self._worst(item, hop, exceptions) or (0, None))[0] for item in known)
            extra = sum(part_value(hop) for _, part_value in nested)
            hops.append(stack.reserve_base + stack.reserve_top + base + extra)
        reach = self._reached(layout, stack, known)
        open_items, unlisted = self._open_items(reach, [item.context.open for item in items if item.context.open])
        need = self._context_need(worst, stack.name, exceptions)
        chain = self._solver(worst).bound(start.entry)
        found = direct - value + worst.size + start.bytes + chain.found
        bound = None if unlisted else hops[-1]
        hypothetical = self._hypothetical(layout, stack)
        verdict, why = self._verdict(stack, worst, start, chain, bound, open_items, reach)
        return StackNeed(
            stack=stack,
            parts=tuple(parts),
            measured=None,
            composed=None,
            direct=direct,
            bound=bound,
            hops=tuple(None if unlisted else hop for hop in hops),
            found=found,
            open=open_items,
            unlisted=unlisted,
            assumed=self._assumed(reach),
            hypothetical=hypothetical,
            worst=need,
            chain=chain,
            verdict=verdict,
            why=why,
        )

    def _nested(self, layout: Layout, stack: Stack) -> list[tuple[Part, Callable[[int], int]]]:
        """What the layout lets nest on this stack, exceptions left out (they are edges of the graph)."""
        found: list[tuple[Part, Callable[[int], int]]] = []
        for kind, times in sorted(stack.nests.items()):
            if kind == "exception" or not times:
                continue
            items = [item for context in self.contexts if context.kind == kind for item in self._nesting(layout, stack, context)]
            items = [item for item in items if item.starts]
            if not items:
                continue
            worst = max(items, key=lambda item: (self._worst(item, 0, 0) or (0, None))[0])
            value = (self._worst(worst, 0, 0) or (0, None))[0]
            where = layout.target(worst.context.interrupt, user=False)
            left = "runs here" if where in (INTERRUPTED, stack.name) else f"up to its switch to {where}"
            part = Part(f"{worst.context.title}, nested ({left})", value, times, str(stack.sources.get(f"nests.{kind}", "")))

            def at(hop: int, items: list[_Item] = items, times: int = times) -> int:
                return times * max((self._worst(item, hop, 0) or (0, None))[0] for item in items)

            found.append((part, at))
        return found

    def _nesting(self, layout: Layout, stack: Stack, context: Context) -> list[_Item]:
        """What of an interrupting context stays on `stack` when it hits there."""
        where = layout.target(context.interrupt, user=False) if context.interrupt else INTERRUPTED
        frame = 0 if context.kind == "softirq" else context.frame_kernel
        if where == stack.name or where == INTERRUPTED:
            starts = context.starts
            if context.switched and where == INTERRUPTED:  # a switch that this layout does not have is a plain call
                starts = (*context.interrupted, *self._unswitched(context)) or context.starts
            return [_Item(context, frame, starts, True)]
        if context.kind == "softirq":
            return []
        if context.kind in ("nmi", "exception") or (context.kind == "hardirq" and not context.switched and not context.interrupted):
            # Switched by hardware (IST), or below the handler's own code (i386): the handler's plain part stays.
            return [] if context.kind != "hardirq" else [_Item(context, frame, context.starts, True)]
        handler = tuple(Start(start.entry, start.bytes, start.through) for start in context.interrupted)
        return [_Item(context, frame, handler or context.starts, True)]

    def _unswitched(self, context: Context) -> tuple[Start, ...]:
        """The starts behind a switch as plain calls: their depth on the stack that would have been left."""
        out = []
        for start in context.switched:
            function = start.through[-1][0] if start.through else -1
            under = [
                int(self.calls.under[site])
                for site in np.flatnonzero(
                    (self.calls.function == function) & (self.calls.kind == CallKind.STACK_SWITCH)
                ).tolist()
            ]
            size = start.bytes + max(under, default=0)
            out.append(Start(start.entry, size, ((function, size),)))
        return tuple(out)

    def _hypothetical(self, layout: Layout, stack: Stack) -> bool:
        """Whether something runs here that the binary would have put on another stack."""
        return any(
            context.switched and layout.target(context.interrupt, user=False) == INTERRUPTED and int(stack.nests.get(context.kind, 0)) > 0
            for context in self.contexts
            if context.interrupt
        ) or (
            layout.target("softirq", user=False) == INTERRUPTED
            and int(stack.nests.get("softirq", 0)) > 0
            and bool((self.calls.kind == CallKind.STACK_SWITCH).any())
        )

    # ------------------------------------------------------------ evidence

    def _reachable(self, entry: int, interrupts: bool) -> NDArray[np.bool_]:
        key = (entry, interrupts)
        if key not in self._reach:
            solver = self.kernel if interrupts else self.user
            self._reach[key] = solver.reachable(entry, hops=self.hops > 0)
        return self._reach[key]

    def _reached(self, layout: Layout, stack: Stack, known: list[_Item]) -> NDArray[np.bool_]:
        seen = np.zeros(len(self.code.functions), np.bool_)
        nested = [
            item
            for context in self.contexts
            if int(stack.nests.get(context.kind, 0)) and context.kind != "exception"
            for item in self._nesting(layout, stack, context)
        ]
        for item in (*known, *nested):
            for start in item.starts:
                if not seen[start.entry]:
                    seen |= self._reachable(start.entry, item.interrupts)
        return seen

    def _open_items(self, seen: NDArray[np.bool_], reasons: list[str]) -> tuple[OpenItems, tuple[int, ...]]:
        counts: Counter[str] = Counter(reasons)
        inside = seen[self._open_function] & (self.applied.limits.cut[self._open_function] < 0)
        for reason, count in zip(*np.unique(self._open_reason[inside], return_counts=True), strict=True):
            counts[Reason(int(reason)).label] += int(count)
        unlisted = np.flatnonzero(seen & self.user.unlisted)
        if unlisted.size:
            counts[UNLISTED] += int(unlisted.size)
        frames = int((seen & self.applied.limits.open_frame & (self.applied.limits.cut < 0)).sum())
        if frames:
            counts[OPEN_FRAME] += frames
        return OpenItems(tuple(sorted(counts.items()))), tuple(unlisted.tolist())

    def _assumed(self, seen: NDArray[np.bool_]) -> tuple[str, ...]:
        functions = np.flatnonzero(seen)
        texts = [self.applied.by_function[index] for index in functions.tolist() if index in self.applied.by_function]
        sites = seen[self.calls.function] & (self.calls.evidence == Evidence.ASSUMED)
        kinds = Counter(int(rung) for rung in self.calls.rung[sites])
        for rung, count in sorted(kinds.items()):
            texts.append(f"{count} call sites: {RUNG_ASSUMPTIONS.get(Rung(rung), Rung(rung).label)}")
        return tuple(dict.fromkeys(texts))

    def _context_need(self, item: _Item, stack: str, exceptions: int) -> ContextNeed:
        if not item.starts:
            return _open_need(item.context, stack)
        value, start = self._worst(item, 0, exceptions) or (0, item.starts[0])
        seen = np.zeros(len(self.code.functions), np.bool_)
        for one in item.starts:
            if not seen[one.entry]:
                seen |= self._reachable(one.entry, item.interrupts)
        open_items, unlisted = self._open_items(seen, [])
        hops = [(self._worst(item, hop, exceptions) or (0, None))[0] for hop in range(self.hops + 1)]
        return ContextNeed(
            context=item.context,
            stack=stack,
            start=start,
            entry_bytes=item.size + start.bytes,
            direct=value,
            hops=tuple(None if unlisted else hop for hop in hops),
            measured=None,
            composed=None,
            open=open_items,
            unlisted=len(unlisted),
        )

    def _verdict(
        self,
        stack: Stack,
        worst: _Item,
        start: Start,
        chain: Bound,
        bound: int | None,
        open_items: OpenItems,
        seen: NDArray[np.bool_],
    ) -> tuple[Verdict, str]:
        certain = worst.size + start.bytes + self._certain(chain) + stack.reserve_base + stack.reserve_top
        if certain > stack.size:
            return Verdict.MAY_EXCEED, f"a chain of {certain} B without any assumption in it"
        if bound is None or open_items:
            return Verdict.UNKNOWN, "no finite bound" if bound is None else f"{open_items.total} open items"
        if bound > stack.size:
            return Verdict.UNKNOWN, "the bound is above the size, no single chain found is"
        assumed = self._assumed(seen)
        if assumed:
            return Verdict.FITS_IF, f"{len(assumed)} assumptions"
        return Verdict.FITS, "proved"

    def _certain(self, chain: Bound) -> int:
        """Bytes of the chain down to the first assumption in it."""
        total = 0
        for link in chain.chain:
            if int(self.applied.limits.cut[link.function]) >= 0:
                break
            own = int(self.frames.frame[link.function]) if link.site < 0 else link.depth
            total = link.total - link.depth + own
            if link.site >= 0 and int(self.calls.evidence[link.site]) != Evidence.PROVED:
                break
        return total


def _open_need(context: Context, stack: str) -> ContextNeed:
    return ContextNeed(context, stack, None, 0, None, (), None, None, OpenItems(((context.open, 1),)), 0)


def _nothing(stack: Stack, why: str, open_items: OpenItems | None = None) -> StackNeed:
    return StackNeed(
        stack=stack, parts=(), measured=None, composed=None, direct=None, bound=None, hops=(), found=None,
        open=open_items or OpenItems(((why, 1),)), unlisted=(), assumed=(), hypothetical=False, worst=None,
        chain=None, verdict=Verdict.NOT_ANALYSED, why=why,
    )  # fmt: skip


RUNG_ASSUMPTIONS = {
    Rung.STATIC_CALL: "static calls keep their initial target (tracing off, preemption mode as built)",
    Rung.PARAVIRT: "pv_ops hold native functions, as in the image: no hypervisor overrides them",
    Rung.ANNOTATION: "candidates listed by an assumption file",
}
