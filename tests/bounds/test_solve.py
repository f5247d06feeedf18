"""The solver against an enumeration of all chains of small random graphs, and what users rely on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.bounds import longest, solve
from stackfit.bounds.model import Limits
from stackfit.bounds.solve import Solver
from stackfit.calls.model import EdgeKind, Edges

PLAIN, EXCEPTION, HOP, SWITCH = EdgeKind.PLAIN, EdgeKind.EXCEPTION, EdgeKind.HOP, EdgeKind.SWITCH
# Uncompiled, the same takes a hundred times as long.
EXAMPLES = 150 if (longest.__file__ or "").endswith(".so") else 12


@pytest.fixture(autouse=True, scope="module")
def _little_work() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "_SEARCH_STEPS", 4_000)
        patch.setattr(solve, "_ROUNDS", 40)
        yield


@dataclass
class Graph:
    """A program as lists: edges are (caller, callee, bytes, kind)."""

    frame: list[int]
    edges: list[tuple[int, int, int, int]]
    times: list[int]
    cut: list[int]
    first_only: list[bool]

    def solver(self, exceptions: int, hops: int) -> Solver:
        ordered = sorted(enumerate(self.edges), key=lambda item: (item[1][0], item[0]))
        callers = [edge[0] for _, edge in ordered]
        n = len(self.frame)
        edges = Edges(
            first=np.searchsorted(callers, np.arange(n + 1)).astype(np.int64),
            callee=np.array([edge[1] for _, edge in ordered], np.int32),
            weight=np.array([edge[2] for _, edge in ordered], np.int32),
            kind=np.array([edge[3] for _, edge in ordered], np.uint8),
            site=np.array([index for index, _ in ordered], np.int32),
        )
        limits = Limits(
            frame=np.array(self.frame, np.int32),
            times=np.array(self.times, np.int32),
            cut=np.array(self.cut, np.int32),
            open_frame=np.zeros(n, np.bool_),
            shift=np.zeros(n, np.int32),
        )
        return Solver(edges, limits, exceptions, hops, np.array(self.first_only, np.bool_))


def jumping(bytes_: int) -> Graph:
    """0 calls 1, which jumps to 2 and back; 2 calls 3, which calls 0 through a pointer."""
    edges = [(0, 1, 16, PLAIN), (1, 2, bytes_, PLAIN), (2, 1, 0, PLAIN), (2, 3, 32, PLAIN), (3, 0, 8, HOP)]
    return Graph([16, 24, 32, 8], edges, [0] * 4, [-1] * 4, [False] * 4)


def test_a_loop_of_jumps_between_symbols_is_no_recursion_and_stays_possible_after_a_hop() -> None:
    solver = jumping(0).solver(0, 2)
    assert not solver.unlisted.any()
    # 16 + 32 down to 3, and 8 more to 0 again: the loop is entered anew each time.
    assert [solver.bound(0, hops).upper for hops in range(3)] == [56, 112, 168]
    assert [solver.bound(0, hops).found for hops in range(3)] == [56, 112, 168]


def test_a_cycle_that_takes_stack_is_recursion_without_a_bound() -> None:
    assert jumping(8).solver(0, 0).unlisted.sum() == 1


def deepest(graph: Graph, start: int, limit: list[int], exceptions: int, hops: int) -> int | None:
    """The deepest chain by trying all; None where there are too many."""
    tries = 0
    best = 0
    stack = [(start, 0, 0, 0, tuple(int(node == start) for node in range(len(graph.frame))))]
    while stack:
        node, before, taken, hopped, used = stack.pop()
        tries += 1
        if tries > 20_000:
            return None
        charged = graph.cut[node] >= 0
        best = max(best, before + (graph.cut[node] if charged else graph.frame[node]))
        if charged:
            continue
        for caller, callee, weight, kind in graph.edges:
            if caller != node or kind == SWITCH:
                continue
            now, hop = taken + (kind == EXCEPTION), hopped + (kind == HOP)
            if now > exceptions or hop > hops or (limit[callee] and used[callee] >= limit[callee]):
                continue
            if graph.first_only[callee] and now:
                continue
            often = tuple(count + (index == callee) for index, count in enumerate(used))
            stack.append((callee, before + weight, now, hop, often))
    return best


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    n = draw(st.integers(1, 8))
    node = st.integers(0, n - 1)
    kind = st.sampled_from([PLAIN, PLAIN, PLAIN, PLAIN, EXCEPTION, HOP, SWITCH])
    edge = st.tuples(node, node, st.integers(1, 40), kind)
    return Graph(
        frame=draw(st.lists(st.integers(1, 60), min_size=n, max_size=n)),
        edges=draw(st.lists(edge, max_size=12)),
        times=draw(st.lists(st.sampled_from([0, 0, 1, 1, 2, 3]), min_size=n, max_size=n)),
        cut=draw(st.lists(st.sampled_from([-1, -1, -1, -1, -1, 70]), min_size=n, max_size=n)),
        first_only=draw(st.lists(st.sampled_from([False, False, False, True]), min_size=n, max_size=n)),
    )


def check(graph: Graph, start: int, exceptions: int, hops: int) -> int:
    """Everything that holds for any bound; the bytes between the bound and the true maximum."""
    solver = graph.solver(exceptions, hops)
    limit = [1 if solver.unlisted[node] else times for node, times in enumerate(graph.times)]
    bound = solver.bound(start, hops)
    true = deepest(graph, start, limit, exceptions, hops)
    # The chain is real: it starts here, each step is an edge, and its bytes add up.
    assert bound.chain[0].function == start
    used: dict[int, int] = {}
    now = hop = total = 0
    for index, link in enumerate(bound.chain):
        used[link.function] = used.get(link.function, 0) + 1
        total += link.depth
        assert link.total == total
        if index + 1 < len(bound.chain):
            caller, callee, weight, kind = graph.edges[link.site]
            assert (caller, callee, weight) == (link.function, bound.chain[index + 1].function, link.depth)
            assert graph.cut[caller] < 0
            assert kind != SWITCH
            now += kind == EXCEPTION
            hop += kind == HOP
            assert not (now and graph.first_only[callee])
    last = bound.chain[-1]
    assert last.site == -1
    cut = graph.cut[last.function]
    assert last.depth == (cut if cut >= 0 else graph.frame[last.function])
    assert now <= exceptions
    assert hop <= hops
    assert all(limit[node] == 0 or count <= limit[node] for node, count in used.items())
    assert total == bound.found <= bound.upper <= solver.upper(start, hops)
    if true is None:
        return 0
    assert bound.found <= true <= bound.upper
    return bound.upper - true


@settings(deadline=None, max_examples=EXAMPLES)
@given(graphs(), st.integers(0, 2), st.integers(0, 2))
def test_small_programs_are_solved_exactly(graph: Graph, exceptions: int, hops: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "_REFINEMENTS", 8)  # a program as small as these may need one more than a kernel
        assert check(graph, 0, exceptions, hops) == 0


@settings(deadline=None, max_examples=EXAMPLES)
@given(graphs(), st.integers(0, 2), st.integers(0, 1))
def test_bound_holds_when_states_are_too_many(graph: Graph, exceptions: int, hops: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Nothing may be tracked or counted by function: sums and prices alone.
        patch.setattr(solve, "_MOST_COMBINATIONS", 1)
        patch.setattr(solve, "_PART_BITS", 0)
        check(graph, 0, exceptions, hops)


@settings(deadline=None, max_examples=EXAMPLES)
@given(graphs(), st.integers(0, 1))
def test_cycle_is_unlisted_exactly_where_no_budget_is_on_it(graph: Graph, exceptions: int) -> None:
    solver = graph.solver(exceptions, 0)
    n = len(graph.frame)
    # Plain edges into functions without budget: a cycle of these alone has no bound.
    free = np.zeros((n, n), np.bool_)
    for caller, callee, _, kind in graph.edges:
        if kind == PLAIN and graph.cut[caller] < 0 and not graph.times[callee]:
            free[caller, callee] = True
    closure = free.copy()
    for middle in range(n):
        closure |= np.outer(closure[:, middle], closure[middle])
    endless = {node for node in range(n) if closure[node, node]}
    unlisted = set(np.flatnonzero(solver.unlisted).tolist())
    assert unlisted <= endless
    left = free.copy()
    left[:, sorted(unlisted)] = False
    for middle in range(n):
        left |= np.outer(left[:, middle], left[middle])
    assert not left.diagonal().any()
    assert bool(unlisted) == bool(endless)


def graph_of(n: int, edges: Sequence[tuple[int, int, int, int]], **more: list[int]) -> Graph:
    given = {"frame": [8] * n, "times": [0] * n, "cut": [-1] * n, "first_only": [0] * n, **more}
    return Graph(edges=list(edges), **given)  # type: ignore[arg-type]


def test_recursion_counts_as_often_as_its_budget_allows() -> None:
    bound = graph_of(1, [(0, 0, 100, PLAIN)], times=[3]).solver(0, 0).bound(0)
    assert (bound.upper, bound.found, bound.unlisted) == (208, 208, ())


def test_unlisted_recursion_is_named_below_the_entry_only() -> None:
    solver = graph_of(3, [(0, 1, 10, PLAIN), (1, 1, 100, PLAIN)]).solver(0, 0)
    assert solver.bound(0).unlisted == (1,)
    assert solver.bound(0).upper == 18
    assert solver.bound(2).unlisted == ()


def test_budget_counts_across_an_exception() -> None:
    # 0 calls 1 calls 2, which faults into 3, which calls 1 again: its budget is spent.
    edges = [(0, 1, 10, PLAIN), (1, 2, 100, PLAIN), (2, 3, 10, EXCEPTION), (3, 1, 10, PLAIN)]
    assert graph_of(4, edges, times=[0, 1, 0, 0]).solver(1, 0).bound(0).upper == 128
    assert graph_of(4, edges, times=[0, 2, 0, 0]).solver(1, 0).bound(0).upper == 238


def test_return_to_user_mode_does_not_happen_in_a_nested_exception() -> None:
    edges = [(0, 1, 10, EXCEPTION), (1, 2, 10, PLAIN), (0, 2, 5, PLAIN)]
    frame = [8, 8, 100]
    assert graph_of(3, edges, frame=frame).solver(1, 0).bound(0).upper == 120
    assert graph_of(3, edges, frame=frame, first_only=[0, 0, 1]).solver(1, 0).bound(0).upper == 105


def test_cut_stands_for_all_below_it() -> None:
    edges = [(0, 1, 10, PLAIN), (1, 2, 1000, PLAIN)]
    assert graph_of(3, edges, cut=[-1, 64, -1]).solver(0, 0).bound(0).upper == 74


def test_prices_bound_many_budgets_that_a_chain_cannot_spend_on_one_cycle() -> None:
    # A hub with 16 loops of different size, each of which may be taken once, the hub 17 times: by the sum of
    # the budgets alone the largest loop would be taken again and again.
    n = 16
    edges = [(0, loop, 4, PLAIN) for loop in range(1, n + 1)]
    edges += [(loop, 0, 10 * loop, PLAIN) for loop in range(1, n + 1)]
    bound = graph_of(n + 1, edges, times=[n + 1] + [1] * n).solver(0, 0).bound(0)
    true = sum(10 * loop + 4 for loop in range(1, n + 1)) + 8
    assert bound.found == true
    assert true <= bound.upper <= 1.1 * true


def test_budgets_too_large_to_count_leave_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "_MOST_PASSES", 16)
    n = 4
    edges = [(a, b, 8, PLAIN) for a in range(n) for b in range(n)]
    assert not graph_of(n, edges, times=[3] * n).solver(0, 0).bound(0).unlisted
    assert graph_of(n, edges, times=[100] * n).solver(0, 0).bound(0).unlisted


def test_same_program_gives_the_same_bounds() -> None:
    edges = [(a, b, 8 + 3 * a + b, PLAIN) for a in range(7) for b in range(7) if (a + b) % 3]
    graph = graph_of(7, edges, times=[1, 2, 1, 3, 1, 2, 1])
    assert graph.solver(1, 0).bound(0) == graph.solver(1, 0).bound(0)


@given(graphs(), st.integers(0, 1), st.integers(0, 2), st.data())
@settings(max_examples=EXAMPLES)
def test_a_changed_program_is_bounded_by_what_was_found_for_it_before(
    graph: Graph, exceptions: int, hops: int, data: st.DataObject
) -> None:
    """Other bytes, or a function at most once on a chain: still no chain is deeper, and the chain is real."""
    solver = graph.solver(exceptions, hops)
    solver.bound(0, hops)
    function = data.draw(st.integers(0, len(graph.frame) - 1))
    limit = [1 if solver.unlisted[node] else times for node, times in enumerate(graph.times)]
    if data.draw(st.booleans()):
        less = data.draw(st.integers(-30, 30))
        ordered = sorted(range(len(graph.edges)), key=lambda one: (graph.edges[one][0], one))
        weight = np.array([less if graph.edges[one][0] == function else 0 for one in ordered], np.int32)
        kept = np.array([hops > 0 or graph.edges[one][3] != HOP for one in ordered], np.bool_)
        weight[kept] = np.maximum(weight[kept], -solver.weight)
        weight[~kept] = 0
        frame = np.zeros(len(graph.frame), np.int32)
        frame[function] = max(less, -graph.frame[function])
        changed = solver.resized(weight[kept], frame, function, 0)
        edges = list(graph.edges)
        for place, one in enumerate(ordered):
            caller, callee, size, kind = edges[one]
            edges[one] = (caller, callee, size + int(weight[place]), kind)
        sizes = [size + int(extra) for size, extra in zip(graph.frame, frame, strict=True)]
        graph = Graph(sizes, edges, graph.times, graph.cut, graph.first_only)
    else:
        changed = solver.once(function, 0)
        limit[function] = 1
    true = deepest(graph, 0, limit, exceptions, hops)
    bound = changed.bound(0, hops)
    if true is not None:
        assert bound.found <= true <= bound.upper
        assert true <= changed.upper(0, hops)
    used = [link.function for link in bound.chain]
    assert all(not limit[node] or used.count(node) <= limit[node] for node in used)
    assert bound.found == sum(link.depth for link in bound.chain)
