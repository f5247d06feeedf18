# cython: boundscheck=True, wraparound=False, cdivision=True
"""Longest chains in a call graph: components, layered by budgeted passes (compiled; runs uncompiled too).

Arrays of edges are CSR by caller: edges of node v are `first[v]` to `first[v + 1]`.
"""

from __future__ import annotations

import cython

__all__ = ["components", "reach", "solve_layer"]


def components(
    first: cython.longlong[::1],
    callee: cython.int[::1],
    use: cython.uchar[::1],
    component: cython.int[::1],
    index: cython.int[::1],
    low: cython.int[::1],
    stack: cython.int[::1],
    frames: cython.int[::1],
    cursor: cython.longlong[::1],
) -> int:
    """Strongly connected components over the edges with `use` set (Tarjan 1972, without recursion).

    `component` gets each node's component; a component's number is greater than those it can reach.
    `index`, `low`, `stack`, `frames`, `cursor`: scratch, one entry a node, `index` filled with -1.
    Returns the number of components.
    """
    n: cython.int = cython.cast(cython.int, component.shape[0])
    root: cython.int
    v: cython.int
    u: cython.int
    counter: cython.int = 0
    found: cython.int = 0
    top: cython.int = 0
    depth: cython.int
    e: cython.longlong
    moved: cython.bint
    for root in range(n):
        component[root] = -1
    for root in range(n):
        if index[root] >= 0:
            continue
        depth = 0
        frames[0] = root
        index[root] = counter
        low[root] = counter
        counter += 1
        stack[top] = root
        top += 1
        cursor[root] = first[root]
        while depth >= 0:
            v = frames[depth]
            e = cursor[v]
            moved = False
            while e < first[v + 1]:
                if use[e]:
                    u = callee[e]
                    if index[u] < 0:
                        cursor[v] = e + 1
                        index[u] = counter
                        low[u] = counter
                        counter += 1
                        stack[top] = u
                        top += 1
                        cursor[u] = first[u]
                        depth += 1
                        frames[depth] = u
                        moved = True
                        break
                    if component[u] < 0 and index[u] < low[v]:
                        low[v] = index[u]
                e += 1
            if moved:
                continue
            if low[v] == index[v]:
                while True:
                    top -= 1
                    u = stack[top]
                    component[u] = found
                    if u == v:
                        break
                found += 1
            depth -= 1
            if depth >= 0 and low[v] < low[frames[depth]]:
                low[frames[depth]] = low[v]
    return found


def solve_layer(
    first: cython.longlong[::1],
    callee: cython.int[::1],
    weight: cython.int[::1],
    use: cython.uchar[::1],
    component: cython.int[::1],
    component_first: cython.longlong[::1],
    component_nodes: cython.int[::1],
    state_count: cython.int[::1],
    state_first: cython.longlong[::1],
    exact: cython.uchar[::1],
    local: cython.int[::1],
    times: cython.int[::1],
    stride: cython.int[::1],
    base: cython.int[::1],
    value: cython.int[::1],
    states: cython.int[::1],
) -> None:
    """Greatest chain below each node over the edges with `use` set; component by component, callees first.

    `base`: what each node needs without those edges (bytes). `component_nodes`: members of each component,
    callees before callers once edges into budgeted nodes (`times` > 0) are left out. A component with
    `state_count` > 0 is cyclic: its values per budget state go to `states[state_first + s * size + local]`;
    s counts budgeted passes, one digit a function (`exact`, digit value `stride`) or their sum.
    `value`: result, bytes, on entering the node afresh.
    """
    c: cython.int
    s: cython.int
    i: cython.longlong
    e: cython.longlong
    v: cython.int
    u: cython.int
    best: cython.int
    other: cython.int
    size: cython.longlong
    begin: cython.longlong
    block: cython.longlong
    entry: cython.int
    for c in range(state_count.shape[0]):
        begin = component_first[c]
        size = component_first[c + 1] - begin
        if state_count[c] == 0:
            v = component_nodes[begin]
            best = base[v]
            for e in range(first[v], first[v + 1]):
                if use[e]:
                    other = weight[e] + value[callee[e]]
                    if other > best:
                        best = other
            value[v] = best
            continue
        block = state_first[c]
        for s in range(state_count[c] - 1, -1, -1):
            for i in range(begin, begin + size):
                v = component_nodes[i]
                best = base[v]
                for e in range(first[v], first[v + 1]):
                    if not use[e]:
                        continue
                    u = callee[e]
                    if component[u] != c:
                        other = weight[e] + value[u]
                    elif times[u] == 0:
                        other = weight[e] + states[block + s * size + local[u]]
                    elif exact[c]:
                        if (s // stride[u]) % (times[u] + 1) >= times[u]:
                            continue
                        other = weight[e] + states[block + (s + stride[u]) * size + local[u]]
                    else:
                        if s + 1 >= state_count[c]:
                            continue
                        other = weight[e] + states[block + (s + 1) * size + local[u]]
                    if other > best:
                        best = other
                states[block + s * size + local[v]] = best
        for i in range(begin, begin + size):
            v = component_nodes[i]
            entry = 0
            if times[v] > 0:
                entry = stride[v] if exact[c] else 1
            value[v] = states[block + entry * size + local[v]]


def reach(
    first: cython.longlong[::1],
    callee: cython.int[::1],
    use: cython.uchar[::1],
    start: cython.int,
    seen: cython.uchar[::1],
    queue: cython.int[::1],
) -> int:
    """Mark all nodes that can be reached from `start` over the edges with `use` set; returns how many."""
    head: cython.longlong = 0
    tail: cython.longlong = 1
    e: cython.longlong
    v: cython.int
    u: cython.int
    queue[0] = start
    seen[start] = 1
    while head < tail:
        v = queue[head]
        head += 1
        for e in range(first[v], first[v + 1]):
            if use[e]:
                u = callee[e]
                if not seen[u]:
                    seen[u] = 1
                    queue[tail] = u
                    tail += 1
    return tail
