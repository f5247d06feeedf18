"""stackfit lab build and lab experiment: kernels of ours, and the 2004 decision made again on them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from stackfit.cli.options import add_html_option, write_html
from stackfit.cli.written import output
from stackfit.lab.build import FRAGMENTS, VARIANTS, BuildOptions, build_kernel, built_json, default_output
from stackfit.lab.cases import SIZES
from stackfit.lab.claims import claims
from stackfit.lab.experiment import PARTS, Experiment, Plan
from stackfit.report.experiment import experiment_json, print_built, print_experiment
from stackfit.report.html_experiment import experiment_page
from stackfit.report.json import dumps
from stackfit.report.terminal import make_console

__all__ = ["add_build_arguments", "add_experiment_arguments", "run_build", "run_experiment"]

Told = Callable[[str], None]


def number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text[:9]) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")
        return int(text)

    return parse


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name for name in text.split(",") if name)
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(number(32, 4096)(one) for one in text.split(",") if one)


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--variant", choices=list(VARIANTS), required=True, help="8k, 4k: stacks of two pages, of one,"
           " interrupts on their own; 8k-shared: two pages, interrupts on them")  # fmt: skip
    option(
        "--config", action="append", default=[], metavar="NAME|FILE",
        help=f"options over the variant's: a file, or one of ours ({', '.join(FRAGMENTS)}) (repeatable)",
    )  # fmt: skip
    option("--source", type=Path, metavar="DIR", help="a kernel tree (default: the package linux-source-6.1)")
    option("--jobs", type=number(1, 1024), default=2, metavar="N", help="of make (default 2)")
    _add_builds(parser)
    option("--json", metavar="FILE", help="write JSON there; - is standard output")


def add_experiment_arguments(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--output", type=Path, required=True, metavar="DIR",
           help="boots, predictions and runs are kept there; what is there is not made again")  # fmt: skip
    _add_builds(parser)
    option("--kernels", metavar="NAMES", default=",".join(VARIANTS), help="builds, comma-separated"
           " (default %(default)s)")  # fmt: skip
    option("--parts", type=_names(PARTS), default=PARTS, metavar="NAMES",
           help=f"comma-separated (default {','.join(PARTS)})")  # fmt: skip
    option("--sizes", type=_sizes, default=SIZES, metavar="MIB", help="memory sizes, comma-separated"
           f" (default {','.join(map(str, SIZES))})")  # fmt: skip
    option("--repeats", type=number(1, 99), default=3, metavar="N", help="of each run (default 3)")
    option("--seeds", type=number(1, 99), default=5, metavar="N", help="of each prediction (default 5)")
    option(
        "--seconds", type=number(1, 3600), default=20, metavar="N", help="of an interrupt storm (default 20)"
    )
    option("--timeout", type=number(1, 86400), default=900, metavar="SECONDS", help="of a run (default 900)")
    option("--predict", action="store_true", help="only store what is said before the runs")
    option("--predict-again", action="store_true",
           help="predict anew what has been predicted; the first prediction stays beside it")  # fmt: skip
    option("--report", action="store_true", help="only print what was run")
    option("--json", metavar="FILE", help="write JSON there; - is standard output")
    add_html_option(parser)


def _add_builds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--builds", type=Path, metavar="DIR", help=f"where kernels are built (default {default_output()})"
    )


def run_build(options: argparse.Namespace, told: Told) -> int:
    chosen = BuildOptions(
        options.variant,
        options.builds or default_output(),
        options.source,
        tuple(options.config),
        options.jobs,
    )
    built = build_kernel(chosen, told)
    if options.json:
        output(options.json, dumps(built_json(built)))
    if options.json != "-":
        print_built(make_console(), built)
    return 0


def run_experiment(options: argparse.Namespace, told: Told) -> int:
    plan = Plan(
        options.builds or default_output(), options.output,
        tuple(name for name in options.kernels.split(",") if name), options.sizes, options.repeats,
        options.seeds, options.parts, options.seconds, options.timeout,
    )  # fmt: skip
    experiment = Experiment(plan, told)
    if not options.report:
        experiment.predict(options.predict_again)
        if not options.predict and not options.predict_again:
            experiment.run()
    rows, storms, overflows = experiment.rows(), experiment.storm_rows(), experiment.overflow_rows()
    answers = claims(rows, storms, overflows)
    built = list(experiment.kernels.values())
    if options.html:
        write_html(options.html, experiment_page(built, rows, storms, overflows, answers))
    if options.json:
        output(options.json, dumps(experiment_json(built, rows, storms, overflows, answers)))
    if options.json != "-":
        print_experiment(make_console(), rows, storms, overflows, answers)
    return 0
