"""What recordings show to have run: edges of the call graph, functions, and how deep each context got.

An edge is *seen* when a recorded call or a recorded chain passes it, tail jumps on the way included. Calls
from open sites are edges that the graph does not have: they are added. Nothing else is: a function tracer
does not see calls into what it cannot trace (assembly, `noinstr` code, in Linux most of lib/), so they are
missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.model import EdgeKind, Edges
from stackfit.calls.vectors import Vector
from stackfit.contexts.model import Context
from stackfit.frames.model import OPEN_FRAME, Frames, Summary
from stackfit.measure.entries import EntryRows
from stackfit.measure.graph import Graph, Way
from stackfit.measure.model import ChainKind, Seen, Traces

__all__ = ["Deep", "Exercised", "Miss", "exercised"]


@dataclass(frozen=True)
class Miss:
    """A seen call that the call graph does not have."""

    back: int  # return address, 0 where not known
    caller: int
    callee: int
    seen: Seen


@dataclass(frozen=True)
class Deep:
    """How deep one chain got. `contexts`: what it can have been, indexes; empty: none of them.

    Bytes from the stack's top, what hardware and entry code push included, padding above not. `bytes`: of the
    context alone; `whole`: with an interrupt on top of it. `known`: every row is a function of the images
    given.
    """

    chain: int
    contexts: tuple[int, ...]
    bytes: int
    whole: int
    known: bool = True


@dataclass(frozen=True, eq=False)
class Exercised:
    """Everything that ran, as far as was recorded."""

    edges: Edges  # seen edges alone, hops as plain ones; sites as in Calls
    used: NDArray[np.bool_]  # by edge of the whole graph
    entered: NDArray[np.bool_]  # by function
    times: NDArray[np.int32]  # by function: most often on one chain
    counts: dict[Seen, int]  # distinct recorded calls, edges and neighbours in chains
    misses: tuple[Miss, ...]
    deepest: tuple[Deep, ...]  # one for each chain whose depth is known


def exercised(
    traces: Traces,
    graph: Graph,
    frames: Frames,
    contexts: Sequence[Context],
    vectors: Sequence[Vector],
) -> Exercised:
    """Recordings put on the call graph."""
    return _Builder(traces, graph, frames, contexts, vectors).result()


class _Builder:
    def __init__(
        self,
        traces: Traces,
        graph: Graph,
        frames: Frames,
        contexts: Sequence[Context],
        vectors: Sequence[Vector],
    ) -> None:
        self.traces = traces
        self.graph = graph
        self.frames = frames
        self.contexts = contexts
        self.entries = EntryRows(traces, graph, vectors)
        self.edges = graph.edges
        self.word = graph.code.machine.word
        count = len(graph.code.functions)
        self.used = np.zeros(len(self.edges.callee), np.bool_)
        self.entered = np.zeros(count, np.bool_)
        self.times = np.zeros(count, np.int32)
        self.new: dict[tuple[int, int], None] = {}  # (site, callee)
        self.calls: dict[tuple[int, int, int], Way] = {}
        self.deepest: list[Deep] = []
        self._starts = _by_first_function(graph, contexts)
        self._through = {
            function for context in contexts for start in context.starts for function, _ in start.through
        }

    def result(self) -> Exercised:
        traces = self.traces
        for back, caller, callee in zip(
            traces.back.tolist(), traces.caller.tolist(), traces.callee.tolist(), strict=True
        ):
            self._take(back, caller, callee)
        for chain in range(len(traces)):
            self._chain(chain)
        misses = [
            Miss(*key, way.seen)
            for key, way in sorted(self.calls.items())
            if way.seen in (Seen.NO_SITE, Seen.NOT_IN_GRAPH)
        ]
        counts = Counter(way.seen for way in self.calls.values())
        return Exercised(
            edges=self._selected(self.used),
            used=self.used,
            entered=self.entered,
            times=self.times,
            counts={seen: counts[seen] for seen in Seen},
            misses=tuple(misses),
            deepest=tuple(self.deepest),
        )

    # ------------------------------------------------------------ edges

    def _take(self, back: int, caller: int, callee: int, hit: bool = False) -> Way:
        """One recorded call. `hit`: the callee was interrupted, maybe before it had a frame of its own."""
        key = (back, caller, callee)
        way = self.calls.get(key)
        if way is None:
            if hit and back:
                way = self.graph.reaches_past(back, callee)
            else:
                way = self.graph.reaches(back, callee) if back else self.graph.reaches_from(caller, callee)
            self.calls[key] = way
            self._use(way)
            self.entered[caller] = self.entered[callee] = True
        return way

    def _use(self, way: Way) -> None:
        for edge in way.edges:
            self.used[edge] = True
            self.entered[self.graph.owner[edge]] = self.entered[self.edges.callee[edge]] = True
        if way.new is not None:
            self.new[way.new] = None

    def _selected(self, chosen: NDArray[np.bool_]) -> Edges:
        """The chosen edges and those that open sites were seen to take."""
        edges, calls = self.edges, self.graph.calls
        sites = np.array([site for site, _ in self.new], np.int32)
        callees = np.array([callee for _, callee in self.new], np.int32)
        index = np.flatnonzero(chosen)
        weight = calls.depth[sites] - np.where(calls.tail[sites], self.word, 0)
        owner = np.concatenate([self.graph.owner[index], calls.function[sites]])
        order = np.argsort(owner, kind="stable")
        kind = edges.kind[index].copy()
        kind[kind == EdgeKind.HOP] = EdgeKind.PLAIN
        return Edges(
            first=np.searchsorted(owner[order], np.arange(len(edges.first))).astype(np.int64),
            callee=np.ascontiguousarray(np.concatenate([edges.callee[index], callees])[order], np.int32),
            weight=np.ascontiguousarray(np.concatenate([edges.weight[index], weight])[order], np.int32),
            kind=np.ascontiguousarray(
                np.concatenate([kind, np.full(sites.size, EdgeKind.PLAIN, np.uint8)])[order], np.uint8
            ),
            site=np.ascontiguousarray(np.concatenate([edges.site[index], sites])[order], np.int32),
        )

    # ------------------------------------------------------------ chains

    def _chain(self, chain: int) -> None:
        traces = self.traces
        rows = list(traces.rows(chain))
        seen: Counter[int] = Counter()
        total = 0  # static bytes from below the entry frame to row 0's entry
        known = True
        interrupted = -1  # position of the row that an interrupt (no exception) hit
        for position in range(len(rows) - 1, 0, -1):
            outer, inner = rows[position], rows[position - 1]
            caller, callee = int(traces.function[outer]), int(traces.function[inner])
            if caller < 0 or callee < 0:
                known = False
                continue
            if self.entries.vector(rows, position) is not None or self.entries.is_trampoline(outer):
                continue  # its handler's row follows
            if self.entries.is_trampoline(inner):
                continue
            vector = self.entries.vector(rows, position - 1)
            seen[caller] += 1
            if vector is not None:
                if vector.kind == "exception":
                    way = self.graph.raised(int(traces.address[outer]), vector.handler)
                    self.calls[int(traces.address[outer]), caller, vector.handler] = way
                    self._use(way)
                    if way.edges:
                        total += int(self.edges.weight[way.edges[0]])
                    else:
                        known = False
                elif interrupted < 0:
                    interrupted = position
                continue
            hit = position > 1 and self.entries.vector(rows, position - 2) is not None
            way = self._take(int(traces.address[outer]), caller, callee, hit)
            seen.update({int(self.edges.callee[edge]) for edge in way.edges[:-1]})
            total += self._weight(outer, caller, way)
        if rows and traces.function[rows[0]] >= 0:
            seen[int(traces.function[rows[0]])] += 1
        for function, count in seen.items():
            self.times[function] = max(self.times[function], count)
        self._depth(chain, rows, total, known, interrupted)

    def _weight(self, row: int, caller: int, way: Way) -> int:
        """Static bytes of one row at its call; of a frame of variable size the return address alone."""
        if int(self.frames.summary[caller]) & (Summary.BOUNDED | Summary.REALIGNED | OPEN_FRAME):
            return self.word
        sites = self.graph.sites_at(int(self.traces.address[row]))
        if sites:
            return min(int(self.graph.calls.depth[site]) for site in sites) + way.hidden
        return sum(int(self.edges.weight[edge]) for edge in way.edges) or self.word

    def _depth(self, chain: int, rows: list[int], total: int, known: bool, interrupted: int) -> None:
        traces = self.traces
        contexts, inner = self._contexts_of(rows)
        if len(rows) < 2 or inner < 0 or self.entries.traced(rows):
            return
        frame = max((self.contexts[one].frame_user for one in contexts), default=0)
        if int(traces.kind[chain]) == ChainKind.STACK_TRACER:
            # The depth when row 0 was entered: row 1's. Padding above the entry frame is the layout's.
            outermost = int(traces.size[rows[-1]])
            padding = max(outermost - frame - self.word, 0) if inner == len(rows) - 2 else 0
            whole = int(traces.depth[rows[1]]) - padding - self.entries.copied(rows)
            own = whole
            if interrupted >= 0:  # up to the call of the function that was hit
                outer = rows[interrupted + 1] if interrupted + 1 < len(rows) else rows[interrupted]
                own = int(traces.depth[outer]) - padding
        elif known and interrupted < 0:
            # Rows outside the entry function's caller are entry code: their bytes are in the entry frame.
            whole = own = frame + total - self._entry_code(rows, inner) + self.word
        else:
            return
        complete = bool((traces.function[rows] >= 0).all())
        self.deepest.append(Deep(chain, contexts, own, whole, complete))

    def _entry_code(self, rows: list[int], inner: int) -> int:
        """Static bytes of a chain's outermost rows that are assembly, part of the entry frame already."""
        traces = self.traces
        size = 0
        for position in range(len(rows) - 1, inner, -1):
            caller = int(traces.function[rows[position]])
            if self.graph.visible[caller] or caller in self._through:
                break
            sites = self.graph.sites_at(int(traces.address[rows[position]]))
            size += min((int(self.graph.calls.depth[site]) for site in sites), default=0)
        return size

    def _contexts_of(self, rows: list[int]) -> tuple[tuple[int, ...], int]:
        """(contexts that a chain can be of, position of the first row that is theirs); ((), -1): none."""
        traces = self.traces
        vector = self.entries.vector(rows, len(rows) - 1) if len(rows) > 1 else None
        if vector is not None:
            handler = vector.handler
            kinds = ("exception", "hardirq")
            found = tuple(
                index
                for index, context in enumerate(self.contexts)
                if context.kind in kinds and any(start.entry == handler for start in context.starts)
            )
            return found, len(rows) - 2
        for position in range(len(rows) - 1, 0, -1):
            caller, first = int(traces.function[rows[position]]), int(traces.function[rows[position - 1]])
            found = self._starting(first, caller)
            if found and position > 1:
                # kthread() is a context, and calls the function of every thread, which is a closer one.
                closer = self._starting(int(traces.function[rows[position - 2]]), first, through=True)
                if closer:
                    return closer, position - 2
            if found:
                return found, position - 1
        return (), -1

    def _starting(self, first: int, caller: int, through: bool = False) -> tuple[int, ...]:
        """Contexts whose first row a function can be, called from `caller`."""
        return tuple(
            dict.fromkeys(
                context
                for context, above in self._starts.get(first, ())
                if caller in above or (not above and not through)
            )
        )


def _by_first_function(
    graph: Graph, contexts: Sequence[Context]
) -> dict[int, list[tuple[int, tuple[int, ...]]]]:
    """Function → (context, functions above its entry) of the contexts whose first row it can be.

    That is the entry function, or what it ends in by tail jumps.
    """
    found: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for index, context in enumerate(contexts):
        if context.interrupt:
            continue
        for start in context.starts:
            through = tuple(function for function, _ in start.through)
            for function in graph.behind_tails(start.entry):
                found.setdefault(function, []).append((index, through))
    return found
