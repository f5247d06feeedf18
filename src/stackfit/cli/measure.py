"""stackfit measure: what running machines show, beside what the analysis says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from stackfit.analysis import Analysis
from stackfit.cli.options import add_image_options, add_traces_option, run_analysis
from stackfit.cli.written import output, output_bytes
from stackfit.image.load import load_image
from stackfit.image.model import InputError, Machine
from stackfit.layouts import default_layout, load_layout
from stackfit.measure.census import census_rows, csv_bytes, parquet_bytes
from stackfit.measure.core import open_dump
from stackfit.measure.debugged import dump_marks
from stackfit.measure.files import marks_traces_json, pack, read_recording, traces_json
from stackfit.measure.live import read_live, record_stack_trace
from stackfit.measure.model import Mark
from stackfit.pages.free import FILES, read_free_memory
from stackfit.report.json import dumps
from stackfit.report.live import live_json, print_live
from stackfit.report.marks import marks_json, print_marks
from stackfit.report.pages import pages_json, print_pages
from stackfit.report.terminal import make_console
from stackfit.report.traces import coverage_json, print_coverage, print_trace, trace_json

_LONGEST_WAIT = 86400  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    text = "recordings of a running kernel, held against frames and call graph"
    trace = kinds.add_parser("trace", help=text, description=text)
    add_image_options(trace, images=None)
    trace.add_argument(
        "traces",
        nargs="+",
        metavar="FILE",
        help="ftrace's stack_trace or trace, perf script, a kernel log with call traces, a list of call"
        " edges, a traces file; compressed or not",
    )
    trace.add_argument("--output", metavar="FILE", help="write all of it as one traces file, for --traces")
    text = "what recordings have exercised of the deepest chains, and what to test next"
    coverage = kinds.add_parser("coverage", help=text, description=text)
    add_image_options(coverage, images=None)
    add_traces_option(coverage, required=True)
    text = "how deep each task's and each CPU's stack has been, from a memory dump"
    dump = kinds.add_parser("dump", help=text, description=text)
    dump.add_argument(
        "file", metavar="FILE", help="ELF core: QEMU's dump-guest-memory without paging, vmcore"
    )
    dump.add_argument("--image", metavar="FILE", help="that kernel: CPUs' stacks, by its symbols")
    dump.add_argument(
        "--debug", metavar="FILE", help="its vmlinux with DWARF: names, by drgn; held against the scan"
    )
    dump.add_argument("--output", metavar="FILE", help="write the marks as a traces file, for --traces")
    dump.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")
    text = "how deep the running kernel's stacks have been, as far as you may see"
    live = kinds.add_parser("live", help=text, description=text)
    live.add_argument(
        "--debug", metavar="FILE", help="its vmlinux with DWARF (default: where drgn looks for it)"
    )
    live.add_argument(
        "--stack-trace",
        metavar="FILE",
        help="switch the stack tracer on for --seconds, write the deepest chain there, put it back",
    )
    live.add_argument(
        "--seconds", type=_seconds, default=30, metavar="N", help="of --stack-trace (default 30)"
    )
    live.add_argument("--output", metavar="FILE", help="write the marks as a traces file, for --traces")
    live.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")
    text = "a host's marks by task name and kind, without user data, as one file for a fleet's"
    census = kinds.add_parser("census", help=text, description=text)
    census.add_argument(
        "traces", nargs="*", metavar="FILE", help="traces files with marks (default: the running kernel)"
    )
    census.add_argument("--debug", metavar="FILE", help="of the running kernel: its vmlinux with DWARF")
    census.add_argument(
        "--layout", metavar="NAME|FILE", help="the host's stack layout (default: the machine's)"
    )
    census.add_argument(
        "--no-user-names", action="store_true", help="leave the names of tasks in user mode out"
    )
    census.add_argument(
        "--output", metavar="FILE", required=True, help="*.parquet, or CSV; - is CSV to standard output"
    )
    text = "free memory: fragmentation by order, and how many more stacks fit now"
    pages = kinds.add_parser("pages", help=text, description=text)
    pages.add_argument(
        "places",
        nargs="*",
        metavar="DIR|FILE",
        help="saved files of /proc, or directories with them (default: /proc); names start with "
        + ", ".join(FILES),
    )
    pages.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")


def run(options: argparse.Namespace) -> int:
    return {
        "trace": _trace,
        "coverage": _coverage,
        "dump": _dump,
        "live": _live,
        "census": _census,
        "pages": _pages,
    }[options.what](options)


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _LONGEST_WAIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_LONGEST_WAIT}")
    return int(text)


def _trace(options: argparse.Namespace) -> int:
    """Status 1: something recorded contradicts the analysis."""
    return finish_trace(options, run_analysis(options, [options.images]))


def finish_trace(options: argparse.Namespace, analysis: Analysis) -> int:
    """Write and print what an analysis' recordings show. Status 1: something contradicts the analysis."""
    document = trace_json(analysis)
    if options.output:
        output_bytes(options.output, pack(traces_json(analysis.program, analysis.code, analysis.traces)))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-" and options.output != "-":
        print_trace(make_console(), document)
    return 1 if document["defects"] else 0


