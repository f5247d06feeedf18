"""Recordings as people and programs read them: `measure trace` and `measure coverage`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from stackfit.analysis import Analysis
from stackfit.measure.coverage import ChainCoverage, ModuleCoverage, chain_coverage, module_coverage
from stackfit.measure.model import ChainKind, Mark, Seen
from stackfit.measure.seen import Miss
from stackfit.measure.sizes import RowCheck, Rule
from stackfit.report.json import Json, image_json, modules_json
from stackfit.report.rows import module_of
from stackfit.report.terminal import line, missing_text, print_table
from stackfit.text import bytes_text, clean, number_text
from stackfit.verdict.model import ContextNeed
from stackfit.verdict.observed import ladder_defects

__all__ = ["coverage_json", "print_coverage", "print_trace", "trace_json"]

_SHOWN = 20


def trace_json(analysis: Analysis) -> Json:
    """What was read, and how it agrees with frames and call graph."""
    traces, ran, sizes = analysis.traces, analysis.exercised, analysis.sizes
    deep = {one.chain: one for one in ran.deepest}
    contexts = analysis.contexts
    chains = []
    for chain in range(len(traces)):
        found = deep.get(chain)
        chains.append(
            {
                "name": traces.names[chain],
                "kind": ChainKind(int(traces.kind[chain])).label,
                "rows": len(traces.rows(chain)),
                "contexts": [] if found is None else [contexts[one].title for one in found.contexts],
                "measured": None if found is None else found.bytes,
                "whole": None if found is None else found.whole,
            }
        )
    known = sum(ran.counts.values())
    in_graph = sum(count for seen, count in ran.counts.items() if seen < Seen.OPEN)
    return {
        "schema": "stackfit.trace/1",
        "image": image_json(analysis),
        "modules": modules_json(analysis),
        "recordings": [{"path": one.path, "format": one.format} for one in analysis.recordings],
        "chains": chains,
        "sizes": {
            "counts": {rule.label: sizes.counts[rule] for rule in Rule},
            "rows": [
                _row(analysis, check) for check in sizes.rows if check.rule not in (Rule.ENTERED, Rule.ENTRY)
            ],
        },
        "calls": {
            "distinct": known,
            "in_graph": in_graph,
            "open": ran.counts[Seen.OPEN],
            "assumed": ran.counts[Seen.ASSUMED],
            "counts": {seen.label: ran.counts[seen] for seen in Seen},
            "misses": [_miss(analysis, miss) for miss in ran.misses],
        },
        "marks": _deepest_marks(traces.marks),
        "left_out": dict(sorted(traces.left_out.items())),
        "unresolved": list(traces.unresolved),
        "missing_modules": dict(traces.missing),
        "defects": len(sizes.unexplained) + len(ran.misses),
    }


def _deepest_marks(marks: Sequence[Mark]) -> list[Json]:
    """The greatest mark of each kind of stack, those never used left out."""
    found: dict[str, list[Mark]] = {}
    for mark in marks:
        if mark.bytes:
            found.setdefault(mark.stack, []).append(mark)
    deepest = {stack: max(those, key=lambda mark: mark.bytes) for stack, those in found.items()}
    return [
        {
            "stack": stack,
            "stacks": len(found[stack]),
            "greatest": mark.bytes,
            "size": mark.size,
            "owner": mark.owner,
        }
        for stack, mark in sorted(deepest.items())
    ]


def _row(analysis: Analysis, check: RowCheck) -> Json:
    traces, names = analysis.traces, analysis.code.functions.names
    function = int(traces.function[check.row])
    return {
        "chain": traces.names[check.chain],
        "row": check.row - int(traces.first[check.chain]),
        "function": names[function] if function >= 0 else None,
        "address": int(traces.address[check.row]) or None,
        "size": check.size,
        "depth": None if check.depth < 0 else check.depth,
        "rule": check.rule.label,
    }


def _miss(analysis: Analysis, miss: Miss) -> Json:
    names = analysis.code.functions.names
    return {
        "return_address": miss.back or None,
        "caller": names[miss.caller] if miss.caller >= 0 else None,
        "callee": names[miss.callee],
        "reason": miss.seen.label,
    }


def print_trace(console: Console, document: Json) -> None:
    """Chains, sizes by rule, calls by kind; what does not agree in full."""
    chains, calls, sizes = document["chains"], document["calls"], document["sizes"]
    line(
        console,
        f"{number_text(len(chains))} chains, {number_text(calls['distinct'])} distinct calls"
        f" of {document['image']['path']}",
    )
    deepest = sorted((one for one in chains if one["measured"] is not None), key=lambda one: -one["whole"])
    if deepest:
        rows = [
            [
                bytes_text(one["whole"]),
                " or ".join(one["contexts"][:3]) or "—",
                str(one["rows"]),
                clean(one["name"]),
            ]
            for one in deepest[:_SHOWN]
        ]
        print_table(
            console,
            "Deepest chains (bytes from the stack's top when the innermost function was entered)",
            [("measured", "right"), ("context", "left"), ("rows", "right"), ("recording", "left")],
            rows,
        )
    for mark in document["marks"]:
        text = f"marks of {number_text(mark['stacks'])} {mark['stack']} stacks, the greatest"
        line(console, f"{text} {bytes_text(mark['greatest'])} of {clean(mark['owner'])}")
    if any(one["kind"] == ChainKind.STACK_TRACER.label for one in chains):
        rows = [[name, number_text(count)] for name, count in sizes["counts"].items() if count]
        print_table(
            console, "Recorded frame sizes against static depths", [("rule", "left"), ("rows", "right")], rows
        )
    rows = [[name, number_text(count)] for name, count in calls["counts"].items() if count]
    if rows:
        print_table(
            console, "Recorded calls in the call graph", [("how", "left"), ("distinct", "right")], rows
        )
        closed = calls["distinct"] - calls["open"] - calls["assumed"]
        if closed:
            line(
                console,
                f"in the graph: {number_text(calls['in_graph'])} of {number_text(closed)} at sites that are"
                f" not open ({100 * calls['in_graph'] / closed:.2f} %),"
                f" {number_text(calls['open'])} at open sites",
            )
        if calls["assumed"]:
            text = f"made all the same, though an assumption rules it out: {number_text(calls['assumed'])}"
            line(console, text)
    for reason, count in document["left_out"].items():
        line(console, f"left out: {number_text(count)} {reason}")
    if document["missing_modules"]:
        line(console, missing_text(document["missing_modules"]))
    for text in document["unresolved"][:_SHOWN]:
        line(console, f"not resolved: {clean(text)}")
    if len(document["unresolved"]) > _SHOWN:
        line(console, f"not resolved: {len(document['unresolved']) - _SHOWN} more (--json lists them)")
    _print_defects(console, document)


def _print_defects(console: Console, document: Json) -> None:
    wrong = [row for row in document["sizes"]["rows"] if row["rule"] == Rule.UNEXPLAINED.label]
    if wrong:
        line(console, "Not explained: the analysis or the recording is wrong", "bold red")
    for row in wrong[:_SHOWN]:
        static = "no call site there" if row["depth"] is None else f"static {row['depth']} B"
        line(
            console,
            f"  {clean(row['chain'])} row {row['row']}: {clean(row['function'] or '?')}"
            f" {row['size']} B, {static}",
        )
    misses = document["calls"]["misses"]
    if misses:
        line(console, "Not in the call graph: the analysis is wrong", "bold red")
    for miss in misses[:_SHOWN]:
        at = f"{miss['return_address']:#x}" if miss["return_address"] else "?"
        line(
            console,
            f"  {at} {clean(miss['caller'] or '?')} → {clean(miss['callee'])}: {miss['reason']}",
        )
    left = len(wrong) + len(misses) - min(len(wrong), _SHOWN) - min(len(misses), _SHOWN)
    if left:
        line(console, f"  … {left} more (--json lists them)")


# ---------------------------------------------------------------- coverage


def coverage_json(analysis: Analysis) -> Json:
    """Of each context its deepest direct chain, exercised or not; sums by module."""
    graph, ran = analysis.graph, analysis.exercised
    needs = analysis.composer.context_needs(analysis.layouts[0], chains=True)
    chains = [(_title(need), need.entry_bytes, need.chain) for need in needs if need.chain is not None]
    measured = {_title(need): (need.measured, need.composed) for need in needs}
    return {
        "schema": "stackfit.coverage/1",
        "image": image_json(analysis),
        "modules": modules_json(analysis),
        "layout": analysis.layouts[0].name,
        "contexts": [
            _chain(analysis, one, measured.get(one.title, (None, None)))
            for one in chain_coverage(graph, ran, chains)
        ],
        "ladder": [_ladder(need) for need in needs if (need.measured, need.composed) != (None, None)],
        "images": [_module(one) for one in module_coverage(analysis.program, graph, ran)],
    }


def _ladder(need: ContextNeed) -> Json:
    """The rungs of a context with data, and how far each is above the one below."""
    return {
        "name": _title(need),
        "kind": need.context.kind,
        "measured": need.measured,
        "composed": need.composed,
        "direct": need.direct,
        "bound": need.bound,
        "lower_bound": bool(need.open),
        "gaps": {
            "composed": _gap(need.measured, need.composed),
            "bound": _gap(need.composed, need.bound),
        },
        "holds": not ladder_defects([need], [_title(need)]),
    }


def _gap(lower: int | None, higher: int | None) -> int | None:
    return None if lower is None or higher is None else higher - lower


def _title(need: ContextNeed) -> str:
    """A context, and which of its stacks where it has several."""
    return need.context.title + (f" on {need.stack}" if need.context.interrupt else "")


def _chain(analysis: Analysis, one: ChainCoverage, known: tuple[int | None, int | None]) -> Json:
    names, calls = analysis.code.functions.names, analysis.calls
    unseen = None
    if one.first_unseen >= 0:
        links = one.chain.chain
        caller, callee = links[one.first_unseen], links[one.first_unseen + 1]
        unseen = {
            "caller": names[caller.function],
            "callee": names[callee.function],
            "module": module_of(analysis, caller.function),
            "address": int(calls.address[caller.site]),
            "traceable": one.traceable,
        }
    return {
        "name": one.title,
        "measured": known[0],
        "composed": known[1],
        "found": one.total,
        "functions": one.functions,
        "functions_seen": one.functions_seen,
        "calls": one.calls,
        "calls_seen": one.calls_seen,
        "bytes_seen": one.bytes_seen,
        "seen_down_to": one.seen_down_to,
        "first_unseen": unseen,
    }


def _module(one: ModuleCoverage) -> Json:
    return {
        "module": one.module,
        "functions": one.functions,
        "traceable": one.traceable,
        "functions_seen": one.functions_seen,
        "calls": one.calls,
        "calls_seen": one.calls_seen,
    }


def print_coverage(console: Console, document: Json) -> None:
    """The deepest chains that were never seen, what to test next, sums by module."""
    contexts = document["contexts"]
    never = [one for one in contexts if one["first_unseen"] is not None]
    line(
        console,
        f"{number_text(len(contexts))} contexts under {document['layout']}: every call of the deepest"
        f" direct chain was seen in {number_text(len(contexts) - len(never))}",
    )
    rows = [
        [
            clean(one["name"]),
            bytes_text(one["measured"]),
            bytes_text(one["composed"]),
            bytes_text(one["found"]),
            f"{one['calls_seen']} of {one['calls']}",
            bytes_text(one["bytes_seen"]),
            bytes_text(one["seen_down_to"]),
            _unseen_text(one["first_unseen"]),
        ]
        for one in never[:_SHOWN]
    ]
    print_table(
        console,
        "Deepest never seen",
        [("context", "left"), ("measured", "right"), ("composed", "right"), ("direct chain", "right"),
         ("calls seen", "right"), ("bytes seen", "right"), ("seen down to", "right"),
         ("first call not seen", "left")],
        rows,
    )  # fmt: skip
    _print_ladder(console, document["ladder"])
    nexts = Counter(
        (one["first_unseen"]["caller"], one["first_unseen"]["callee"])
        for one in never
        if one["first_unseen"]["traceable"]
    )
    rows = [
        [number_text(count), clean(f"{caller} → {callee}")]
        for (caller, callee), count in sorted(nexts.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    ]
    print_table(console, "What to test next", [("contexts", "right"), ("call", "left")], rows)
    rows = [
        [
            clean(one["module"] or "(kernel)"),
            f"{number_text(one['functions_seen'])} of {number_text(one['functions'])}",
            number_text(one["traceable"]),
            f"{number_text(one['calls_seen'])} of {number_text(one['calls'])}",
        ]
        for one in document["images"][:_SHOWN]
    ]
    print_table(
        console,
        "By module",
        [("module", "left"), ("functions seen", "right"), ("traceable", "right"), ("edges seen", "right")],
        rows,
    )


def _print_ladder(console: Console, ladder: list[Json]) -> None:
    """Contexts with data, the deepest measured first; those that were composed alone behind them."""
    holds = sum(one["holds"] for one in ladder)
    both = sum(one["measured"] is not None for one in ladder)
    line(
        console,
        f"the ladder: {number_text(len(ladder))} contexts were seen running, {number_text(both)} measured;"
        f" measured ≤ composed ≤ bound in {number_text(holds)}",
    )
    ordered = sorted(ladder, key=lambda one: (-(one["measured"] or 0), -(one["composed"] or 0), one["name"]))
    rows = [
        [
            clean(one["name"]),
            bytes_text(one["measured"]),
            _over(one["gaps"]["composed"]),
            bytes_text(one["composed"]),
            _over(one["gaps"]["bound"]),
            "none" if one["bound"] is None else bytes_text(one["bound"], one["lower_bound"]),
            bytes_text(one["direct"], one["lower_bound"]),
        ]
        for one in ordered[:_SHOWN]
    ]
    print_table(
        console,
        "The ladder, and the gap of each rung",
        [("context", "left"), ("measured", "right"), ("", "right"), ("composed", "right"), ("", "right"),
         ("bound", "right"), ("direct", "right")],
        rows,
    )  # fmt: skip


def _over(gap: int | None) -> str:
    return "" if gap is None else f"+{number_text(gap)}" if gap >= 0 else f"-{number_text(-gap)}"


def _unseen_text(unseen: Json) -> str:
    hidden = "" if unseen["traceable"] else "  (no tracer sees it)"
    return clean(f"{unseen['caller']} → {unseen['callee']}") + hidden
