"""The solvers that verdicts need, each made when first asked for, and bounds as tight as they have got."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.model import Bound
from stackfit.bounds.solve import Solver
from stackfit.calls.model import CallKind, Calls, EdgeKind, Edges
from stackfit.contexts.model import Context, Start
from stackfit.isa.code import Code
from stackfit.verdict.limits import AppliedLimits
from stackfit.verdict.placement import Item

__all__ = ["Best", "Solvers", "fewest_hops"]

_TIGHTENINGS = 16  # times that the deepest start is looked for again after its bound has become tighter

Key = tuple[bool, int, frozenset[str]]


class Best:
    """The deepest of some items: `value` bytes from the stack's top (entry frame in, reserves not)."""

    __slots__ = ("item", "start", "value")

    def __init__(self, item: Item, start: Start, value: int) -> None:
        self.item = item
        self.start = start
        self.value = value

    @property
    def above(self) -> int:
        """Bytes above the start's entry: the entry frame, and functions on the way."""
        return self.item.frame + self.start.bytes


class Solvers:
    """Bounds of items on stacks.

    Four things make a solver: whether there may be hops on a chain, whether the chain interrupts kernel code,
    how many exceptions may nest, and which stack switches are plain calls. A bound may become tighter when a
    chain is looked for; `deepest` looks until the deepest start is settled. `switches`: the context kind that
    each stack-switch site starts.
    """

    def __init__(
        self,
        code: Code,
        edges: Edges,
        calls: Calls,
        contexts: list[Context],
        applied: AppliedLimits,
        hops: int,
        switches: NDArray[np.str_] | None = None,
    ) -> None:
        self.hops = hops
        self._edges = edges
        self._calls = calls
        self._applied = applied
        self.switches = _switch_kinds(code, edges, calls, contexts) if switches is None else switches
        self._leading = {kind: self._leads_to(kind) for kind in ("hardirq", "softirq")}
        self._plain_edges: dict[frozenset[str], Edges] = {frozenset(): edges}
        self._solvers: dict[tuple[Key, bool], Solver] = {}
        self._endless: dict[Key, NDArray[np.int32]] = {}
        self._chains: dict[tuple[Key, int, int], Bound] = {}
        self._uppers: dict[Key, dict[tuple[int, int], int]] = {}

    def _solver(self, key: Key, hops: bool = False) -> Solver:
        """The solver of chains without hops, or with; they differ in what makes them tight."""
        hops = hops and self.hops > 0
        solver = self._solvers.get((key, hops))
        if solver is None:
            kernel, exceptions, plain = key
            limits = self._applied.kernel if kernel else self._applied.limits
            first_only = self._applied.preempts if kernel else self._applied.user_only
            edges = self._edges_with(plain)
            if hops:
                direct = self._solver(key)
                solver = Solver(edges, limits, exceptions, self.hops, first_only, direct)
            else:
                solver = Solver(edges, limits, exceptions, 0, first_only)
            self._solvers[key, hops] = solver
        return solver

    def solver(self, item: Item, exceptions: int, hops: int = 0) -> Solver:
        """What bounds an item's chains: for questions that a bound alone does not answer."""
        return self._solver(self._key(item, exceptions), hops > 0)

    def edges(self, item: Item) -> Edges:
        """The edges as an item's chains follow them: stack switches that are plain calls there included."""
        return self._edges_with(self._plain(item))

    def _plain(self, item: Item) -> frozenset[str]:
        """The item's plain switches that it can reach: the fewer differ, the fewer solvers there are."""
        return frozenset(
            kind for kind in item.plain if any(self._leading[kind][start.entry] for start in item.starts)
        )

    def _leads_to(self, kind: str) -> NDArray[np.bool_]:
        """Functions from which some chain leads to a stack switch of a context kind: bool by function."""
        edges = self._edges
        leading = np.zeros(len(edges.first) - 1, np.bool_)
        leading[self._calls.function[self.switches == kind]] = True
        owner = np.repeat(np.arange(leading.size), np.diff(edges.first))
        while leading.any():
            before = int(leading.sum())
            leading[owner[leading[edges.callee]]] = True
            if int(leading.sum()) == before:
                break
        return leading

    def _edges_with(self, plain: frozenset[str]) -> Edges:
        """The edges with stack switches of these context kinds as plain calls."""
        if plain in self._plain_edges:
            return self._plain_edges[plain]
        edges = self._edges
        chosen = np.isin(self.switches[edges.site], sorted(plain))
        kind, weight = edges.kind.copy(), edges.weight.copy()
        kind[chosen] = EdgeKind.PLAIN
        # What the caller uses of its own stack, and what lies on the other one when it calls.
        weight[chosen] += self._calls.under[edges.site[chosen]]
        self._plain_edges[plain] = replace(edges, kind=kind, weight=weight)
        return self._plain_edges[plain]

    def _key(self, item: Item, exceptions: int) -> Key:
        return item.kernel, exceptions, self._plain(item)

    def upper(self, item: Item, function: int, exceptions: int, hops: int = 0) -> int:
        """Bytes that no chain of the item's kind exceeds below a function, as far as bounds have got."""
        key = self._key(item, exceptions)
        known = self._uppers.setdefault(key, {})
        value = known.get((function, hops))
        if value is None:
            value = known[function, hops] = self._solver(key, hops > 0).upper(function, hops)
        return value

    def chain(self, item: Item, start: Start, exceptions: int, hops: int = 0) -> Bound:
        """The deepest chain below a start; bounds of others may become tighter with it."""
        key = self._key(item, exceptions)
        found = self._chains.get((key, start.entry, hops))
        if found is None:
            before = self.upper(item, start.entry, exceptions, hops)
            found = self._chains[key, start.entry, hops] = self._solver(key, hops > 0).bound(
                start.entry, hops
            )
            if found.upper < before:
                self._uppers[key].clear()
        return found

    def reachable(self, items: Sequence[Item], exceptions: int) -> NDArray[np.bool_]:
        """Functions that chains below the starts of items, which use the same edges, can pass: bool by
        function."""
        starts = [start.entry for item in items for start in item.starts]
        solver = self._solver(self._key(items[0], exceptions), True)
        return solver.reachable_from(starts, hops=self.hops > 0)

    def unlisted(self, item: Item, exceptions: int) -> NDArray[np.bool_]:
        """Recursive functions without a budget: bool by function."""
        return self._solver(self._key(item, exceptions)).unlisted

    def hops_to_endless(self, item: Item, exceptions: int) -> int:
        """The fewest indirect calls by which a chain of an item passes recursion without a budget; more than
        a curve has when none does."""
        key = self._key(item, exceptions)
        fewest = self._endless.get(key)
        if fewest is None:
            solver = self._solver(key)
            fewest = fewest_hops(self._edges_with(key[2]), solver.unlisted, self._cut(key), self.hops)
            self._endless[key] = fewest
        return min((int(fewest[start.entry]) for start in item.starts), default=self.hops + 1)

    def _cut(self, key: Key) -> NDArray[np.bool_]:
        """Functions whose calls are not followed: bool by function."""
        limits = self._applied.kernel if key[0] else self._applied.limits
        return np.asarray(limits.cut >= 0, np.bool_)

    def best(self, items: Iterable[Item], exceptions: int, hops: int = 0) -> Best | None:
        """The deepest of all starts as bounded so far; the first of equals. None: nothing is known."""
        best: Best | None = None
        for item in items:
            for start in item.starts:
                value = item.frame + start.bytes + self.upper(item, start.entry, exceptions, hops)
                if best is None or value > best.value:
                    best = Best(item, start, value)
        return best

    def deepest(self, items: tuple[Item, ...], exceptions: int) -> Best | None:
        """The deepest start, its own bound made as tight as it gets."""
        best = self.best(items, exceptions)
        for _ in range(_TIGHTENINGS):
            if best is None:
                return None
            self.chain(best.item, best.start, exceptions)
            again = self.best(items, exceptions)
            assert again is not None
            if again.value == best.value:
                return again
            best = again
        return best


