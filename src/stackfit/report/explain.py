"""`explain` for people and as JSON: chain, frames, advice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console

from stackfit.analysis import Analysis
from stackfit.decision.explain import Explanation
from stackfit.frames.anatomy import Anatomy, PartKind
from stackfit.image.lines import SourceLine
from stackfit.report.json import chain_row_json, image_json, modules_json, named_json
from stackfit.report.rows import ChainRow, bound_rows, chain_rows, module_of
from stackfit.report.terminal import line, print_table
from stackfit.text import bytes_text, clean, number_text, range_text, size_text
from stackfit.verdict.advice import Advice, Change, ChangeKind, Need

__all__ = ["explain_json", "print_explanation"]

Json = dict[str, Any]
_MOST_ADVICE = 8
_CHAIN_ROWS = 12  # of the head and of the tail of a long chain each
_MOST_NAMES = 4  # of spilled variables that share a slot


# ---------------------------------------------------------------- what both say


def _rows(analysis: Analysis, result: Explanation) -> list[tuple[ChainRow, int]]:
    """The chain's rows from the stack's top, or from the function's caller; each with its site, or -1."""
    chain = result.chain
    rows = chain_rows(analysis, result.need, chain) if result.stack else bound_rows(analysis, chain, 0)
    above = [-1] * (len(rows) - len(chain.chain))
    return list(zip(rows, above + [link.site for link in chain.chain], strict=True))


def _reason(analysis: Analysis, site: int) -> str:
    """Why an edge is there, beyond its kind and rung: the pointer's place, an assumption."""
    calls = analysis.calls
    if site < 0:
        return ""
    told = []
    if calls.name[site] >= 0:
        told.append(calls.names[int(calls.name[site])])
    if calls.assumption[site] >= 0:
        told.append(calls.assumptions[int(calls.assumption[site])])
    known = int(calls.candidates[site])
    if known >= 0 and len(calls.candidate_sets[known]) > 1:
        told.append(f"one of {number_text(len(calls.candidate_sets[known]))}")
    return "; ".join(told)


def _source(analysis: Analysis, function: int, address: int) -> SourceLine | None:
    """Where a function's instruction comes from; of address 0 its first."""
    functions = analysis.code.functions
    at = address or int(functions.address[function])
    return analysis.companions.line(int(functions.image[function]), at)


def _advice_text(analysis: Analysis, change: Change) -> str:
    """A change in plain words."""
    function = clean(analysis.code.functions.names[change.function])
    if change.kind is ChangeKind.BOUND:
        return f"bound the recursion through {function}: let no chain pass it more than once"
    if change.kind is ChangeKind.NOINLINE:
        return (
            f"keep {clean(change.name)} out of {function}: mark it noinline_for_stack, so that"
            f" {number_text(change.bytes)} B of its variables lie below its own calls only"
        )
    owner = f" (of {clean(change.owners[-1])}, inlined)" if change.owners else ""
    return (
        f"move `{clean(change.name)}` ({clean(change.type)}, {number_text(change.size)} B){owner} off the"
        f" stack of {function}: allocate it, or let the caller hand it over"
    )


# ---------------------------------------------------------------- JSON


def explain_json(analysis: Analysis, result: Explanation) -> Json:
    """The document of docs/schemas/stackfit.explain-1.json."""
    need = result.need
    return {
        "schema": "stackfit.explain/1",
        "image": image_json(analysis),
        "modules": modules_json(analysis),
        "subject": {
            "name": result.subject,
            "kind": "context" if result.function is None else "function",
            "function": None if result.function is None else named_json(analysis, result.function),
            "also": list(result.also),
        },
        "layout": result.layout.name,
        "stack": None
        if result.stack is None
        else {
            "name": result.stack.name,
            "size": result.stack.size,
            "on_top": result.on_top,
            "need": result.whole[0] if result.whole else None,
        },
        "hops": result.hops,
        "found": result.before.found,
        "bound": None if result.chain.unlisted else result.before.upper,
        "unbounded_recursion": [analysis.code.functions.names[one] for one in result.chain.unlisted],
        "lower_bound": bool(need.open),
        "open": [{"reason": reason, "count": count} for reason, count in need.open.counts],
        "chain": [_chain_json(analysis, row, site) for row, site in _rows(analysis, result)],
        "frames": [_frame_json(analysis, anatomy) for anatomy in result.frames.values()],
        "advice": [
            _advice_json(analysis, one, not result.chain.unlisted, _stack_after(result, number))
            for number, one in enumerate(result.advice)
        ],
    }


