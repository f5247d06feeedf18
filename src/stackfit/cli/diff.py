"""stackfit diff: what grew from one build to the next."""

from __future__ import annotations

import argparse

from stackfit.analysis import analyse
from stackfit.calls.paravirt import Hypervisor
from stackfit.calls.resolve import Indirect
from stackfit.cli.failing import growth
from stackfit.cli.options import add_analysis_options, progress
from stackfit.cli.written import output
from stackfit.image.model import InputError
from stackfit.report.json import dumps
from stackfit.report.terminal import make_console
from stackfit.store.diff import diff
from stackfit.store.model import Snapshot
from stackfit.store.read import is_database, read_database, snapshot
from stackfit.store.show import diff_json, diff_markdown, print_diff


def add_arguments(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    for side in ("old", "new"):
        option(side, metavar=side.upper(), help="a database (check --db), or an image, which is analysed")
    for side in ("old", "new"):
        option(
            f"--modules-{side}",
            metavar="DIR|KO",
            action="append",
            default=[],
            help=f"modules of the image {side.upper()}: a directory or a file (repeatable)",
        )
        option(f"--debug-{side}", metavar="FILE", help=f"ELF with DWARF of the image {side.upper()}")
    add_analysis_options(parser)
    option("--top", type=_rows, default=10, metavar="N", help="rows of each table (default 10; 0: all)")
    option(
        "--markdown", metavar="FILE", help="write it as Markdown, for a pull request; - is standard output"
    )
    option("--json", metavar="FILE", help="write JSON there; - is standard output")
    option(
        "--fail-on",
        type=growth,
        metavar="growth:BYTES",
        help="exit 1 if a frame or the need of a stack or a context grew by more",
    )


def _rows(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


def run(options: argparse.Namespace) -> int:
    if options.json == "-" and options.markdown == "-":
        raise InputError("--markdown -", "JSON goes to standard output already")
    found = diff(_side(options, "old"), _side(options, "new"))
    failed = None if options.fail_on is None else found.grown(options.fail_on)
    options.status = int(bool(failed))
    if options.json:
        output(options.json, dumps(diff_json(found, failed)))
    if options.markdown:
        output(options.markdown, diff_markdown(found, options.top))
    if "-" not in (options.json, options.markdown):
        print_diff(make_console(), found, options.top)
    return int(options.status)


def _side(options: argparse.Namespace, side: str) -> Snapshot:
    path = getattr(options, side)
    modules, debug = getattr(options, f"modules_{side}"), getattr(options, f"debug_{side}")
    if is_database(path):
        for name, given in ((f"--modules-{side}", modules), (f"--debug-{side}", debug)):
            if given:
                raise InputError(name, f"goes with an image; {path} is a database")
        return read_database(path)
    with progress() as report:
        analysis = analyse(
            [path],
            modules,
            options.layout,
            options.assume,
            options.hops,
            debug,
            report,
            Indirect(options.indirect or Indirect.TYPED.value),
            options.without,
            Hypervisor(options.hypervisor or Hypervisor.NONE.value),
        )
    return snapshot(analysis, path)
