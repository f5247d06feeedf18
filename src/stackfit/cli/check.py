"""stackfit check: does it fit?"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

from stackfit.cli.gate import Gate, add_gate_options, judge, open_gate, write_outputs
from stackfit.cli.options import (
    add_html_option,
    add_image_options,
    add_suggest_option,
    add_traces_option,
    run_analysis,
    write_html,
)
from stackfit.cli.remember import add_cache_options, remembered
from stackfit.cli.written import note, output
from stackfit.image.model import InputError
from stackfit.report.components import suggestions_toml
from stackfit.report.gate import print_gate
from stackfit.report.html_check import check_page
from stackfit.report.json import check_json, dumps
from stackfit.report.terminal import make_console, print_check
from stackfit.report.through import print_through
from stackfit.store.show import print_diff


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, images="*")
    add_traces_option(parser)
    parser.add_argument(
        "--through", metavar="MODULE|FUNCTION", help="the worst chain through it, and the headroom it leaves"
    )
    add_html_option(parser)
    add_suggest_option(parser)
    add_gate_options(parser)
    add_cache_options(parser)


def run(options: argparse.Namespace) -> int:
    gate = open_gate(options)
    images, modules = options.images, options.modules
    if not images:
        images, modules = _running_kernel(options)
    options.images, options.modules = images, modules
    return remembered(options, lambda: _run(options, gate), [gate.config, gate.baseline])


def _run(options: argparse.Namespace, gate: Gate) -> int:
    images, modules = options.images, options.modules
    analysis = run_analysis(options, images)
    through = analysis.through(options.through) if options.through else None
    judged = judge(options, analysis, gate)
    options.status = judged.status
    if options.json:
        output(options.json, dumps(check_json(analysis, through, options.suggest_cuts, judged.document)))
    if options.html:
        write_html(options.html, check_page(analysis, through))
    if write_outputs(options, analysis, judged):
        return judged.status
    if options.suggest_cuts:
        sys.stdout.write(suggestions_toml(analysis))
    elif through is not None:
        print_through(make_console(), analysis, through)
    else:
        command = [*map(str, images), *(word for place in modules for word in ("--modules", str(place)))]
        print_check(make_console(), analysis, command)
        if judged.change is not None:
            print_diff(make_console(), judged.change, 10)
        print_gate(make_console(), gate.config, judged.held, judged.findings)
    return judged.status


def _running_kernel(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The image and the modules of the kernel that runs here."""
    release = platform.release()
    places = [Path("/boot") / f"vmlinuz-{release}", Path("/lib/modules") / release / "vmlinuz"]
    for image in places:
        try:
            with image.open("rb"):
                break
        except OSError:
            continue
    else:
        raise InputError(
            str(places[0]),
            f"the running kernel's image cannot be read (Linux {release}; also tried {places[1]})",
        )
    modules = list(options.modules)
    directory = Path("/lib/modules") / release / "kernel"
    if not modules:
        if directory.is_dir():
            modules = [str(directory)]
        else:
            note(f"no modules under {directory}; the kernel is checked alone")
    return [str(image)], modules
