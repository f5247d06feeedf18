"""Components of the call graph, and suggestions for assumptions: tables, JSON, TOML to be reviewed."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from stackfit.analysis import Analysis
from stackfit.assumptions.loader import PLACEHOLDER
from stackfit.report.json import image_json, modules_json, named_json
from stackfit.report.rows import module_of
from stackfit.report.terminal import line, print_table
from stackfit.text import clean, number_text
from stackfit.verdict.components import Census, Remaining, Stage

__all__ = ["components_json", "print_components", "suggestions_toml"]

_CYCLE_SHOWN = 8  # functions of a cycle
_REMAINING_SHOWN = 40  # components that remain, of each graph

Json = dict[str, Any]


def components_json(analysis: Analysis) -> Json:
    """The document of `calls --components`."""
    table = analysis.components
    return {
        "schema": "stackfit.components/1",
        "image": image_json(analysis),
        "modules": modules_json(analysis),
        "stages": [_stage(analysis, stage) for stage in table.stages],
        "remaining": [
            _remaining(analysis, graph, one)
            for graph, components in (("direct", table.direct), ("all", table.all))
            for one in components
        ],
    }


def _stage(analysis: Analysis, stage: Stage) -> Json:
    entry = stage.entry
    return {
        "kind": None if entry is None else type(entry).__name__.lower(),
        "subject": None if entry is None else entry.subject,
        "functions": [named_json(analysis, function) for function in stage.functions],
        "direct": _census(stage.direct),
        "all": _census(stage.all),
    }


def _census(census: Census) -> Json:
    return {"largest": census.largest, "several": census.several, "self_recursive": census.own}


def _remaining(analysis: Analysis, graph: str, one: Remaining) -> Json:
    return {
        "graph": graph,
        "functions": [named_json(analysis, function) for function in one.functions],
        "cycle": [analysis.code.functions.names[function] for function in one.cycle],
    }


def print_components(console: Console, analysis: Analysis) -> None:
    """How the components shrink, and what recursion is left."""
    table = analysis.components
    shown = [table.stages[0]]
    for before, stage in zip(table.stages, table.stages[1:], strict=False):
        if (stage.direct, stage.all) != (before.direct, before.all):
            shown.append(stage)
    rows = [
        [
            "(nothing assumed)"
            if stage.entry is None
            else f"{type(stage.entry).__name__.lower()} {stage.entry.subject}",
            *(number_text(number) for number in _numbers(stage.direct)),
            *(number_text(number) for number in _numbers(stage.all)),
        ]
        for stage in shown
    ]
    columns = [
        ("after", "left"), ("direct: largest", "right"), ("several", "right"), ("self", "right"),
        ("with indirect: largest", "right"), ("several", "right"), ("self", "right"),
    ]  # fmt: skip
    entries = len(table.stages) - 1
    title = f"components of recursion, after each of {number_text(entries)} entries, in the files' order"
    unchanged = len(table.stages) - len(shown)
    print_table(console, title, columns, rows)
    if unchanged:
        line(console, f"{number_text(unchanged)} more entries change nothing here")
    for graph, components in (("direct calls", table.direct), ("indirect calls too", table.all)):
        _print_remaining(console, analysis, graph, components)


def _numbers(census: Census) -> tuple[int, int, int]:
    return census.largest, census.several, census.own


def _print_remaining(
    console: Console, analysis: Analysis, graph: str, components: tuple[Remaining, ...]
) -> None:
    left = sum(len(one.functions) for one in components)
    title = (
        f"left without a budget or a cut over {graph}: {number_text(left)} recursive functions in"
        f" {number_text(len(components))} components"
    )
    names = analysis.code.functions.names
    rows = []
    for one in components[:_REMAINING_SHOWN]:
        cycle = [clean(names[function]) for function in one.cycle]
        more = " > …" if len(cycle) > _CYCLE_SHOWN else ""
        where = module_of(analysis, one.functions[0]) or ""
        rows.append([number_text(len(one.functions)), where, " > ".join(cycle[:_CYCLE_SHOWN]) + more])
    print_table(console, title, [("size", "right"), ("module", "left"), ("a shortest cycle", "left")], rows)
    if len(components) > _REMAINING_SHOWN:
        line(console, f"… {number_text(len(components) - _REMAINING_SHOWN)} more (--json has all)")


def suggestions_toml(analysis: Analysis) -> str:
    """An assumption file that the loader refuses until each reason and source is written."""
    kernel = analysis.program.images[0]
    suggestions = analysis.suggestions
    lines = [
        f"# To be reviewed: {number_text(len(suggestions))} functions on cycles without a budget or a cut.",
        "# Read each in the kernel's source. Is there a mechanism that ends the recursion? Then say which",
        "# and where, and how often it can be on a chain (or make it a [[cut]]: what is below counts not).",
        "# If there is none, delete the entry. The file is refused while a reason or source is not written.",
        f"# {clean(kernel.path)}" + (f", Linux {clean(kernel.release)}" if kernel.release else ""),
    ]
    written: set[str] = set()
    for one in suggestions:
        name = analysis.code.functions.names[one.function]
        if name in written:  # static functions of one name: an entry is about all of them
            continue
        written.add(name)
        module = module_of(analysis, one.function)
        lines.append("")
        if one.indirect:
            lines.append(
                f"# Over indirect calls: the largest component has {number_text(one.before)} functions,"
                f" {number_text(one.largest)} without this one"
            )
        else:
            lines.append(
                f"# {number_text(one.before)} functions on direct cycles here, {number_text(one.after)} after"
                f" it; in the way of {number_text(one.blocked)} contexts"
            )
            finite = ", ".join(number_text(count) for count in one.finite)
            lines.append(f"# contexts with a finite bound then, at 0, 1, 2 … hops: {finite}")
        if module:
            lines.append(f"# module {clean(module)}")
        lines += [
            "[[budget]]",
            f"function = {_quoted(name)}",
            "times = 1",
            f'reason = "{PLACEHOLDER}: the mechanism that ends the recursion"',
            f'source = "{PLACEHOLDER}: file.c:function"',
        ]
        if kernel.release:
            lines.append(f"versions = {_quoted('==' + '.'.join(kernel.release.split('.')[:2]) + '.*')}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
