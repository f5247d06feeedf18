"""What each assumption takes out of the call graph's cycles, and what recursion is left.

Recursion ties functions into strongly connected components. A budget or a cut at a function breaks every
cycle through it; what remains cyclic has no finite bound. Two graphs are looked at: direct, tail and static
calls alone, and the same with the candidates of indirect calls. Exceptions are left out: a layout counts
them. So are calls that switch stacks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.assumptions import AssumptionSet
from stackfit.assumptions.model import Budget, Cut
from stackfit.bounds.components import cyclic_components
from stackfit.calls.model import EdgeKind, Edges
from stackfit.verdict.limits import AppliedLimits

__all__ = ["Census", "ComponentTable", "Cycles", "Remaining", "Stage", "component_table", "recursion_sizes"]

_STARTS = 64  # of a component's functions, those from which a shortest cycle of it is looked for


@dataclass(frozen=True)
class Census:
    """Components of one graph: functions in the largest that has a cycle (0: there is none), how many have
    more than one function, and how many functions call themselves."""

    largest: int
    several: int
    own: int


@dataclass(frozen=True)
class Stage:
    """The components with all entries up to this one. `functions` carry it; `entry` None: nothing assumed."""

    entry: Budget | Cut | None
    functions: tuple[int, ...]
    direct: Census
    all: Census  # with candidates of indirect calls


@dataclass(frozen=True)
class Remaining:
    """A component in which no function has a budget or a cut: its functions, and a shortest of its cycles
    (of a component of many functions: a shortest of those through its busiest ones)."""

    functions: tuple[int, ...]
    cycle: tuple[int, ...]


@dataclass(frozen=True)
class ComponentTable:
    stages: tuple[Stage, ...]
    direct: tuple[Remaining, ...]
    all: tuple[Remaining, ...]


class Cycles:
    """The edges on cycles of one graph, from which functions are taken out one after another.

    Parallel edges are one. Every removal leaves the edges that are on a cycle still, so that the work gets
    less as cycles go. Edges that take no stack in a component without others make a loop, no recursion.
    """

    def __init__(self, edges: Edges, kinds: Iterable[EdgeKind]) -> None:
        self.count = len(edges.first) - 1
        owner = np.repeat(np.arange(self.count, dtype=np.int64), np.diff(edges.first))
        use = np.isin(edges.kind, [int(kind) for kind in kinds])
        pairs, inverse = np.unique(owner[use] * self.count + edges.callee[use], return_inverse=True)
        self._weight = np.zeros(pairs.size, np.int32)
        np.maximum.at(self._weight, inverse, edges.weight[use])
        self._owner = (pairs // self.count).astype(np.int32)
        self._callee = (pairs % self.count).astype(np.int32)
        self.component: NDArray[np.int32] = np.zeros(self.count, np.int32)
        self._settle()

    def copy(self) -> Cycles:
        """The same, to take functions out of it."""
        other = object.__new__(Cycles)
        other.__dict__.update(self.__dict__)
        return other

    def _settle(self) -> None:
        """Components anew, and edges outside them dropped."""
        first = np.searchsorted(self._owner, np.arange(self.count + 1))
        everything = np.ones(self._owner.size, np.bool_)
        self.component, inner = cyclic_components(first, self._callee, everything)
        grows = np.zeros(self.component.max(initial=-1) + 1, np.bool_)
        grows[self.component[self._owner[inner & (self._weight > 0)]]] = True
        inner &= grows[self.component[self._owner]]
        self._owner, self._callee = self._owner[inner], self._callee[inner]
        self._weight = self._weight[inner]
        self.cyclic = np.zeros(self.count, np.bool_)
        self.cyclic[self._owner] = True

    def remove(self, functions: Iterable[int]) -> bool:
        """Take functions out; False: none of them was on a cycle."""
        gone = [one for one in functions if self.cyclic[one]]
        if not gone:
            return False
        kept = ~(np.isin(self._owner, gone) | np.isin(self._callee, gone))
        self._owner, self._callee = self._owner[kept], self._callee[kept]
        self._weight = self._weight[kept]
        self._settle()
        return True

    def census(self) -> Census:
        sizes = np.bincount(self.component[self.cyclic])
        own = int(np.unique(self._owner[self._owner == self._callee]).size)
        return Census(int(sizes.max(initial=0)), int((sizes > 1).sum()), own)

    def components(self) -> list[NDArray[np.intp]]:
        """The functions of each component, the largest component first, then by function."""
        members = np.flatnonzero(self.cyclic)
        order = members[np.argsort(self.component[members], kind="stable")]
        cuts = np.flatnonzero(np.diff(self.component[order])) + 1
        found = np.split(order, cuts) if order.size else []
        return sorted(found, key=lambda one: (-one.size, int(one[0])))

    def busiest(self, members: NDArray[np.intp]) -> NDArray[np.intp]:
        """Functions by edges into times edges out of each, on cycles; most first."""
        into = np.bincount(self._callee, minlength=self.count)[members]
        out = np.bincount(self._owner, minlength=self.count)[members]
        return members[np.lexsort((members, -into * out))]

    def cycle(self, members: NDArray[np.intp]) -> tuple[int, ...]:
        """A shortest cycle through the busiest members."""
        first = np.searchsorted(self._owner, np.arange(self.count + 1))
        best: tuple[int, ...] = ()
        for start in self.busiest(members)[:_STARTS].tolist():
            found = _shortest(first, self._callee, start)
            if not best or len(found) < len(best):
                best = found
            if len(best) == 1:
                break
        return best


def _shortest(first: NDArray[np.int64], callee: NDArray[np.int32], start: int) -> tuple[int, ...]:
    """A shortest cycle through a function that is on one, breadth first."""
    via: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for other in callee[first[node] : first[node + 1]].tolist():
            if other == start:
                way = [node]
                while way[-1] != start:
                    way.append(via[way[-1]])
                return tuple(reversed(way))
            if other not in via:
                via[other] = node
                queue.append(other)
    return ()


def component_table(edges: Edges, applied: AppliedLimits, assumptions: AssumptionSet) -> ComponentTable:
    """Components before any assumption and after each budget, then each cut, in the order of the files.

    Only entries that a function of the program carries make a stage.
    """
    direct = Cycles(edges, (EdgeKind.PLAIN,))
    everything = Cycles(edges, (EdgeKind.PLAIN, EdgeKind.HOP))
    numbers = direct.census(), everything.census()
    stages = [Stage(None, (), *numbers)]
    entries: tuple[Budget | Cut, ...] = (*assumptions.budgets, *assumptions.cuts)
    for entry in entries:
        functions = applied.carriers.get(entry, ())
        if not functions:
            continue
        numbers = (
            direct.census() if direct.remove(functions) else numbers[0],
            everything.census() if everything.remove(functions) else numbers[1],
        )
        stages.append(Stage(entry, functions, *numbers))
    return ComponentTable(tuple(stages), _remaining(direct), _remaining(everything))


def recursion_sizes(edges: Edges, applied: AppliedLimits) -> NDArray[np.int64]:
    """By function: how many functions the component that it lies in has, over indirect calls too and without
    functions that have a budget or a cut; 0 where no cycle is left."""
    cycles = Cycles(edges, (EdgeKind.PLAIN, EdgeKind.HOP))
    cycles.remove(np.flatnonzero((applied.limits.times > 0) | (applied.limits.cut >= 0)).tolist())
    sizes = np.bincount(cycles.component[cycles.cyclic], minlength=int(cycles.component.max(initial=-1)) + 1)
    return np.where(cycles.cyclic, sizes[cycles.component], 0)


def _remaining(cycles: Cycles) -> tuple[Remaining, ...]:
    return tuple(Remaining(tuple(members.tolist()), cycles.cycle(members)) for members in cycles.components())
