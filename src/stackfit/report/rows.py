"""Chains as rows that every report prints: from the stack's top, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

from stackfit.analysis import Analysis
from stackfit.bounds.model import Bound
from stackfit.calls.model import CallKind, Evidence, Rung
from stackfit.contexts.model import Start
from stackfit.verdict.model import ContextNeed

__all__ = ["ChainRow", "bound_rows", "chain_rows", "composed_rows", "module_of"]


@dataclass(frozen=True)
class ChainRow:
    """One frame of a chain. `depth`: its bytes at the site; `total`: from the stack's top, no reserves.
    `index`: the function's number, -1 for what hardware and entry code push."""

    function: str
    module: str | None
    address: int  # of the site; 0 where the chain ends or hardware and entry code push
    depth: int
    total: int
    kind: str
    rung: str
    evidence: str
    index: int = -1


def module_of(analysis: Analysis, function: int) -> str | None:
    return analysis.program.images[int(analysis.code.functions.image[function])].module


def chain_rows(analysis: Analysis, need: ContextNeed | None, chain: Bound | None) -> list[ChainRow]:
    """The rows of a context's deepest chain; empty when nothing is known."""
    if need is None or need.start is None or chain is None:
        return []
    return _rows(analysis, need.entry_bytes, need.start, chain)


def composed_rows(analysis: Analysis, need: ContextNeed) -> list[ChainRow]:
    """The rows of a context's composed chain; empty when there is none."""
    start, chain = need.composed_start, need.composed_chain
    if start is None or chain is None or need.composed is None:
        return []
    return _rows(analysis, need.composed - chain.found, start, chain)


def _rows(analysis: Analysis, entry_bytes: int, start: Start, chain: Bound) -> list[ChainRow]:
    functions = analysis.code.functions
    rows: list[ChainRow] = []
    frame = entry_bytes - start.bytes
    if frame:
        rows.append(ChainRow("(entry frame)", None, 0, frame, frame, "entry", "", "proved"))
    total = frame
    for function, size in start.through:
        total += size
        name, module = functions.names[function], module_of(analysis, function)
        rows.append(ChainRow(name, module, 0, size, total, "entry", "", "proved", function))
    return rows + bound_rows(analysis, chain, entry_bytes)


def bound_rows(analysis: Analysis, chain: Bound, above: int) -> list[ChainRow]:
    """The rows of a chain below its first function's caller, `above` bytes from the stack's top."""
    functions, calls, cut = analysis.code.functions, analysis.calls, analysis.applied.limits.cut
    rows: list[ChainRow] = []
    for link in chain.chain:
        site = link.site
        if site >= 0:
            kind, rung = CallKind(int(calls.kind[site])).label, Rung(int(calls.rung[site])).label
            evidence, address = Evidence(int(calls.evidence[site])).label, int(calls.address[site])
        elif int(cut[link.function]) >= 0:
            kind, rung, evidence, address = "cut", "", Evidence.ASSUMED.label, 0
        else:
            kind, rung, evidence, address = "end", "", Evidence.PROVED.label, 0
        name, module = functions.names[link.function], module_of(analysis, link.function)
        total = above + link.total
        rows.append(ChainRow(name, module, address, link.depth, total, kind, rung, evidence, link.function))
    return rows