def _coverage(options: argparse.Namespace) -> int:
    document = coverage_json(run_analysis(options, [options.images]))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-":
        print_coverage(make_console(), document)
    return 0


def _dump(options: argparse.Namespace) -> int:
    """Status 1: debug information and the scan do not agree."""
    dump = open_dump(Path(options.file))
    debug = load_image(options.debug) if options.debug else None
    image = load_image(options.image) if options.image else debug
    found = dump_marks(dump, image, debug)
    document = marks_json(
        options.file,
        dump.machine.value,
        found.marks,
        dump.release,
        dump.build_id,
        found.compared,
        found.notes,
    )
    if options.output:
        machine, release, build_id = dump.machine.value, dump.release, dump.build_id
        output_bytes(options.output, pack(marks_traces_json(machine, found.marks, release, build_id)))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-" and options.output != "-":
        print_marks(make_console(), document)
    return 1 if found.compared is not None and found.compared[1] else 0


def _live(options: argparse.Namespace) -> int:
    live = read_live(debug=options.debug)
    document = live_json(live)
    if options.stack_trace:
        output(options.stack_trace, record_stack_trace(options.seconds))
    if options.output:
        if live.machine is None or not live.marks:
            raise InputError("/proc/kcore", "no marks to write: " + "; ".join(why for _, why in live.unread))
        text = marks_traces_json(live.machine.value, live.marks, live.release, live.build_id)
        output_bytes(options.output, pack(text))
    if options.json:
        output(options.json, dumps(document))
    if "-" not in (options.json, options.output, options.stack_trace):
        print_live(make_console(), document)
    return 0


def _census(options: argparse.Namespace) -> int:
    rows = []
    for marks, machine, release, build_id in _marked(options):
        layout = load_layout(options.layout or default_layout(machine)).name
        rows += census_rows(marks, machine.value, layout, release, build_id, not options.no_user_names)
    data = parquet_bytes(rows) if options.output.endswith(".parquet") else csv_bytes(rows)
    output_bytes(options.output, data)
    return 0


def _marked(
    options: argparse.Namespace,
) -> Iterator[tuple[tuple[Mark, ...], Machine, str | None, str | None]]:
    """Marks of one host, with its machine, release and build-id."""
    if not options.traces:
        live = read_live(debug=options.debug)
        if live.machine is None or not live.marks:
            raise InputError("/proc/kcore", "no marks: " + "; ".join(why for _, why in live.unread))
        yield live.marks, live.machine, live.release, live.build_id
    for path in options.traces:
        one = read_recording(Path(path))
        if not one.marks or one.machine is None:
            raise InputError(path, "no marks in it (measure dump, measure live or lab --output)")
        yield one.marks, Machine(one.machine), one.release, one.build_id


def _pages(options: argparse.Namespace) -> int:
    document = pages_json(read_free_memory([Path(place) for place in options.places]))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-":
        print_pages(make_console(), document)
    return 0
