"""stackfit simulate: a scenario on layouts, or recorded page-allocator events replayed."""

from __future__ import annotations

import argparse
from pathlib import Path

from stackfit.cli.options import add_html_option, add_scenario_options, progress, scenarios, write_html
from stackfit.cli.written import output
from stackfit.image.model import InputError
from stackfit.layouts import load_layout
from stackfit.machine.scenario import SCENARIOS
from stackfit.machine.simulate import simulate_all
from stackfit.pages.replay import read_recording, replay
from stackfit.pages.trace import read_trace, write_csv
from stackfit.report.html_simulate import simulation_page
from stackfit.report.json import dumps
from stackfit.report.machine import print_simulation, simulation_json
from stackfit.report.pages import print_replay, replay_json
from stackfit.report.terminal import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "scenario", nargs="?", metavar="SCENARIO", help=f"a TOML file, or one of {', '.join(SCENARIOS)}"
    )
    what.add_argument(
        "--replay",
        metavar="DIR|EVENTS",
        help="a recording: events, and buddyinfo, kpageflags, zoneinfo at each snapshot",
    )
    what.add_argument(
        "--convert",
        nargs=2,
        metavar=("EVENTS", "CSV"),
        help="write what the replay uses of a trace (CSV, or text of trace-cmd, tracefs, perf) as CSV; "
        "- is standard output",
    )
    parser.add_argument(
        "--layout",
        metavar="NAME|FILE",
        action="append",
        default=[],
        help="stack layout: a preset or a TOML file (repeatable); default: the scenario's own",
    )
    add_scenario_options(parser)
    add_html_option(parser)
    parser.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")


def run(options: argparse.Namespace) -> int:
    if options.scenario is None and (options.layout or options.seeds or options.era):
        raise InputError("--layout, --seeds, --era", "go with a scenario")
    if options.scenario is None and options.html:
        raise InputError("--html", "goes with a scenario")
    if options.convert is not None:
        if options.json:
            raise InputError("--json", "does not go with --convert, which writes CSV")
        source, target = options.convert
        output(target, write_csv(read_trace(Path(source))))
        return 0
    if options.replay is not None:
        result = replay(read_recording(Path(options.replay)))
        if options.json:
            output(options.json, dumps(replay_json(result)))
        if options.json != "-":
            print_replay(make_console(), result)
        return 0
    (scenario,) = scenarios([options.scenario], options.era)
    layouts = [load_layout(name) for name in options.layout or scenario.layouts]
    with progress() as report:
        runs = simulate_all(scenario, layouts, options.seeds, report)
    if options.json:
        output(options.json, dumps(simulation_json(scenario, runs)))
    if options.html:
        write_html(options.html, simulation_page(scenario, runs))
    if options.json != "-":
        print_simulation(make_console(), scenario, runs)
    return 0
