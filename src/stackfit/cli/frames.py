"""stackfit frames: the frame of every function."""

from __future__ import annotations

import argparse
from pathlib import Path

from stackfit.cli.options import add_image_options, run_analysis
from stackfit.cli.remember import add_cache_options, remembered
from stackfit.cli.written import output
from stackfit.frames.usage import read_usage, usage_witness
from stackfit.report.json import dumps, frames_json
from stackfit.report.terminal import make_console, print_table
from stackfit.report.usage import print_usage, usage_json
from stackfit.text import clean, number_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    add_cache_options(parser)
    parser.add_argument(
        "--top", type=int, default=30, metavar="N", help="print the N largest (default 30; 0 = all)"
    )
    parser.add_argument(
        "--stack-usage",
        type=Path,
        metavar="FILE",
        help="what gcc said of these frames (stack-usage.csv.xz of lab build): held against them instead",
    )


def run(options: argparse.Namespace) -> int:
    return remembered(options, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    rows = read_usage(options.stack_usage) if options.stack_usage is not None else None
    analysis = run_analysis(options)
    if rows is not None:
        witness = usage_witness(analysis.program, analysis.code, analysis.frames, rows)
        if options.json:
            output(options.json, dumps(usage_json(analysis, witness)))
        if options.json != "-":
            print_usage(make_console(), analysis, witness)
        return 0
    document = frames_json(analysis)
    if options.json:
        output(options.json, dumps(document))
    if options.json == "-":
        return 0
    functions = document["functions"]
    ordered = sorted(
        functions,
        key=lambda row: (row["frame"] is not None, -(row["frame"] or 0), row["name"], row["address"]),
    )
    shown = ordered[: options.top] if options.top else ordered
    print_table(
        make_console(),
        f"{number_text(len(functions))} functions"
        + (f", the {len(shown)} largest frames" if options.top else ""),
        [
            ("frame", "right"),
            ("compiler", "right"),
            ("kind", "left"),
            ("function", "left"),
            ("module", "left"),
            ("address", "right"),
        ],
        [
            [
                "open" if row["frame"] is None else number_text(row["frame"]),
                "open" if row["compiler_frame"] is None else number_text(row["compiler_frame"]),
                row["dynamic"] or "static",
                clean(row["name"]),
                clean(row["module"] or ""),
                f"{row['address']:x}",
            ]
            for row in shown
        ],
    )
    return 0