def _chain_json(analysis: Analysis, row: ChainRow, site: int) -> Json:
    return {
        **chain_row_json(row),
        "reason": _reason(analysis, site) or None,
        "source": None if row.index < 0 else _source_json(_source(analysis, row.index, row.address)),
    }


def _source_json(found: SourceLine | None) -> Json | None:
    return None if found is None else {"file": found.file, "line": found.line, "root": found.root or None}


def _frame_json(analysis: Analysis, anatomy: Anatomy) -> Json:
    image = int(analysis.code.functions.image[anatomy.function])
    return {
        **named_json(analysis, anatomy.function),
        "frame": anatomy.frame,
        "open": anatomy.open,
        "debug": analysis.companions.path(image) if anatomy.debug else None,
        "source": _source_json(_source(analysis, anatomy.function, 0)),
        "accounted": anatomy.accounted,
        "beyond": anatomy.beyond,
        "bytes": {kind.label: count for kind, count in anatomy.bytes.items()},
        "parts": [
            {
                "kind": PartKind(int(anatomy.kind[part])).label,
                "begin": int(anatomy.begin[part]),
                "end": int(anatomy.end[part]),
                "name": anatomy.names[part] or None,
                "type": anatomy.types[part] or None,
                "owners": list(anatomy.owners[part]),
                "shared": bool(anatomy.shared[part]),
                "ranges": [list(one) for one in anatomy.ranges[part]],
            }
            for part in range(len(anatomy))
        ],
    }


def _stack_after(result: Explanation, number: int) -> int | None:
    """What the whole stack needs with a change, if that was computed."""
    return result.whole[number + 1] if number + 1 < len(result.whole) else None


def _advice_json(analysis: Analysis, advice: Advice, bounded: bool, stack: int | None) -> Json:
    change = advice.change
    return {
        "kind": change.kind.value,
        "text": _advice_text(analysis, change),
        "function": named_json(analysis, change.function),
        "name": change.name or None,
        "type": change.type or None,
        "owners": list(change.owners),
        "bytes": change.bytes,
        "before": _need_json(advice.before, bounded),
        "after": _need_json(advice.after, bounded),
        "falls": advice.falls,
        "stack": stack,
    }


def _need_json(need: Need, bounded: bool) -> Json:
    return {"found": need.found, "bound": need.upper if bounded else None}


# ---------------------------------------------------------------- terminal


def print_explanation(console: Console, analysis: Analysis, result: Explanation, whole: bool = False) -> None:
    """Frames, the chain, advice. The middle of a long chain is left out unless `whole`."""
    if result.function is not None:
        _print_frame(console, analysis, result.frames[result.function])
    _print_need(console, analysis, result)
    _print_chain(console, analysis, result, whole)
    for function, anatomy in result.frames.items():
        if function != result.function:
            _print_frame(console, analysis, anatomy)
    _print_advice(console, analysis, result)


