"""stackfit fleet: many images, scenarios and hosts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stackfit.cache.store import default_store, open_store
from stackfit.cli.failing import fail_on
from stackfit.cli.options import add_analysis_options, add_scenario_options, progress, scenarios
from stackfit.cli.remember import add_cache_options
from stackfit.cli.written import output, output_bytes, output_pieces
from stackfit.decision.gate import BUDGET
from stackfit.fleet.names import file_names
from stackfit.fleet.run import Progress, Workers
from stackfit.image.model import InputError
from stackfit.layouts import load_layout
from stackfit.report.json import dumps, pieces
from stackfit.report.terminal import make_console
from stackfit.text import escape

LEFT_OUT = 3  # status: done, but for some inputs, each named on standard error
_MOST_WORKERS = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    text = "check of many images and their modules; one that has not changed is analysed once"
    check = kinds.add_parser("check", help=text, description=text)
    check.add_argument(
        "places",
        nargs="+",
        metavar="LIST|DIR|IMAGE",
        help="a list in TOML or JSON, a directory that is searched for kernels and their modules, an image",
    )
    add_analysis_options(check)
    check.add_argument(
        "--fail-on",
        type=_verdicts,
        default=frozenset(),
        metavar="WHAT",
        help="exit 1 if a stack has one of these verdicts, comma-separated (default: none)",
    )
    check.add_argument(
        "--output", metavar="DIR", help="write NAME.json there, each what check --json writes of that image"
    )
    add_cache_options(check)
    _add_fleet_options(check)
    text = "every scenario on every layout with many seeds, and how far the runs lie apart"
    simulate = kinds.add_parser("simulate", help=text, description=text)
    simulate.add_argument(
        "scenarios", nargs="+", metavar="SCENARIO", help="as of simulate: a TOML file, or a name"
    )
    simulate.add_argument(
        "--layout",
        metavar="NAME|FILE",
        action="append",
        default=[],
        help="stack layout: a preset or a TOML file (repeatable); default: each scenario's own",
    )
    add_scenario_options(simulate)
    simulate.add_argument(
        "--output", metavar="DIR", help="write SCENARIO.json there, each what simulate --json writes"
    )
    _add_fleet_options(simulate)
    text = "census files of many hosts added up: depths by task and kernel, what layouts would save"
    census = kinds.add_parser("census", help=text, description=text)
    census.add_argument(
        "places",
        nargs="+",
        metavar="DIR|FILE|URL",
        help="of measure census: directories, searched, files or patterns; local, or any URL of fsspec",
    )
    census.add_argument(
        "--layout",
        metavar="NAME|FILE",
        action="append",
        default=[],
        help="layout to hold against the hosts' own (repeatable); default: every preset with process stacks",
    )
    census.add_argument(
        "--top", type=_rows, default=15, metavar="N", help="rows of each table of tasks (default 15; 0: all)"
    )
    census.add_argument("--seed", type=_rows, default=0, metavar="N", help="of the intervals (default 0)")
    _add_fleet_options(census)


def _add_fleet_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the table as JSON there; - is standard output")
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="worker processes here; 0: none, all in this one (default: what CPUs and memory allow)",
    )
    who.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask scheduler, whose workers are taken: tls://HOST:PORT"
    )


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:9]) > _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {_MOST_WORKERS}")
    return int(text)


def _verdicts(text: str) -> frozenset[str]:
    chosen = fail_on(text)
    if chosen.growth is not None or BUDGET in chosen.rules:
        raise argparse.ArgumentTypeError("verdicts alone: a fleet has neither budgets nor a baseline")
    return chosen.rules


def _rows(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number below a thousand million")
    return int(text)


def run(options: argparse.Namespace) -> int:
    return {"check": _check, "simulate": _simulate, "census": _census}[options.what](options)


def _who(options: argparse.Namespace) -> Workers:
    return Workers(options.workers, options.scheduler)


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """`what` and how many are done, on a terminal."""
    with progress() as step:
        yield lambda done, total: step(f"{what}: {done} of {total}", done / max(total, 1))


def _directory(path: str) -> Path:
    """To write files into; made if it is not there."""
    try:
        os.makedirs(path, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(path, getattr(error, "strerror", None) or str(error)) from None
    return Path(path)


def _left_out(lines: Iterable[str]) -> int:
    """Say what was left out and why; the status."""
    status = 0
    for text in lines:
        print(f"stackfit: left out: {escape(text)}", file=sys.stderr)
        status = LEFT_OUT
    return status


def _check(options: argparse.Namespace) -> int:
    from stackfit.fleet.check import Settings, check_fleet
    from stackfit.fleet.images import find_images
    from stackfit.fleet.show_check import fleet_json, print_fleet

    images = find_images(options.places)
    settings = Settings(
        tuple(options.layout),
        tuple(options.assume),
        tuple(options.without),
        options.hops,
        options.indirect or Settings.indirect,
        options.hypervisor or Settings.hypervisor,
    )
    store = None if options.no_cache else open_store(options.cache) if options.cache else default_store()
    directory = _directory(options.output) if options.output else None
    names = [f"{name}.json" for name in file_names([one.name for one in images])]
    written: dict[str, str] = {}

    def write(index: int, report: bytes) -> None:
        assert directory is not None
        output_bytes(str(directory / names[index]), report)
        written[images[index].name] = names[index]

    with _progress("images") as step:
        fleet = check_fleet(
            images, settings, store, _who(options), step, None if directory is None else write
        )
    if options.json:
        output(options.json, dumps(fleet_json(fleet, written)))
    found = {row["verdict"] for one in fleet.images for row in one.stacks}
    bad = [(one.input.name, path, cause) for one in fleet.images for path, cause in one.bad]
    lines = [cause if one.image in cause else f"{one.name}: {cause}" for one, cause in fleet.skipped]
    lines += [f"{name}: a module of it: {cause}" for name, _, cause in bad]
    options.status = _left_out(lines) or int(not found.isdisjoint(options.fail_on))
    if options.json != "-":
        print_fleet(make_console(), fleet)
    return int(options.status)


def _simulate(options: argparse.Namespace) -> int:
    from stackfit.fleet.show_simulate import grid_json, print_grid
    from stackfit.fleet.simulate import simulate_grid
    from stackfit.report.machine import simulation_json

    chosen = [
        (scenario, [load_layout(name) for name in options.layout or scenario.layouts])
        for scenario in scenarios(options.scenarios, options.era)
    ]
    directory = _directory(options.output) if options.output else None
    with _progress("runs") as step:
        grid = simulate_grid(chosen, options.seeds or 1, _who(options), step, samples=directory is not None)
    if not any(cell.runs for cell in grid.cells):
        raise InputError(grid.cells[0].scenario, f"no run could be made: {grid.cells[0].failed[0][1]}")
    if directory is not None:
        names = file_names([scenario.name for scenario in grid.scenarios])
        for scenario, name in zip(grid.scenarios, names, strict=True):
            runs = [run for cell in grid.cells if cell.scenario == scenario.name for run in cell.runs]
            output(str(directory / f"{name}.json"), dumps(simulation_json(scenario, runs)))
    if options.json:
        output(options.json, dumps(grid_json(grid)))
    options.status = _left_out(
        f"{cell.scenario} on {cell.layout}, seed {seed}: {cause}"
        for cell in grid.cells
        for seed, cause in cell.failed
    )
    if options.json != "-":
        print_grid(make_console(), grid)
    return int(options.status)


def _census(options: argparse.Namespace) -> int:
    from stackfit.fleet.census import take_census
    from stackfit.fleet.hosts import find_hosts, shown
    from stackfit.fleet.show_census import census_json, print_census

    files = find_hosts(options.places)
    with _progress("files") as step:
        census = take_census(files, options.layout, options.seed, _who(options), step)
    top = options.top or len(census.tasks)
    if options.json:
        places = [shown(place) for place in options.places]
        output_pieces(options.json, pieces(census_json(census, places, top)))
    options.status = _left_out(f"{name}: {cause}" for name, cause in census.skipped)
    if options.json != "-":
        print_census(make_console(), census, top)
    return int(options.status)
