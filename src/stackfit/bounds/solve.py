"""The longest chain below every function, under cuts, budgets, nested exceptions and hops.

Chains are counted in layers: an exception edge leads to the layer with one exception less, a hop to the one
with one hop less. Within a layer plain edges form components; a cyclic component is walked with a state that
counts its budgeted passes: each function apart where there are few (exact), their sum where there are many
(an upper bound). A cycle without any budgeted function has no finite bound: one of its functions is then
counted once, and everything above it is a lower limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.longest import components, reach, solve_layer
from stackfit.bounds.model import Bound, ChainLink, Limits
from stackfit.calls.model import EdgeKind, Edges

__all__ = ["Solver"]

# A component is solved exactly up to this many states (budget states × members).
_EXACT_STATES = 4_000_000
_EXACT_COMBINATIONS = 1 << 14
_SEARCH_STEPS = 20_000


@dataclass(frozen=True, eq=False)
class _Components:
    """Components of the plain graph, prepared for solve_layer()."""

    component: NDArray[np.int32]
    first: NDArray[np.int64]
    nodes: NDArray[np.int32]
    state_count: NDArray[np.int32]
    state_first: NDArray[np.int64]
    exact: NDArray[np.uint8]
    local: NDArray[np.int32]
    times: NDArray[np.int32]  # budgets, those chosen for unlisted recursion included
    stride: NDArray[np.int32]
    unlisted: NDArray[np.bool_]  # functions counted once although no assumption says so


class Solver:
    """Bounds for one program under one set of limits.

    `exceptions`: how many exceptions may nest on one chain; `hops`: the greatest number of indirect calls
    on a chain. Edges of kind SWITCH leave the stack and are not followed.
    """

    def __init__(self, edges: Edges, limits: Limits, exceptions: int = 1, hops: int = 0) -> None:
        self.edges = edges
        self.limits = limits
        self.exceptions = exceptions
        self.hops = hops
        self.count = len(limits.frame)
        owner = np.repeat(np.arange(self.count), np.diff(edges.first))
        self.weight = (edges.weight + limits.shift[owner]).astype(np.int32)
        self.frame = np.where(limits.cut >= 0, np.maximum(limits.cut, 0), limits.frame).astype(np.int32)
        live = limits.cut[owner] < 0
        self.plain = (live & (edges.kind == EdgeKind.PLAIN)).astype(np.uint8)
        self._faults = live & (edges.kind == EdgeKind.EXCEPTION)
        self._hops = live & (edges.kind == EdgeKind.HOP)
        self.followed = (self.plain.astype(np.bool_) | self._faults | self._hops).astype(np.uint8)
        self._owner = owner
        self._parts = self._prepare()
        self.values: dict[tuple[int, int], NDArray[np.int32]] = {}
        self._states: dict[tuple[int, int], NDArray[np.int32]] = {}
        for hop in range(hops + 1):
            for nested in range(exceptions + 1):
                self._solve(hop, nested)

    # ------------------------------------------------------------ components

    def _components(self, use: NDArray[np.uint8]) -> tuple[int, NDArray[np.int32]]:
        n = self.count
        component = np.empty(n, np.int32)
        scratch = [np.full(n, -1, np.int32)] + [np.zeros(n + 1, np.int32) for _ in range(3)]
        found = components(self.edges.first, self.edges.callee, use, component, *scratch, np.zeros(n + 1, np.int64))
        return found, component

    def _prepare(self) -> _Components:
        edges, n = self.edges, self.count
        found, component = self._components(self.plain)
        sizes = np.bincount(component, minlength=found)
        inner = self.plain.astype(np.bool_) & (component[self._owner] == component[edges.callee])
        cyclic = np.zeros(found, np.bool_)
        cyclic[component[self._owner[inner]]] = True  # more than one member, or a self-call
        times = np.where(cyclic[component], self.limits.times, 0).astype(np.int32)
        unlisted = np.zeros(n, np.bool_)
        while True:  # break what the budgets leave cyclic
            kept = inner & (times[edges.callee] == 0)
            _, part = self._components(kept.astype(np.uint8))
            loops = kept & (part[self._owner] == part[edges.callee])
            if not loops.any():
                break
            inside = np.bincount(edges.callee[loops], minlength=n) * np.bincount(self._owner[loops], minlength=n)
            # The busiest member of each remaining cycle.
            members = np.flatnonzero(inside)
            order = members[np.lexsort((members, -inside[members], part[members]))]
            heads = order[np.append(True, part[order][1:] != part[order][:-1])]
            times[heads] = 1
            unlisted[heads] = True
        # Callees before callers once edges into budgeted functions are left out.
        position = part  # Tarjan numbers components callees first
        nodes = np.lexsort((position, component)).astype(np.int32)
        first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        local = np.empty(n, np.int32)
        local[nodes] = np.arange(n) - np.repeat(first[:-1], sizes)
        state_count = np.zeros(found, np.int32)
        exact = np.zeros(found, np.uint8)
        stride = np.zeros(n, np.int32)
        for number in np.flatnonzero(cyclic).tolist():
            members = nodes[first[number] : first[number + 1]]
            budgeted = members[times[members] > 0]
            combinations = 1
            for member in budgeted.tolist():
                stride[member] = combinations
                combinations *= int(times[member]) + 1
                if combinations > _EXACT_COMBINATIONS:
                    break
            if combinations <= _EXACT_COMBINATIONS and combinations * members.size <= _EXACT_STATES:
                exact[number] = 1
                state_count[number] = combinations
            else:
                state_count[number] = int(times[budgeted].sum()) + 1
        state_first = np.concatenate([[0], np.cumsum(state_count.astype(np.int64) * sizes)[:-1]]).astype(np.int64)
        self._state_total = int((state_count.astype(np.int64) * sizes).sum())
        return _Components(component, first, nodes, state_count, state_first, exact, local, times, stride, unlisted)

    # ------------------------------------------------------------ layers

    def _solve(self, hop: int, nested: int) -> None:
        edges, parts = self.edges, self._parts
        base = self.frame.copy()
        if nested:
            self._raise(base, self._faults, self.values[hop, nested - 1])
        if hop:
            self._raise(base, self._hops, self.values[hop - 1, nested])
        value = np.zeros(self.count, np.int32)
        states = np.zeros(max(self._state_total, 1), np.int32)
        solve_layer(
            edges.first, edges.callee, self.weight, self.plain, parts.component, parts.first, parts.nodes,
            parts.state_count, parts.state_first, parts.exact, parts.local, parts.times, parts.stride,
            base, value, states,
        )  # fmt: skip
        self.values[hop, nested] = value
        self._states[hop, nested] = states

    def _raise(self, base: NDArray[np.int32], chosen: NDArray[np.bool_], value: NDArray[np.int32]) -> None:
        index = np.flatnonzero(chosen)
        np.maximum.at(base, self._owner[index], self.weight[index] + value[self.edges.callee[index]])

    # ------------------------------------------------------------ answers

    def upper(self, function: int, hops: int = 0) -> int:
        """Bytes of the deepest chain below a function, at most `hops` indirect calls on it."""
        return int(self.values[hops, self.exceptions][function])

    def reachable(self, function: int, hops: bool = False) -> NDArray[np.bool_]:
        """Which functions a chain from this one can reach: bool by function."""
        use = self.followed if hops else (self.followed.astype(np.bool_) & ~self._hops).astype(np.uint8)
        seen = np.zeros(self.count, np.uint8)
        reach(self.edges.first, self.edges.callee, use, function, seen, np.zeros(self.count + 1, np.int32))
        return seen.astype(np.bool_)

    def recursive(self) -> NDArray[np.bool_]:
        """Functions on a cycle of plain edges."""
        return np.asarray(self._parts.state_count[self._parts.component] > 0, np.bool_)

    @property
    def unlisted(self) -> NDArray[np.bool_]:
        """Recursive functions that no budget covers and that were counted once."""
        return self._parts.unlisted

    def bound(self, function: int, hops: int = 0) -> Bound:
        """The bound below a function with the deepest chain found that respects every budget."""
        upper = self.upper(function, hops)
        chain = self._search(function, hops, upper)
        found = chain[-1].total if chain else 0
        reached = self.reachable(function, hops > 0)
        return Bound(upper, found, chain, tuple(np.flatnonzero(reached & self._parts.unlisted).tolist()))

    def _entry_state(self, node: int, state: int, same: bool) -> int:
        """Budget state on entering `node` (from inside its component in `state`, or afresh); -1 = spent."""
        parts = self._parts
        component = int(parts.component[node])
        if parts.state_count[component] == 0:
            return 0
        times = int(parts.times[node])
        before = state if same else 0
        if times == 0:
            return before
        if parts.exact[component]:
            stride = int(parts.stride[node])
            return before + stride if (before // stride) % (times + 1) < times else -1
        return before + 1 if before + 1 < int(parts.state_count[component]) else -1

    def _value(self, node: int, state: int, hop: int, nested: int) -> int:
        parts = self._parts
        component = int(parts.component[node])
        if parts.state_count[component] == 0:
            return int(self.values[hop, nested][node])
        size = int(parts.first[component + 1] - parts.first[component])
        return int(self._states[hop, nested][int(parts.state_first[component]) + state * size + int(parts.local[node])])

    def _search(self, start: int, hops: int, upper: int) -> tuple[ChainLink, ...]:
        """Depth-first search, deepest promise first, pruned by the bound; budgets are kept on the whole chain."""
        edges, parts = self.edges, self._parts
        best_total = -1
        best: list[tuple[int, int, int]] = []  # (function, edge to the next, bytes before)
        path: list[tuple[int, int, int]] = []
        used: dict[int, int] = {}
        steps = 0

        def options(node: int, state: int, hop: int, nested: int) -> list[tuple[int, int, int, int, int, int]]:
            out = []
            for edge in range(int(edges.first[node]), int(edges.first[node + 1])):
                callee = int(edges.callee[edge])
                if self.plain[edge]:
                    same = parts.component[callee] == parts.component[node]
                    following, next_hop, next_nested = self._entry_state(callee, state, bool(same)), hop, nested
                elif self._faults[edge] and nested:
                    following, next_hop, next_nested = self._entry_state(callee, 0, False), hop, nested - 1
                elif self._hops[edge] and hop:
                    following, next_hop, next_nested = self._entry_state(callee, 0, False), hop - 1, nested
                else:
                    continue
                if following < 0:
                    continue
                promise = int(self.weight[edge]) + self._value(callee, following, next_hop, next_nested)
                out.append((promise, edge, callee, following, next_hop, next_nested))
            out.sort(key=lambda item: (-item[0], item[1]))
            return out

        # An explicit stack: chains are longer than Python's recursion limit allows to be sure of.
        frames: list[tuple[int, int, int, int, int, list[tuple[int, int, int, int, int, int]], int]] = []

        def enter(node: int, state: int, hop: int, nested: int, before: int) -> None:
            used[node] = used.get(node, 0) + 1
            frames.append((node, before, state, hop, nested, options(node, state, hop, nested), 0))

        enter(start, self._entry_state(start, 0, False), hops, self.exceptions, 0)
        while frames and steps < _SEARCH_STEPS and best_total < upper:
            steps += 1
            node, before, state, hop, nested, choices, position = frames[-1]
            if position == 0 and before + int(self.frame[node]) > best_total:
                best_total = before + int(self.frame[node])
                best = [(frames[index][0], path[index][1] if index < len(path) else -1, frames[index][1]) for index in range(len(frames))]
            if position >= len(choices) or before + choices[position][0] <= best_total:
                frames.pop()
                used[node] -= 1
                if path:
                    path.pop()
                continue
            frames[-1] = (node, before, state, hop, nested, choices, position + 1)
            _, edge, callee, following, next_hop, next_nested = choices[position]
            limit = int(parts.times[callee]) or int(self.limits.times[callee])
            if limit and used.get(callee, 0) >= limit:
                continue
            path.append((node, edge, before))
            enter(callee, following, next_hop, next_nested, before + int(self.weight[edge]))
        links: list[ChainLink] = []
        for index, (function, edge, before) in enumerate(best):
            last = index + 1 == len(best)
            size = int(self.frame[function]) if last else best[index + 1][2] - before
            links.append(ChainLink(function, -1 if last else int(edges.site[edge]), size, before + size))
        return tuple(links)
