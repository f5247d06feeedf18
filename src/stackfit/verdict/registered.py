"""How deep the stack gets in functions that are registered: what lies above the call, and what they add.

A registered function is no context of its own: dispatch code calls it somewhere below a context's entry.
*Above* is the deepest chain from such an entry to that call, over direct calls from step to step of the way
that contexts/registered.py tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.model import Limits
from stackfit.bounds.solve import Solver
from stackfit.calls.model import CallKind, EdgeKind, Edges, Rung
from stackfit.contexts.model import Context, Start
from stackfit.contexts.registered import Registered, Step
from stackfit.layouts.model import Layout, Stack
from stackfit.verdict.compose import Composer
from stackfit.verdict.limits import plain_name
from stackfit.verdict.model import ContextNeed
from stackfit.verdict.placement import Item
from stackfit.verdict.solvers import fewest_hops

__all__ = ["Above", "RegisteredFinder", "RegisteredNeed", "registered_needs"]

_ELSEWHERE = -(1 << 28)  # frame of a function outside: a chain that ends there stays far below zero


@dataclass(frozen=True)
class Above:
    """The way to a family's call on one stack of a layout.

    `bytes`: from the stack's top to the call, entry frame included, reserves not; where the context `nests`,
    from the interrupted stack pointer. `path`: the functions on it, each with the bytes of its frame at the
    site.
    """

    item: Item
    stack: Stack
    nests: bool
    bytes: int
    path: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RegisteredNeed:
    """A registered function on one kind of stack. Bytes.

    `own`: no direct chain below it is deeper. `need`: the ladder of the whole, as a context's; None where it
    is not known what calls it. `on_top`: what the layout lets nest on it. `kind`: the context's, "" where it
    runs on its caller's stack.
    """

    registered: Registered
    kind: str
    own: int
    above: Above | None
    need: ContextNeed | None
    on_top: int

    @property
    def alone(self) -> int | None:
        """What is left of the stack at the direct bound, nothing on top; where the context nests, for what it
        interrupts."""
        if self.above is None or self.need is None or self.need.direct is None:
            return None
        return self.above.stack.usable - self.need.direct

    @property
    def headroom(self) -> int | None:
        """What is left with everything on top."""
        return None if self.alone is None else self.alone - self.on_top


def registered_needs(
    composer: Composer, layout: Layout, functions: Iterable[Registered]
) -> list[RegisteredNeed]:
    """Needs of registered functions, in their order, one for each kind of context that they may run in."""
    finder = RegisteredFinder(composer, layout)
    return [finder.need(registered, kind) for registered in functions for kind in registered.kinds or ("",)]


class RegisteredFinder:
    """Finds what lies above registered functions on one layout; what it has found it keeps."""

    def __init__(self, composer: Composer, layout: Layout) -> None:
        self._composer, self._layout = composer, layout
        edges = composer.edges
        self._owner = np.repeat(np.arange(len(edges.first) - 1), np.diff(edges.first))
        self._above: dict[tuple[str, str], Above | None] = {}
        # By the edges themselves: the composer keeps one set for each choice of plain switches.
        self._solvers: dict[tuple[bool, int, tuple[int, ...]], tuple[Solver, NDArray[np.bool_]]] = {}
        self._named: dict[str, list[int]] = {}
        for function, name in enumerate(composer.code.functions.names):
            if not composer.code.functions.image[function]:
                self._named.setdefault(plain_name(name), []).append(function)
        self._places = [(stack, composer.place(layout, stack)) for stack in layout.stacks]

    def need(self, registered: Registered, kind: str) -> RegisteredNeed:
        key = registered.family.name, kind
        if key not in self._above:
            self._above[key] = self._find(registered.family.steps(kind), kind)
        above, composer = self._above[key], self._composer
        names = composer.code.functions.names
        title = f"{registered.family.name} {names[registered.function]}"
        if above is None:
            item = Item(Context(title, kind or "task", ()), 0, (), kind in ("hardirq", "softirq"))
            own = composer.solvers.upper(item, registered.function, 0)
            return RegisteredNeed(registered, kind, own, None, None, 0)
        parent = above.item
        start = Start(registered.function, above.bytes - parent.frame, above.path)
        item = replace(parent, context=Context(title, kind, (start,)), starts=(start,))
        exceptions = above.stack.nests.get("exception", 0)
        need = composer.context_need(item, above.stack.name, exceptions)
        on_top = 0
        if not above.nests:
            placement = next(one for stack, one in self._places if stack is above.stack)
            on_top = sum(part.total for part in composer.nested(self._layout, above.stack, placement, 0))
        own = composer.solvers.upper(item, registered.function, exceptions)
        return RegisteredNeed(registered, kind, own, above, need, on_top)

    # ------------------------------------------------------------ what is above

    def _find(self, steps: tuple[Step, ...], kind: str) -> Above | None:
        """The deepest way from a context of a kind to the call; None: there is none that is known."""
        goals = [self._dispatchers(step.calls) for step in steps]
        if not goals or not all(goals):
            return None
        for nests in (False, True):  # what nests leaves its handlers to a stack that runs them, if one does
            ways = [
                way
                for stack, item in self._items(kind, nests)
                if (way := self._way(stack, nests, item, steps, goals)) is not None
            ]
            if ways:
                return max(ways, key=lambda way: way.bytes)
        return None

    def _dispatchers(self, names: tuple[str, ...]) -> dict[int, int]:
        """Functions of the kernel with such a name that call through pointers → the deepest such call."""
        calls, found = self._composer.calls, dict[int, int]()
        for function in (function for name in names for function in self._named.get(name, ())):
            begin, end = np.searchsorted(calls.function, (function, function + 1)).tolist()
            rows = np.arange(begin, end)
            pointer = np.isin(calls.kind[rows], (CallKind.INDIRECT, CallKind.INDIRECT_TAIL)) & ~np.isin(
                calls.rung[rows], (Rung.CONSTANT, Rung.PARAVIRT)
            )
            if pointer.any():
                depths = calls.depth[rows] - np.where(
                    calls.tail[rows], self._composer.code.machine.return_bytes, 0
                )
                found[function] = int(depths[pointer].max())
        return found

    def _items(self, kind: str, nests: bool) -> Iterator[tuple[Stack, Item]]:
        for stack, placement in self._places:
            nested = (item for one in placement.nested for item in one.items)
            for item in nested if nests else placement.items:
                # What interrupts user mode takes the same way to its handlers, and then returns there.
                interrupts = item.kernel or not item.context.interrupt
                behind = bool(item.open) and item.open == item.context.behind
                if item.context.kind == kind and (item.starts or behind) and interrupts:
                    yield stack, item

    def _way(
        self, stack: Stack, nests: bool, item: Item, steps: tuple[Step, ...], goals: list[dict[int, int]]
    ) -> Above | None:
        """The deepest way of one item's starts through all steps."""
        # Behind a switch to this stack whose callee is not told, the step's call is the switch, on an empty
        # stack.
        firsts: list[tuple[int, tuple[tuple[int, int], ...]]] = [] if item.starts else [(0, ())]
        for start in item.starts:
            on_way = [number for number, (function, _) in enumerate(start.through) if function in goals[0]]
            if on_way:
                path = start.through[: on_way[-1] + 1]
                firsts.append((sum(size for _, size in path), path))
            elif (leg := self._leg(item, start.entry, goals[0])) is not None:
                firsts.append((start.bytes + leg[0], (*start.through, *leg[1])))
        if not firsts:
            return None
        total, path = max(firsts)
        for step, calls in zip(steps[1:], goals[1:], strict=True):
            starts = (start for name in step.starts for start in self._named.get(name, ()))
            legs = [leg for start in starts if (leg := self._leg(item, start, calls)) is not None]
            if not legs:
                return None
            size, functions = max(legs)
            total, path = total + size, (*path, *functions)
        return Above(item, stack, nests, item.frame + total, path)

    def _leg(
        self, item: Item, start: int, goals: dict[int, int]
    ) -> tuple[int, tuple[tuple[int, int], ...]] | None:
        """The deepest direct chain from a function to the goals' calls: bytes, and its functions."""
        edges = self._composer.solvers.edges(item)
        key = item.kernel, id(edges), tuple(goals)
        if key not in self._solvers:
            self._solvers[key] = self._solver(item, edges, goals)
        solver, leads = self._solvers[key]
        if not leads[start]:
            return None
        chain = solver.bound(start)
        if chain.found < 0:
            return None
        return chain.upper, tuple((link.function, link.depth) for link in chain.chain)

    def _solver(self, item: Item, edges: Edges, goals: dict[int, int]) -> tuple[Solver, NDArray[np.bool_]]:
        """Direct chains that end at the calls of the goals; which functions have one."""
        composer, owner = self._composer, self._owner
        limits = composer.applied.kernel if item.kernel else composer.applied.limits
        reached = np.zeros(len(composer.code.functions), np.bool_)
        reached[list(goals)] = True
        leads = fewest_hops(edges, reached, limits.cut >= 0, 0) == 0
        below = np.full(len(leads), _ELSEWHERE, np.int32)
        cut = np.full(len(leads), -1, np.int32)
        for goal, size in goals.items():
            below[goal] = cut[goal] = size
        follow = (edges.kind == EdgeKind.PLAIN) & (limits.cut[owner] < 0) & leads[edges.callee]
        kind = np.where(follow, edges.kind, EdgeKind.SWITCH).astype(edges.kind.dtype)
        only = Limits(below, limits.times, cut, limits.open_frame, limits.shift)
        return Solver(replace(edges, kind=kind), only, 0), leads