def _print_need(console: Console, analysis: Analysis, result: Explanation) -> None:
    before, lower = result.before, bool(result.need.open)
    hops = f" with at most {result.hops} indirect calls" if result.hops else ", without indirect calls"
    opened = f"; {number_text(result.need.open.total)} open items below" if lower else ""
    if result.stack is None:
        text = f"The deepest chain below {clean(result.subject)}{hops}, its own frame in"
    else:
        text = f"{clean(result.subject)} on {result.layout.name} {result.stack.name}{hops}"
    endless = bool(result.chain.unlisted)
    size = bytes_text(before.found, True) if endless else range_text(before.found, before.upper, lower)
    line(console, f"{text}: {size}{opened}", "bold")
    if endless:
        names = ", ".join(clean(analysis.code.functions.names[one]) for one in result.chain.unlisted[:6])
        line(console, f"  no bound: recursion without a budget, counted once, through {names}:", "yellow")
        line(console, "  bound it in the code, or review it and give it a budget (--assume)", "yellow")
    if result.stack is not None:
        stack = result.stack
        aside = ", open items aside" if lower else ""
        most = f"at most {bytes_text(result.whole[0])}{aside}" if result.whole else "no bound"
        size = size_text(stack.size)
        line(
            console,
            f"  the whole stack of {size}, {bytes_text(stack.reserved)} reserved, the worst context, and"
            f" {bytes_text(result.on_top)} that may nest on top: {most}",
        )
    if result.also:
        line(console, f"  also of that name: {', '.join(clean(one) for one in result.also[:6])}")


def _print_chain(console: Console, analysis: Analysis, result: Explanation, whole: bool) -> None:
    rows = _rows(analysis, result)
    left_out = 0
    if not whole and len(rows) > 2 * _CHAIN_ROWS + 3:
        left_out = len(rows) - 2 * _CHAIN_ROWS
        rows = rows[:_CHAIN_ROWS] + rows[-_CHAIN_ROWS:]
    sources = [None if row.index < 0 else _source(analysis, row.index, row.address) for row, _ in rows]
    columns = [
        ("total", "right"), ("depth", "right"), ("function", "left"), ("then", "left"), ("by", "left"),
        ("evidence", "left"), ("source", "left"), ("", "left"),
    ]  # fmt: skip
    table = [
        [
            number_text(row.total),
            number_text(row.depth),
            row.function + (f" [{row.module}]" if row.module else ""),
            row.kind,
            row.rung,
            row.evidence,
            _source_text(source),
            _reason(analysis, site),
        ]
        for (row, site), source in zip(rows, sources, strict=True)
    ]
    if left_out:
        table.insert(_CHAIN_ROWS, ["", "", f"… {left_out} frames (--whole)", *[""] * 5])
    dropped = {6} if not any(sources) else set()
    dropped |= {7} if not any(row[7] for row in table) else set()
    kept = [index for index in range(len(columns)) if index not in dropped]
    print_table(
        console, "", [columns[index] for index in kept], [[row[index] for index in kept] for row in table]
    )


def _source_text(source: SourceLine | None) -> str:
    return "" if source is None else f"{source.file}:{source.line}"


def _print_frame(console: Console, analysis: Analysis, anatomy: Anatomy) -> None:
    functions = analysis.code.functions
    source = _source(analysis, anatomy.function, 0)
    module = module_of(analysis, anatomy.function)
    head = clean(functions.names[anatomy.function]) + (f" [{clean(module)}]" if module else "")
    head += f", {_source_text(source)}" if source is not None else ""
    size = f"at least {bytes_text(anatomy.frame)}" if anatomy.open else bytes_text(anatomy.frame)
    line(console, f"{head}: a frame of {size}", "bold")
    totals = sorted(anatomy.bytes.items(), key=lambda item: (-item[1], item[0]))
    line(console, "  " + ", ".join(f"{kind.label} {number_text(count)}" for kind, count in totals))
    if not anatomy.debug:
        line(console, "  no debug information: variables are slots and objects without a name")
    if anatomy.beyond:
        line(console, f"  and {number_text(anatomy.beyond)} B below the stack pointer (red zone)")
    print_table(
        console,
        "",
        [("depth", "right"), ("bytes", "right"), ("what", "left"), ("name", "left"), ("type", "left"),
         ("of", "left")],
        _frame_rows(anatomy),
    )  # fmt: skip


