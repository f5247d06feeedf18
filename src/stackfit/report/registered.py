"""contexts --registered for people and as JSON; the numbers come from verdict/registered.py."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from stackfit.analysis import Analysis
from stackfit.contexts.registered import FAMILIES
from stackfit.report.rows import module_of
from stackfit.report.terminal import line, print_table
from stackfit.text import bytes_text, clean, number_text
from stackfit.verdict.registered import RegisteredNeed

__all__ = ["KERNEL", "print_registered", "registered_json"]

KERNEL = "kernel"  # what stands for the image itself where a module is asked for
_CALLER = "caller's"  # the context of what runs on its caller's stack


def print_registered(console: Console, analysis: Analysis, module: str | None, kind: str | None) -> None:
    """By module and kind of context the deepest function; of one module each function."""
    registrations = analysis.registrations
    if not registrations.known:
        line(
            console,
            "Registered functions are not known: their places are told by types (BTF) and --indirect typed.",
            "yellow",
        )
        return
    needs = [need for need in analysis.registered_needs if kind in (None, need.kind or _CALLER)]
    if module is not None:
        _print_functions(
            console, analysis, [one for one in needs if _module(analysis, one) == module], module
        )
    else:
        _print_modules(console, analysis, needs)
    _print_open(console, analysis)


def _module(analysis: Analysis, need: RegisteredNeed) -> str:
    return module_of(analysis, need.registered.function) or KERNEL


def _total(need: RegisteredNeed) -> int:
    """What orders functions: the whole where it is known, else their own."""
    return need.own if need.need is None or need.need.direct is None else need.need.direct


def _print_modules(console: Console, analysis: Analysis, needs: list[RegisteredNeed]) -> None:
    deepest: dict[tuple[str, str], RegisteredNeed] = {}
    counts: dict[tuple[str, str], int] = {}
    for need in needs:
        key = _module(analysis, need), need.kind or _CALLER
        counts[key] = counts.get(key, 0) + 1
        if key not in deepest or _total(need) > _total(deepest[key]):
            deepest[key] = need
    rows = [
        [module, kind, number_text(counts[module, kind]), *_cells(analysis, deepest[module, kind])]
        for module, kind in sorted(deepest, key=lambda key: (key[0] != KERNEL, key))
    ]
    print_table(
        console,
        f"{number_text(len(needs))} registered functions under {analysis.layouts[0].name}; of each module and"
        " kind of context the deepest (--module NAME lists all)",
        [("module", "left"), ("context", "left"), ("functions", "right"), *_COLUMNS],
        rows,
    )


def _print_functions(console: Console, analysis: Analysis, needs: list[RegisteredNeed], module: str) -> None:
    needs = sorted(needs, key=lambda one: (one.kind, -_total(one), one.registered.function))
    print_table(
        console,
        f"{number_text(len(needs))} registered functions of {module} under {analysis.layouts[0].name}",
        [("context", "left"), *_COLUMNS],
        [[need.kind or _CALLER, *_cells(analysis, need)] for need in needs],
    )


_COLUMNS = [
    ("function", "left"), ("registered as", "left"), ("stack", "left"), ("own", "right"), ("above", "right"),
    ("total", "right"), ("alone", "right"), ("on top", "right"), ("headroom", "right"),
]  # fmt: skip


def _cells(analysis: Analysis, need: RegisteredNeed) -> list[str]:
    above = need.above
    lower = need.need is None or bool(need.need.open)
    return [
        analysis.code.functions.names[need.registered.function],
        need.registered.family.name + (" (by prototype)" if need.registered.by_prototype else ""),
        "" if above is None else above.stack.name + (" (nested)" if above.nests else ""),
        bytes_text(need.own, lower),
        bytes_text(None if above is None else above.bytes),
        bytes_text(None if need.need is None else need.need.direct, lower),
        bytes_text(need.alone),
        bytes_text(need.on_top) if need.on_top else "",
        bytes_text(need.headroom),
    ]


def _print_open(console: Console, analysis: Analysis) -> None:
    """What may be registered besides."""
    registrations = analysis.registrations
    loose = [f"{len(members)} {clean(name)}" for name, members in registrations.loose.items()]
    if loose:
        line(
            console,
            f"open: functions that may be registered too, put where nothing is known of: {', '.join(loose)}",
        )
    if registrations.unknown:
        line(console, f"open: something unknown is registered too: {', '.join(registrations.unknown)}")


def registered_json(analysis: Analysis) -> dict[str, Any]:
    """The `registered` object of contexts' JSON."""
    registrations = analysis.registrations
    names = analysis.code.functions.names
    return {
        "known": registrations.known,
        "families": [
            {
                "name": family.name,
                "kinds": list(family.kinds),
                "places": list(family.places),
                "source": family.source,
                "loose": [
                    {"function": names[one], "module": module_of(analysis, one)}
                    for one in registrations.loose.get(family.name, ())
                ],
                "unknown": family.name in registrations.unknown,
            }
            for family in FAMILIES
        ],
        "functions": [_function(analysis, need) for need in analysis.registered_needs],
    }


def _function(analysis: Analysis, need: RegisteredNeed) -> dict[str, Any]:
    functions, above, ladder = analysis.code.functions, need.above, need.need
    function = need.registered.function
    return {
        "function": functions.names[function],
        "module": module_of(analysis, function),
        "address": int(functions.address[function]),
        "family": need.registered.family.name,
        "kind": need.kind or None,
        "told_by": "prototype" if need.registered.by_prototype else "place",
        "evidence": "assumed",
        "own": need.own,
        "above": None if above is None else above.bytes,
        "path": [] if above is None else [functions.names[one] for one, _ in above.path],
        "stack": None if above is None else above.stack.name,
        "nests": above is not None and above.nests,
        "direct": None if ladder is None else ladder.direct,
        "hops": [] if ladder is None else list(ladder.hops),
        "bound": None if ladder is None else ladder.bound,
        "alone": need.alone,
        "on_top": need.on_top,
        "headroom": need.headroom,
        "open": [] if ladder is None else [{"reason": why, "count": n} for why, n in ladder.open.counts],
        "lower_bound": ladder is None or bool(ladder.open),
    }
