"""What recordings have exercised: of the deepest static chains, and of each module.

A chain counts as exercised call by call, not as a whole: that every call on it ran does not mean that they
ran on top of each other. The first call that was never seen is where a test has to go next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stackfit.bounds.model import Bound
from stackfit.calls.model import EdgeKind
from stackfit.image.model import Program
from stackfit.measure.graph import Graph
from stackfit.measure.seen import Exercised

__all__ = ["ChainCoverage", "ModuleCoverage", "chain_coverage", "module_coverage"]


@dataclass(frozen=True)
class ChainCoverage:
    """One context's deepest chain. Bytes; `first_unseen` is the index of the chain's link whose call was
    never seen, -1 where all were."""

    title: str
    above: int  # bytes above the chain's first function
    chain: Bound
    functions_seen: int
    calls: int
    calls_seen: int
    bytes_seen: int  # of the frames below calls that were seen, entry included
    traceable: bool  # whether the tracer could have seen the first unseen call
    first_unseen: int

    @property
    def functions(self) -> int:
        return len(self.chain.chain)

    @property
    def total(self) -> int:
        return self.above + self.chain.found

    @property
    def seen_down_to(self) -> int:
        """Bytes from the stack's top down to the first call that was never seen."""
        if self.first_unseen < 0:
            return self.total
        return self.above + self.chain.chain[self.first_unseen].total


@dataclass(frozen=True)
class ModuleCoverage:
    """One image. `traceable`: functions that a function tracer can see."""

    module: str | None
    functions: int
    traceable: int
    functions_seen: int
    calls: int  # edges of the call graph but exceptions
    calls_seen: int


def chain_coverage(
    graph: Graph, ran: Exercised, chains: Iterable[tuple[str, int, Bound]]
) -> list[ChainCoverage]:
    """Each (title, bytes above, chain), the deepest first."""
    edges = graph.edges
    used = np.flatnonzero(ran.used)
    seen = set(zip(edges.site[used].tolist(), edges.callee[used].tolist(), strict=True))
    found = []
    for title, above, bound in chains:
        links = bound.chain
        calls = [(links[n].site, links[n + 1].function) for n in range(len(links) - 1)]
        taken = [call in seen for call in calls]
        first = taken.index(False) if False in taken else -1
        entered = [bool(ran.entered[link.function]) for link in links]
        size = above + sum(
            link.depth for link, before in zip(links, [entered[0], *taken], strict=True) if before
        )
        traceable = first < 0 or bool(graph.visible[calls[first][1]])
        found.append(
            ChainCoverage(title, above, bound, sum(entered), len(calls), sum(taken), size, traceable, first)
        )
    return sorted(found, key=lambda one: (-one.total, one.title))


def module_coverage(program: Program, graph: Graph, ran: Exercised) -> list[ModuleCoverage]:
    """Every image of which something was seen, the kernel first, then the most seen."""
    functions, edges = graph.code.functions, graph.edges
    own = ~functions.piece & (functions.parent < 0)
    count = len(program.images)
    owner = graph.owner
    plain = edges.kind != EdgeKind.EXCEPTION

    def of(chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[int]:
        return [int(number) for number in np.bincount(functions.image[chosen], minlength=count)]

    def calls(chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[int]:
        return [int(number) for number in np.bincount(functions.image[owner[chosen]], minlength=count)]

    columns = zip(
        [image.module for image in program.images],
        of(own),
        of(own & graph.visible),
        of(own & ran.entered),
        calls(plain),
        calls(plain & ran.used),
        strict=True,
    )
    rows = [ModuleCoverage(*row) for row in columns]
    shown = [row for row in rows if row.functions_seen or row.module is None]
    return sorted(shown, key=lambda row: (row.module is not None, -row.functions_seen, row.module or ""))
