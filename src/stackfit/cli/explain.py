"""stackfit explain: why it is that deep, and what to do about it."""

from __future__ import annotations

import argparse

from stackfit.cli.options import add_image_options, run_analysis
from stackfit.cli.remember import add_cache_options, remembered
from stackfit.cli.written import output
from stackfit.decision.explain import FRAMES, explain, is_function
from stackfit.image.model import InputError
from stackfit.report.explain import explain_json, print_explanation
from stackfit.report.json import dumps
from stackfit.report.terminal import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    add_cache_options(parser)
    parser.epilog = (
        "The last word names a function (0x…: by an address in it), else a context: openat, 'syscall openat',"
        " 'hardirq common_interrupt'."
    )
    parser.add_argument(
        "--debug-modules",
        metavar="DIR|KO",
        action="append",
        default=[],
        help="debug information of modules: a directory or a file of the same build (repeatable)",
    )
    parser.add_argument(
        "--frames",
        type=_count,
        metavar="N|all",
        help=f"frames of the chain to take apart, largest first (default {FRAMES}; a function's: its own)",
    )
    parser.add_argument("--whole", action="store_true", help="print every frame of a long chain")


def _count(text: str) -> int:
    if text == "all":
        return -1
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of frames nor 'all'")
    return int(text)


def run(options: argparse.Namespace) -> int:
    return remembered(options, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if len(options.images) < 2:
        raise InputError("explain", "a function or context is to be named behind the images")
    if len(options.layout) > 1:
        raise InputError("--layout", "one is explained at a time")
    *images, name = options.images
    asked = options.hops is not None or options.indirect is not None
    options.resolve = lambda code: asked or not is_function(code.functions, name)
    analysis = run_analysis(options, images)
    hops = 0 if options.hops is None else analysis.hops if options.hops < 0 else options.hops
    result = explain(analysis, name, options.frames, hops)
    if options.json:
        output(options.json, dumps(explain_json(analysis, result)))
    if options.json != "-":
        print_explanation(make_console(), analysis, result, options.whole)
    return 0
