"""Bounds put on a layout's stacks: what each must hold, and whether it does.

A stack's need is: its reserves, the worst context that starts on it (entry frame included), and what the
layout lets nest on top: exceptions at their sites, and interrupts with what they leave here before they
switch to a stack of their own — everything, where the layout has none. The nested exceptions that a layout
allows are those on one context: an interrupt on top of it takes its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.model import Bound
from stackfit.calls.model import Calls, Edges
from stackfit.contexts.model import Context, Start
from stackfit.frames.model import Frames
from stackfit.isa.code import Code
from stackfit.layouts.model import INTERRUPTED, Layout, Stack
from stackfit.verdict import evidence
from stackfit.verdict.components import recursion_sizes
from stackfit.verdict.cycles import most_hops
from stackfit.verdict.evidence import Below
from stackfit.verdict.limits import AppliedLimits
from stackfit.verdict.model import (
    ContextNeed,
    ContextVerdict,
    Fitting,
    LayoutVerdict,
    Observed,
    OpenItems,
    Part,
    StackNeed,
    Verdict,
)
from stackfit.verdict.observed import Ladder
from stackfit.verdict.placement import Item, Placement, check_layout, place
from stackfit.verdict.solvers import Best, Solvers
from stackfit.verdict.suggest import Origin, Suggestion, suggest

__all__ = ["Composer"]

_CERTAIN_TRIES = 8  # contexts whose chain is looked at for one without assumptions above the size


class Composer:
    """Needs and verdicts for one analysed program.

    `hops`: the curve's last number of indirect calls. `hop_limit`: the greatest number that is assumed on a
    chain; None: unlimited. `observed`: what recordings show to have run, if there are any.
    """

    def __init__(
        self,
        code: Code,
        frames: Frames,
        calls: Calls,
        edges: Edges,
        contexts: list[Context],
        applied: AppliedLimits,
        hops: int,
        hop_limit: int | None,
        observed: Observed | None = None,
    ) -> None:
        self.code = code
        self.frames = frames
        self.calls = calls
        self.edges = edges
        self.contexts = contexts
        self.applied = applied
        self.hops = hops
        self.hop_limit = hop_limit
        self._hops_of: dict[bytes, tuple[int, int]] = {}
        self.solvers = Solvers(code, edges, calls, contexts, applied, hops)
        self.ladder = (
            None if observed is None else Ladder(code, calls, contexts, applied, self.solvers, observed)
        )

    # ------------------------------------------------------------ public

    def judge(self, layouts: Sequence[Layout]) -> list[LayoutVerdict]:
        """Every stack of every layout. InputError for a layout with too many nested exceptions."""
        for layout in layouts:
            check_layout(layout)
        for (
            layout
        ) in layouts:  # a bound may become tighter where chains are looked for: all before any is read
            for stack in layout.stacks:
                self._tighten(self.place(layout, stack))
        verdicts = []
        for layout in layouts:
            stacks = tuple(self._stack(layout, stack) for stack in layout.stacks)
            verdicts.append(LayoutVerdict(layout, any(need.hypothetical for need in stacks), stacks))
        return verdicts

    def context_needs(self, layout: Layout, chains: bool = False) -> list[ContextNeed]:
        """The ladder of every context, on the stack where it starts in this layout.

        `chains`: with the deepest direct chain of each, which also makes its bounds as tight as they get.
        """
        needs: list[ContextNeed] = []
        for stack in layout.stacks:
            placement = self.place(layout, stack)
            for item in placement.items:
                if chains:
                    self.solvers.deepest((item,), placement.exceptions)
                needs.append(self._context_need(item, stack.name, placement.exceptions, chains))
            for nested in placement.nested:
                for item in nested.items if nested.kind == "isr" else ():
                    if chains:
                        self.solvers.deepest((item,), placement.exceptions)
                    needs.append(self._context_need(item, stack.name, placement.exceptions, chains))
        placed = {id(need.context) for need in needs}
        for context in self.contexts:
            if context.open and id(context) not in placed:
                needs.append(_open_need(context, "", context.open))
        return needs

    def context_verdicts(self, layout: Layout) -> list[ContextVerdict]:
        """Each context as if nothing else started on its stack: with the stack's reserves, and all that the
        layout lets nest on top. In the order of the layout's stacks; open contexts are not among them."""
        found = []
        for stack in layout.stacks:
            placement = self.place(layout, stack)
            nested = [item for one in placement.nested for item in one.items]
            for item in placement.items:
                found.append(self._context_verdict(layout, stack, replace(placement, items=(item,)), nested))
        return found

    def _context_verdict(
        self, layout: Layout, stack: Stack, placement: Placement, nested: list[Item]
    ) -> ContextVerdict:
        (item,) = placement.items
        exceptions = placement.exceptions
        best = self.solvers.deepest((item,), exceptions)
        measured = None if self.ladder is None or item.kernel else self.ladder.measured(item.context)
        measured = None if measured is None else stack.reserved + measured
        if best is None:
            opened = OpenItems(((item.open or "nothing is known of it", 1),))
            over = measured is not None and measured > stack.size
            verdict = Verdict.EXCEEDS if over else Verdict.UNKNOWN
            return ContextVerdict(item.context, stack, measured, None, None, opened, 0, verdict)
        below = self._reached((item, *nested), exceptions)
        opened = evidence.open_items(self.calls, self.applied, below, [item.open] if item.open else [])
        hops = [self.need_at(layout, stack, placement, hop) for hop in range(self.hops + 1)]
        bound, _ = self._bound(below.seen, hops) if not below.unlisted.any() else (None, -1)
        sure, _ = self._certain(stack, placement)
        assumed = (
            *evidence.assumed(self.calls, self.applied, below),
            *self._hop_assumption(below.seen),
            *evidence.layout_assumptions(layout, stack, below.hypothetical),
        )
        verdict, _ = evidence.decide(stack.size, measured, sure, bound, opened.total, len(assumed))
        return ContextVerdict(
            item.context, stack, measured, hops[0], bound, opened, len(assumed), verdict, below.hypothetical
        )

    @cached_property
    def _recursion(self) -> NDArray[np.int64]:
        return recursion_sizes(self.edges, self.applied)

    def suggestions(self, layout: Layout) -> tuple[Suggestion, ...]:
        """Functions whose budget or cut would make most contexts of this layout's stacks finite."""
        applied = self.applied
        cuts = {
            kernel: np.asarray(limits.cut >= 0, np.bool_)
            for kernel, limits in ((False, applied.limits), (True, applied.kernel))
        }
        starts = []
        for stack in layout.stacks:
            for item in self.place(layout, stack).items:
                if item.starts and not item.open:
                    entries = tuple(start.entry for start in item.starts)
                    starts.append(Origin(entries, self.solvers.edges(item), cuts[item.kernel]))
        listed = (applied.limits.times > 0) | (applied.limits.cut >= 0)
        return suggest(self.edges, np.asarray(listed, np.bool_), starts, self.hops)

    def context_need(self, item: Item, stack: str, exceptions: int) -> ContextNeed:
        """The ladder of one item, without a chain."""
        return self._context_need(item, stack, exceptions, False)

    def bound(self, function: int, exceptions: int = 0, hops: int = 0) -> Bound:
        """The deepest chain below one function, as code that user mode or a thread started."""
        return self.solvers.chain(
            Item(Context("", "task", ()), 0, (), False), Start(function), exceptions, hops
        )

    # ------------------------------------------------------------ one stack

    def place(self, layout: Layout, stack: Stack) -> Placement:
        """What can be on a stack at once."""
        return place(layout, stack, self.contexts)

    def _tighten(self, placement: Placement) -> None:
        self.solvers.deepest(placement.items, placement.exceptions)
        for nested in placement.nested:
            self.solvers.deepest(nested.items, placement.exceptions)

    def _stack(self, layout: Layout, stack: Stack) -> StackNeed:
        placement = self.place(layout, stack)
        if not placement.items:
            why = "what runs on this stack is entry code that is not modelled"
            return self._only_measured(_nothing(stack, why), placement)
        # Firmware's handlers on top count in full: so does what is not known of them.
        handlers = [item for one in placement.nested if one.kind == "isr" for item in one.items]
        reasons = [item.open for item in (*placement.items, *handlers) if item.open]
        best = self.solvers.deepest(placement.items, placement.exceptions)
        if best is None:
            items = OpenItems(tuple(sorted((reason, reasons.count(reason)) for reason in set(reasons))))
            return self._only_measured(_nothing(stack, "; ".join(dict.fromkeys(reasons)), items), placement)
        exceptions = placement.exceptions
        chain = self.solvers.chain(best.item, best.start, exceptions)
        nested = self.nested(layout, stack, placement, 0)
        parts = (
            *_reserves(stack),
            Part(best.item.context.title, best.value, min(best.above + chain.found, best.value)),
            *nested,
        )
        everything = (*placement.items, *(item for one in placement.nested for item in one.items))
        below = self._reached(everything, exceptions)
        opened = evidence.open_items(self.calls, self.applied, below, reasons)
        endless = np.flatnonzero(below.unlisted)
        hops = [self.need_at(layout, stack, placement, hop) for hop in range(self.hops + 1)]
        bound, unbounded = self._bound(below.seen, hops) if not endless.size else (None, -1)
        sure, sure_best = self._certain(stack, placement)
        assumed = (
            *evidence.assumed(self.calls, self.applied, below),
            *self._hop_assumption(below.seen),
            *evidence.layout_assumptions(layout, stack, below.hypothetical),
        )
        measured, measured_by = (
            self.ladder.stack_measured(stack, placement) if self.ladder is not None else (None, "")
        )
        verdict, why = evidence.decide(stack.size, measured, sure, bound, opened.total, len(assumed))
        if verdict is Verdict.MAY_EXCEED and sure_best is not None:
            best, chain = sure_best, self.solvers.chain(sure_best.item, sure_best.start, exceptions)
            passed = [link.function for link in chain.chain]
            if len(set(passed)) < len(passed):  # a budget permits that, it does not say that it happens
                why = f"a chain of {sure} B, recursion as far as budgets permit"
        elif unbounded >= 0:
            why = (
                f"no finite bound: a cycle with indirect calls passes {self.code.functions.names[unbounded]}"
            )
        return StackNeed(
            stack=stack,
            parts=parts,
            measured=measured,
            composed=self.ladder.stack_composed(layout, stack, placement)
            if self.ladder is not None
            else None,
            direct=sum(part.total for part in parts),
            bound=bound,
            hops=self._curve(everything, exceptions, hops),
            found=sum(part.found * part.times for part in parts),
            open=opened,
            unlisted=tuple(endless.tolist()),
            assumed=assumed,
            hypothetical=below.hypothetical,
            fitting=self._fitting(layout, stack, placement),
            worst=self._context_need(best.item, stack.name, exceptions, True, best),
            chain=chain,
            verdict=verdict,
            why=why,
            measured_by=measured_by,
            traced=None if self.ladder is None else self.ladder.stack_traced(stack, placement),
        )

    def _only_measured(self, need: StackNeed, placement: Placement) -> StackNeed:
        """A stack of which the analysis knows nothing, with what was measured of it."""
        if self.ladder is None:
            return need
        measured, measured_by = self.ladder.stack_measured(need.stack, placement)
        if measured is None or measured <= need.stack.size:
            return replace(need, measured=measured, measured_by=measured_by)
        verdict, why = Verdict.EXCEEDS, f"{measured} B measured"
        return replace(need, measured=measured, measured_by=measured_by, verdict=verdict, why=why)

    def nested(self, layout: Layout, stack: Stack, placement: Placement, hop: int) -> tuple[Part, ...]:
        """What the layout lets nest on this stack; each context on top takes its own exceptions."""
        parts = []
        for nested in placement.nested:
            best = self.solvers.best(nested.items, placement.exceptions, hop)
            if best is None:
                continue
            where = layout.target(best.item.context.interrupt, user=False)
            left = "runs here" if where in (INTERRUPTED, stack.name) else f"up to its switch to {where}"
            chain = self.solvers.chain(best.item, best.start, placement.exceptions)
            parts.append(
                Part(
                    f"{best.item.context.title}, nested ({left})",
                    best.value,
                    min(best.above + chain.found, best.value),
                    nested.times,
                    str(stack.sources.get(f"nests.{nested.kind}", "")),
                )
            )
        return tuple(parts)

    def need_at(self, layout: Layout, stack: Stack, placement: Placement, hop: int) -> int:
        """Bytes that a stack needs with at most `hop` indirect calls on each chain, as bounded so far."""
        best = self.solvers.best(placement.items, placement.exceptions, hop)
        nested = self.nested(layout, stack, placement, hop)
        return stack.reserved + (best.value if best else 0) + sum(part.total for part in nested)

    def _fitting(self, layout: Layout, stack: Stack, placement: Placement) -> Fitting:
        """How many contexts fit, each by its own bound as tight as it has got."""
        exceptions = placement.exceptions
        bounded = [
            (item, self.solvers.hops_to_endless(item, exceptions))
            for item in placement.items
            if item.starts and not item.open
        ]
        alone, nested = [], []
        for hop in range(self.hops + 1):
            known = [item for item, limit in bounded if hop < limit]
            on_top = sum(part.total for part in self.nested(layout, stack, placement, hop))
            bests = [self.solvers.best((item,), exceptions, hop) for item in known]
            values = [best.value for best in bests if best is not None]
            alone.append(sum(value <= stack.usable for value in values))
            nested.append(sum(value + on_top <= stack.usable for value in values))
        return Fitting(len(placement.items), tuple(alone), tuple(nested))

    def _bound(self, seen: NDArray[np.bool_], hops: Sequence[int]) -> tuple[int | None, int]:
        """(bound under the assumed number of hops, -1) or (None, a function of a cycle with a hop in it)."""
        if self.hop_limit is not None and self.hop_limit < len(hops):
            return hops[self.hop_limit], -1
        most, function = self._most_hops(seen)
        if most < 0:
            return None, function
        return (hops[most] if most < len(hops) else None), -1

    def _most_hops(self, seen: NDArray[np.bool_]) -> tuple[int, int]:
        """As cycles.most_hops; many contexts and layouts reach the same functions."""
        key = hashlib.blake2b(np.packbits(seen).tobytes(), digest_size=16).digest()
        if key not in self._hops_of:
            self._hops_of[key] = most_hops(self.edges, seen)
        return self._hops_of[key]

    def _curve(self, items: Iterable[Item], exceptions: int, hops: Sequence[int]) -> tuple[int | None, ...]:
        """Bounds by hops, None from where so many lead to recursion without a budget."""
        limit = min((self.solvers.hops_to_endless(item, exceptions) for item in items), default=len(hops))
        return tuple(bound if hop < limit else None for hop, bound in enumerate(hops))

    def _hop_assumption(self, seen: NDArray[np.bool_]) -> tuple[str, ...]:
        if self.hop_limit is None or 0 <= self._most_hops(seen)[0] <= self.hop_limit:
            return ()
        return (f"at most {self.hop_limit} hops (indirect calls) on a chain",)

    def _certain(self, stack: Stack, placement: Placement) -> tuple[int, Best | None]:
        """The deepest found of the chains that could exceed the stack, down to their first assumption."""
        most, chosen = 0, None
        left = list(placement.items)
        for _ in range(_CERTAIN_TRIES):
            best = self.solvers.best(tuple(left), placement.exceptions)
            if best is None or best.value <= stack.usable:
                break
            chain = self.solvers.chain(best.item, best.start, placement.exceptions)
            sure = (
                stack.reserved + best.above + evidence.certain(chain, self.calls, self.applied, self.frames)
            )
            if sure > most:
                most, chosen = sure, best
            if sure > stack.size:
                break
            left.remove(best.item)
        return most, chosen

    # ------------------------------------------------------------ what is below

    def _reached(self, items: Iterable[Item], exceptions: int) -> Below:
        """What chains of these items can pass."""
        none = np.zeros(len(self.code.functions), np.bool_)
        groups: dict[tuple[bool, frozenset[str]], list[Item]] = {}
        for item in items:
            groups.setdefault((item.kernel, item.plain), []).append(item)
        seen, unlisted = none.copy(), none.copy()
        plain = np.zeros(len(self.calls), np.bool_)
        for (_, kinds), members in groups.items():
            mine = self.solvers.reachable(members, exceptions)
            if mine.any():
                seen |= mine
                unlisted |= mine & self.solvers.unlisted(members[0], exceptions)
                plain |= np.isin(self.solvers.switches, sorted(kinds)) & mine[self.calls.function]
        return Below(seen, unlisted, plain, any(kernel for kernel, _ in groups))

    def _context_need(
        self, item: Item, stack: str, exceptions: int, chains: bool, best: Best | None = None
    ) -> ContextNeed:
        best = best or self.solvers.best((item,), exceptions)
        if best is None:
            return _open_need(item.context, stack, item.open)
        below = self._reached((item,), exceptions)
        endless = int(below.unlisted.sum())
        values = [self.solvers.best((item,), exceptions, hop) for hop in range(self.hops + 1)]
        hops = [one.value for one in values if one is not None]
        bound, _ = self._bound(below.seen, hops) if not endless else (None, -1)
        chain = self.solvers.chain(best.item, best.start, exceptions) if chains else None
        composed = self.ladder.composed(item, exceptions) if self.ladder is not None else None
        return ContextNeed(
            context=item.context,
            stack=stack,
            start=best.start,
            entry_bytes=best.above,
            direct=best.value,
            found=None if chain is None else min(best.above + chain.found, best.value),
            hops=self._curve((item,), exceptions, hops),
            bound=bound,
            measured=None if self.ladder is None or item.kernel else self.ladder.measured(item.context),
            composed=None if composed is None else composed.total,
            open=evidence.open_items(self.calls, self.applied, below),
            unlisted=endless,
            recursion=int(self._recursion[below.seen].max(initial=0)),
            chain=chain,
            composed_start=None if composed is None else composed.start,
            composed_chain=None if composed is None else composed.chain,
            traced=None if self.ladder is None or item.kernel else self.ladder.traced(item.context),
        )


def _reserves(stack: Stack) -> tuple[Part, ...]:
    wanted = (
        ("reserved at the base", "reserve_base", stack.reserve_base),
        ("reserved at the top", "reserve_top", stack.reserve_top),
    )
    return tuple(
        Part(name, size, size, source=str(stack.sources.get(key, ""))) for name, key, size in wanted if size
    )


def _open_need(context: Context, stack: str, reason: str) -> ContextNeed:
    return ContextNeed(
        context, stack, None, 0, None, None, (), None, None, None, OpenItems(((reason, 1),)), 0, 0, None
    )  # fmt: skip


def _nothing(stack: Stack, why: str, opened: OpenItems | None = None) -> StackNeed:
    """A stack of which no number is known: open contexts, or none at all."""
    return StackNeed(
        stack=stack, parts=(), measured=None, composed=None, direct=None, bound=None, hops=(), found=None,
        open=opened or OpenItems(((why, 1),)), unlisted=(), assumed=(), hypothetical=False,
        fitting=Fitting(0, (), ()), worst=None,
        chain=None, verdict=Verdict.UNKNOWN if opened else Verdict.NOT_ANALYSED, why=why,
    )  # fmt: skip
