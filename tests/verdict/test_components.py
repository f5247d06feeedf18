"""Components of recursion: what an assumption takes out of them, and what is suggested for the rest."""

from __future__ import annotations

import numpy as np

from stackfit.calls.model import EdgeKind, Edges
from stackfit.verdict.components import Census, Cycles
from stackfit.verdict.suggest import Origin, Suggestion, suggest

PLAIN, HOP = EdgeKind.PLAIN, EdgeKind.HOP


def graph(count: int, *edges: tuple[int, int, EdgeKind], weight: int = 16) -> Edges:
    ordered = sorted(edges, key=lambda edge: edge[0])
    return Edges(
        first=np.searchsorted([edge[0] for edge in ordered], np.arange(count + 1)).astype(np.int64),
        callee=np.array([edge[1] for edge in ordered], np.int32),
        weight=np.full(len(ordered), weight, np.int32),
        kind=np.array([edge[2] for edge in ordered], np.uint8),
        site=np.arange(len(ordered), dtype=np.int32),
    )


# 0 → 1 ⇄ 2, 2 ⇄ 3 (1 and 3 only through 2), 4 calls itself; through pointers 0 calls 4 and 4 calls 0.
TWO = graph(
    5, (0, 1, PLAIN), (1, 2, PLAIN), (2, 1, PLAIN), (2, 3, PLAIN), (3, 2, PLAIN), (4, 4, PLAIN),
    (0, 4, HOP), (4, 0, HOP),
)  # fmt: skip


def suggested(edges: Edges, entries: tuple[int, ...], listed: tuple[int, ...] = ()) -> tuple[Suggestion, ...]:
    count = len(edges.first) - 1
    carried = np.isin(np.arange(count), listed)
    none = np.zeros(count, np.bool_)
    return suggest(edges, carried, [Origin((entry,), edges, none) for entry in entries], 1)


def test_a_census_counts_functions_of_cycles_only() -> None:
    cycles = Cycles(TWO, (PLAIN,))
    assert cycles.census() == Census(largest=3, several=1, own=1)
    assert Cycles(TWO, (PLAIN, HOP)).census() == Census(largest=3, several=2, own=1)
    assert cycles.remove([1])
    assert cycles.census() == Census(largest=2, several=1, own=1)
    assert not cycles.remove([0]), "on no cycle"
    assert cycles.remove([2, 4])
    assert cycles.census() == Census(0, 0, 0)


def test_a_shortest_cycle_is_named() -> None:
    ring = graph(4, (0, 1, PLAIN), (1, 2, PLAIN), (2, 3, PLAIN), (3, 0, PLAIN), (2, 0, PLAIN))
    cycles = Cycles(ring, (PLAIN,))
    (members,) = cycles.components()
    assert sorted(cycles.cycle(members)) == [0, 1, 2]


def test_jumps_that_take_no_stack_are_a_loop() -> None:
    assert Cycles(graph(2, (0, 1, PLAIN), (1, 0, PLAIN), weight=0), (PLAIN,)).census() == Census(0, 0, 0)


def test_the_function_that_breaks_a_whole_component_is_suggested() -> None:
    first, second = suggested(TWO, (0, 4))
    assert (first.function, first.before, first.after, first.blocked) == (2, 3, 0, 2)
    assert first.finite == (1, 0)  # 0 without hops
    assert (second.function, second.before, second.after, second.blocked) == (4, 1, 0, 2)
    assert second.finite == (2, 2)


def test_what_gives_most_contexts_a_bound_comes_first() -> None:
    # Recursion at 4 is all that keeps 4 from a bound; that at 2 is in the way of fewer alone.
    first, second = suggested(TWO, (4, 4, 0))
    assert (first.function, second.function) == (4, 2)
    assert first.finite == (2, 0)


def test_recursion_that_no_context_reaches_is_not_suggested() -> None:
    assert [one.function for one in suggested(TWO, (1,))] == [2]


def test_once_direct_recursion_has_budgets_the_component_of_indirect_calls_is_looked_at() -> None:
    ring = graph(3, (0, 1, PLAIN), (1, 2, HOP), (2, 0, PLAIN), (2, 1, PLAIN))
    (only,) = suggested(ring, (0,))
    assert only.indirect and only.function in (1, 2)
    assert (only.before, only.after, only.largest) == (3, 0, 0)
    assert not suggested(ring, (0,), (only.function,))
