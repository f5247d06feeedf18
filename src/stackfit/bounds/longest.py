# cython: boundscheck=True, wraparound=False, cdivision=True
"""Longest chains in a call graph: components, values by state, search (compiled; runs uncompiled too).

Arrays of edges are CSR by caller: edges of node v are `first[v]` to `first[v + 1]`.
"""

from __future__ import annotations

import cython

__all__ = ["components", "descend", "entry_state", "reach", "search", "solve_layer"]


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
    return int(found)


# Columns of `info`, one row a node (plain literals keep the compiled code free of global look-ups):
#   0 group: component over all edges that are followed · 1 part: component without edges into tracked nodes
#   2 where its values start in a layer · 3 members of its part · 4 states of its part
#   5 role: 0 no budget counts, 1 tracked, 2 own digit in its part, 3 counted with others in its part
#   6 times · 7 value of its digit · 8 set: not entered once an exception was taken


@cython.cfunc
@cython.inline
@cython.boundscheck(False)
def _enter(
    info: cython.longlong[:, ::1],
    u: cython.int,
    t: cython.longlong,
    s: cython.longlong,
) -> cython.longlong:
    """State in which `u` is entered with t and s passes counted before; -1: its budget is spent.

    A state is t * states of the part + s: t counts passes of tracked nodes since the group was entered, s of
    the part's own budgeted nodes since the part was.
    """
    role: cython.longlong = info[u, 5]
    if role == 0:
        return t * info[u, 4] + s
    if role == 1:
        if (t // info[u, 7]) % (info[u, 6] + 1) >= info[u, 6]:
            return -1
        return (t + info[u, 7]) * info[u, 4] + s
    if role == 2:
        if (s // info[u, 7]) % (info[u, 6] + 1) >= info[u, 6]:
            return -1
        return t * info[u, 4] + s + info[u, 7]
    if s + 1 >= info[u, 4]:
        return -1
    return t * info[u, 4] + s + 1


@cython.cfunc
@cython.inline
def _follow(
    info: cython.longlong[:, ::1], v: cython.int, u: cython.int, code: cython.longlong, stays: cython.bint
) -> cython.longlong:
    """State in which `u` is entered from `v` in state `code`; `stays`: over an edge within the layer."""
    return _enter(
        info,
        u,
        code // info[v, 4] if info[v, 0] == info[u, 0] else 0,
        code % info[v, 4] if stays and info[v, 1] == info[u, 1] else 0,
    )


def entry_state(info: cython.longlong[:, ::1], node: cython.int) -> int:
    """State of a node on which a chain starts."""
    return int(_enter(info, node, 0, 0))


@cython.cfunc
@cython.inline
@cython.boundscheck(False)
def _enter_row(
    rows: cython.int[:, ::1],
    u: cython.int,
    role: cython.int,
    t: cython.longlong,
    s: cython.longlong,
) -> cython.longlong:
    """As _enter(), by `rows` of solve_layer()."""
    if role == 0:
        return t * rows[u, 4] + s
    if role == 1:
        if (t // rows[u, 7]) % (rows[u, 6] + 1) >= rows[u, 6]:
            return -1
        return (t + rows[u, 7]) * rows[u, 4] + s
    if role == 2:
        if (s // rows[u, 7]) % (rows[u, 6] + 1) >= rows[u, 6]:
            return -1
        return t * rows[u, 4] + s + rows[u, 7]
    if s + 1 >= rows[u, 4]:
        return -1
    return t * rows[u, 4] + s + 1


@cython.boundscheck(False)  # indexes come from the layout; this loop takes nearly all the time
def solve_layer(
    first: cython.longlong[::1],
    callee: cython.int[::1],
    weight: cython.int[::1],
    kind: cython.uchar[::1],
    rows: cython.int[:, ::1],
    combinations: cython.longlong[::1],
    group_first: cython.int[::1],
    part_first: cython.int[::1],
    nodes: cython.int[::1],
    frame: cython.int[::1],
    price: cython.int[::1],
    taken: cython.bint,
    begin: cython.int,
    end: cython.int,
    value: cython.int[::1],
    below_exception: cython.int[::1],
    below_hop: cython.int[::1],
    outside: cython.int[::1],
    inner: cython.int[::1],
    inner_end: cython.int[::1],
) -> None:
    """Greatest chain below each node in each state of one layer, callees before callers.

    `rows`: the first eight columns of `info`, 4 added to the role where the ninth is set: half a cache line a
    node. `kind` of an edge: 0 not followed, 1 plain, 2 exception, 3 hop; the last two lead to the layers
    `below_exception` and `below_hop` (empty: no such layer). `group_first`: first part of each group,
    `part_first`: first member of each part in `nodes`, both in the order of work. `combinations`: states of
    tracked nodes by group. `price`: bytes taken off for each node entered. `taken`: an exception has been
    taken in this layer. Groups `begin` to `end` are worked
    on. `value`: result, bytes. `outside`, `inner_end`: scratch, one entry a node; `inner`: one an edge.
    """
    g: cython.int
    c: cython.int
    i: cython.int
    t: cython.longlong
    s: cython.longlong
    entered: cython.longlong
    e: cython.longlong
    v: cython.int
    u: cython.int
    k: cython.int
    role: cython.int
    best: cython.int
    bytes_: cython.int
    states: cython.longlong
    at: cython.int
    kept: cython.int
    no_exception: cython.bint = below_exception.shape[0] == 0
    no_hop: cython.bint = below_hop.shape[0] == 0
    for g in range(begin, end):
        for t in range(combinations[g] - 1, -1, -1):
            for c in range(group_first[g], group_first[g + 1]):
                states = rows[nodes[part_first[c]], 4]
                # What lies outside of the part is the same in each of its states.
                kept = 0
                for i in range(part_first[c], part_first[c + 1]):
                    v = nodes[i]
                    best = frame[v]
                    for e in range(first[v], first[v + 1]):
                        k = kind[e]
                        if k == 0 or (k == 2 and no_exception) or (k == 3 and no_hop):
                            continue
                        u = callee[e]
                        role = rows[u, 5]
                        if role >= 4:
                            if taken or k == 2:
                                continue
                            role -= 4
                        if k == 1 and rows[u, 1] == c:
                            inner[kept] = cython.cast(cython.int, e)
                            kept += 1
                            continue
                        entered = _enter_row(rows, u, role, t if rows[u, 0] == g else 0, 0)
                        if entered < 0:
                            continue
                        entered = rows[u, 2] + entered * rows[u, 3]
                        bytes_ = weight[e] - price[u]
                        if k == 1:
                            bytes_ += value[entered]
                        elif k == 2:
                            bytes_ += below_exception[entered]
                        else:
                            bytes_ += below_hop[entered]
                        if bytes_ > best:
                            best = bytes_
                    outside[i] = best
                    inner_end[i] = kept
                for s in range(states - 1, -1, -1):
                    at = 0
                    for i in range(part_first[c], part_first[c + 1]):
                        v = nodes[i]
                        best = outside[i]
                        while at < inner_end[i]:
                            e = inner[at]
                            at += 1
                            u = callee[e]
                            role = rows[u, 5]
                            entered = _enter_row(rows, u, role - 4 if role >= 4 else role, t, s)
                            if entered < 0:
                                continue
                            bytes_ = weight[e] - price[u] + value[rows[u, 2] + entered * rows[u, 3]]
                            if bytes_ > best:
                                best = bytes_
                        value[rows[v, 2] + (t * states + s) * rows[v, 3]] = best


def descend(
    first: cython.longlong[::1],
    callee: cython.int[::1],
    weight: cython.int[::1],
    kind: cython.uchar[::1],
    info: cython.longlong[:, ::1],
    frame: cython.int[::1],
    price: cython.int[::1],
    values: cython.int[:, ::1],
    exceptions: cython.int,
    start: cython.int,
    hops: cython.int,
    passes: cython.int[::1],
) -> None:
    """Count in `passes` how often each node is on the chain that attains the value of `start`."""
    v: cython.int = start
    u: cython.int
    code: cython.longlong = _enter(info, start, 0, 0)
    other: cython.longlong
    nested: cython.int = exceptions
    hop: cython.int = hops
    e: cython.longlong
    chosen: cython.longlong
    promise: cython.longlong
    best: cython.longlong
    layer: cython.int
    next_code: cython.longlong
    while True:
        passes[v] += 1
        best = frame[v]
        chosen = -1
        next_code = 0
        for e in range(first[v], first[v + 1]):
            if kind[e] == 0:
                continue
            u = callee[e]
            if info[u, 8] and (nested < exceptions or kind[e] == 2):
                continue
            layer = hop * (exceptions + 1) + nested
            if kind[e] == 2:
                if nested == 0:
                    continue
                layer -= 1
            elif kind[e] == 3:
                if hop == 0:
                    continue
                layer -= exceptions + 1
            other = _follow(info, v, u, code, kind[e] == 1)
            if other < 0:
                continue
            promise = weight[e] - price[u] + values[layer, info[u, 2] + other * info[u, 3]]
            if promise > best:
                best = promise
                chosen = e
                next_code = other
        if chosen < 0:
            return
        if kind[chosen] == 2:
            nested -= 1
        elif kind[chosen] == 3:
            hop -= 1
        v = callee[chosen]
        code = next_code


def search(
    first: cython.longlong[::1],
    callee: cython.int[::1],
    weight: cython.int[::1],
    kind: cython.uchar[::1],
    info: cython.longlong[:, ::1],
    frame: cython.int[::1],
    price: cython.int[::1],
    slack: cython.longlong,
    values: cython.int[:, ::1],
    exceptions: cython.int,
    limit: cython.int[::1],
    start: cython.int,
    hops: cython.int,
    upper: cython.int,
    steps: cython.longlong,
    used: cython.int[::1],
    stack: cython.longlong[:, ::1],
    chain: cython.longlong[:, ::1],
) -> tuple[int, int]:
    """Deepest chain from `start` on which no node occurs more often than its `limit` (0: any number).

    Depth first, greatest promise first, cut off where `values` (layer hop * (exceptions + 1) + nested by
    state) promise no more than what is found; ends at `upper` bytes or after `steps`. `slack`: bytes that
    the prices of all passes within the limits add up to: those not yet taken are given back. `used`: zeros,
    one a node. `stack`: scratch, seven columns; its rows are the longest chain tried. `chain`: result, (edge
    to the node, -1 for the first; bytes before it). Returns (length, bytes).
    """
    top: cython.int = 0
    length: cython.int = 0
    best: cython.longlong = -1
    nested: cython.int = exceptions
    hop: cython.int = hops
    v: cython.int
    u: cython.int
    code: cython.longlong
    other: cython.longlong
    e: cython.longlong
    before: cython.longlong
    last: cython.longlong
    last_edge: cython.longlong
    promise: cython.longlong
    chosen: cython.longlong
    chosen_edge: cython.longlong
    chosen_code: cython.longlong
    layer: cython.int
    i: cython.int
    # stack: 0 node, 1 state, 2 layer, 3 bytes before, 4 and 5 promise and edge tried last, 6 edge to it
    stack[0, 0] = start
    stack[0, 1] = _enter(info, start, 0, 0)
    stack[0, 2] = hop * (exceptions + 1) + nested
    stack[0, 3] = 0
    stack[0, 4] = -1
    stack[0, 5] = -1
    stack[0, 6] = -1
    used[start] += 1
    slack -= price[start]
    while top >= 0:
        v = cython.cast(cython.int, stack[top, 0])
        code = stack[top, 1]
        layer = cython.cast(cython.int, stack[top, 2])
        before = stack[top, 3]
        last = stack[top, 4]
        last_edge = stack[top, 5]
        if last_edge < 0 and before + frame[v] > best:
            best = before + frame[v]
            length = top + 1
            for i in range(length):
                chain[i, 0] = stack[i, 6]
                chain[i, 1] = stack[i, 3]
        if best >= upper or steps <= 0:
            break
        steps -= 1
        hop = layer // (exceptions + 1)
        nested = layer % (exceptions + 1)
        chosen = -1
        chosen_edge = -1
        chosen_code = -1
        for e in range(first[v], first[v + 1]):
            if kind[e] == 0:
                continue
            u = callee[e]
            if info[u, 8] and (nested < exceptions or kind[e] == 2):
                continue
            if limit[u] and used[u] >= limit[u]:
                continue
            if kind[e] == 1:
                other = _follow(info, v, u, code, True)
                layer = hop * (exceptions + 1) + nested
            elif kind[e] == 2:
                if nested == 0:
                    continue
                other = _follow(info, v, u, code, False)
                layer = hop * (exceptions + 1) + nested - 1
            else:
                if hop == 0:
                    continue
                other = _follow(info, v, u, code, False)
                layer = (hop - 1) * (exceptions + 1) + nested
            if other < 0:
                continue
            promise = weight[e] - price[u] + values[layer, info[u, 2] + other * info[u, 3]]
            if last_edge >= 0 and (promise > last or (promise == last and e <= last_edge)):
                continue
            if chosen_edge < 0 or promise > chosen:
                chosen = promise
                chosen_edge = e
                chosen_code = other
        if chosen_edge < 0 or before + slack + chosen <= best or top + 1 >= stack.shape[0]:
            used[v] -= 1
            slack += price[v]
            top -= 1
            continue
        stack[top, 4] = chosen
        stack[top, 5] = chosen_edge
        u = callee[chosen_edge]
        if kind[chosen_edge] == 2:
            nested -= 1
        elif kind[chosen_edge] == 3:
            hop -= 1
        top += 1
        stack[top, 0] = u
        stack[top, 1] = chosen_code
        stack[top, 2] = hop * (exceptions + 1) + nested
        stack[top, 3] = before + weight[chosen_edge]
        stack[top, 4] = -1
        stack[top, 5] = -1
        stack[top, 6] = chosen_edge
        used[u] += 1
        slack -= price[u]
    return int(length), int(best)


def reach(
    first: cython.longlong[::1],
    callee: cython.int[::1],
    use: cython.uchar[::1],
    start: cython.int,
    via: cython.int[::1],
    queue: cython.int[::1],
) -> None:
    """For each node that edges with `use` set lead to from `start`: the last edge of a shortest way there.

    `via`: result, one entry a node, filled with -1, which `start` and what is not reached keep. `queue`:
    scratch, one entry a node.
    """
    head: cython.Py_ssize_t = 0
    tail: cython.Py_ssize_t = 1
    e: cython.longlong
    v: cython.int
    u: cython.int
    queue[0] = start
    while head < tail:
        v = queue[head]
        head += 1
        for e in range(first[v], first[v + 1]):
            if use[e]:
                u = callee[e]
                if via[u] < 0 and u != start:
                    via[u] = cython.cast(cython.int, e)
                    queue[tail] = u
                    tail += 1
