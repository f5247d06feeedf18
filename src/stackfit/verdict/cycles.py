"""Cycles of the call graph, whatever is assumed of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.components import cyclic_components, strong_components
from stackfit.calls.model import EdgeKind, Edges

__all__ = ["most_hops", "recursive"]


def recursive(edges: Edges) -> NDArray[np.bool_]:
    """Functions on a cycle of direct, tail and static calls: bool by function."""
    owner = _owners(edges)
    component, inner = cyclic_components(edges.first, edges.callee, edges.kind == EdgeKind.PLAIN)
    cyclic = np.zeros(component.max(initial=-1) + 1, np.bool_)
    cyclic[component[owner[inner]]] = True  # more than one member, or a self-call
    return np.asarray(cyclic[component], np.bool_)


def most_hops(edges: Edges, seen: NDArray[np.bool_]) -> tuple[int, int]:
    """(hops, function): the greatest number of hops on any chain within `seen`.

    -1 hops: a cycle with a hop in it, and one of its functions. Budgets are not looked at: with them such a
    cycle may be finite, but a bound on its hops is not known.
    """
    if not (edges.kind == EdgeKind.HOP).any():
        return 0, -1
    owner = _owners(edges)
    used = seen[owner] & seen[edges.callee] & (edges.kind != EdgeKind.SWITCH)
    hop = used & (edges.kind == EdgeKind.HOP)
    if not hop.any():
        return 0, -1
    component = strong_components(edges.first, edges.callee, used)
    source, target = component[owner], component[edges.callee]
    turning = np.flatnonzero(hop & (source == target))
    if turning.size:
        return -1, int(owner[turning].min())
    across = np.flatnonzero(used & (source != target))
    pairs = np.unique(np.stack([source[across], target[across], hop[across]]), axis=1)
    level = np.zeros(component.max() + 1, np.int64)
    while True:  # each round settles one more edge of the longest path
        reached = level.copy()
        np.maximum.at(reached, pairs[0], level[pairs[1]] + pairs[2])
        if (reached == level).all():
            return int(level.max()), -1
        level = reached


def _owners(edges: Edges) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(edges.first) - 1), np.diff(edges.first))