def _frame_rows(anatomy: Anatomy) -> list[list[str]]:
    """A row for each part; what takes turns in one slot is one, and so are nameless slots in a row."""
    rows: list[list[str]] = []
    part = 0
    while part < len(anatomy):
        parts = [part]
        while parts[-1] + 1 < len(anatomy) and _one_row(anatomy, parts[-1], parts[-1] + 1):
            parts.append(parts[-1] + 1)
        rows.append(_frame_row(anatomy, parts))
        part = parts[-1] + 1
    return rows


def _one_row(anatomy: Anatomy, one: int, other: int) -> bool:
    kind = int(anatomy.kind[one])
    if kind != anatomy.kind[other]:
        return False
    if kind == PartKind.SLOT:
        apart = not anatomy.shared[one] and not anatomy.shared[other]
        return apart and bool(anatomy.end[one] == anatomy.begin[other])
    turns = kind in (PartKind.SPILL, PartKind.OUTGOING)
    same = anatomy.begin[one] == anatomy.begin[other] and anatomy.end[one] == anatomy.end[other]
    return turns and bool(same)


def _frame_row(anatomy: Anatomy, parts: list[int]) -> list[str]:
    first, last = parts[0], parts[-1]
    kind = PartKind(int(anatomy.kind[first]))
    what = kind.label + (f" × {len(parts)}" if kind is PartKind.SLOT and len(parts) > 1 else "")  # noqa: RUF001
    name = _few(dict.fromkeys(filter(None, (anatomy.names[part] for part in parts))))
    if kind is PartKind.RETURN_ADDRESS:
        what, name = anatomy.names[first], ""
    owners = dict.fromkeys(" > ".join(anatomy.owners[part]) for part in parts)
    types = dict.fromkeys(anatomy.types[part] for part in parts)
    return [
        number_text(int(anatomy.end[last])),
        number_text(int(anatomy.end[last] - anatomy.begin[first])),
        what + (", shared" if anatomy.shared[first] else ""),
        name,
        next(iter(types)) if len(types) == 1 else "",
        next(iter(owners)) if len(owners) == 1 else "",
    ]


def _few(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_MOST_NAMES]) + (" …" if len(found) > _MOST_NAMES else "")


def _print_advice(console: Console, analysis: Analysis, result: Explanation) -> None:
    if not result.advice:
        line(
            console,
            "No single change of those looked at lowers the need: other chains are as deep.",
            "bold",
        )
        return
    line(console, "What would lower it, each alone, recomputed:", "bold")
    for number, advice in enumerate(result.advice[:_MOST_ADVICE], 1):
        line(console, f"  {number}. {_advice_text(analysis, advice.change)}")
        text = _falls_text(advice, not result.chain.unlisted)
        after = _stack_after(result, number - 1)
        if after is not None and after == result.whole[0]:
            text += "; the whole stack's need stays: other chains are as deep"
        elif after is not None:
            falls = bytes_text(result.whole[0] - after)
            text += f"; the whole stack's need falls by {falls} to {bytes_text(after)}"
        line(console, f"     {text}")
    left = len(result.advice) - _MOST_ADVICE
    if left > 0:
        line(console, f"  … {left} more (--json)")


def _falls_text(advice: Advice, bounded: bool) -> str:
    before, after = advice.before, advice.after
    parts = []
    if advice.falls or not bounded or before.found == before.upper:
        parts.append(f"the deepest chain falls by {bytes_text(advice.falls)} to {bytes_text(after.found)}")
    if bounded and before.upper != after.upper and before.found != before.upper:
        falls = bytes_text(before.upper - after.upper)
        parts.append(f"the bound falls by {falls} to {bytes_text(after.upper)}")
    return ", ".join(parts)
