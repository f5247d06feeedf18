"""check --through for people and as JSON; the numbers come from verdict/through.py."""

from __future__ import annotations

from rich.console import Console

from stackfit.analysis import Analysis
from stackfit.report.rows import bound_rows, module_of
from stackfit.report.terminal import line, print_chain, print_table
from stackfit.text import bytes_text, clean, number_text, range_text, size_text
from stackfit.verdict.through import Through, ThroughStack

__all__ = ["THROUGH_COLUMNS", "print_through", "through_json", "through_row"]

THROUGH_COLUMNS = (
    ("layout", "short"), ("stack", "short"), ("size", "right"), ("need", "right"), ("headroom", "right"),
    ("room", "right"), ("context", "left"), ("by way of", "left"),
)  # fmt: skip
_PATH = 8  # functions shown of a path's end


def print_through(console: Console, analysis: Analysis, result: Through) -> None:
    """What it adds, whether a known call leads there, and what is left of each stack."""
    own = result.own
    line(console, f"{clean(result.subject)}: {number_text(result.functions)} functions", "bold")
    gap = "" if own.found == own.upper else f" (deepest concrete chain: {bytes_text(own.found)})"
    line(
        console,
        f"adds at most {bytes_text(own.upper)}{gap} below the call into it,"
        f" {bytes_text(result.own_frames)} of the chain in its own frames; open items below it aside:",
    )
    print_chain(console, bound_rows(analysis, own, 0))
    if not result.callers:
        line(
            console,
            "No known call from outside leads into it: it is called through pointers, how deep the kernel is"
            " then is open. `room` is what everything above the call may take for it to fit.",
            "yellow",
        )
    line(console, "")
    print_table(
        console,
        f"the worst known chain through {clean(result.subject)}",
        list(THROUGH_COLUMNS),
        [through_row(analysis, one) for one in result.stacks],
    )
    if result.entries:
        line(console, "")
        print_table(
            console,
            "registered functions that lead there directly",
            [("layout", "left"), ("stack", "left"), ("function", "left"), ("registered as", "left"),
             ("depth at the call", "right"), ("left there", "right")],
            [
                [
                    one.layout.name, one.stack.name, _name(analysis, one.registered.function),
                    one.registered.family.name, ("+ " if one.nests else "") + bytes_text(one.call),
                    bytes_text(one.room),
                ]
                for one in result.entries
            ],
        )  # fmt: skip


def through_row(analysis: Analysis, one: ThroughStack) -> list[str]:
    """The cells of THROUGH_COLUMNS for one stack."""
    head = [one.layout.name, one.stack.name, size_text(one.stack.size)]
    room = range_text(one.room, one.room_found, False)
    if one.need is None or one.context is None:
        return [*head, "—", "—", room, "no known chain leads there", ""]
    names = [_name(analysis, function) for function in one.path]
    path = " → ".join(["…", *names[-_PATH:]] if len(names) > _PATH else names)
    return [
        *head,
        bytes_text(one.need, True),
        bytes_text(one.stack.size - one.need),
        room,
        clean(one.context.title),
        path,
    ]


def _name(analysis: Analysis, function: int) -> str:
    return clean(analysis.code.functions.names[function])


def through_json(analysis: Analysis, result: Through) -> dict[str, object]:
    """The `through` object of check's JSON."""
    names = analysis.code.functions.names
    return {
        "subject": result.subject,
        "functions": result.functions,
        "adds": result.own.upper,
        "adds_found": result.own.found,
        "own_frames": result.own_frames,
        "callers": result.callers,
        "chain": [
            {
                "function": names[link.function],
                "module": module_of(analysis, link.function),
                "depth": link.depth,
                "total": link.total,
            }
            for link in result.own.chain
        ],
        "stacks": [
            {
                "layout": one.layout.name,
                "name": one.stack.name,
                "size": one.stack.size,
                "need": one.need,
                "found": one.found,
                "headroom": None if one.need is None else one.stack.size - one.need,
                "room": one.room,
                "room_found": one.room_found,
                "context": one.context.title if one.context is not None else None,
                "path": [names[function] for function in one.path],
            }
            for one in result.stacks
        ],
        "entries": [
            {
                "layout": one.layout.name,
                "stack": one.stack.name,
                "function": names[one.registered.function],
                "module": module_of(analysis, one.registered.function),
                "registered": one.registered.family.name,
                "context": one.kind,
                "nests": one.nests,
                "above": one.above,
                "call": one.call,
                "room": one.room,
            }
            for one in result.entries
        ],
    }
