"""stackfit contexts: what starts running on a stack, each with its ladder."""

from __future__ import annotations

import argparse
import sys

from stackfit.analysis import Analysis
from stackfit.cli.options import add_image_options, add_suggest_option, add_traces_option, run_analysis
from stackfit.cli.remember import add_cache_options, remembered
from stackfit.cli.written import output
from stackfit.image.model import InputError
from stackfit.report.components import suggestions_toml
from stackfit.report.json import Json, contexts_json, dumps
from stackfit.report.registered import KERNEL, print_registered
from stackfit.report.terminal import make_console, print_table
from stackfit.text import bytes_text, clean, near_text, number_text

_SIZES = (4096, 8192, 16384)  # bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    add_cache_options(parser)
    add_traces_option(parser)
    parser.add_argument(
        "--kind", metavar="KIND", help="only contexts of this kind (syscall, exception, hardirq, …)"
    )
    add_suggest_option(parser)
    parser.add_argument(
        "--registered",
        action="store_true",
        help="instead: interrupt handlers, timers, work, threads that code registers, by module",
    )
    parser.add_argument(
        "--module", metavar="NAME", help=f"with --registered: each function of a module ({KERNEL}: the image)"
    )


def run(options: argparse.Namespace) -> int:
    return remembered(options, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if options.module is not None and not options.registered:
        raise InputError("--module", "goes with --registered")
    analysis = run_analysis(options)
    if options.module is not None:
        _check_module(analysis, options.module)
    document: Json = {}
    if options.json or not (options.registered or options.suggest_cuts):
        document = contexts_json(analysis, options.suggest_cuts, options.registered)
    if options.json:
        output(options.json, dumps(document))
    if options.json == "-":
        return 0
    if options.registered:
        print_registered(make_console(), analysis, options.module, options.kind)
        return 0
    if options.suggest_cuts:
        sys.stdout.write(suggestions_toml(analysis))
        return 0
    rows = []
    for context in document["contexts"]:
        if options.kind and context["kind"] != options.kind:
            continue
        opened = sum(item["count"] for item in context["open"])
        rows.append(
            [
                context["kind"],
                context["abi"] or "",
                "" if context["number"] is None else str(context["number"]),
                clean(context["name"]),
                context["stack"][document["layout"]] or "",
                bytes_text(context["measured"]),
                bytes_text(context["composed"]),
                bytes_text(context["direct"], context["lower_bound"]),
                "none" if context["bound"] is None else bytes_text(context["bound"], context["lower_bound"]),
                number_text(opened) if opened else "",
            ]
        )
    print_table(
        make_console(),
        f"{number_text(len(rows))} contexts under {document['layout']}",
        [("kind", "left"), ("abi", "left"), ("number", "right"), ("name", "left"), ("stack", "left"),
         ("measured", "right"),
         ("composed", "right"), ("direct", "right"), ("bound", "right"), ("open", "right")],
        rows,
    )  # fmt: skip
    _print_sizes([context for context in document["contexts"] if context["kind"] == "syscall"])
    return 0


def _check_module(analysis: Analysis, name: str) -> None:
    """InputError when no image has that module's name."""
    known = [KERNEL, *(image.module for image in analysis.program.images if image.module)]
    if name not in known:
        hint = near_text(name, known)
        raise InputError(analysis.program.images[0].path, f"no module {name[:100]}{hint}")


def _print_sizes(calls: list[Json]) -> None:
    """How many system calls stay below common sizes of a stack, by their own bounds."""
    if not calls:
        return
    for field, words in (("direct", "without indirect calls"), ("bound", "at any number of them")):
        if field == "direct":
            values = [call["hops"][0] if call["hops"] else None for call in calls]
        else:
            values = [call["bound"] for call in calls]
        below = ", ".join(
            f"{sum(value is not None and value <= size for value in values)} below {size >> 10} KiB"
            for size in _SIZES
        )
        print(
            f"of {number_text(len(calls))} system calls, {words}: {below},"
            f" {values.count(None)} without a bound (open items aside, under the assumptions)"
        )
    largest = max(call["recursion"] for call in calls)
    if largest:
        reach = sum(call["recursion"] == largest for call in calls)
        print(
            f"{number_text(reach)} of them reach the largest component of recursion over indirect calls,"
            f" {number_text(largest)} functions without a budget"
        )
