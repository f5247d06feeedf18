"""Seen calls, held against the call graph: by which way a return address and a function go together.

A function that was entered by tail jumps has the return address of the call to the first that jumped. What a
tracer cannot see (assembly, `noinstr` code, thunks) has no rows: its caller's row follows that of its callee.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.model import CallKind, Calls, EdgeKind, Edges, Reason
from stackfit.isa.code import Code
from stackfit.measure.model import Seen

__all__ = ["Graph", "Way"]

_MOST_TAILS = 12  # tail jumps from one function to the next
_MOST_HIDDEN = 3  # functions between two rows that the tracer cannot see
_CALLS = (CallKind.DIRECT, CallKind.STATIC_CALL, CallKind.INDIRECT)


@dataclass(frozen=True)
class Way:
    """How a call goes from a site to a function: `edges` are indexes into Edges in order, empty where the
    graph has none; `new` is (site, callee) where an open site of the way is no edge. `hidden`: bytes of the
    functions in between that the tracer cannot see."""

    seen: Seen
    edges: tuple[int, ...] = ()
    new: tuple[int, int] | None = None
    hidden: int = 0

    @property
    def function_found(self) -> bool:
        return self.seen < Seen.OPEN


class Graph:
    """The call graph by return address, with what the tracer can see."""

    def __init__(self, code: Code, calls: Calls, edges: Edges) -> None:
        self.code = code
        self.calls = calls
        self.edges = edges
        self.visible = _visible(code)
        self._open = calls.reason != Reason.NONE
        self._assumed = calls.assumption >= 0
        self.owner = np.repeat(np.arange(len(edges.first) - 1), np.diff(edges.first))
        self._sites: dict[int, list[int]] = defaultdict(list)
        for site in np.flatnonzero(calls.return_address > 0).tolist():
            self._sites[int(calls.return_address[site])].append(site)
        self._exceptions: dict[int, list[int]] = defaultdict(list)
        for site in np.flatnonzero(calls.kind == CallKind.EXCEPTION).tolist():
            self._exceptions[int(calls.address[site])].append(site)
        order = np.argsort(edges.site, kind="stable")
        first = np.searchsorted(edges.site[order], np.arange(len(calls) + 1))
        self._edges_of_site = order
        self._first_of_site = first
        tails: dict[int, list[int]] = defaultdict(list)
        for site in np.flatnonzero(calls.tail).tolist():
            tails[int(calls.function[site])].append(site)
        self._tails = dict(tails)
        self._ways: dict[tuple[int, int], Way] = {}

    def sites_at(self, back: int) -> list[int]:
        """Call sites with that return address (several where functions share code)."""
        return self._sites.get(back, [])

    def exceptions_at(self, address: int) -> list[int]:
        """Exception sites at an instruction."""
        return self._exceptions.get(address, [])

    def edges_at(self, site: int) -> NDArray[np.int64]:
        """Edges of one site."""
        return self._edges_of_site[int(self._first_of_site[site]) : int(self._first_of_site[site + 1])]

    def sites_between(self, caller: int, callee: int) -> list[int]:
        """Sites of a function from which another is called, tail jumps followed."""
        low, high = int(self.edges.first[caller]), int(self.edges.first[caller + 1])
        sites = sorted({int(site) for site in self.edges.site[low:high].tolist()})
        return [
            site
            for site in sites
            if self.calls.kind[site] in _CALLS and self._from_sites([site], callee).function_found
        ]

    def reaches(self, back: int, callee: int) -> Way:
        """How the call with that return address enters `callee`."""
        way = self._ways.get((back, callee))
        if way is None:
            sites = self.sites_at(back)
            way = self._ways[back, callee] = self._from_sites(sites, callee) if sites else Way(Seen.NO_SITE)
        return way

    def reaches_from(self, caller: int, callee: int) -> Way:
        """How any call of a function enters another: where only names were recorded."""
        sites = self.sites_between(caller, callee)
        if sites:
            return self._from_sites(sites, callee)
        low, high = np.searchsorted(self.calls.function, (caller, caller + 1))
        opened = [site for site in range(int(low), int(high)) if self.calls.reason[site]]
        if opened:
            return Way(Seen.OPEN, new=(opened[0], callee) if len(opened) == 1 else None)
        assumed = [site for site in range(int(low), int(high)) if self.calls.assumption[site] >= 0]
        if assumed:
            return Way(Seen.ASSUMED, new=(assumed[0], callee) if len(assumed) == 1 else None)
        return Way(Seen.NOT_IN_GRAPH)

    def behind_tails(self, function: int) -> set[int]:
        """A function and those that it ends in by direct tail jumps."""
        found, level = {function}, [function]
        for _ in range(_MOST_TAILS):
            level = [
                int(self.edges.callee[edge])
                for one in level
                for site in self._tails.get(one, ())
                if self.calls.kind[site] == CallKind.TAIL
                for edge in self.edges_at(site).tolist()
            ]
            level = [one for one in dict.fromkeys(level) if one not in found]
            found.update(level)
        return found

    def between(self, back: int, callee: int) -> list[int]:
        """Bytes of functions that stand alone between a call site and `callee`: called there, and calling it
        or whatever an open pointer holds."""
        return sorted({weight for weight, _ in self._between(back, callee)})

    def reaches_past(self, back: int, callee: int) -> Way:
        """As `reaches`, or through one function that a frame-pointer unwinder has left out."""
        way = self.reaches(back, callee)
        if way.function_found:
            return way
        past = self._between(back, callee)
        if not past:
            return way
        weight, edges = past[0]
        return Way(Seen.UNSEEN if len(edges) > 1 else Seen.OPEN, edges, hidden=weight)

    def _between(self, back: int, callee: int) -> list[tuple[int, tuple[int, ...]]]:
        edges = self.edges
        found: list[tuple[int, tuple[int, ...]]] = []
        for site in self.sites_at(back):
            for edge in self.edges_at(site).tolist():
                middle = int(edges.callee[edge])
                for onward in self.behind_tails(middle):
                    for next_edge in range(int(edges.first[onward]), int(edges.first[onward + 1])):
                        if (
                            int(edges.callee[next_edge]) == callee
                            and edges.kind[next_edge] != EdgeKind.EXCEPTION
                        ):
                            found.append((int(edges.weight[next_edge]), (edge, next_edge)))
                    low, high = np.searchsorted(self.calls.function, (onward, onward + 1))
                    for site in range(int(low), int(high)):
                        if (
                            self.calls.reason[site] != Reason.NONE
                            and self.calls.kind[site] == CallKind.INDIRECT
                        ):
                            found.append((int(self.calls.depth[site]), (edge,)))
        return sorted(found, key=lambda one: (len(one[1]) == 1, one))

    def raised(self, address: int, handler: int) -> Way:
        """How the instruction at an address leads to an exception's handler."""
        for site in self.exceptions_at(address):
            for edge in self.edges_at(site).tolist():
                if int(self.edges.callee[edge]) == handler:
                    return Way(Seen.EXCEPTION, (edge,))
        return Way(Seen.NOT_IN_GRAPH)

    # ------------------------------------------------------------ search

    def _from_sites(self, sites: list[int], callee: int) -> Way:
        """Breadth first: tail jumps cost nothing, a function that the tracer cannot see is one step more."""
        best = self._search(sites, callee, hidden=False)
        if best is None:
            best = self._search(sites, callee, hidden=True)
        if best is None:
            opened = self._behind(sites, self._open)
            if opened is not None:
                return Way(Seen.OPEN, opened[0], (opened[1], callee))
            assumed = self._behind(sites, self._assumed)
            if assumed is not None:
                return Way(Seen.ASSUMED, assumed[0], (assumed[1], callee))
            return Way(Seen.NOT_IN_GRAPH)
        return self._way(sites, best)

    def _search(self, sites: list[int], callee: int, hidden: bool) -> tuple[int, ...] | None:
        edges = self.edges
        level: list[tuple[int, tuple[int, ...]]] = []
        seen: set[int] = set()
        for site in sites:
            for edge in self.edges_at(site).tolist():
                target = int(edges.callee[edge])
                if target == callee:
                    return (edge,)
                if target not in seen:
                    seen.add(target)
                    level.append((target, (edge,)))
        for _ in range(_MOST_TAILS if not hidden else _MOST_HIDDEN):
            following: list[tuple[int, tuple[int, ...]]] = []
            for function, path in level:
                for site in self._onward(function, hidden):
                    for edge in self.edges_at(site).tolist():
                        target = int(edges.callee[edge])
                        if target == callee:
                            return (*path, edge)
                        if target not in seen:
                            seen.add(target)
                            following.append((target, (*path, edge)))
            level = following
        return None

    def _onward(self, function: int, hidden: bool) -> list[int]:
        """Sites at which a function goes on without a row of its own."""
        if hidden and not self.visible[function]:
            low, high = np.searchsorted(self.calls.function, (function, function + 1))
            return [
                site for site in range(int(low), int(high)) if self.calls.kind[site] != CallKind.EXCEPTION
            ]
        return self._tails.get(function, [])

    def _behind(self, sites: list[int], wanted: NDArray[np.bool_]) -> tuple[tuple[int, ...], int] | None:
        """(edges to it, site) of the first site that is wanted, of these or behind their tail jumps."""
        level: list[tuple[int, tuple[int, ...]]] = [(site, ()) for site in sites]
        seen = set(sites)
        for _ in range(_MOST_TAILS):
            following: list[tuple[int, tuple[int, ...]]] = []
            for site, path in level:
                if wanted[site]:
                    return path, site
                for edge in self.edges_at(site).tolist():
                    for tail in self._tails.get(int(self.edges.callee[edge]), ()):
                        if tail not in seen:
                            seen.add(tail)
                            following.append((tail, (*path, edge)))
            level = following
        return None

    def _way(self, sites: list[int], path: tuple[int, ...]) -> Way:
        edges, calls = self.edges, self.calls
        kinds = [int(calls.kind[int(edges.site[edge])]) for edge in path]
        tails = [bool(calls.tail[int(edges.site[edge])]) for edge in path[1:]]
        hidden = sum(int(edges.weight[edge]) for edge in path[1:])
        if not all(tails):
            seen = Seen.UNSEEN
        elif any(int(edges.kind[edge]) == EdgeKind.SWITCH for edge in path):
            seen = Seen.SWITCH
        elif any(kind in (CallKind.INDIRECT, CallKind.INDIRECT_TAIL) for kind in kinds):
            seen = Seen.INDIRECT
        elif CallKind.STATIC_CALL in kinds:
            seen = Seen.STATIC_CALL
        else:
            seen = Seen.TAIL if len(path) > 1 else Seen.DIRECT
        return Way(seen, path, hidden=hidden)


def _visible(code: Code) -> NDArray[np.bool_]:
    """Functions that begin with a call to __fentry__ (in a kernel with ftrace): bool by function.

    Their entry is a 5-byte call, or endbr64 and one; at run time it is a nop until traced.
    """
    functions = code.functions
    fentry = set(functions.named("__fentry__")) | set(functions.named("mcount"))
    if not fentry:
        return np.ones(len(functions), np.bool_)
    targets = np.array(sorted(int(functions.address[one]) for one in fentry), np.uint64)
    visible = np.zeros(len(functions), np.bool_)
    for row_offset in (0, 1):
        rows = code.first[:-1] + row_offset
        inside = rows < code.first[1:]
        rows = np.where(inside, rows, 0)
        target = code.target[rows]
        called = np.where(target >= 0, code.address[np.maximum(target, 0)], 0).astype(np.uint64)
        visible |= inside & (target >= 0) & np.isin(called, targets)
    return visible
