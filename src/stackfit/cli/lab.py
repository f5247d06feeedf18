"""stackfit lab: a kernel booted in QEMU, workloads run in it, what its tracers saw kept as a traces file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from stackfit.cli.experiment import (
    add_build_arguments,
    add_experiment_arguments,
    number,
    run_build,
    run_experiment,
)
from stackfit.cli.measure import finish_trace
from stackfit.cli.options import add_image_options, run_analysis
from stackfit.lab.qemu import MachineOptions
from stackfit.lab.run import STEPS, record
from stackfit.text import clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    text = "boot a kernel package's image, record the deepest chain of the boot"
    _common(kinds.add_parser("boot", help=text, description=text))
    text = "boot, run workloads one by one, record the deepest chain of each, and call edges"
    workloads = kinds.add_parser("workloads", help=text, description=text)
    _common(workloads)
    names = "; ".join(f"{group}: {', '.join(steps)}" for group, steps in STEPS.items())
    workloads.add_argument(
        "--run",
        dest="steps",
        metavar="NAMES",
        default=",".join(STEPS),
        help=f"comma-separated groups or names ({names})",
    )
    workloads.add_argument(
        "--edges", action="store_true", help="record distinct calls too, by the function tracer (slow)"
    )
    workloads.add_argument(
        "--seconds",
        type=number(0, 86400),
        default=0,
        metavar="N",
        help="repeat for so long while calls are recorded",
    )
    workloads.add_argument("--no-stacks", action="store_true", help="no stack tracer: calls and marks alone")
    text = "build a kernel for i386 with stacks of a variant, from a distribution's source"
    add_build_arguments(kinds.add_parser("build", help=text, description=text))
    text = "boot kernels that differ in their stacks, and hold what happens against what was predicted"
    add_experiment_arguments(kinds.add_parser("experiment", help=text, description=text))


def _common(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, images=None)
    option = parser.add_argument
    option(
        "--memory", type=number(48, 1 << 20), default=384, metavar="MIB", help="of the guest (default 384)"
    )
    option("--cpus", type=number(1, 64), default=1, metavar="N", help="of the guest (default 1)")
    option("--cmdline", default="", metavar="WORDS", help="added to the kernel's command line")
    option("--timeout", type=number(1, 86400), default=900, metavar="SECONDS", help="default 900")
    option(
        "--load", action="append", default=[], metavar="MODULE", help="a further module to load (repeatable)"
    )
    option("--busybox", type=Path, metavar="FILE", help="a static busybox for the guest")
    option("--no-marks", action="store_true", help="no second boot without tracers for marks of stacks")
    option("--keep", type=Path, metavar="DIR", help="leave console and raw output there")
    option("--output", metavar="FILE", help="write a traces file, for --traces")


def run(options: argparse.Namespace) -> int:
    """Status 1: something recorded contradicts the analysis."""
    if options.what in ("build", "experiment"):
        with _told() as told:
            return (run_build if options.what == "build" else run_experiment)(options, told)
    boot = options.what == "boot"
    steps = [] if boot else [name for name in options.steps.split(",") if name]
    machine = MachineOptions(options.memory, options.cpus, options.timeout, options.cmdline)
    analysis = run_analysis(options, [options.images])  # what is wrong with the options shows before the boot
    with _told() as told:
        recording = record(
            Path(options.images), options.modules, steps, machine,
            stacks=boot or not options.no_stacks, edges=not boot and options.edges,
            seconds=0 if boot else options.seconds, busybox=options.busybox, load=options.load,
            keep=options.keep, marks=not options.no_marks,
            debug=Path(options.debug) if options.debug else None, told=told,
        )  # fmt: skip
    return finish_trace(options, replace(analysis, recordings=(recording,)))


@contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """What the guest does, on a terminal; nothing in a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield (
            lambda text: print(f"stackfit: note: {text}", file=sys.stderr) if text.startswith("no ") else None
        )
        return
    with console.status("lab") as status:
        yield lambda text: status.update(clean(text))
    sys.stderr.flush()
