"""The JSON of each command: plain dicts in the form that docs/schemas/ describes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit.analysis import Analysis
from stackfit.calls.model import CallKind, Evidence, Reason, Rung
from stackfit.frames.model import OPEN_FRAME, Frames, Summary
from stackfit.frames.witness import Witness
from stackfit.measure.model import Seen
from stackfit.report.registered import registered_json
from stackfit.report.rows import ChainRow, chain_rows, composed_rows, module_of
from stackfit.report.terminal import smallest_size
from stackfit.report.through import through_json
from stackfit.report.usage import stated_json
from stackfit.verdict.allocation import Advice
from stackfit.verdict.model import ContextNeed, OpenItems, StackNeed
from stackfit.verdict.through import Through

__all__ = [
    "calls_json",
    "chain_row_json",
    "check_json",
    "contexts_json",
    "dumps",
    "frames_json",
    "image_json",
    "modules_json",
    "named_json",
    "pieces",
    "recorded_json",
    "unreached_by_function",
    "verdicts_json",
]

Json = dict[str, Any]


def dumps(document: Json) -> str:
    """Deterministic text: same document, same bytes. A line for each key, and for each row of a list.

    (The standard library indents in pure Python, many seconds on a kernel's 45 MB.)
    """
    return "".join(pieces(document))


def pieces(document: Json) -> Iterator[str]:
    """The text of `dumps` piece by piece: a value may be an iterator of rows, which need not fit into
    memory."""
    between = "{\n"
    for key, value in document.items():
        yield f"{between} {json.dumps(key)}: "
        between = ",\n"
        if isinstance(value, list | Iterator):
            before = "[\n  "
            for row in value:
                yield before + json.dumps(row)
                before = ",\n  "
            yield "[]" if before == "[\n  " else "\n ]"
        else:
            yield json.dumps(value)
    yield "\n}\n"


def image_json(analysis: Analysis) -> Json:
    """The kernel."""
    kernel = analysis.program.images[0]
    return {
        "path": analysis.program.path,
        "machine": kernel.machine.value,
        "release": kernel.release,
        "build_id": kernel.build_id,
        "names": kernel.symbol_source,
    }


def modules_json(analysis: Analysis) -> list[Json]:
    """The modules given."""
    return [
        {"name": image.module, "path": image.path, "release": image.release, "build_id": image.build_id}
        for image in analysis.program.images[1:]
    ]


def unreached_by_function(analysis: Analysis) -> NDArray[np.int64]:
    """Instructions of each function that its walk did not reach; cold pieces with their parent."""
    code, frames = analysis.code, analysis.frames
    rows = np.flatnonzero((frames.visitor < 0) & ~code.padding())
    owner = code.function[rows]
    parent = code.functions.parent[owner]
    owner = np.where(parent >= 0, parent, owner)
    return np.bincount(owner, minlength=len(code.functions))


def _dynamic(frames: Frames, index: int) -> str | None:
    summary = int(frames.summary[index])
    if summary & OPEN_FRAME:
        return "open"
    if summary & Summary.BOUNDED:
        return "bounded"
    return "realigned" if summary & Summary.REALIGNED else None


def frames_json(analysis: Analysis) -> Json:
    """Every function and its frame."""
    code, frames = analysis.code, analysis.frames
    functions = code.functions
    unreached = unreached_by_function(analysis)
    recursive = analysis.recursive
    rows = []
    for index in range(len(functions)):
        if functions.parent[index] >= 0 or functions.piece[index]:
            continue
        dynamic = _dynamic(frames, index)
        rows.append(
            {
                "name": functions.names[index],
                "aliases": list(functions.aliases[index]),
                "part_of": functions.part_of(index),
                "module": module_of(analysis, index),
                "address": int(functions.address[index]),
                "size": int(functions.end[index] - functions.address[index]),
                "frame": None if dynamic == "open" else int(frames.frame[index]),
                "compiler_frame": None if dynamic == "open" else int(frames.compiler_frame[index]),
                "dynamic": dynamic,
                "lower_bound": dynamic == "open",
                "reached": int(frames.reached[index]),
                "unreached": int(unreached[index]),
                "recursive": bool(recursive[index]),
            }
        )
    return {
        "schema": "stackfit.frames/1",
        "image": image_json(analysis),
        "modules": modules_json(analysis),
        "functions": rows,
        "stated": stated_json(analysis),
    }


def calls_json(analysis: Analysis, chosen: NDArray[np.bool_] | None = None) -> Json:
    """Call sites (all, or those chosen) with their candidate sets."""
    calls, functions = analysis.calls, analysis.code.functions
    index = np.arange(len(calls)) if chosen is None else np.flatnonzero(chosen)
    used = np.unique(calls.candidates[index][calls.candidates[index] >= 0])
    renumber = {int(number): position for position, number in enumerate(used.tolist())}
    sites = [
        {
            "function": functions.names[int(calls.function[site])],
            "function_address": int(functions.address[int(calls.function[site])]),
            "module": module_of(analysis, int(calls.function[site])),
            "address": int(calls.address[site]),
            "return_address": int(calls.return_address[site]) or None,
            "depth": int(calls.depth[site]),
            "kind": CallKind(int(calls.kind[site])).label,
            "rung": Rung(int(calls.rung[site])).label,
            "evidence": Evidence(int(calls.evidence[site])).label,
            "candidates": renumber.get(int(calls.candidates[site])),
            "open": bool(calls.reason[site] != Reason.NONE),
            "reason": _reason(analysis, site),
            "place": _place(analysis, site),
            "charge": int(calls.charge[site]),
            "assumption": calls.assumptions[calls.assumption[site]] if calls.assumption[site] >= 0 else None,
        }
        for site in index.tolist()
    ]
    return {
        "schema": "stackfit.calls/1",
        "image": image_json(analysis),
        "modules": modules_json(analysis),
        "candidate_sets": [
            [int(functions.address[member]) for member in calls.candidate_sets[number]]
            for number in used.tolist()
        ],
        "sites": sites,
    }


def _place(analysis: Analysis, site: int) -> str | None:
    """Where an indirect call takes its pointer from, as far as that is known."""
    calls = analysis.calls
    if calls.rung[site] <= Rung.ANNOTATION or calls.name[site] < 0:
        return None
    return str(calls.names[int(calls.name[site])])


def _reason(analysis: Analysis, site: int) -> str | None:
    calls = analysis.calls
    if calls.reason[site] == Reason.NONE:
        return None
    name = int(calls.name[site])
    label = Reason(int(calls.reason[site])).label
    return f"{label}: {calls.names[name]}" if name >= 0 else label


def _open(items: OpenItems) -> list[Json]:
    return [{"reason": reason, "count": count} for reason, count in items.counts]


def chain_row_json(row: ChainRow) -> Json:
    return {
        "function": row.function,
        "module": row.module,
        "address": row.address or None,
        "depth": row.depth,
        "total": row.total,
        "kind": row.kind,
        "rung": row.rung or None,
        "evidence": row.evidence,
    }


def _chain(rows: list[ChainRow]) -> list[Json]:
    return [chain_row_json(row) for row in rows]


def _stack(analysis: Analysis, need: StackNeed) -> Json:
    return {
        "name": need.stack.name,
        "size": need.stack.size,
        "per": need.stack.per,
        "allocation": need.stack.allocation,
        "need": {
            "measured": need.measured,
            "composed": need.composed,
            "direct": need.direct,
            "bound": need.bound,
            "hops": list(need.hops),
        },
        "found": need.found,
        "parts": [
            {
                "name": part.name,
                "bytes": part.bytes,
                "found": part.found,
                "times": part.times,
                "source": part.source or None,
            }
            for part in need.parts
        ],
        "lower_bound": need.lower_bound,
        "headroom": need.headroom,
        "fits_hops": need.fits_hops,
        "smallest": {
            "composed": smallest_size(need, need.composed),
            "direct": smallest_size(need, need.direct),
            "hops": [smallest_size(need, value) for value in need.hops],
        },
        "allocate": _advice(analysis.advice(need)),
        "contexts_fitting": {
            "contexts": need.fitting.contexts,
            "alone": list(need.fitting.alone),
            "nested": list(need.fitting.nested),
        },
        "hypothetical": need.hypothetical,
        "verdict": need.verdict.value,
        "why": need.why,
        "measured_by": need.measured_by or None,
        "context": need.worst.context.title if need.worst is not None else None,
        "chain": _chain(chain_rows(analysis, need.worst, need.chain)),
        "open": _open(need.open),
        "unbounded_recursion": [analysis.code.functions.names[index] for index in need.unlisted],
        "assumed": list(need.assumed),
    }


def _advice(advice: Advice | None) -> Json | None:
    if advice is None:
        return None
    return {"bytes": advice.bytes, "bound": advice.bound, "margin": advice.margin, "unit": advice.unit}


def _context(analysis: Analysis, need: ContextNeed) -> Json:
    context = need.context
    known = need.start is not None
    return {
        "name": context.name,
        "kind": context.kind,
        "abi": context.abi or None,
        "number": None if context.number < 0 else context.number,
        "entry": analysis.code.functions.names[need.start.entry] if need.start is not None else None,
        "entry_bytes": need.entry_bytes if known else None,
        "stack": {analysis.layouts[0].name: need.stack or None},
        "direct": need.direct,
        "found": need.found,
        "hops": list(need.hops),
        "bound": need.bound,
        "recursion": need.recursion,
        "composed": need.composed,
        "measured": need.measured,
        "composed_chain": _chain(composed_rows(analysis, need) if need.chain is not None else []),
        "open": _open(need.open),
        "lower_bound": bool(need.open),
        "chain": _chain(chain_rows(analysis, need, need.chain)),
    }


def _witness(analysis: Analysis, witness: Witness) -> Json:
    names = analysis.code.functions.names
    return {
        "name": witness.name,
        "sites": witness.sites,
        "defined": witness.defined,
        "equal": witness.equal,
        "disagreements": [
            {
                "function": names[one.function],
                "address": one.address,
                "depth": one.depth,
                "witness": one.witness,
            }
            for one in witness.disagreements
        ],
    }


def verdicts_json(analysis: Analysis) -> list[Json]:
    """Every layout with its stacks."""
    return [
        {
            "name": layout.layout.name,
            "hypothetical": layout.hypothetical,
            "assumptions": list(layout.layout.assumptions),
            "stacks": [_stack(analysis, need) for need in layout.stacks],
        }
        for layout in analysis.verdicts
    ]


def recorded_json(analysis: Analysis, needs: list[ContextNeed]) -> Json | None:
    """What the recordings are, and where they contradict the analysis; None without recordings."""
    if not analysis.recordings:
        return None
    ran = analysis.exercised
    return {
        "recordings": [{"path": one.path, "format": one.format} for one in analysis.recordings],
        "chains": len(analysis.traces),
        "calls": {seen.label: ran.counts[seen] for seen in Seen},
        "missing_modules": dict(analysis.traces.missing),
        "defects": analysis.defects(needs),
    }


def named_json(analysis: Analysis, function: int) -> Json:
    """A function by what tells it from others."""
    functions = analysis.code.functions
    return {
        "name": functions.names[function],
        "module": module_of(analysis, function),
        "address": int(functions.address[function]),
    }


def _suggestions(analysis: Analysis) -> list[Json]:
    """Functions to review, the most useful first."""
    return [
        {
            **named_json(analysis, one.function),
            "indirect": one.indirect,
            "cyclic_before": one.before,
            "cyclic_after": one.after,
            "contexts_blocked": one.blocked,
            "contexts_finite": list(one.finite),
            "largest_component": one.largest,
        }
        for one in analysis.suggestions
    ]


def check_json(
    analysis: Analysis, through: Through | None = None, suggest: bool = False, gate: Json | None = None
) -> Json:
    """Verdicts of every layout, the ladder of every context in the first one, `through` and suggestions if
    asked for, and what a gate found."""
    needs = analysis.composer.context_needs(analysis.layouts[0], chains=True)
    return {
        "schema": "stackfit.check/1",
        "image": image_json(analysis),
        "modules": modules_json(analysis),
        "warnings": list(analysis.warnings),
        "witnesses": [_witness(analysis, witness) for witness in analysis.witnesses],
        "stated": stated_json(analysis),
        "assumptions": [
            {
                "kind": type(entry).__name__.lower(),
                "name": entry.name or None,
                "subject": entry.subject,
                "reason": entry.reason,
                "source": entry.source,
            }
            for entry in analysis.assumptions.entries
        ],
        "recorded": recorded_json(analysis, needs),
        "layouts": verdicts_json(analysis),
        "contexts": [_context(analysis, need) for need in needs],
        "through": None if through is None else through_json(analysis, through),
        "suggestions": _suggestions(analysis) if suggest else None,
        "gate": gate,
    }


def contexts_json(analysis: Analysis, suggest: bool = False, registered: bool = False) -> Json:
    """The ladder of every context in the first layout, without chains; if asked for, suggestions, and the
    ladder of the functions that code registers."""
    first = analysis.layouts[0]
    return {
        "schema": "stackfit.contexts/1",
        "image": image_json(analysis),
        "modules": modules_json(analysis),
        "layout": first.name,
        "contexts": [_context(analysis, need) for need in analysis.composer.context_needs(first)],
        "suggestions": _suggestions(analysis) if suggest else None,
        "registered": registered_json(analysis) if registered else None,
    }
