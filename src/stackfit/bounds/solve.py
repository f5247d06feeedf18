"""The longest chain below every function, under cuts, budgets, nested exceptions and hops.

Chains are counted in layers: an exception edge leads to the layer with one exception less, a hop to the one
with one hop less. The longest chain on which no function occurs more often than its budget is NP-hard, so
budgets are counted as exactly as it takes, and no more:

- *Tracked* functions are counted over the whole chain. Edges into them aside, plain edges form *parts*.
- Within a part the budgeted passes are counted by function where that is cheap, else by their sum, and
  afresh each time the part is entered: more chains are allowed than the budgets permit, so the value is an
  upper bound (state-space relaxation; tracking one more function where a chain breaks its budget is the
  decremental form of Righini and Salani, Networks 51(3), 2008).
- Passes of functions that are not tracked have a *price*, taken off the chain, and all passes that the
  budgets permit are added at the end: Lagrangian relaxation, an upper bound for any prices. Subgradient
  steps (Held, Wolfe and Crowder 1974) look for good ones.
- A depth-first search, cut off by these bounds, puts together the deepest chain that keeps every budget.

A cycle without any budgeted function has no finite bound: one of its functions is then counted once, and
everything above it is a lower limit.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.components import strong_components
from stackfit.bounds.longest import descend, entry_state, reach, search, solve_layer
from stackfit.bounds.model import Bound, ChainLink, Limits
from stackfit.calls.model import EdgeKind, Edges

__all__ = ["Solver"]

# Memory and time are bounded by these. Those about time were set by trying them on the two 6.1 kernels of the
# tests: more work tightens bounds, less loosens them, neither makes one wrong.
_MOST_VALUES = 32_000_000  # held, all layers together (4 bytes each)
_MOST_COMBINATIONS = 1 << 6  # states of the tracked functions of one group
_PART_BITS = 6  # a part is counted by function up to 1 << 6 states
_PART_VALUE_BITS = 14  # … and 1 << 14 values
_MOST_PASSES = 1 << 12  # budgets of a part counted by their sum
_REFINEMENTS = 2  # times that a solver solves again with one more function tracked
_ROUNDS = 30  # subgradient steps for one group
_ROUND_WORK = 1 << 25  # … and edges looked at in all of them
_MOST_REACHED = 1 << 28  # bytes kept of who reaches whom
_SEARCH_STEPS = 200_000
_SPLICES = 16  # places at which a chain is continued as a known one, deepest first
_LONGEST_CHAIN = 1 << 15  # functions on a chain

# Columns of _Layout.info (longest.py)
_GROUP, _PART, _OFFSET, _SIZE, _STATES, _ROLE, _TIMES, _DIGIT, _BLOCKED = range(9)
_TRACKED, _BY_FUNCTION, _BY_SUM = 1, 2, 3


# (function, edge to it or -1, bytes before it, exceptions and hops taken before it)
_Pass = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class _Chain:
    passes: tuple[_Pass, ...]
    total: int


@dataclass(frozen=True, eq=False)
class _Layout:
    """The program as solve_layer() and search() walk it."""

    info: NDArray[np.int64]
    rows: NDArray[np.int32]  # of it, as solve_layer() wants them
    combinations: NDArray[np.int64]
    group_first: NDArray[np.int32]
    part_first: NDArray[np.int32]
    nodes: NDArray[np.int32]
    size: int  # values of one layer
    uncounted: NDArray[np.bool_]  # budgeted functions whose part has too many passes to count


class Solver:
    """Bounds for one program under one set of limits.

    `exceptions`: how many exceptions may nest on one chain; `hops`: the greatest number of indirect calls
    on a chain; without any, `edges` are those given but for hops. Edges of kind SWITCH leave the stack and
    are not followed. `first_only`: functions that do not run on top of an exception (bool by function;
    default none): once one has been taken on a chain, edges into them are not followed. `like`: a solver of
    the same program whose prices are taken over, instead of looking for better ones; they were found for
    other chains, and give valid bounds for these.

    Memory: at most 128 MB of values, 256 MB of what `upper`, `bound` or `reachable` were asked about, and
    arrays of the program's size.
    """

    def __init__(
        self,
        edges: Edges,
        limits: Limits,
        exceptions: int = 1,
        hops: int = 0,
        first_only: NDArray[np.bool_] | None = None,
        like: Solver | None = None,
    ) -> None:
        self._degree = np.diff(edges.first)  # hops included: what rounds of work are counted by
        edges = self.edges = edges if hops else _without_hops(edges)
        self.limits = limits
        self._followed: dict[bool, NDArray[np.uint8]] = {}  # edges of a chain, with hops or without
        self._hub: dict[bool, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}  # see _find_hub()
        self._reached: dict[tuple[int, bool], NDArray[np.bool_]] = {}
        self.exceptions = exceptions
        self.hops = hops
        self.count = len(limits.frame)
        self.first_only = np.zeros(self.count, np.bool_) if first_only is None else first_only
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
        self._unlisted, loops = self._unlisted_recursion()
        once = np.where(self._unlisted, 1, limits.times)
        # A loop is entered anew only over an exception or a hop, and its edges add no bytes.
        once = np.where(loops, exceptions + hops + 1, once)
        self._limit = np.ascontiguousarray(once, np.int32)
        self._times = np.where(self._in_cycle[self._group], once, 0).astype(np.int64)
        self._tracked: list[int] = []
        self._layout = self._arrange(self._tracked)
        self._stack = np.empty((_LONGEST_CHAIN, 7), np.int64)
        self._chain = np.empty((_LONGEST_CHAIN, 2), np.int64)
        sizes = (self.count, len(edges.callee), self.count)
        self._scratch = tuple(np.empty(size, np.int32) for size in sizes)  # of solve_layer()
        self._price = np.zeros(self.count, np.int32)
        self._settled: NDArray[np.intp] | None = None  # functions with a price, once prices change no more
        self._known: dict[int, _Chain] = {}
        self._values = self._solve()
        self._refinements = 0
        if like is None:
            self._look_for_prices()
        else:
            self._refinements = _REFINEMENTS
            self._free = self._fresh()
            if like._price.any():
                self._price = like._price
                self._values = self._solve()
        self._settled = np.flatnonzero(self._price)

    def _look_for_prices(self) -> None:
        """Find prices, and functions to track; leaves the values under them."""
        hubs = self._hubs()
        self._find_prices(hubs, _ROUNDS)
        priced = self._price
        self._track_splitting()
        self._price = np.zeros(self.count, np.int32)
        self._values = self._solve()
        self._free = self._fresh()
        if priced.any():
            priced[self._tracked] = 0
            self._price = priced
            self._values = self._solve()
            self._find_prices(hubs, _ROUNDS)

    def resized(
        self, weight: NDArray[np.int32], frame: NDArray[np.int32], function: int, like: int
    ) -> Solver:
        """The same program with other bytes: `weight` is added to that of each of `edges`, `frame` to that of
        each function that is not cut; only `function` and its edges have any. `like`: bounds are to be good
        for chains from this function. What is tracked and priced stays: it gives valid bounds for any
        bytes."""
        other = copy.copy(self)
        other.weight = self.weight + weight
        other.frame = np.where(self.limits.cut >= 0, self.frame, self.frame + frame).astype(np.int32)
        other._solve_again(self, like, int(self._group[function]))
        return other

    def once(self, function: int, like: int) -> Solver:
        """The same program, with a function that is at most once on a chain; else as `resized`."""
        other = copy.copy(self)
        other._limit, other._times = self._limit.copy(), self._times.copy()
        other._limit[function] = 1
        other._times[function] = min(int(self._times[function]), 1) or int(
            self._in_cycle[self._group[function]]
        )
        other._layout = other._arrange(self._tracked)
        other._solve_again(self, like, 0)
        return other

    def _solve_again(self, old: Solver, like: int, group: int) -> None:
        """Values, afresh from a group on, under the old prices or none, whichever bound `like` better."""
        self._known = {}
        free = int(old._free[-1, like])
        if not old._price.any() or free <= old.upper(like, self.hops):
            self._price = np.zeros(self.count, np.int32)
            self._settled = np.flatnonzero(self._price)
            self._values = self._solve()
            self._free = self._fresh()
            return
        self._free = np.full_like(old._free, np.iinfo(np.int32).max)
        if self._layout.size != old._layout.size:
            self._values = self._solve()
            return
        self._values = old._values.copy()
        self._fill(self._values, group, len(self._layout.combinations))

    # ------------------------------------------------------------ components and budgets

    def _components(self, use: NDArray[np.bool_]) -> NDArray[np.int32]:
        return strong_components(self.edges.first, self.edges.callee, use)

    def _unlisted_recursion(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Functions to count once so that no cycle of plain edges is left without one; those among them that
        are on loops instead.

        A component of jumps alone, none of which takes stack, is a loop written in assembly whose labels
        are symbols: no recursion, and however often it turns it gets no deeper.
        """
        callee, owner, n = self.edges.callee, self._owner, self.count
        plain = self._kind == 1
        component = self._components(plain)
        inner = plain & (component[owner] == component[callee])
        grows = np.zeros(component.max(initial=-1) + 1, np.bool_)
        grows[component[owner[inner & (self.weight > 0)]]] = True
        growing = grows[component]
        unlisted = np.zeros(n, np.bool_)
        while True:
            kept = inner & (self.limits.times[callee] == 0) & ~unlisted[callee]
            part = self._components(kept)
            loops = kept & (part[owner] == part[callee])
            if not loops.any():
                return unlisted & growing, unlisted & ~growing
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
        starts = np.flatnonzero(np.append(n > 0, part[nodes][1:] != part[nodes][:-1])) if n else np.arange(0)
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
        info[:, _BLOCKED] = self.first_only
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
            if total <= 1 << _PART_BITS and total * members.size <= 1 << _PART_VALUE_BITS:
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
            info, _rows_of(info), combinations, group_first.astype(np.int32),
            np.append(starts, n).astype(np.int32), nodes, int(room.sum()), uncounted,
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
        """Track a few functions without which every part can be counted by function, as far as states allow.

        Of each cyclic component all budgeted members are tracked at first, and then given up one by one, the
        least connected first, wherever the parts stay small enough without.
        """
        callee, owner, n = self.edges.callee, self._owner, self.count
        plain = self._kind == 1
        component = self._components(plain)
        inner = np.flatnonzero(plain & (component[owner] == component[callee]))
        if not inner.size:
            return
        degree = np.bincount(callee[inner], minlength=n) * np.bincount(owner[inner], minlength=n)
        order = np.argsort(component[owner[inner]], kind="stable")
        inner = inner[order]
        numbers, starts = np.unique(component[owner[inner]], return_index=True)
        for number, edges in zip(numbers.tolist(), np.split(inner, starts[1:]), strict=True):
            members = np.flatnonzero(component == number)
            local = np.full(n, -1, np.int32)
            local[members] = np.arange(members.size)
            edges = np.sort(edges)
            first = np.searchsorted(local[owner[edges]], np.arange(members.size + 1)).astype(np.int64)
            wanted = self._minimal(first, local[callee[edges]], self._times[members], degree[members])
            while wanted and not self._track(members[wanted].tolist()):
                wanted.pop(0)

    def _minimal(
        self,
        first: NDArray[np.int64],
        callee: NDArray[np.int32],
        times: NDArray[np.int64],
        degree: NDArray[np.int64],
    ) -> list[int]:
        """A minimal set of budgeted nodes to track in one component, least connected first."""
        budgeted = np.flatnonzero(times > 0)
        weight = np.log2(times + 1.0)
        best: list[int] = []
        fewest = float("inf")
        for order in (
            budgeted[np.lexsort((budgeted, degree[budgeted]))],
            budgeted[np.lexsort((budgeted, degree[budgeted], -times[budgeted]))],
            budgeted[np.lexsort((budgeted, -degree[budgeted], -times[budgeted]))],
        ):
            tracked = np.zeros(times.size, np.bool_)
            tracked[budgeted] = True
            for candidate in order.tolist():
                tracked[candidate] = False
                part = strong_components(first, callee, ~tracked[callee])
                count = part.max() + 1
                bits = np.bincount(part, weights=np.where(tracked, 0.0, weight), minlength=count)
                size = np.bincount(part, minlength=count)
                loops = (size > 1) | (bits > 0)
                if (loops & ((bits > _PART_BITS) | (bits + np.log2(size) > _PART_VALUE_BITS))).any():
                    tracked[candidate] = True
            if weight[tracked].sum() < fewest:
                best, fewest = [one for one in order.tolist() if tracked[one]], float(weight[tracked].sum())
        return best

    # ------------------------------------------------------------ layers

    def _solve(self) -> NDArray[np.int32]:
        layers = (self.hops + 1) * (self.exceptions + 1)
        values = np.zeros((layers, max(self._layout.size, 1)), np.int32)
        self._fill(values, 0, len(self._layout.combinations))
        return values

    def _fill(self, values: NDArray[np.int32], begin: int, end: int) -> None:
        """Values of some groups; those of the groups before them are there."""
        layout, edges = self._layout, self.edges
        nothing = np.empty(0, np.int32)
        for hop in range(self.hops + 1):
            for nested in range(self.exceptions + 1):
                layer = hop * (self.exceptions + 1) + nested
                solve_layer(
                    edges.first, edges.callee, self.weight, self._kind, layout.rows, layout.combinations,
                    layout.group_first, layout.part_first, layout.nodes, self.frame, self._price,
                    nested < self.exceptions, begin, end, values[layer],
                    values[layer - 1] if nested else nothing,
                    values[layer - self.exceptions - 1] if hop else nothing,
                    *self._scratch,
                )  # fmt: skip

    def _fresh(self) -> NDArray[np.int32]:
        """Values of chains that start here, by layer and function."""
        info = self._layout.info
        role = info[:, _ROLE]
        state = np.where((role == _TRACKED) | (role == _BY_FUNCTION), info[:, _DIGIT], role == _BY_SUM)
        return np.asarray(self._values[:, info[:, _OFFSET] + state * info[:, _SIZE]], np.int32)

    def _passes(self, start: int, hops: int) -> NDArray[np.int32]:
        """How often each function is on the chain that attains the value of `start`."""
        edges = self.edges
        passes = np.zeros(self.count, np.int32)
        descend(
            edges.first, edges.callee, self.weight, self._kind, self._layout.info, self.frame, self._price,
            self._values, self.exceptions, start, hops, passes,
        )  # fmt: skip
        return passes

    def _hubs(self) -> list[int]:
        """The function with the deepest chains of each group whose budgets are counted by their sum."""
        info = self._layout.info
        fresh = self._fresh()[-1]
        hubs = []
        for group in np.unique(info[info[:, _ROLE] == _BY_SUM, _GROUP]).tolist():
            members = np.flatnonzero(self._group == group)
            hubs.append(int(members[fresh[members].argmax()]))
        return hubs

    def _find_prices(self, hubs: list[int], rounds: int) -> None:
        """Look for prices under which the chains below each of these functions are bounded best.

        Prices of a group change no value of the groups below it: one group is solved in each round.
        """
        degree = self._degree
        for hub in hubs:
            group = int(self._group[hub])
            inside = self._group == group
            limit = np.where(inside, self._times, 0).astype(np.float64)
            work = int((self._layout.info[inside, _STATES] * degree[inside]).sum())
            work *= int(self._layout.combinations[group]) * len(self._values)
            reached = self.reachable(hub, self.hops > 0)
            lowest = self._priced(hub, self.hops, reached)
            found = self._improve(hub, lowest, reached)
            best, length, stale = self._price, 1.0, 0
            for _ in range(min(rounds, _ROUND_WORK // max(work, 1))):
                passes = self._passes(hub, self.hops)
                step = np.where(limit > 0, passes - limit, 0.0)
                step[(step < 0) & (self._price == 0)] = 0
                norm = float((step * step).sum())
                if not norm or lowest <= found:
                    break
                aim = length * (lowest - found) / norm
                self._price = np.maximum(0, self._price + np.rint(aim * step)).astype(np.int32)
                self._fill(self._values, group, group + 1)
                bound = self._priced(hub, self.hops, reached)
                if bound < lowest:
                    lowest, best, stale = bound, self._price, 0
                    found = self._improve(hub, lowest, reached)
                    continue
                stale += 1
                if stale == 6:
                    stale, length, self._price = 0, length / 2, best
                    self._fill(self._values, group, group + 1)
            self._price = best
            self._fill(self._values, group, len(self._layout.combinations))

    def _improve(self, hub: int, upper: int, reached: NDArray[np.bool_]) -> int:
        """Bytes of the deepest chain found below a hub so far, after a short search under these prices."""
        chain = self._search(hub, self.hops, upper, reached, _SEARCH_STEPS // 20)
        known = self._known.get(hub)
        if known is None or chain.total > known.total:
            self._known[hub] = known = chain
        return known.total

    # ------------------------------------------------------------ answers

    def _slack(self, reached: NDArray[np.bool_]) -> int:
        """Bytes that the prices of all permitted passes of these functions add up to."""
        priced = self._priced_functions()
        priced = priced[reached[priced]]
        return int((self._price[priced].astype(np.int64) * self._limit[priced]).sum())

    def _priced_functions(self) -> NDArray[np.intp]:
        return np.flatnonzero(self._price) if self._settled is None else self._settled

    def _priced(self, function: int, hops: int, reached: NDArray[np.bool_] | None) -> int:
        info = self._layout.info
        layer = hops * (self.exceptions + 1) + self.exceptions
        place = info[function, _OFFSET] + entry_state(info, function) * info[function, _SIZE]
        slack = 0 if reached is None else self._slack(reached)
        return int(self._values[layer, place]) - int(self._price[function]) + slack

    def upper(self, function: int, hops: int = 0) -> int:
        """Bytes that no chain below a function exceeds, with at most `hops` indirect calls on it.

        As tight as what `bound` has tracked so far.
        """
        free = int(self._free[hops * (self.exceptions + 1) + self.exceptions, function])
        # What the prices of permitted passes add is never negative: without it the bound is at its least.
        if not self._priced_functions().size or self._priced(function, hops, None) >= free:
            return free
        return min(free, self._priced(function, hops, self.reachable(function, hops > 0)))

    def reachable(self, function: int, hops: bool = False) -> NDArray[np.bool_]:
        """Which functions a chain from this one can reach: bool by function (not to be changed)."""
        known = self._reached.get((function, hops))
        if known is not None:
            return known
        found = self.reachable_from([function], hops)
        if (len(self._reached) + 1) * self.count > _MOST_REACHED and self._reached:
            del self._reached[next(iter(self._reached))]  # the oldest
        self._reached[function, hops] = found
        return found

    def reachable_from(self, functions: Iterable[int], hops: bool = False) -> NDArray[np.bool_]:
        """Which functions chains from any of these can reach, these included: bool by function."""
        if hops not in self._followed:
            self._followed[hops] = ((self._kind > 0) & (hops | (self._kind != 3))).astype(np.uint8)
            self._hub[hops] = self._find_hub(self._followed[hops])
        leads, beyond = self._hub[hops]
        via, queue = np.full(self.count, -1, np.int32), np.empty(self.count, np.int32)
        begun = np.zeros(self.count, np.bool_)
        for function in functions:
            if via[function] < 0 and not begun[function]:
                if leads[function]:
                    via[beyond] = 0  # no edge's number is asked for
                begun[function] = True
                reach(self.edges.first, self.edges.callee, self._followed[hops], function, via, queue)
        return np.asarray((via >= 0) | begun, np.bool_)

    def _find_hub(self, use: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which functions lead to the largest component, and which that leads to: most ways of a kernel go
        through it, and this way they are gone once. Bool by function."""
        first, callee = self.edges.first, self.edges.callee
        component = strong_components(first, callee, use > 0)
        members = component == np.bincount(component).argmax() if component.size else component < 0
        if members.sum() < 2:
            return np.zeros(self.count, np.bool_), np.zeros(self.count, np.bool_)
        start = int(members.argmax())
        owner = np.repeat(np.arange(self.count, dtype=np.int32), np.diff(first))
        order = np.argsort(callee, kind="stable")
        back = np.searchsorted(callee[order], np.arange(self.count + 1))
        sides = []
        for at, to, used in ((back, owner[order], use[order]), (first, callee, use)):
            via = np.full(self.count, -1, np.int32)
            reach(at, to, used, start, via, np.empty(self.count, np.int32))
            sides.append((via >= 0) | members)
        return sides[0], sides[1]

    def _ways(self, start: int, use: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The last edge of a shortest way from `start` to each function, -1 where none leads."""
        via = np.full(self.count, -1, np.int32)
        reach(self.edges.first, self.edges.callee, use, start, via, np.empty(self.count, np.int32))
        return via

    @property
    def unlisted(self) -> NDArray[np.bool_]:
        """Recursive functions counted once because no budget covers them, or no more often than
        _MOST_PASSES because the budgets are too large to be counted: what reaches them has no bound."""
        return self._unlisted | self._layout.uncounted

    def bound(self, function: int, hops: int = 0) -> Bound:
        """The bound below a function with the deepest chain found that respects every budget."""
        reached = self.reachable(function, hops > 0)
        while True:
            upper = self.upper(function, hops)
            chain = self._search(function, hops, upper, reached, _SEARCH_STEPS)
            chain = self._splice(chain, hops)
            if 8 * chain.total < 7 * upper:
                chain = self._join(function, chain, hops)
            if chain.total >= upper or self._refinements >= _REFINEMENTS:
                break
            excess = np.where(self._times > 0, self._passes(function, hops) - self._times, 0)
            excess[self._tracked] = 0
            if excess.max(initial=0) <= 0 or not self._track([int(excess.argmax())]):
                break
            self._refinements += 1
            self._values = self._solve()
            if not self._priced_functions().size:
                self._free = self._fresh()
        unlisted = tuple(np.flatnonzero(reached & self.unlisted).tolist())
        return Bound(upper, chain.total, self._links(chain), unlisted)

    def _search(self, start: int, hops: int, upper: int, reached: NDArray[np.bool_], steps: int) -> _Chain:
        edges, chain = self.edges, self._chain
        length, total = search(
            edges.first, edges.callee, self.weight, self._kind, self._layout.info, self.frame, self._price,
            self._slack(reached), self._values, self.exceptions, self._limit, start, hops, upper, steps,
            np.zeros(self.count, np.int32), self._stack, chain,
        )  # fmt: skip
        passes = [(start, -1, 0, 0, 0)]
        for edge, before in chain[1:length].tolist():
            kind = int(self._kind[edge])
            _, _, _, taken, hopped = passes[-1]
            passes.append((int(edges.callee[edge]), edge, before, taken + (kind == 2), hopped + (kind == 3)))
        return _Chain(tuple(passes), total)

    def _splice(self, chain: _Chain, hops: int) -> _Chain:
        """A chain continued as the deepest one known below a hub, where the two meet and that is deeper."""
        deeper = []
        for hub, known in self._known.items():
            where = {one[:1] + one[3:]: index for index, one in enumerate(known.passes)}
            for index, (function, _, before, taken, hopped) in enumerate(chain.passes):
                other = where.get((function, taken, hopped))
                if other is not None:
                    total = before + known.total - known.passes[other][2]
                    if total > chain.total:
                        deeper.append((-total, hub, index, other))
        for _, hub, index, other in sorted(deeper)[:_SPLICES]:
            found = self._continued(chain.passes[: index + 1], self._known[hub], other, hops)
            if found is not None:
                return found
        return chain

    def _join(self, start: int, chain: _Chain, hops: int) -> _Chain:
        """`chain`, or one that leads to a chain known below a hub by the fewest calls, if that is deeper."""
        edges = self.edges
        via = self._ways(start, (self._kind == 1).astype(np.uint8))
        best = chain
        for known in self._known.values():
            for index, (function, _, _, taken, hopped) in enumerate(known.passes):
                if taken or hopped or (via[function] < 0 and function != start):
                    continue
                taken_edges = []
                node = function
                while node != start:
                    taken_edges.append(int(via[node]))
                    node = int(self._owner[via[node]])
                passes = [(start, -1, 0, 0, 0)]
                for edge in reversed(taken_edges):
                    before = passes[-1][2] + int(self.weight[edge])
                    passes.append((int(edges.callee[edge]), edge, before, 0, 0))
                if passes[-1][2] + known.total - known.passes[index][2] > best.total:
                    best = self._continued(tuple(passes), known, index, hops) or best
        return best

    def _continued(self, head: tuple[_Pass, ...], known: _Chain, index: int, hops: int) -> _Chain | None:
        """`head` and what follows `index` on a known chain; None where that breaks a budget or takes more
        hops."""
        if known.passes[-1][4] > hops:
            return None
        shift = head[-1][2] - known.passes[index][2]
        rest = tuple((one[0], one[1], one[2] + shift, *one[3:]) for one in known.passes[index + 1 :])
        often = Counter(one[0] for one in head + rest)
        if any(self._limit[one] and often[one] > self._limit[one] for one in often):
            return None
        return _Chain(head + rest, known.total + shift)

    def _links(self, chain: _Chain) -> tuple[ChainLink, ...]:
        links: list[ChainLink] = []
        for index, (function, _, before, _, _) in enumerate(chain.passes):
            last = index + 1 == len(chain.passes)
            end = chain.total if last else chain.passes[index + 1][2]
            site = -1 if last else int(self.edges.site[chain.passes[index + 1][1]])
            links.append(ChainLink(function, site, end - before, end))
        return tuple(links)


def _without_hops(edges: Edges) -> Edges:
    """The edges but for hops: of a whole kernel's the smaller part."""
    kept = edges.kind != EdgeKind.HOP
    if kept.all():
        return edges
    before = np.append(0, np.cumsum(kept))
    return Edges(
        before[edges.first], edges.callee[kept], edges.weight[kept], edges.kind[kept], edges.site[kept]
    )


def _rows_of(info: NDArray[np.int64]) -> NDArray[np.int32]:
    """int32[n, 8]: what solve_layer() looks at for every edge, in half the bytes."""
    rows = np.ascontiguousarray(info[:, :_BLOCKED], np.int32)
    rows[:, _ROLE] += 4 * info[:, _BLOCKED].astype(np.int32)
    return rows


def _product(times: list[int]) -> int:
    """States of counters that each go up to one of these."""
    result = 1
    for one in times:
        result *= one + 1
        if result > 1 << 40:
            break
    return result
