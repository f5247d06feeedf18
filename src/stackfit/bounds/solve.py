"""The longest chain below every function, under cuts, budgets, nested exceptions and hops.

Chains are counted in layers: an exception edge leads to the layer with one exception less, a hop to the one
with one hop less. The longest chain on which no function occurs more often than its budget is NP-hard, so
budgets are counted as exactly as it takes, and no more:

- *Tracked* functions are counted over the whole chain. Edges into them aside, plain edges form *parts*.
- Within a part the budgeted passes are counted by function where that is cheap, else by their sum, and
  afresh each time the part is entered: more chains are allowed than the budgets permit, so the value is an
  upper bound. It is exact when the chain that attains it keeps every budget.
- `bound` tracks a budget that this chain breaks and solves again, until none is broken or the states become
  too many (decremental state-space relaxation: Righini and Salani, Networks 51(3), 2008).

A cycle without any budgeted function has no finite bound: one of its functions is then counted once, and
everything above it is a lower limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.longest import components, entry_state, reach, search, solve_layer
from stackfit.bounds.model import Bound, ChainLink, Limits
from stackfit.calls.model import EdgeKind, Edges

__all__ = ["Solver"]

# Memory and time are bounded by these. Values held, all layers together (4 bytes each):
_MOST_VALUES = 24_000_000
_MOST_COMBINATIONS = 1 << 14  # states of the tracked functions of one group
_PART_COMBINATIONS = 1 << 10  # a part is counted by function up to here,
_PART_VALUES = 1 << 20  # … and up to so many values
_MOST_PASSES = 1 << 12  # budgets of a part counted by their sum
_REFINEMENTS = 24  # times that one bound is solved again
_SEARCH_STEPS = 400_000
_LONGEST_CHAIN = 1 << 15  # functions on a chain

# Columns of _Layout.info (longest.py)
_GROUP, _PART, _OFFSET, _SIZE, _STATES, _ROLE, _TIMES, _DIGIT, _BLOCKED = range(9)
_TRACKED, _BY_FUNCTION, _BY_SUM = 1, 2, 3


@dataclass(frozen=True, eq=False)
class _Layout:
    """The program as solve_layer() and search() walk it."""

    info: NDArray[np.int64]
    combinations: NDArray[np.int64]
    group_first: NDArray[np.int32]
    part_first: NDArray[np.int32]
    nodes: NDArray[np.int32]
    size: int  # values of one layer
    uncounted: NDArray[np.bool_]  # budgeted functions whose part has too many passes to count


class Solver:
    """Bounds for one program under one set of limits.

    `exceptions`: how many exceptions may nest on one chain; `hops`: the greatest number of indirect calls
    on a chain. Edges of kind SWITCH leave the stack and are not followed. `user_only`: functions that run
    only where the interrupted code was user mode (bool by function; default none): once an exception has
    been taken on a chain, edges into them are not followed.

    Memory: at most 100 MB of values next to arrays of the program's size.
    """

    def __init__(
        self,
        edges: Edges,
        limits: Limits,
        exceptions: int = 1,
        hops: int = 0,
        user_only: NDArray[np.bool_] | None = None,
    ) -> None:
        self.edges = edges
        self.limits = limits
        self.exceptions = exceptions
        self.hops = hops
        self.count = len(limits.frame)
        self._user_only = np.zeros(self.count, np.bool_) if user_only is None else user_only
        owner = np.repeat(np.arange(self.count), np.diff(edges.first))
        self._owner = owner
        self.weight = (edges.weight + limits.shift[owner]).astype(np.int32)
        self.frame = np.where(limits.cut >= 0, limits.cut, limits.frame).astype(np.int32)
        # 0 not followed, 1 plain, 2 exception, 3 hop
        self._kind = np.zeros(len(edges.callee), np.uint8)
        live = limits.cut[owner] < 0
        self._kind[live & (edges.kind == EdgeKind.PLAIN)] = 1
        self._kind[live & (edges.kind == EdgeKind.EXCEPTION)] = 2
        self._kind[live & (edges.kind == EdgeKind.HOP)] = 3
        used = (self._kind == 1) | ((self._kind == 2) & (exceptions > 0)) | ((self._kind == 3) & (hops > 0))
        self._group = self._components(used)
        inner = used & (self._group[owner] == self._group[edges.callee])
        self._in_cycle = np.zeros(self._group.max(initial=-1) + 1, np.bool_)
        self._in_cycle[self._group[owner[inner]]] = True
        self._unlisted, self._recursive = self._unlisted_recursion()
        once = np.where(self._unlisted, 1, limits.times)
        self._limit = np.ascontiguousarray(once, np.int32)
        self._times = np.where(self._in_cycle[self._group], once, 0).astype(np.int64)
        self._tracked: list[int] = []
        self._layout = self._arrange(self._tracked)
        self._track_splitting()
        self._values = self._solve()
        self._stack = np.empty((_LONGEST_CHAIN, 7), np.int64)
        self._chain = np.empty((_LONGEST_CHAIN, 2), np.int64)

    # ------------------------------------------------------------ components and budgets

    def _components(self, use: NDArray[np.bool_]) -> NDArray[np.int32]:
        return _components(self.edges.first, self.edges.callee, use)

    def _unlisted_recursion(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Functions to count once so that no cycle of plain edges is left without one; all recursive ones."""
        callee, owner, n = self.edges.callee, self._owner, self.count
        plain = self._kind == 1
        component = self._components(plain)
        inner = plain & (component[owner] == component[callee])
        cyclic = np.zeros(component.max(initial=-1) + 1, np.bool_)
        cyclic[component[owner[inner]]] = True  # more than one member, or a self-call
        unlisted = np.zeros(n, np.bool_)
        while True:
            kept = inner & (self.limits.times[callee] == 0) & ~unlisted[callee]
            part = self._components(kept)
            loops = kept & (part[owner] == part[callee])
            if not loops.any():
                return unlisted, np.asarray(cyclic[component], np.bool_)
            inside = np.bincount(callee[loops], minlength=n) * np.bincount(owner[loops], minlength=n)
            # The busiest member of each remaining cycle.
            members = np.flatnonzero(inside)
            order = members[np.lexsort((members, -inside[members], part[members]))]
            unlisted[order[np.append(True, part[order][1:] != part[order][:-1])]] = True

    # ------------------------------------------------------------ layout

    def _arrange(self, tracked: list[int]) -> _Layout:
        """Groups, parts and states with these functions tracked."""
        edges, owner, n = self.edges, self._owner, self.count
        is_tracked = np.zeros(n, np.bool_)
        is_tracked[tracked] = True
        plain = self._kind == 1
        apart = plain & ~is_tracked[edges.callee]
        part = self._components(apart)
        inner = apart & (part[owner] == part[edges.callee])
        cyclic = np.zeros(part.max(initial=-1) + 1, np.bool_)
        cyclic[part[owner[inner]]] = True
        position = self._components(apart & (self._times[edges.callee] == 0))
        # Callees before callers: components are numbered that way, and each lies within the one before it.
        nodes = np.lexsort((position, part, self._group)).astype(np.int32)
        starts = np.flatnonzero(np.append(True, part[nodes][1:] != part[nodes][:-1])) if n else np.empty(0, np.int64)
        sizes = np.diff(np.append(starts, n))
        head = nodes[starts]
        group_of_part = self._group[head]
        info = np.zeros((n, 9), np.int64)
        info[:, _GROUP] = self._group
        number = np.empty(n, np.int64)
        number[nodes] = np.repeat(np.arange(starts.size), sizes)
        info[:, _PART] = number
        info[:, _SIZE] = sizes[number]
        info[:, _STATES] = 1
        info[:, _TIMES] = self._times
        info[:, _BLOCKED] = self._user_only
        combinations = np.ones(self._group.max(initial=-1) + 1, np.int64)
        for function in tracked:
            info[function, _ROLE] = _TRACKED
            info[function, _DIGIT] = combinations[self._group[function]]
            combinations[self._group[function]] *= int(self._times[function]) + 1
        uncounted = np.zeros(n, np.bool_)
        states = np.ones(starts.size, np.int64)
        for index in np.flatnonzero(cyclic[part[head]]).tolist():
            members = nodes[starts[index] : starts[index] + sizes[index]]
            budgeted = members[self._times[members] > 0]
            total = _product(self._times[budgeted].tolist())
            if total <= _PART_COMBINATIONS and total * members.size <= _PART_VALUES:
                info[budgeted, _ROLE] = _BY_FUNCTION
                info[budgeted, _DIGIT] = np.cumprod(np.append(1, self._times[budgeted] + 1))[:-1]
            else:
                info[budgeted, _ROLE] = _BY_SUM
                total = int(self._times[budgeted].sum()) + 1
                if total > _MOST_PASSES:
                    total = _MOST_PASSES
                    uncounted[budgeted] = True
            states[index] = total
            info[members, _STATES] = total
        room = combinations[group_of_part] * states * sizes
        offset = np.cumsum(room) - room
        info[:, _OFFSET] = offset[number]
        info[nodes, _OFFSET] += np.arange(n) - np.repeat(starts, sizes)
        group_first = np.searchsorted(group_of_part, np.arange(combinations.size + 1))
        return _Layout(
            info, combinations, group_first.astype(np.int32), np.append(starts, n).astype(np.int32), nodes,
            int(room.sum()), uncounted,
        )  # fmt: skip

    def _track(self, functions: list[int]) -> bool:
        """Track these too; False: too many states."""
        wanted = self._tracked + [one for one in functions if one not in self._tracked]
        for group in {int(self._group[one]) for one in functions}:
            members = [int(self._times[one]) for one in wanted if int(self._group[one]) == group]
            if _product(members) > _MOST_COMBINATIONS:
                return False
        layout = self._arrange(wanted)
        if layout.size * (self.exceptions + 1) * (self.hops + 1) > _MOST_VALUES:
            return False
        self._tracked, self._layout = wanted, layout
        return True

    def _track_splitting(self) -> None:
        """Track what best splits each part whose budgets would be counted by their sum."""
        given_up: set[int] = set()
        while True:
            info = self._layout.info
            hard = np.unique(info[info[:, _ROLE] == _BY_SUM, _PART])
            best = -1
            for part in hard.tolist():
                first = self._layout.part_first
                members = self._layout.nodes[first[part] : first[part + 1]]
                budgeted = [one for one in members.tolist() if self._times[one] > 0]
                if given_up.isdisjoint(budgeted):
                    best = self._splitter(members)
                    break
            if best < 0:
                return
            if not self._track([best]):
                given_up.add(best)

    def _splitter(self, members: NDArray[np.int32]) -> int:
        """The budgeted member without which the others are tied together least."""
        inside = np.full(self.count, -1, np.int32)
        inside[members] = np.arange(members.size)
        callee = self.edges.callee
        chosen = np.flatnonzero((self._kind == 1) & (inside[self._owner] >= 0) & (inside[callee] >= 0))
        local, source = inside[callee[chosen]], inside[self._owner[chosen]]
        first = np.searchsorted(source, np.arange(members.size + 1)).astype(np.int64)
        times = self._times[members]
        weight = np.log2(times + 1.0)
        best, lowest = -1, float("inf")
        for candidate in np.flatnonzero(times > 0).tolist():
            use = local != candidate
            part = _components(first, local, use)
            count = part.max() + 1
            tied = np.bincount(part, minlength=count) * np.bincount(part, weights=weight, minlength=count)
            loops = np.zeros(count, np.bool_)
            loops[part[source[use & (part[source] == part[local])]]] = True
            score = float(tied[loops].sum()) + float(weight[candidate])
            if score < lowest:
                best, lowest = int(members[candidate]), score
        return best

    # ------------------------------------------------------------ layers

    def _solve(self) -> NDArray[np.int32]:
        layout, edges = self._layout, self.edges
        values = np.zeros(((self.hops + 1) * (self.exceptions + 1), max(layout.size, 1)), np.int32)
        nothing = np.empty(0, np.int32)
        for hop in range(self.hops + 1):
            for nested in range(self.exceptions + 1):
                layer = hop * (self.exceptions + 1) + nested
                solve_layer(
                    edges.first, edges.callee, self.weight, self._kind, layout.info, layout.combinations,
                    layout.group_first, layout.part_first, layout.nodes, self.frame, nested < self.exceptions,
                    values[layer], values[layer - 1] if nested else nothing,
                    values[layer - self.exceptions - 1] if hop else nothing,
                )  # fmt: skip
        return values

    # ------------------------------------------------------------ answers

    def upper(self, function: int, hops: int = 0) -> int:
        """Bytes that no chain below a function exceeds, with at most `hops` indirect calls on it.

        As tight as what `bound` has tracked so far; `bound` itself gives the tightest.
        """
        info = self._layout.info
        layer = hops * (self.exceptions + 1) + self.exceptions
        return int(self._values[layer, info[function, _OFFSET] + entry_state(info, function) * info[function, _SIZE]])

    def uppers(self, hops: int = 0, nested: int | None = None) -> NDArray[np.int32]:
        """`upper` of every function; `nested`: with so many nested exceptions (default: all allowed)."""
        info = self._layout.info
        layer = hops * (self.exceptions + 1) + (self.exceptions if nested is None else nested)
        role = info[:, _ROLE]
        state = np.where((role == _TRACKED) | (role == _BY_FUNCTION), info[:, _DIGIT], role == _BY_SUM)
        return np.asarray(self._values[layer, info[:, _OFFSET] + state * info[:, _SIZE]], np.int32)

    def reachable(self, function: int, hops: bool = False) -> NDArray[np.bool_]:
        """Which functions a chain from this one can reach: bool by function."""
        use = (self._kind > 0) & (hops | (self._kind != 3))
        seen = np.zeros(self.count, np.uint8)
        scratch = np.zeros(self.count + 1, np.int32)
        reach(self.edges.first, self.edges.callee, use.astype(np.uint8), function, seen, scratch)
        return seen.astype(np.bool_)

    def recursive(self) -> NDArray[np.bool_]:
        """Functions on a cycle of plain edges."""
        return self._recursive

    @property
    def unlisted(self) -> NDArray[np.bool_]:
        """Recursive functions counted once because no budget covers them, or no more often than
        _MOST_PASSES because the budgets are too large to be counted: what reaches them has no bound."""
        return self._unlisted | self._layout.uncounted

    def bound(self, function: int, hops: int = 0) -> Bound:
        """The bound below a function with the deepest chain found that respects every budget."""
        free = np.zeros(self.count, np.int32)
        for _ in range(_REFINEMENTS):
            upper = self.upper(function, hops)
            chain = self._search(function, hops, upper, free)
            on_chain = np.bincount([link.function for link in chain], minlength=self.count)
            excess = np.where(self._limit > 0, on_chain - self._limit, 0)
            excess[self._tracked] = 0
            if excess.max(initial=0) <= 0:
                break
            if not self._track([int(excess.argmax())]):
                break
            self._values = self._solve()
        upper = self.upper(function, hops)
        chain = self._search(function, hops, upper, self._limit)
        reached = self.reachable(function, hops > 0)
        return Bound(upper, chain[-1].total, chain, tuple(np.flatnonzero(reached & self.unlisted).tolist()))

    def _search(self, start: int, hops: int, upper: int, limit: NDArray[np.int32]) -> tuple[ChainLink, ...]:
        edges, chain = self.edges, self._chain
        length, total = search(
            edges.first, edges.callee, self.weight, self._kind, self._layout.info, self.frame, self._values,
            self.exceptions, limit, start, hops, upper, _SEARCH_STEPS, np.zeros(self.count, np.int32),
            self._stack, chain,
        )  # fmt: skip
        links: list[ChainLink] = []
        for index in range(length):
            function = start if index == 0 else int(edges.callee[chain[index, 0]])
            last = index + 1 == length
            end = total if last else int(chain[index + 1, 1])
            site = -1 if last else int(edges.site[chain[index + 1, 0]])
            links.append(ChainLink(function, site, end - int(chain[index, 1]), end))
        return tuple(links)


def _product(times: list[int]) -> int:
    """States of counters that each go up to one of these."""
    result = 1
    for one in times:
        result *= one + 1
        if result > 1 << 40:
            break
    return result


def _components(first: NDArray[np.int64], callee: NDArray[np.int32], use: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Strongly connected components over some edges, numbered callees first: number by function."""
    n = len(first) - 1
    component = np.empty(n, np.int32)
    scratch = [np.full(n, -1, np.int32)] + [np.zeros(n + 1, np.int32) for _ in range(3)]
    components(first, callee, use.astype(np.uint8), component, *scratch, np.zeros(n + 1, np.int64))
    return component
