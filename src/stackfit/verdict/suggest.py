"""Which functions a budget or a cut would help most at: a list to review, never an assumption by itself.

While recursion of direct calls without a budget is left, each of its components is in the way of contexts:
they have no finite bound from that number of hops on at which they reach it. The component comes next whose
breaking gives most contexts a finite bound at most numbers of hops; of equals the one in the way of most.
Functions of a component are chosen so that least of it stays cyclic. When none is left, the components that
candidates of indirect calls make are what keeps bounds from being finite at any number of hops: then the
functions come that take most out of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.components import strong_components
from stackfit.calls.model import EdgeKind, Edges
from stackfit.verdict.components import Cycles

__all__ = ["Origin", "Suggestion", "suggest"]

_TRIED = 48  # of a component's functions, the busiest are tried
_MOST_INDIRECT = 12  # suggestions for the components of indirect calls


@dataclass(frozen=True)
class Suggestion:
    """A function to review.

    `before`, `after`: functions on cycles of its component without and with it. `blocked`: contexts that
    reach the component at some number of hops of the curve (0 for one of indirect calls). `finite`: contexts
    with a finite bound at 0, 1, 2 … hops once it and all before it are taken. `largest`: functions of the
    largest component with candidates of indirect calls, then. `indirect`: suggested for that component.
    """

    function: int
    before: int
    after: int
    blocked: int
    finite: tuple[int, ...]
    largest: int
    indirect: bool


@dataclass(frozen=True, eq=False)
class Origin:
    """A context's entry functions, the edges that its chains follow, and the functions whose calls they do
    not (bool by function)."""

    entries: tuple[int, ...]
    edges: Edges
    cut: NDArray[np.bool_]


def suggest(
    edges: Edges, listed: NDArray[np.bool_], starts: Sequence[Origin], hops: int
) -> tuple[Suggestion, ...]:
    """Suggestions, the most useful first.

    `edges`: those that components are made of; `listed`: functions with a budget or a cut; `starts`: the
    contexts; `hops`: the curve's last number of indirect calls. Deterministic.
    """
    gone = np.flatnonzero(listed).tolist()
    direct = Cycles(edges, (EdgeKind.PLAIN,))
    direct.remove(gone)
    everything = Cycles(edges, (EdgeKind.PLAIN, EdgeKind.HOP))
    everything.remove(gone)
    plans = [_plan(direct, members) for members in direct.components()]
    blocked = _blocked(len(listed), [plan.members for plan in plans], starts, hops)
    found: list[Suggestion] = []
    left = [index for index in range(len(plans)) if any(row >> index & 1 for rows in blocked for row in rows)]
    while left:
        chosen = _next(plans, blocked, left)
        left.remove(chosen)
        bit = ~(1 << chosen)
        contexts = sum(any(row >> chosen & 1 for row in rows) for rows in blocked)
        finite = _finite(blocked, hops)
        blocked = [[row & bit for row in rows] for rows in blocked]
        for number, (function, before, after) in enumerate(plans[chosen].steps, 1):
            everything.remove([function])
            if number == len(plans[chosen].steps):
                finite = _finite(blocked, hops)
            found.append(
                Suggestion(function, before, after, contexts, finite, everything.census().largest, False)
            )
    if not found:
        # Direct recursion that no context reaches is in nobody's way.
        everything.remove([function for plan in plans for function, _, _ in plan.steps])
        found.extend(_indirect(everything, _finite(blocked, hops)))
    return tuple(found)


@dataclass(frozen=True)
class _Plan:
    """Functions that together break a component: (function, on cycles before it, and after it)."""

    members: NDArray[np.intp]
    steps: tuple[tuple[int, int, int], ...]


def _plan(cycles: Cycles, members: NDArray[np.intp]) -> _Plan:
    steps = []
    rest = cycles.copy()
    on_cycles = members
    while on_cycles.size:
        function, best = _most_broken(rest, on_cycles)
        left = on_cycles[best.cyclic[on_cycles]]
        steps.append((function, int(on_cycles.size), int(left.size)))
        rest, on_cycles = best, left
    return _Plan(members, tuple(steps))


def _most_broken(cycles: Cycles, members: NDArray[np.intp]) -> tuple[int, Cycles]:
    """The one of the busiest functions without which fewest of these are on cycles, the busiest of equals."""
    best: tuple[int, int, Cycles] | None = None
    for candidate in cycles.busiest(members)[:_TRIED].tolist():
        tried = cycles.copy()
        tried.remove([candidate])
        left = int(tried.cyclic[members].sum())
        if best is None or left < best[0]:
            best = left, candidate, tried
        if not left:
            break
    assert best is not None
    return best[1], best[2]


def _next(plans: list[_Plan], blocked: list[list[int]], left: list[int]) -> int:
    """The component whose breaking gives most; of equals the one most in the way, the smallest, the first."""
    alone = dict.fromkeys(left, 0)
    ways = dict.fromkeys(left, 0)
    for rows in blocked:
        for row in rows:
            if row and not row & (row - 1):
                alone[row.bit_length() - 1] += 1
            for index in left:
                ways[index] += row >> index & 1
    return min(left, key=lambda one: (-alone[one], -ways[one], len(plans[one].steps), one))


def _finite(blocked: list[list[int]], hops: int) -> tuple[int, ...]:
    return tuple(sum(not rows[hop] for rows in blocked) for hop in range(hops + 1))


def _blocked(
    count: int, components: list[NDArray[np.intp]], starts: Sequence[Origin], hops: int
) -> list[list[int]]:
    """By context and number of hops: the components that its chains reach, as bits."""
    owns = [0] * count
    for index, members in enumerate(components):
        for member in members.tolist():
            owns[member] = 1 << index
    tables: dict[tuple[int, int], list[list[int]]] = {}
    rows = []
    for start in starts:
        key = id(start.edges), id(start.cut)
        if key not in tables:
            tables[key] = _reached(start.edges, owns, start.cut, hops)
        table = tables[key]
        row = []
        for hop in range(hops + 1):
            bits = 0
            for entry in start.entries:
                bits |= table[hop][entry]
            row.append(bits)
        rows.append(row)
    return rows


def _reached(edges: Edges, owns: list[int], cut: NDArray[np.bool_], hops: int) -> list[list[int]]:
    """By number of hops and function: what chains from there own, as bits."""
    count = len(owns)
    owner = np.repeat(np.arange(count), np.diff(edges.first))
    live = ~cut[owner]
    kept = live & np.isin(edges.kind, (int(EdgeKind.PLAIN), int(EdgeKind.EXCEPTION)))
    component, callers = _condensed(owner[kept], edges.callee[kept], count)
    hop = live & (edges.kind == EdgeKind.HOP)
    pairs = np.unique(owner[hop].astype(np.int64) * count + edges.callee[hop])
    hop_pairs = list(zip((pairs // count).tolist(), (pairs % count).tolist(), strict=True))
    number = component.tolist()
    own = [0] * len(callers)
    for function, bits in enumerate(owns):
        own[number[function]] |= bits
    layers: list[list[int]] = []
    below: list[int] = []
    for _ in range(hops + 1):
        value = own.copy()
        if below:
            for caller, callee in hop_pairs:
                value[number[caller]] |= below[number[callee]]
        for one, callees in enumerate(callers):  # callees have smaller numbers: they are settled
            bits = value[one]
            for other in callees:
                bits |= value[other]
            value[one] = bits
        layers.append([value[one] for one in number])
        below = value
    return layers


def _condensed(
    owner: NDArray[np.int64], callee: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int32], list[list[int]]]:
    """(component by function, callees first; the components that each component calls)."""
    first = np.searchsorted(owner, np.arange(count + 1))
    component = strong_components(first, callee, np.ones(callee.size, np.bool_))
    calls: list[list[int]] = [[] for _ in range(int(component.max(initial=-1)) + 1)]
    source, target = component[owner].astype(np.int64), component[callee]
    pairs = np.unique(source[source != target] * count + target[source != target])
    for one, other in zip((pairs // count).tolist(), (pairs % count).tolist(), strict=True):
        calls[one].append(other)
    return component, calls


def _indirect(everything: Cycles, finite: tuple[int, ...]) -> list[Suggestion]:
    """Functions that take most out of the largest component with candidates of indirect calls."""
    found = []
    for _ in range(_MOST_INDIRECT):
        components = everything.components()
        if not components:
            break
        members = components[0]
        function, everything = _least_left(everything, members)
        largest = everything.census().largest
        found.append(
            Suggestion(
                function, int(members.size), int(everything.cyclic[members].sum()), 0, finite, largest,
                True,
            )
        )  # fmt: skip
    return found


def _least_left(cycles: Cycles, members: NDArray[np.intp]) -> tuple[int, Cycles]:
    """The one of the busiest functions without which the largest component is smallest."""
    best: tuple[tuple[int, int], int, Cycles] | None = None
    for candidate in cycles.busiest(members)[:_TRIED].tolist():
        tried = cycles.copy()
        tried.remove([candidate])
        value = tried.census().largest, int(tried.cyclic[members].sum())
        if best is None or value < best[0]:
            best = value, candidate, tried
    assert best is not None
    return best[1], best[2]
