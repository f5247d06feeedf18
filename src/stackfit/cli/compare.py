"""stackfit compare: what each layout costs and what it buys, in one table."""

from __future__ import annotations

import argparse

from stackfit.cli.options import (
    add_html_option,
    add_image_options,
    add_scenario_options,
    add_traces_option,
    progress,
    run_analysis,
    scenarios,
    write_html,
)
from stackfit.cli.written import output
from stackfit.decision.claims import claims
from stackfit.decision.compare import check_layouts, compare, default_scenarios
from stackfit.image.model import InputError
from stackfit.layouts import load_layout
from stackfit.machine.scenario import SCENARIOS
from stackfit.report.compare import compare_json, print_comparison
from stackfit.report.html_compare import comparison_page
from stackfit.report.json import dumps
from stackfit.report.terminal import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, images="*")
    add_traces_option(parser)
    parser.add_argument(
        "--scenario",
        metavar="NAME|FILE",
        action="append",
        default=[],
        help=f"what to run on each layout (repeatable): a TOML file, or one of {', '.join(SCENARIOS)};"
        " default: those of the layouts' machine",
    )
    add_scenario_options(parser)
    add_html_option(parser)


def run(options: argparse.Namespace) -> int:
    layouts = [load_layout(name) for name in options.layout]
    check_layouts(layouts)
    if not options.images:
        given = [
            name
            for name in ("modules", "assume", "without", "hops", "debug", "indirect", "hypervisor", "traces")
            if getattr(options, name)
        ]
        if given:
            raise InputError(f"--{given[0]}", "goes with an image")
    named = scenarios(options.scenario, options.era)
    analysis = run_analysis(options) if options.images else None
    machine = analysis.program.machine if analysis is not None else None
    chosen = named or scenarios(default_scenarios(layouts, machine), options.era)
    with progress() as report:
        comparison = compare(layouts, analysis, chosen, options.seeds, report)
    answers = claims(comparison)
    if options.json:
        output(options.json, dumps(compare_json(comparison, answers)))
    if options.html:
        write_html(options.html, comparison_page(comparison, answers))
    if options.json != "-":
        print_comparison(make_console(), comparison, answers)
    return 0