def fewest_hops(
    edges: Edges, goals: NDArray[np.bool_], cut: NDArray[np.bool_], most: int
) -> NDArray[np.int32]:
    """The fewest hops on a chain from each function to any of the goals; `most` + 1 beyond that many."""
    count = len(edges.first) - 1
    owner = np.repeat(np.arange(count, dtype=np.int32), np.diff(edges.first))
    live = ~cut[owner] & (edges.kind != EdgeKind.SWITCH)
    backward = []
    for hop in (False, True):
        chosen = np.flatnonzero(live & ((edges.kind == EdgeKind.HOP) == hop))
        order = chosen[np.argsort(edges.callee[chosen], kind="stable")]
        first = np.searchsorted(edges.callee[order], np.arange(count + 1))
        backward.append((first, owner[order]))
    fewest = np.full(count, most + 1, np.int32)
    frontier = np.flatnonzero(goals)
    for hops in range(most + 1):
        frontier = frontier[fewest[frontier] > hops]
        fewest[frontier] = hops
        level = [frontier]
        while frontier.size:
            callers = _callers(*backward[0], frontier)
            frontier = callers[fewest[callers] > hops]
            fewest[frontier] = hops
            level.append(frontier)
        frontier = _callers(*backward[1], np.concatenate(level))
    return fewest


def _callers(
    first: NDArray[np.int64], owner: NDArray[np.int32], functions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Each owner of an edge to one of these functions, once."""
    sizes = first[functions + 1] - first[functions]
    rows = np.repeat(first[functions] - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
    return np.unique(owner[rows]).astype(np.int64)


def _switch_kinds(code: Code, edges: Edges, calls: Calls, contexts: list[Context]) -> NDArray[np.str_]:
    """Context kind of what each stack-switch site starts; "" for other sites, and for switches of tasks."""
    switchers = {function for context in contexts for function in context.switchers}
    kinds = np.full(len(calls), "", "U7")
    for site in np.flatnonzero(calls.kind == CallKind.STACK_SWITCH).tolist():
        function = int(calls.function[site])
        known = int(calls.candidates[site])
        callees = calls.candidate_sets[known] if known >= 0 else ()
        callers = np.unique(calls.function[edges.site[edges.callee == function]]).tolist()
        if any(_does_softirqs(code, one) for one in (function, *callees)) or (
            callers and all(_does_softirqs(code, one) for one in callers)
        ):
            kinds[site] = "softirq"
        elif function in switchers:
            kinds[site] = "hardirq"
    return kinds


def _does_softirqs(code: Code, function: int) -> bool:
    """kernel/softirq.c: do_softirq(), do_softirq_own_stack(), __do_softirq(), handle_softirqs()."""
    name = code.functions.names[function]
    return "do_softirq" in name or name == "handle_softirqs"
